# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The help, the man page and the completion of start-pool: of one source, and usable."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from coaster_pool import command_line
from tests.conftest import ROOT

MADE = runpy.run_path(str(ROOT / ".ci" / "manual.py"))
LIMIT = 60


def options() -> list[str]:
    return [name for action in command_line.parser()._actions for name in action.option_strings]


def test_the_help_fits_a_screen_and_shows_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = command_line.parser().format_help().splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 80
    assert sum("start_pool.py " in line for line in lines[lines.index("examples:"):]) >= 4


@pytest.mark.parametrize("name", ["MANUAL", "COMPLETION"])
def test_it_is_made_from_the_command_line(name: str) -> None:
    parser = command_line.parser("start-pool")
    made = {"MANUAL": MADE["manual"], "COMPLETION": MADE["completion"]}[name](parser)
    assert MADE[name].read_text() == made, "run `make manual`"


def test_the_manual_has_every_option_and_exit_status() -> None:
    page = MADE["MANUAL"].read_text().replace("\\-", "-")
    assert [name for name in options() if not re.search(rf"^\.B .*{name}\b", page, re.MULTILINE)] == []
    assert all(f"\n.B {status}\n" in page for status in (0, 1, 2, 3, 4, 5))


def test_no_text_of_the_manual_is_taken_for_a_request() -> None:
    requests = {line.split()[0] for line in MADE["MANUAL"].read_text().splitlines() if line[:1] in (".", "'")}
    assert requests == {".TH", ".SH", ".SS", ".TP", ".B", ".nf", ".fi"}
    assert MADE["roff"](".start\n'quoted' \\ -x") == "\\&.start\n\\(aqquoted\\(aq \\e \\-x"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[pexpect.spawn]:
    """A bash at a terminal, with the completion, and with files, ssh aliases and pools to complete."""
    for name in (".ssh", "folder", ".local/state/coasters/mine"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".ssh" / "config").write_text("Host *\n  Port 22\nHost cluster-node07\n")
    (tmp_path / "hosts.txt").touch()
    (tmp_path / "inputrc").write_text("set bell-style none\n")
    variables = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TERM": "dumb", "INPUTRC": f"{tmp_path}/inputrc", "LC_ALL": "C.UTF-8", "PS1": "ready> "}
    with pexpect.spawn("bash", ["--norc", "--noprofile"], env=variables, cwd=str(tmp_path), encoding="utf-8", timeout=LIMIT, dimensions=(50, 200)) as made:
        made.sendline(f". {MADE['COMPLETION']}")
        made.expect_exact("start-pool\r\n")
        made.expect_exact("ready> ")
        yield made
        made.sendline("exit")
        made.expect(pexpect.EOF)


@pytest.mark.parametrize(("typed", "shown"), [
    ("start-pool --sho", "start-pool --show-stats "),
    ("start_pool.py --accept", "start_pool.py --accept-new-host-keys "),
    ("start-pool --route tu", "start-pool --route tunnel "),
    ("start-pool --hosts-file ho", "start-pool --hosts-file hosts.txt "),
    ("start-pool --swift-bin-dir fo", "start-pool --swift-bin-dir folder/"),
    ("start-pool --stop --name m", "start-pool --stop --name mine "),
    ("start-pool --allow-user roo", "start-pool --allow-user root "),
    ("start-pool cluster", "start-pool cluster-node07 "),
    ("start-pool user@cluster", "cluster-node07 "),
    ("start-pool localhost -- hostna", "start-pool localhost -- hostname"),
])
def test_bash_completes(shell: pexpect.spawn, typed: str, shown: str) -> None:
    shell.send(f"{typed}\t")
    shell.expect_exact(shown)
    shell.send("\x15")  # away with the line
