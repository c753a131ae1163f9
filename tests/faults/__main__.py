# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.faults [--short] [WORD…]``: inject the faults (whose names have one of the words) and print the table."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import testhosts

from . import table
from .suite import LONG_JOBS, SHORT_JOBS, chosen, run


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description="Inject faults into pools on test hosts.")
    parser.add_argument("--short", action="store_true", help="a few faults with fewer jobs, in two minutes; none where there is no root for isolated hosts")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table into this page, between its marks")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="and into this one without the notes")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="so many faults at a time, each in a pool of its own (%(default)s)")
    parser.add_argument("words", nargs="*", help="faults whose names have one of these (default: all)")
    given = parser.parse_args()
    reason = testhosts.why_not("isolated")
    if reason:
        print(f"No faults are injected: {reason}", file=sys.stderr)
        return 0 if given.short and os.getuid() else 2
    began = time.monotonic()
    jobs = SHORT_JOBS if given.short else LONG_JOBS
    with tempfile.TemporaryDirectory(prefix="faults-") as place, ThreadPoolExecutor(given.at_once) as threads:
        rows = []
        for row in threads.map(lambda fault: run(fault, Path(place), jobs), chosen(given.short, given.words)):
            rows.append(row)
            print(f"{'ok' if row.good else 'PROBLEM':8}{row.took:6.1f} s  {row.fault}  {row.note}  {dict(row.outcome.reasons)}", flush=True)
            for problem in row.problems:
                print(f"    {problem}", flush=True)
            for page, notes in ((given.markdown, True), (given.summary, False)):
                if page:
                    table.fill(page, rows, [fault.name for fault in chosen(short=False)], notes)
    print(f"\n{table.text(rows)}\n\n{len(rows)} faults in {time.monotonic() - began:.0f} s")
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
