# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the benchmark: see the package."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests import testhosts

from . import contenders, figures, machine, page

SIZES = [1, 4, 16, 48]
QUICK = [1, 4]
OTHERS_UP_TO = 16
"""Hosts at most for the tools of others, of which the slowest takes half a second a host."""
CHECK_RUNS = 1


def plan(sizes: Sequence[int], swift_bin_dir: Path | None, with_dask: bool) -> list[tuple[int, contenders.Contender]]:
    """What a round measures, in its order, each with its number of hosts; what is compared stands together."""
    steps: list[tuple[int, contenders.Contender]] = []
    for count in sizes:
        steps += [(count, contenders.ssh), (count, contenders.ansible), (count, contenders.pool("start"))]
        if count <= OTHERS_UP_TO and with_dask:
            steps.append((count, contenders.dask))
        if count <= OTHERS_UP_TO and swift_bin_dir:
            steps.append((count, contenders.start_coaster_service(swift_bin_dir)))
        if swift_bin_dir:
            steps.append((count, contenders.pool("swift", "--swift-bin-dir", str(swift_bin_dir))))
    return [*steps, (max(sizes), contenders.dead(10))]


def measure(hosts: testhosts.Hosts, steps: Sequence[tuple[int, contenders.Contender]], runs: int) -> list[figures.Round]:
    """So many rounds; every other one goes through the steps from the end, so that a drift of the machine falls on all alike.

    A contender that fails is named, and missing in the round.
    """
    rounds = []
    for number in range(runs):
        costs: figures.Round = {}
        for count, contender in steps if number % 2 == 0 else reversed(steps):
            with contenders.station(hosts, hosts[:count], hosts[len(hosts) - 1]) as at:
                try:
                    measured = contender(at)
                except (RuntimeError, TimeoutError) as error:
                    print(f"round {number + 1} of {runs}, {count} hosts: {error}", file=sys.stderr)
                    continue
                for name, cost in measured.items():
                    costs[name, count] = cost
                    print(f"round {number + 1} of {runs}: {name}, {count} hosts: {cost.seconds:.2f} s, {cost.cpu:.2f} s CPU", file=sys.stderr)
        rounds.append(costs)
    return rounds


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description="What it takes to start a pool, beside other tools.")
    parser.add_argument("--hosts", type=int, nargs="+", default=SIZES, metavar="N", help="numbers of isolated test hosts (1 4 16 48)")
    parser.add_argument("--runs", type=int, default=5, help="rounds (%(default)s)")
    parser.add_argument("--swift-bin-dir", type=Path, metavar="DIR", help="bin directory of a Swift/K distribution to compare with")
    parser.add_argument("--check", type=int, default=200, metavar="N", help="hosts of the run that checks the model; 0: none (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="1 and 4 hosts, three rounds, no Dask, no check of the model")
    parser.add_argument("--write", action="store_true", help="replace results.json and the tables in docs/performance.md")
    options = parser.parse_args(arguments)
    if options.quick:
        options.hosts, options.runs, options.check = QUICK, 3, 0
    if min(options.hosts) < 1 or options.runs < 1 or options.check < 0:
        parser.error("give numbers of hosts and of rounds from 1 on")
    if options.swift_bin_dir and not (options.swift_bin_dir / "start-coaster-service").is_file():
        parser.error(f"{options.swift_bin_dir} has no start-coaster-service: name the bin directory of a Swift/K distribution")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; returns 1, and a sentence, when isolated test hosts are not possible."""
    options = _options(arguments)
    sizes = sorted(set(options.hosts))
    shared = None if options.quick else contenders.install_dask()
    swift = options.swift_bin_dir.resolve() if options.swift_bin_dir else None
    began = time.monotonic()
    try:
        with testhosts.start(max(sizes) + 1, "isolated", **({"shared": shared} if shared else {})) as hosts:
            rounds = measure(hosts, plan(sizes, swift, shared is not None), options.runs)
        checked: list[figures.Round] = []
        if options.check:
            with testhosts.start(options.check + 1, "isolated") as hosts:
                checked = measure(hosts, [(options.check, contenders.ssh), (options.check, contenders.pool("start"))], CHECK_RUNS)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    results = figures.Results(machine.describe(contenders.DASK_PYTHON if shared else None, swift), rounds, checked, time.monotonic() - began)
    if options.write:
        page.RESULTS.write_text(json.dumps(results.as_json(), indent=1) + "\n")
        page.write(results)
    with contextlib.suppress(BrokenPipeError):
        print(page.tables(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
