# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The screen that ``coaster-service -stats`` draws each second, as Swift/K's (coaster-protocol 6.2). Pure: text out.

"Active" workers are workers here, where Swift/K counts their slots, and what is received and sent is always counted.
"""

from __future__ import annotations

from typing import Any, Iterable, Tuple

WIDTH = 80
MAX_BLOCKS = 8
MAX_MESSAGES = 2

START = "\x1b[?25l\x1b[2J"
"""Hides the cursor and clears the screen, once at the beginning."""
END = "\x1b[?25h"
"""Shows the cursor again."""

_HOME = "\x1b[0;0f"
_NORMAL = "\x1b[00m"
_BOLD = "\x1b[01m"
_REVERSE = "\x1b[07m"
_RED = "\x1b[31m"
_GREEN = "\x1b[32m"
_YELLOW = "\x1b[33m"

_Cells = Iterable[Tuple[int, str]]


class Screen:
    """Remembers the highest rates seen."""

    def __init__(self) -> None:
        self._peaks: dict[str, int] = {}

    def frame(self, info: dict[str, Any], messages: Iterable[str] = ()) -> str:
        """The next picture, from the object of ``/wmInfo`` and the last messages of the log."""
        ours, runtime = info["coaster"], info["runtime"]
        jobs = ours["jobs"]
        blocks = sorted(info["blocks"], key=lambda block: -len(block["nodes"]))
        lines = _heading((1, "Coaster Service"))
        lines += [_line((1, "URL "), (30, ours["url"])), _line((1, "Worker connect URL "), (30, ours["worker_url"]))]
        lines += _heading((2, "Workers"), (32, "Active"), (48, "Completed"), (64, "Failed"))
        lines.append(_line((0, ""), (32, str(len(ours["workers"]))), (48, "0"), (64, str(ours["lost"]))))
        lines += _heading((2, "Jobs"), (16, "Queued"), (32, "Active"), (48, "Completed"), (64, "Failed"))
        names = ("queued", "active", "completed", "failed")
        lines.append(_line((0, ""), *((16 * column, str(jobs[name])) for column, name in enumerate(names, 1))))
        lines += _heading((2, "Heap"), (16, "Max"), (32, "Current"), (48, "Used"), (64, "Free"))
        names = ("maxHeap", "crtHeap", "usedHeap", "freeHeap")
        lines.append(_line((0, ""), *((16 * column, units(runtime[name]) + "B") for column, name in enumerate(names, 1))))
        lines += _heading((2, "I/O"), (16, "Total"), (32, "Current"), (48, "Peak"), (64, "Average"))
        lines += [self._rates("Read ", runtime, "read"), self._rates("Write ", runtime, "write")]
        lines += _heading((2, "Blocks"), (40, "Nodes"), (60, "Jobs Completed"))
        for block in blocks[:MAX_BLOCKS]:
            lines.append(_line((2, block["id"][:36]), (40, str(len(block["nodes"]))), (60, str(block["jobsCompleted"]))))
        if len(blocks) > MAX_BLOCKS:
            lines.append(_line((2, "... (%d more)" % (len(blocks) - MAX_BLOCKS))))
        # What stood there before may have been longer: clear to the end of each line, and all below.
        tail = [message[:WIDTH] + "\x1b[K" for message in list(messages)[-MAX_MESSAGES:]]
        return _HOME + "\n".join(lines + ["\x1b[K", _YELLOW + "\n".join(tail)]) + _NORMAL + "\x1b[J"

    def _rates(self, label: str, runtime: dict[str, Any], what: str) -> str:
        current = runtime[what + "CurrentRate"]
        peak = self._peaks[what] = max(self._peaks.get(what, 0), current)
        color = _RED if current < peak * 0.1 else _GREEN if current > peak * 0.8 else _YELLOW
        return _line(
            (2, label), (16, units(runtime[what + "BytesTotal"]) + "B"), (32, color + units(current) + "B/s" + _NORMAL),
            (48, units(peak) + "B/s"), (64, units(runtime[what + "AverageRate"]) + "B/s"),
        )


def units(number: float) -> str:
    """A number with its suffix: divided by 1024 while above 1024, at most two decimals; ready for ``B`` or ``B/s``."""
    power = 0
    while number > 1024 and power < 3:
        number /= 1024
        power += 1
    return ("%.2f" % number).rstrip("0").rstrip(".") + " " + ("", "K", "M", "G")[power]


def _heading(*cells: tuple[int, str]) -> list[str]:
    blank = " " * WIDTH
    return [blank, _REVERSE + blank + _NORMAL, _row(cells, _REVERSE, _NORMAL), blank]


def _line(*cells: tuple[int, str]) -> str:
    return _row(cells, _NORMAL, _BOLD)


def _row(cells: _Cells, usual: str, first: str) -> str:
    """Cells, each with its column, one space round its text; ``first`` is how the first one looks."""
    text, column, look = usual, 0, first
    for start, word in cells:
        text += " " * (start - column) + look + " " + word + " " + usual
        column = start + 2 + len(word) - (len(_RED) + len(_NORMAL) if "\x1b" in word else 0)
        look = usual
    return text + " " * (WIDTH - column) + _NORMAL
