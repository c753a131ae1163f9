# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Medians, ratios, goals and the model, from rounds with known costs."""

from __future__ import annotations

import json

import pytest

from benchmarks.start import figures, page
from benchmarks.start.meter import Cost


def costs(start: float, ssh: float = 1.0) -> figures.Round:
    """A round in which everything but ssh takes ``start`` seconds for the first host and half a second for each further one."""
    found: figures.Round = {}
    for count in (1, 4, 16):
        mine = start + 0.5 * (count - 1)
        for name in ("start", "start again", "start add", "start stop", "ansible-noop"):
            found[name, count] = Cost(mine, 2 * mine, 0, mine + 1)
        found["ssh", count] = Cost(ssh * count, ssh * count, 0, ssh * count)
    found["dead", 16] = Cost(5.0, 1.0, 0, 6.0)
    return found


ROUNDS = [costs(2.0), costs(4.0), costs(3.0)]


def test_medians_are_of_each_field_over_the_rounds() -> None:
    assert figures.median(ROUNDS, "start", 4) == Cost(4.5, 9.0, 0, 5.5)
    assert figures.median(ROUNDS, "dask", 4) is None
    assert figures.sizes(ROUNDS) == [1, 4, 16]


def test_a_goal_is_the_median_of_the_ratios_of_each_round() -> None:
    goals = {goal.what: goal.reached(ROUNDS) for goal in figures.goals(16)}
    assert goals["16 hosts, against `ssh HOST true` on all at once"] == pytest.approx(10.5 / 16)
    assert goals["client CPU for each further host, against that of `ssh HOST true`"] == pytest.approx(1.0)
    assert goals["every tenth of 16 hosts dead, against the cold start and one connect limit"] == pytest.approx(6 / 21.5)
    assert goals["16 hosts, until all workers are listed, against Dask `SSHCluster`"] is None


def test_the_model_is_a_line_through_the_medians() -> None:
    line = figures.line(ROUNDS, "start", "seconds")
    assert line is not None
    assert (line.first, line.each) == (pytest.approx(3.0), pytest.approx(0.5))
    assert line.at(1001) == pytest.approx(503.0)
    assert figures.line([{("ssh", 1): Cost(1, 1, 0, 1)}], "ssh", "cpu") is None


def test_what_is_guarded() -> None:
    assert figures.guarded(ROUNDS, 4) == {
        "a start against a no-op of Ansible's and ssh to the hosts": pytest.approx(0.9),
        "the same command again against the start": 1.0,
        "one more host against the start": 1.0,
        "a stop against the start": 1.0,
    }


def test_results_are_the_same_after_a_file() -> None:
    results = figures.Results({"processor": "2 × some"}, ROUNDS, [costs(1.0)], 61.0)
    assert figures.from_json(json.loads(json.dumps(results.as_json()))) == results


def test_the_tables_have_a_place_in_the_page() -> None:
    assert page.PAGE.read_text().count(page.BEGIN) == page.PAGE.read_text().count(page.END) == 1


def test_tables_say_what_was_reached_and_what_not() -> None:
    text = page.tables(figures.Results({"processor": "2 × some"}, ROUNDS, [costs(1.0)], 61.0))
    assert "| 1 host, against `ansible-playbook` with one local no-op task | ≤ 1.6 | ≤ 1.3 | 1.00 | aim |" in text
    assert "| stop, 16 hosts, against the cold start | ≤ 0.6 | ≤ 0.3 | 1.00 | no |" in text
    assert "| 16 hosts, until all workers are listed, against Dask `SSHCluster` | ≤ 0.4 | ≤ 0.25 |  | not measured |" in text
    assert "| 1 host | 4 hosts | 16 hosts |" in text
