# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the version number is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from coaster_pool import version
from tests.conftest import ROOT


def test_it_is_the_collections() -> None:
    assert f"version: {version.VERSION}\n" in (ROOT / "galaxy.yml").read_text()


@pytest.mark.parametrize("place", ["", "ansible_collections/coasters/pool"])
@pytest.mark.parametrize(("content", "found"), [("---\nversion: 7.8.9\n", "7.8.9"), ("name: pool\n", "unknown")])
def test_beside_the_package_or_in_the_collection_that_a_wheel_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, content: str, found: str,
) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "galaxy.yml").write_text(content)
    monkeypatch.setattr(version, "__file__", str(tmp_path / "coaster_pool" / "version.py"))
    assert version._read() == found


def test_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "__file__", str(tmp_path / "coaster_pool" / "version.py"))
    assert version._read() == "unknown"
