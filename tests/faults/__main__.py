# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.faults [--short] [--markdown FILE] [WORD…]``: inject the faults (whose names have one of the words) and print the table."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import testhosts

from . import table
from .suite import LONG_JOBS, SHORT_JOBS, chosen, run

DOCUMENT = """\
# Faults

What becomes of jobs when things fail. `make test-faults` makes this page: it starts pools on test hosts (network
namespaces with their own `sshd`), lets them work on a load of jobs of which each writes a numbered file that is staged out,
and injects one fault after another.

- **completed**: `cog-job-submit` ended with 0, and the file is here and right. **failed with reason**: it ended with another
  status and said why.
- **lost**: it ended with 0, but there is no right file. **unreported**: it did not end, or gave no reason.
  **run twice**: the job began more than once.
- **seconds to whole**: from the fault until every host has completed a job that began after it, and the service lists
  every worker.
- After each fault the pool is ended. No process of it was left on the client or any host 65 s later, and two processes of
  the same user on each host, which are none of the pool's, still ran.

"""


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description="Inject faults into pools on test hosts.")
    parser.add_argument("--short", action="store_true", help="only those that fit into two minutes")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table there")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="so many faults at a time, each in a pool of its own (%(default)s)")
    parser.add_argument("words", nargs="*", help="faults whose names have one of these (default: all)")
    given = parser.parse_args()
    reason = testhosts.why_not("isolated")
    if reason:
        print(reason, file=sys.stderr)
        return 2
    began = time.monotonic()
    jobs = SHORT_JOBS if given.short else LONG_JOBS
    with tempfile.TemporaryDirectory(prefix="faults-") as place, ThreadPoolExecutor(given.at_once) as threads:
        rows = []
        for row in threads.map(lambda fault: run(fault, Path(place), jobs), chosen(given.short, given.words)):
            rows.append(row)
            print(f"{'ok' if row.good else 'PROBLEM':8}{row.took:6.1f} s  {row.fault}  {row.note}  {dict(row.outcome.reasons)}", flush=True)
            for problem in row.problems:
                print(f"    {problem}", flush=True)
    print(f"\n{table.text(rows)}\n\n{len(rows)} faults in {time.monotonic() - began:.0f} s")
    if given.markdown:
        given.markdown.write_text(DOCUMENT + table.markdown(rows))
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
