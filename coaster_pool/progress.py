# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said on standard error while a pool starts and ends: one line a host."""

from __future__ import annotations

import contextlib
import os
from typing import TextIO

from .command_line import PROGRAM
from .failure import Failure

ERASE = "\r\x1b[K"
"""Takes a line off a terminal."""
UNKNOWN_WIDTH = 80
"""Columns of a terminal that does not say."""


class Progress:
    """Writes plain lines to a stream; when ``quiet`` only errors. On a terminal a last line says what is under way."""

    def __init__(self, stream: TextIO, quiet: bool = False) -> None:
        self.stream = stream
        self.quiet = quiet
        self._erase = ""

    def doing(self, text: str) -> None:
        """What is under way, on a terminal, until the next line takes its place; nothing when the text is empty."""
        if self.stream.isatty() and not self.quiet:
            width = UNKNOWN_WIDTH
            with contextlib.suppress(OSError):
                width = os.get_terminal_size(self.stream.fileno()).columns or UNKNOWN_WIDTH
            self._print(text[:width - 1], "")
            self._erase = ERASE if text else ""

    def say(self, text: str) -> None:
        """A line. Nobody may be there any more to read it; the pool is ended all the same."""
        if not self.quiet:
            self._write(text)

    def host(self, name: str, text: str) -> None:
        """A line about a host that is well."""
        self.say(f"{name}: {text}")

    def trouble(self, name: str, text: str) -> None:
        """A line about a host that is not; said also when quiet."""
        self._write(f"{name}: {text}")

    def error(self, failure: Failure) -> None:
        """Why the program ends."""
        for line in failure.details:
            self._write(f"  {line}")
        self._write(f"{PROGRAM}: {failure}")

    def _write(self, text: str) -> None:
        self._print(text, "\n")
        self._erase = ""

    def _print(self, text: str, end: str) -> None:
        try:
            print(self._erase + text, end=end, file=self.stream, flush=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())  # else Python tries again at its end, and fails
