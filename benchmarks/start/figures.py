# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the measurements say: medians, ratios pair by pair, goals, and the model of how the cost grows. Pure."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .meter import Cost

Round = dict[tuple[str, int], Cost]
"""One round: (what, number of hosts) to its cost."""
FIELDS = ("seconds", "cpu", "ended")
CONNECT_LIMIT = 10.0
"""Seconds that start_pool.py gives a host to answer."""


@dataclass
class Results:
    """``machine``: what is known of it, by name. ``checked``: the rounds that check the model. ``seconds``: the whole run."""

    machine: dict[str, str]
    rounds: list[Round]
    checked: list[Round]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """``rounds`` and ``checked`` are lists of ``{"start 16": {"seconds": …, "cpu": …, "ended": …}}``."""

        def plain(rounds: list[Round]) -> list[dict[str, dict[str, float]]]:
            return [
                {f"{name} {count}": {field: round(getattr(cost, field), 3) for field in FIELDS} for (name, count), cost in one.items()}
                for one in rounds
            ]

        return {"machine": self.machine, "seconds": round(self.seconds), "rounds": plain(self.rounds), "checked": plain(self.checked)}


def from_json(value: dict[str, Any]) -> Results:
    """The results that as_json() gave."""

    def costs(rounds: list[dict[str, dict[str, float]]]) -> list[Round]:
        found: list[Round] = []
        for one in rounds:
            named = {key.rpartition(" "): cost for key, cost in one.items()}
            found.append({(name, int(count)): Cost(status=0, **cost) for (name, dummy, count), cost in named.items()})
        return found

    return Results(value["machine"], costs(value["rounds"]), costs(value["checked"]), value["seconds"])


def sizes(rounds: Sequence[Round]) -> list[int]:
    """The numbers of hosts that were measured."""
    return sorted({count for one in rounds for name, count in one if name == "ssh"})


def median(rounds: Sequence[Round], name: str, count: int) -> Cost | None:
    """The medians of seconds and of CPU seconds; None for what was not measured."""
    found = [one[name, count] for one in rounds if (name, count) in one]
    if not found:
        return None
    return Cost(status=0, **{field: statistics.median(getattr(cost, field) for cost in found) for field in FIELDS})


class Goal(NamedTuple):
    """A ratio that shall be at most ``must`` and is aimed to be at most ``aim``; ``of`` gives it for a round."""

    what: str
    must: float
    aim: float | None
    of: Callable[[Round], float]

    def reached(self, rounds: Sequence[Round]) -> float | None:
        """The median of the rounds' ratios; None when what it compares was not measured in any."""
        ratios = []
        for one in rounds:
            with contextlib.suppress(KeyError):
                ratios.append(self.of(one))
        return statistics.median(ratios) if ratios else None


def further(costs: Round, name: str, count: int) -> float:
    """CPU seconds of the client for each host after the first."""
    return (costs[name, count].cpu - costs[name, 1].cpu) / (count - 1)


def goals(most: int, some: int = 16) -> list[Goal]:
    """The goals for ``most`` hosts, and against other tools for ``some``."""

    def seconds(name: str, count: int, other: str, others: int) -> Callable[[Round], float]:
        return lambda costs: costs[name, count].seconds / costs[other, others].seconds

    return [
        Goal(f"{some} hosts, until all workers are listed, against `start-coaster-service`", 1.0, 0.7,
             seconds("start", some, "start-coaster-service", some)),
        Goal(f"{some} hosts, until all workers are listed, against Dask `SSHCluster`", 0.4, 0.25, seconds("start", some, "dask", some)),
        Goal(f"{most} hosts, against `ssh HOST true` on all at once", 2.2, 1.5, seconds("start", most, "ssh", most)),
        Goal("1 host, against `ansible-playbook` with one local no-op task", 1.6, 1.3, seconds("start", 1, "ansible-noop", 1)),
        Goal("client CPU for each further host, against that of `ssh HOST true`", 2.0, 1.4,
             lambda costs: further(costs, "start", most) / further(costs, "ssh", most)),
        Goal(f"adding one host to {most}, against a start with 1 host", 1.5, 1.2, seconds("start add", most, "start", 1)),
        Goal(f"the same command again, {most} hosts, against the cold start", 0.6, 0.3, seconds("start again", most, "start", most)),
        Goal(f"stop, {most} hosts, against the cold start", 0.6, 0.3, seconds("start stop", most, "start", most)),
        Goal(f"every tenth of {most} hosts dead, against the cold start and one connect limit", 1.0, None,
             lambda costs: costs["dead", most].ended / (costs["start", most].ended + CONNECT_LIMIT)),
    ]


class Line(NamedTuple):
    """``first``: the cost of the first host; ``each``: of every further one."""

    first: float
    each: float

    def at(self, count: int) -> float:
        """The cost of so many hosts."""
        return self.first + self.each * (count - 1)


def line(rounds: Sequence[Round], name: str, field: str) -> Line | None:
    """The least-squares line through the medians of ``field`` (seconds or cpu) over the numbers of hosts; None with fewer than two."""
    points = [(count - 1, getattr(cost, field)) for count in sizes(rounds) if (cost := median(rounds, name, count))]
    if len(points) < 2:
        return None
    slope, intercept = statistics.linear_regression([x for x, dummy in points], [y for dummy, y in points])
    return Line(intercept, slope)


def guarded(rounds: Sequence[Round], count: int) -> dict[str, float]:
    """Ratios of client CPU, which a busy machine changes little, by what they tell: medians over the rounds."""

    def of(costs: Round) -> dict[str, float]:
        start = costs["start", count].cpu
        return {
            "a start against a no-op of Ansible's and ssh to the hosts": start / (costs["ansible-noop", 1].cpu + costs["ssh", count].cpu),
            "the same command again against the start": costs["start again", count].cpu / start,
            "one more host against the start": costs["start add", count].cpu / start,
            "a stop against the start": costs["start stop", count].cpu / start,
        }

    found = [of(costs) for costs in rounds]
    return {what: statistics.median(one[what] for one in found) for what in found[0]}
