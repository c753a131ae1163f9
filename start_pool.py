#!/usr/bin/env python
# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a pool of coaster workers on ssh hosts, shows its coaster service URL, and keeps the pool until it is ended."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path

from coaster_pool import requirements

requirements.ensure(Path(__file__).resolve().parent)

from coaster_pool import command_line, jetstream, job_runner, report, wanted
from coaster_pool.end import Ending
from coaster_pool.failure import SOME_FAILED, Failure
from coaster_pool.pool import Pool
from coaster_pool.progress import Progress


def main(arguments: list[str] | None = None) -> int:
    """The story of a pool; returns the exit status (see the README's table)."""
    options = command_line.parse(arguments)
    progress = Progress(sys.stderr, options.quiet)
    try:
        hosts = wanted.members(options)
        with Ending() as ending, Pool(options, progress, ending) as pool:
            if options.status:
                state = pool.status()
                print(report.as_json(pool.name, state) if options.json else report.as_text(pool.name, state, time.time()))
                return 0 if state else 1
            if options.stop:
                pool.stop(options.keep)
                return 0
            if options.remove:
                pool.remove(hosts, options.drain_limit)
                return 0
            if options.logs:
                pool.logs(hosts)
                return SOME_FAILED if pool.failed else 0
            if options.check:
                pool.check_start(hosts)
                return SOME_FAILED if pool.failed else 0

            config = options.jetstream_config
            if config:
                jetstream.write(config, jetstream.PoolInfo(0, 0, ""), check=True)
            pool.start(hosts)
            values = jetstream.pool_info((worker["slots"] for worker in pool.info["workers"]), pool.url)
            if config:
                progress.say(f"wrote the pool into {jetstream.write(config, values).path}")
            if options.command:
                return job_runner.run(options.command, job_runner.environment(pool.info, dict(os.environ)), ending)
            if options.show_stats:
                from coaster_pool import screen  # which takes a tenth of the time that an answer to --status needs

                screen.show(pool, ending)
            else:
                announce(pool, values, options.json, progress)
                if pool.kept:
                    pool.watch()
            return ending.status or (SOME_FAILED if pool.failed and options.detach else 0)
    except Failure as failure:
        progress.error(failure)
        return failure.status
    except KeyboardInterrupt:  # while the hosts are looked up, when there is nothing to stop yet
        return 128 + signal.SIGINT


def announce(pool: Pool, values: jetstream.PoolInfo, as_json: bool, progress: Progress) -> None:
    """The result on standard output; what to do with it on standard error."""
    result = report.as_json(pool.name, pool.info) if as_json else f"Started coaster service: {pool.url}"
    try:
        print(result, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at its end, and fails
        progress.trouble("standard output", f"{error.strerror}: {result}")
    progress.say("for Jetstream's configuration:\n" + jetstream.block(values).rstrip())
    progress.say(f"for cog-job-submit: export PATH={shlex.quote(pool.info['bin_dir'])}:$PATH")


if __name__ == "__main__":
    sys.exit(main())
