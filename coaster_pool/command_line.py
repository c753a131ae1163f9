# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of ``start_pool.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """\
examples:
  start_pool.py user@1.0.0.1 user@1.0.0.2     a worker on each host, a coaster service here
  start_pool.py --show-stats localhost        the same on this machine, with a live screen
  start_pool.py --swift-bin-dir ~/swift/bin user@1.0.0.1
                                              with the programs of a Swift/K distribution

The pool lives until Ctrl-C, SIGTERM or SIGHUP. Hosts are reached with `ssh` as you have set it up.
"""


def parser() -> argparse.ArgumentParser:
    """All options, with their help."""
    top = argparse.ArgumentParser(
        prog="start_pool.py", description="Start a pool of coaster workers on ssh hosts and the coaster service that hands them jobs.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("fqdns", nargs="*", metavar="user@host", help="a host of the pool; localhost needs no ssh")
    top.add_argument("--show-stats", action="store_true", help="show a live screen instead of the line with the URL")
    top.add_argument("--swift-bin-dir", type=_directory, metavar="DIR", help="bin directory of a Swift/K distribution to run")
    top.add_argument("--name", default="default", help="name of the pool (default: %(default)s)")
    top.add_argument("--port", type=_port, default=4050, help="port for clients, 0 for any (default: %(default)s)")
    top.add_argument("--worker-port", type=_port, default=4051, help="port for workers, 0 for any (default: %(default)s)")
    top.add_argument("--route", choices=("auto", "direct", "tunnel"), default="auto",
                     help="how workers reach the service; auto: through ssh unless the host is on a trusted network")
    top.add_argument("--trust", action="append", default=[], metavar="NETWORK", help="a network without need of tunnels, as 10.0.0.0/8")
    return top


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options. Ends the program with status 2 and a sentence when they cannot be understood."""
    top = parser()
    options = top.parse_args(arguments)
    if not options.fqdns:
        top.error("name at least one host, as user@host, an ssh alias, or localhost")
    return options


def _directory(text: str) -> str:
    path = Path(text).expanduser()
    for program in ("coaster-service", "worker.pl"):
        if not (path / program).is_file():
            raise argparse.ArgumentTypeError(f"{text} has no {program}: name the bin directory of a Swift/K distribution")
    return str(path.resolve())


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: give a number from 0 to 65535")
    return int(text)
