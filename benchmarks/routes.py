# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tunnel costs beside a direct route: the start of a pool, and a file that is staged in, beside ``scp``.

    python -m benchmarks.routes                                  16 isolated test hosts and a file of 512 MiB, five rounds

Needs root, as isolated test hosts do. The ways take turns, and another one begins each round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.testhosts import Hosts, start

from .start.contenders import START_POOL, Station, station
from .start.meter import Cost

ROUTES = ("tunnel", "direct")
MIB = 1 << 20
STARTED, STAGED = "pool started, s", "file staged in, MiB/s"
Figures = dict[str, dict[str, list[float]]]
"""What was measured, to the way, to the figure of each round."""


def _checked(at: Station, command: list[str]) -> float:
    """Seconds that the command takes. Raises RuntimeError when it fails."""
    cost: Cost = at.client.run(command)
    if cost.status:
        raise RuntimeError(f"{command[0]} ended with status {cost.status} and said: {at.client.log()}")
    return cost.seconds


def _start(at: Station, route: str) -> float:
    return _checked(at, [*START_POOL, *at.pool_ports(), "--route", route, "--detach", "--require-all", *at.targets])


@contextmanager
def _pool(hosts: Hosts, count: int, route: str) -> Iterator[tuple[Station, float]]:
    """A pool on so many hosts, and the seconds of its start."""
    with station(hosts, hosts[:count], hosts[-1]) as at:
        seconds = _start(at, route)
        try:
            yield at, seconds
        finally:
            _checked(at, [*START_POOL, "--stop"])


def _turns(ways: tuple[str, ...], rounds: int) -> Iterator[str]:
    for number in range(rounds):
        yield from ways[number % len(ways):] + ways[:number % len(ways)]


def measure_starts(hosts: Hosts, count: int, rounds: int, tell: Callable[[str, str, float], None]) -> None:
    """``start_pool.py --detach`` until it returns, on hosts that it has never seen."""
    for route in _turns(ROUTES, rounds):
        with _pool(hosts, count, route) as (_at, seconds):
            tell(STARTED, route, seconds)


def measure_files(hosts: Hosts, size: int, rounds: int, tell: Callable[[str, str, float], None]) -> None:
    """A file of random data to one host: by scp, and with a job that does nothing else."""
    for way in _turns((*ROUTES, "scp"), rounds):
        with _pool(hosts, 1, "tunnel" if way == "scp" else way) as (at, _seconds):
            source = at.folder / "file"
            with source.open("wb") as file:
                for _number in range(size):
                    file.write(os.urandom(MIB))
            command = ["scp", "-q", str(source), f"{at.used[0].target}:/tmp/file"]
            if way != "scp":
                submit = str(at.folder / "state" / "coasters" / "default" / "bin" / "cog-job-submit")
                command = [submit, "-s", f"http://127.0.0.1:{at.ports[0]}", "-d", "/tmp", "-stagein", f"{source} -> file", "/bin/true"]
            tell(STAGED, way, size / _checked(at, command))


def main() -> None:
    """Measure and print."""
    top = argparse.ArgumentParser(prog="python -m benchmarks.routes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--hosts", type=int, default=16, metavar="N", help="hosts of the pool that is started (%(default)s)")
    top.add_argument("--size", type=int, default=512, metavar="MIB", help="size of the file (%(default)s)")
    top.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (%(default)s)")
    options = top.parse_args()
    figures: Figures = {}

    def tell(what: str, way: str, figure: float) -> None:
        figures.setdefault(what, {}).setdefault(way, []).append(figure)
        print(f"{what}: {way} {figure:.2f}", file=sys.stderr, flush=True)

    with start(options.hosts + 1, "isolated") as hosts:
        measure_files(hosts, options.size, options.rounds, tell)
        measure_starts(hosts, options.hosts, options.rounds, tell)
    print(f"{platform.node()}, {os.cpu_count()} cores, Python {platform.python_version()}; medians of {options.rounds} rounds")
    for what, ways in figures.items():
        print(what)
        for way, found in ways.items():
            print(f"  {way:8}{statistics.median(found):8.2f}   ({min(found):.2f} to {max(found):.2f})")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
