# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what became of the jobs under each fault, as text and as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .load import Outcome

HEADER = ("fault", "jobs", "completed", "failed with reason", "lost", "unreported", "run twice", "seconds to whole")


@dataclass
class Row:
    """One fault. ``problems``: what was not as it must be; ``note``: what else was seen; ``skipped``: why it was not injected."""

    fault: str
    outcome: Outcome = field(default_factory=Outcome)
    whole: float | None = None
    note: str = ""
    problems: list[str] = field(default_factory=list)
    skipped: str = ""
    took: float = 0.0

    @property
    def good(self) -> bool:
        return not (self.problems or self.outcome.lost or self.outcome.unreported or self.outcome.twice)

    def cells(self) -> list[str]:
        if self.skipped:
            return [self.fault, *("–" for _ in HEADER[1:])]
        found = self.outcome
        counts = (found.jobs, found.completed, found.failed, len(found.lost), len(found.unreported), len(found.twice))
        return [self.fault, *map(str, counts), "–" if self.whole is None else f"{self.whole:.1f}"]


def text(rows: Sequence[Row]) -> str:
    """The rows in columns, and below them what was not as it must be."""
    cells = [list(HEADER), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
             for line in cells]
    lines += [f"{row.fault}: not run: {row.skipped}" for row in rows if row.skipped]
    for row in rows:
        lines += [f"{row.fault}: PROBLEM: {problem}" for problem in row.problems]
    return "\n".join(lines)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table, and a list of what else was seen."""
    lines = [_line(HEADER), _line(("---", *("--:" for _ in HEADER[1:]))), *(_line(row.cells()) for row in rows)]
    notes = [f"- **{row.fault}**: {row.note or 'not run: ' + row.skipped}" for row in rows if row.note or row.skipped]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
