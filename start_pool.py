#!/usr/bin/env python3
# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a pool of coaster workers on ssh hosts, shows its coaster service URL, and keeps the pool until it is ended."""

from __future__ import annotations

import sys

from coaster_pool import command_line, hosts, screen
from coaster_pool.end import Ending
from coaster_pool.failure import Failure
from coaster_pool.pool import Pool
from coaster_pool.progress import Progress


def main(arguments: list[str] | None = None) -> int:
    """The story of a pool; returns the exit status (see the README's table)."""
    options = command_line.parse(arguments)
    progress = Progress(sys.stderr)
    try:
        wanted = hosts.parse(options.fqdns)
        with Ending() as ending, Pool(wanted, options, progress, ending) as pool:
            pool.start()
            if options.show_stats:
                screen.show(pool, ending)
            else:
                print(f"Started coaster service: {pool.url}", flush=True)
                pool.watch(ending)
        return ending.status
    except Failure as failure:
        progress.error(failure)
        return failure.status


if __name__ == "__main__":
    sys.exit(main())
