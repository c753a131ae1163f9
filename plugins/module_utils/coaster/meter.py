# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A meter of bytes: their sum, and the rates that statistics show. Pure."""

from __future__ import annotations


class Meter:
    """``total`` bytes so far, to be added to; tick() makes ``current``, in bytes a second."""

    __slots__ = ("total", "current", "_started", "_at", "_total")

    def __init__(self, now: float) -> None:
        self.total = self.current = self._total = 0
        self._started = self._at = now

    def tick(self, now: float) -> None:
        """Take the rate since the last tick that lies at least a second back."""
        passed = now - self._at
        if passed >= 1:
            self.current = int((self.total - self._total) / passed)
            self._total, self._at = self.total, now

    def average(self, now: float) -> int:
        """Bytes a second since the start."""
        return int(self.total / max(now - self._started, 1))
