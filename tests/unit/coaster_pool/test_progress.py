# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said on standard error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import termios
from pathlib import Path

import coaster_pool
from coaster_pool.failure import NO_SERVICE, Failure
from coaster_pool.progress import Progress

ROOT = Path(coaster_pool.__file__).parent.parent


def test_lines() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.say("stopping the pool")
    progress.host("node01", "worker started, 4 slots")
    progress.error(Failure(NO_SERVICE, "there is no service: look at its log", ["first line", "second line"]))
    assert stream.getvalue().splitlines() == [
        "stopping the pool",
        "node01: worker started, 4 slots",
        "  first line",
        "  second line",
        "start_pool.py: there is no service: look at its log",
    ]


def test_a_reader_that_is_gone_does_not_keep_the_pool_from_ending() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = "import sys; from coaster_pool.progress import Progress; p = Progress(sys.stderr); p.say('a'); p.say('b'); print('goes on')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=writing, text=True, check=False)
    os.close(writing)
    assert (done.stdout, done.returncode) == ("goes on\n", 0)


def test_quiet_says_only_what_is_wrong() -> None:
    stream = io.StringIO()
    progress = Progress(stream, quiet=True)
    progress.say("stopping the pool")
    progress.host("node01", "worker started, 4 slots")
    progress.doing("connecting to node02")
    progress.trouble("node02", "failed: its name does not resolve")
    assert stream.getvalue() == "node02: failed: its name does not resolve\n"


class TestTerminal:
    @staticmethod
    def shown(quiet: bool = False) -> str:
        """What a terminal of 30 columns gets."""
        screen, end = os.openpty()
        termios.tcsetwinsize(end, (24, 30))
        with open(end, "w") as terminal:
            progress = Progress(terminal, quiet)
            progress.doing("connecting to node[01-02]")
            progress.host("node01", "worker started, 4 slots")
            progress.doing("waiting for a host with a name that is long")
            progress.doing("waiting for the workers")
            progress.doing("")
            progress.doing("")
            progress.trouble("node02", "failed: why")
            shown = ""
            while not shown.endswith("failed: why\r\n"):
                shown += os.read(screen, 4096).decode()
        os.close(screen)
        return shown

    def test_the_last_line_says_what_is_under_way(self) -> None:
        assert self.shown() == (
            "connecting to node[01-02]"
            "\r\x1b[Knode01: worker started, 4 slots\r\n"
            "waiting for a host with a nam"
            "\r\x1b[Kwaiting for the workers"
            "\r\x1b[K"
            "node02: failed: why\r\n"
        )

    def test_nothing_of_it_when_quiet(self) -> None:
        assert self.shown(quiet=True) == "node02: failed: why\r\n"

    def test_a_terminal_that_does_not_tell_its_width(self) -> None:
        screen, end = os.openpty()
        with open(end, "w") as terminal:
            Progress(terminal).doing("x" * 200)
            shown = b""
            while len(shown) < 79:
                shown += os.read(screen, 4096)
            assert shown == b"x" * 79
        os.close(screen)

    def test_a_terminal_that_was_closed(self) -> None:
        screen, end = os.openpty()
        with open(end, "w") as terminal:
            os.close(screen)
            Progress(terminal).doing("connecting to node01")
