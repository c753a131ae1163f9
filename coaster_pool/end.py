# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The signals that end a pool: Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """Within this context a signal sets ``came`` and calls ``on_signal``; the handlers from before come back after it.

    ``status`` is the exit status: 128 and the signal's number, or 0 when none came.
    """

    def __init__(self) -> None:
        self.on_signal: Callable[[], None] | None = None
        self.status = 0
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Ending:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reading)
        os.close(self._writing)

    @property
    def came(self) -> bool:
        """Whether a signal came."""
        return self.status != 0

    def wait(self, seconds: float) -> bool:
        """Whether a signal came, after at most ``seconds``. Only within the context."""
        select.select([self._reading], [], [], seconds)
        return self.came

    def seconds(self) -> float:
        """Seconds since the first signal, 0 when none came."""
        return time.monotonic() - self._since if self.came else 0.0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # No lock may be taken here, as threading.Event would: the code that is interrupted may hold it.
        del frame
        self.status = self.status or 128 + number
        self._since = self._since or time.monotonic()
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, b"!")
        if self.on_signal is not None:
            self.on_signal()
