# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what became of the jobs under each fault, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .load import Outcome

MARKS = "<!-- table of faults: made by `make test-faults` -->\n", "<!-- end of the table -->\n"
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
            return [self.fault, *("–" for dummy in HEADER[1:])]
        found = self.outcome
        counts = (found.jobs, found.completed, found.failed, len(found.lost), len(found.unreported), len(found.twice))
        return [self.fault, *map(str, counts), "PROBLEM" if self.problems else "–" if self.whole is None else f"{self.whole:.1f}"]


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


def fill(page: Path, rows: Sequence[Row], names: Sequence[str], notes: bool = True) -> None:
    """Put the rows, and with ``notes`` what else was seen, between the MARKS of a Markdown page. Lines of other faults there stay.

    ``names``: the faults in their order. Raises ValueError when the page has no such marks.
    """
    before, rest = page.read_text().split(MARKS[0])
    old, after = rest.split(MARKS[1])
    table, seen = _kept(old, "| ", " | "), _kept(old, "- **", "**: ")
    for row in rows:
        table[row.fault] = _line(row.cells())
        seen[row.fault] = f"- **{row.fault}**: {row.note or 'not run: ' + row.skipped}" if row.note or row.skipped else ""
    head = [_line(HEADER), _line(("---", *("--:" for dummy in HEADER[1:])))]
    parts = [head + [table[name] for name in names if name in table]]
    if notes:
        parts.append([seen[name] for name in names if seen.get(name)])
    content = "\n\n".join("\n".join(part) for part in parts)
    page.write_text(f"{before}{MARKS[0]}\n{content}\n\n{MARKS[1]}{after}")


def _kept(text: str, start: str, end: str) -> dict[str, str]:
    """The lines that begin so, by the name of the fault that follows."""
    return {line[len(start):].partition(end)[0]: line for line in text.splitlines() if line.startswith(start)}


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
