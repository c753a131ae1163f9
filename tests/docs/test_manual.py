# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The help, the man page and the completions of start-pool: of one source, and usable."""

from __future__ import annotations

import contextlib
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


@pytest.mark.parametrize(("name", "function"), [("MANUAL", "manual"), ("BASH", "completion_for_bash"), ("ZSH", "completion_for_zsh")])
def test_it_is_made_from_the_command_line(name: str, function: str) -> None:
    assert MADE[name].read_text() == MADE[function](command_line.parser("start-pool")), "run `make manual`"


def test_the_manual_has_every_option_and_exit_status() -> None:
    page = MADE["MANUAL"].read_text().replace("\\-", "-")
    assert [name for name in options() if not re.search(rf"^\.B .*{name}\b", page, re.MULTILINE)] == []
    assert all(f"\n.B {status}\n" in page for status in (0, 1, 2, 3, 4, 5))


def test_no_text_of_the_manual_is_taken_for_a_request() -> None:
    requests = {line.split()[0] for line in MADE["MANUAL"].read_text().splitlines() if line[:1] in (".", "'")}
    assert requests == {".TH", ".SH", ".SS", ".TP", ".B", ".nf", ".fi"}
    assert MADE["roff"](".start\n'quoted' \\ -x") == "\\&.start\n\\(aqquoted\\(aq \\e \\-x"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files, ssh aliases and pools to complete."""
    home = tmp_path_factory.mktemp("home")
    for name in (".ssh", "folder", ".local/state/coasters/mine"):
        (home / name).mkdir(parents=True)
    (home / ".ssh" / "config").write_text("Host *\n  Port 22\nHost cluster-node07\n")
    (home / "hosts.txt").touch()
    (home / "inputrc").write_text("set bell-style none\n")
    return home


@contextlib.contextmanager
def terminal(home: Path, *words: str) -> Iterator[pexpect.spawn]:
    """A shell at a terminal, in that home."""
    variables = {"HOME": str(home), "PATH": os.environ["PATH"], "TERM": "dumb", "INPUTRC": f"{home}/inputrc", "LC_ALL": "C.UTF-8", "PS1": "ready> "}
    with pexpect.spawn(words[0], list(words[1:]), env=variables, cwd=str(home), encoding="utf-8", timeout=LIMIT, dimensions=(50, 200)) as made:
        try:
            yield made
        finally:
            made.sendline("exit")
            made.expect(pexpect.EOF)


@pytest.fixture(scope="module")
def bash(home: Path) -> Iterator[pexpect.spawn]:
    with terminal(home, "bash", "--norc", "--noprofile") as made:
        made.sendline(f". {MADE['BASH']}")
        made.expect_exact("start-pool\r\n")
        made.expect_exact("ready> ")
        yield made


@pytest.fixture(scope="module")
def zsh(home: Path) -> Iterator[pexpect.spawn]:
    """With the completion where zsh looks for functions; it sounds no bell and does not mark lines without an end."""
    with terminal(home, "zsh", "-f", "-o", "no_beep", "-o", "no_prompt_sp") as made:
        made.sendline(f"fpath=({MADE['ZSH'].parent} $fpath); autoload -Uz compinit; compinit -u -D; print com''pinit")
        made.expect_exact("compinit\r\n")
        made.expect_exact("ready> ")
        yield made


TYPED = [
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
]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(("typed", "shown"), TYPED)
def test_the_shell_completes(request: pytest.FixtureRequest, shell: str, typed: str, shown: str) -> None:
    at = request.getfixturevalue(shell)
    at.send(f"{typed}\t")
    at.expect_exact(shown)
    at.send("\x15")  # away with the line
