# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a pool as text and as JSON."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from coaster_pool import report

SINCE = 1_700_000_000.0
STATE: dict[str, Any] = {
    "engine": "builtin", "url": "http://127.0.0.1:4050", "since": SINCE, "restarts": 0, "lost": 1,
    "jobs": {"queued": 3, "active": 2, "completed": 40, "failed": 1},
    "workers": [
        {"name": "node02", "host": "node02.cluster", "slots": 16, "busy": 2, "completed": 30, "failed": 1, "last_seen": SINCE + 9},
        {"name": "node01", "host": "node01.cluster", "slots": 8, "busy": 0, "completed": 10, "failed": 0, "last_seen": 0.0},
    ],
    "members": ["node01", "node02", "node03"],
}


def lines(**changes: Any) -> list[str]:
    """The text's lines, blanks folded."""
    return [" ".join(line.split()) for line in report.as_text("p", {**STATE, **changes}, SINCE + 12).splitlines()]


def test_a_pool_that_does_not_run() -> None:
    assert report.as_text("p", None, SINCE) == "pool 'p' does not run"
    assert json.loads(report.as_json("p", None)) == {"name": "p", "running": False}


def test_a_pool_that_runs() -> None:
    assert lines() == [
        "Pool p (builtin engine)",
        "URL http://127.0.0.1:4050",
        "Since " + time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(SINCE)),
        "Jobs 3 queued, 2 active, 40 completed, 1 failed",
        "Workers 2 active, 1 lost",
        "HOST SLOTS BUSY DONE LAST SEEN",
        "node01 8 0 10 -",
        "node02 16 2 30 3 s ago",
        "node03 no worker: run the start command again",
    ]


def test_columns_stand_below_each_other() -> None:
    rows = report.as_text("p", STATE, SINCE).splitlines()[5:8]
    assert len({row.index(text) + len(text) for row, text in zip(rows, ("SLOTS", " 8", "16"), strict=True)}) == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"restarts": 2}, "Since {since}, service started again 2 times"),
        ({"lost": None}, "Workers 2 active"),
        ({"jobs": {"queued": None, "active": 1, "completed": 7, "failed": None}}, "Jobs 1 active, 7 completed"),
    ],
)
def test_what_an_engine_tells(changes: dict[str, Any], line: str) -> None:
    assert line.format(since=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(SINCE))) in lines(**changes)


def test_the_pool_of_a_play_has_no_members() -> None:
    state = {name: value for name, value in STATE.items() if name != "members"}
    assert "no worker" not in report.as_text("p", state, SINCE)


def test_json_has_it_all() -> None:
    assert json.loads(report.as_json("p", STATE)) == {"name": "p", "running": True, **STATE}
