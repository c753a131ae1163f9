# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said on standard error while a pool starts and ends: one line a host."""

from __future__ import annotations

import contextlib
from typing import TextIO

from .failure import Failure


class Progress:
    """Writes plain lines to a stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, text: str) -> None:
        """A line. Nobody may be there any more to read it; the pool is ended all the same."""
        with contextlib.suppress(OSError):
            print(text, file=self.stream, flush=True)

    def host(self, name: str, text: str) -> None:
        """A line about a host."""
        self.say(f"{name}: {text}")

    def error(self, failure: Failure) -> None:
        """Why the program ends."""
        for line in failure.details:
            self.say(f"  {line}")
        self.say(f"start_pool.py: {failure}")
