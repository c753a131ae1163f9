# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live screen of ``--show-stats``: the service, its workers, its jobs, and a row for each host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .end import Ending

if TYPE_CHECKING:
    from ansible_collections.coasters.pool.plugins.module_utils.statistics import Statistics

    from .pool import Pool

REFRESH = 1.0
"""Seconds between two pictures."""


def show(pool: Pool, ending: Ending) -> None:
    """Draw the screen each second until a signal ends the pool. Raises Failure when its service is gone for good.

    Where standard output is no terminal each picture is printed below the one before.
    """
    from ansible_collections.coasters.pool.plugins.module_utils import statistics

    console = Console()
    live = Live(console=console, screen=console.is_terminal, auto_refresh=False)
    with live:
        while True:
            trouble = ""
            now = None
            try:
                now = statistics.fetch(pool.info["control_url"], limit=REFRESH)
            except statistics.StatisticsError:
                trouble = "the service does not answer; it is being started again"
            picture = draw(pool.url, now, pool.failed, trouble)
            if console.is_terminal:
                live.update(picture, refresh=True)
            else:
                console.print(picture)
            if ending.wait(REFRESH):
                return
            if not pool.check():
                return


def draw(url: str, now: Statistics | None, failed: dict[str, str], trouble: str = "") -> RenderableType:
    """One picture. ``failed`` has the hosts without a worker and why; ``trouble`` is shown below the URL."""
    service = _section("Coaster service", "")
    service.add_row("URL", url)
    if trouble:
        service.add_row("", Text(trouble, style="bold red"))
    if now is None:
        return Group(service)
    workers = _section("Workers", "Active", "Lost")
    workers.add_row("", str(len(now.workers)), _count(now.lost))
    jobs = _section("Jobs", "Queued", "Active", "Completed", "Failed")
    jobs.add_row("", *(_count(now.jobs[name]) for name in ("queued", "active", "completed", "failed")))
    rows = _section("Host", "Slots", "Busy", "Completed", "Failed")
    for worker in sorted(now.workers, key=lambda worker: worker.name):
        name = worker.name if worker.host in ("", worker.name) else f"{worker.name} ({worker.host})"
        rows.add_row(Text(name), str(worker.slots), str(worker.busy), str(worker.completed), _count(worker.failed))
    parts: list[RenderableType] = [service, workers, jobs, rows]
    if failed:
        without = _section("Without a worker", "")
        for name, reason in failed.items():
            without.add_row(Text(name), Text(reason, style="red"))
        parts.append(without)
    return Group(*parts)


def _count(number: int | None) -> str:
    """A dash is what the engine does not tell."""
    return "-" if number is None else str(number)


def _section(title: str, *columns: str) -> Table:
    """A heading; the columns of all sections stand below each other, and one without a name is as wide as all of them."""
    table = Table(box=None, header_style="bold reverse", expand=True, pad_edge=True)
    table.add_column(title, ratio=2, no_wrap=columns[:1] != ("",))
    if columns == ("",):
        table.add_column("", ratio=4)
    else:
        for column in (*columns, "", "", "")[:4]:
            table.add_column(column, ratio=1, justify="left")
    return table
