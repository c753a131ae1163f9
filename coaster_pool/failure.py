# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception that ends the program with a sentence and an exit status."""

from __future__ import annotations

USAGE = 2
NO_SERVICE = 3
NO_WORKERS = 4
SOME_FAILED = 5


class Failure(Exception):
    """``str()`` is one clear sentence; ``status`` the exit status; ``details`` further lines, such as the end of a log."""

    def __init__(self, status: int, sentence: str, details: list[str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.details = details or []
