# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The results as tables, and their place in ``docs/performance.md``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from . import figures
from .figures import Results, Round

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- made by `make benchmark-start`: begin -->", "<!-- end -->"
ROWS = {
    "ssh": "`ssh HOST true`, all at once",
    "ansible-noop": "`ansible-playbook`, one local no-op task",
    "ansible-raw": "`ansible-playbook`, one `raw` task on every host",
    "start": "**`start_pool.py`**, built-in engine",
    "start again": "the same command again",
    "start add": "with one more host",
    "start status": "`--status`",
    "start stop": "`--stop`",
    "dead": "start with every tenth host dead",
    "swift": "**`start_pool.py`**, Swift/K",
    "swift again": "the same command again",
    "swift add": "with one more host",
    "swift status": "`--status`",
    "swift stop": "`--stop`",
    "start-coaster-service": "Swift/K `start-coaster-service`",
    "dask": "Dask `SSHCluster`",
}
FAR = (500, 1000, 5000)


def tables(results: Results) -> str:
    """All tables as Markdown."""
    parts = [_machine(results), _goals(results.rounds), _medians(results.rounds), _model(results)]
    return "\n\n".join(part for part in parts if part)


def write(results: Results) -> None:
    """Replace what stands between the marks in the page. Raises ValueError when it has none."""
    text = PAGE.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    dummy, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} has no place for the tables: it needs the lines {BEGIN!r} and {END!r}")
    PAGE.write_text(f"{head}{BEGIN}\n\n{tables(results)}\n\n{END}{tail}", encoding="utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _machine(results: Results) -> str:
    said = ", ".join(f"{name}: {value}" for name, value in results.machine.items())
    return f"Medians of {len(results.rounds)} rounds, {results.seconds / 60:.0f} minutes in all. {re.sub(r' +', ' ', said)}."


def _goals(rounds: Sequence[Round]) -> str:
    measured = figures.sizes(rounds)
    rows = []
    for goal in figures.goals(max(measured), 16 if 16 in measured else max(measured)):
        ratio = goal.reached(rounds)
        aim = "" if goal.aim is None else f"≤ {goal.aim:g}"
        grade = "not measured" if ratio is None else "aim" if goal.aim and ratio <= goal.aim else "must" if ratio <= goal.must else "no"
        rows.append([goal.what, f"≤ {goal.must:g}", aim, "" if ratio is None else f"{ratio:.2f}", grade])
    return _table(["ratio in one round, median", "must", "aim", "measured", "reached"], rows)


def _medians(rounds: Sequence[Round]) -> str:
    counts = figures.sizes(rounds)
    rows = []
    for name, label in ROWS.items():
        costs = [figures.median(rounds, name, count) for count in counts]
        if any(costs):
            rows.append([label, *(f"{cost.seconds:.2f} s, {cost.cpu:.2f} s" if cost else "" for cost in costs)])
    return _table(["seconds, and CPU seconds of the client", *(f"{count} host{'s' * (count > 1)}" for count in counts)], rows)


def _model(results: Results) -> str:
    rows = []
    checked = figures.sizes(results.checked)
    for name, label in (("ssh", "`ssh HOST true`"), ("start", "`start_pool.py`")):
        for field, what in (("cpu", "CPU seconds of the client"), ("seconds", "seconds, hosts on the same machine")):
            line = figures.line(results.rounds, name, field)
            if line:
                row = [f"{label}, {what}", f"{line.first:.2f} + {line.each:.3f} × (N − 1)"]
                for count in checked:
                    cost = figures.median(results.checked, name, count)
                    row.append(f"{line.at(count):.1f}: measured {getattr(cost, field):.1f}")
                rows.append(row + [f"{line.at(count):.0f}" for count in FAR])
    return _table(["model", "for N hosts", *(f"{count} hosts" for count in checked), *(f"{count} hosts" for count in FAR)], rows) if rows else ""
