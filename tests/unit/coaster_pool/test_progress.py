# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said on standard error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import coaster_pool
from coaster_pool.failure import NO_SERVICE, Failure
from coaster_pool.progress import Progress

ROOT = Path(coaster_pool.__file__).parent.parent


def test_lines() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.say("stopping the pool")
    progress.host("node01", "worker started, 4 slots")
    progress.error(Failure(NO_SERVICE, "there is no service: look at its log", ["first line", "second line"]))
    assert stream.getvalue().splitlines() == [
        "stopping the pool",
        "node01: worker started, 4 slots",
        "  first line",
        "  second line",
        "start_pool.py: there is no service: look at its log",
    ]


def test_a_reader_that_is_gone_does_not_keep_the_pool_from_ending() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = "import sys; from coaster_pool.progress import Progress; p = Progress(sys.stderr); p.say('a'); p.say('b'); print('goes on')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=writing, text=True, check=False)
    os.close(writing)
    assert (done.stdout, done.returncode) == ("goes on\n", 0)
