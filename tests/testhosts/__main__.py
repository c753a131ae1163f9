# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.testhosts up COUNT [--kind KIND]``: test hosts by hand, until Ctrl-C. ``… sweep``: remove what dead runs left."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from . import hosts, runs, wire


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description="Test hosts for coasters.pool.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start hosts and keep them until Ctrl-C")
    up.add_argument("count", type=int)
    up.add_argument("--kind", choices=sorted(hosts.KINDS), help="default: isolated where possible, else plain")
    commands.add_parser("sweep", help="remove what runs left whose program is dead")
    reap = commands.add_parser("reap", help="internal: sweep when standard input and that program have ended")
    reap.add_argument("owner")
    cable = commands.add_parser("wire", help="internal: a slow and lossy cable")
    cable.add_argument("link")
    cable.add_argument("tap")
    cable.add_argument("delay", type=float)
    cable.add_argument("loss", type=float)
    given = parser.parse_args()
    if given.command == "sweep":
        swept = runs.sweep()
        print(f"swept {len(swept)} dead runs" if swept else "nothing to sweep")
    elif given.command == "reap":
        runs.Reaper.watch(given.owner)
    elif given.command == "wire":
        wire.carry(given.link, given.tap, given.delay, given.loss)
    else:
        return stay_up(given.count, given.kind)
    return 0


def stay_up(count: int, kind: str | None) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    began = time.monotonic()
    try:
        with hosts.start(count, kind) as running:
            print(f"{count} {running.kind} hosts in {time.monotonic() - began:.1f} s; the client is {running.client.address}")
            for host in running:
                print(f"  {host.name}  {host.target}  port {host.port}")
            print(f"export PATH={running.client.bin}:$PATH   # then: ssh h1")
            print("Ctrl-C ends them.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
