# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pool needs of Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coaster_pool import requirements
from tests.conftest import ROOT

BARE = [sys.executable, "-S"]
"""A Python that sees no installed package."""


def own_python(root: Path, says: str) -> None:
    folder = root / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").write_text(f'#!/bin/sh\necho {says} "$@"\n')
    (folder / "python").chmod(0o755)


def ensure(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = f"from pathlib import Path; from coaster_pool import requirements; requirements.ensure(Path({str(root)!r}))"
    return subprocess.run([*BARE, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_python_that_has_all_goes_on(tmp_path: Path) -> None:
    own_python(tmp_path, "wrong")
    requirements.ensure(tmp_path)


def test_one_that_lacks_something_gives_way_to_the_checkouts(tmp_path: Path) -> None:
    own_python(tmp_path, "its own")
    done = ensure(tmp_path, "--status", "two words")
    assert (done.returncode, done.stdout) == (0, "its own -c --status two words\n")


@pytest.mark.parametrize(("modules", "oldest", "sentence"), [
    (("sys", "no_such_module", "nor_this"), (3, 11), "lacks no_such_module, nor_this"),
    (("sys",), (99, 1), "is older than 99.1"),
])
def test_nothing_to_go_on_with(
    modules: tuple[str, ...], oldest: tuple[int, int], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(requirements, "MODULES", modules)
    monkeypatch.setattr(requirements, "OLDEST", oldest)
    with pytest.raises(SystemExit) as ended:
        requirements.ensure(tmp_path)
    assert ended.value.code == 2
    said = f"start_pool.py: {sys.executable} {sentence}: run `make setup` in {tmp_path}, then the same command again\n"
    assert capsys.readouterr().err == said


def test_the_checkouts_own_is_not_tried_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    own_python(tmp_path, "again")
    monkeypatch.setattr(requirements, "MODULES", ("no_such_module",))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    with pytest.raises(SystemExit):
        requirements.ensure(tmp_path)
    assert "lacks no_such_module" in capsys.readouterr().err


def test_the_version_is_the_one_that_the_package_asks_for() -> None:
    assert f'requires-python = ">={requirements.OLDEST[0]}.{requirements.OLDEST[1]}"' in (ROOT / "pyproject.toml").read_text()
