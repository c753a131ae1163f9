# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a fault in a scene of its own."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.testhosts.host import Unsupported

from .faults import FAULTS, Fault
from .scene import Problem, Scene
from .table import Row

SHORT_JOBS, LONG_JOBS = 40, 150
"""Jobs for each fault, at least."""


def chosen(short: bool, words: Sequence[str] = ()) -> list[Fault]:
    """The faults of the short or the long form whose names have one of the words."""
    return [fault for fault in FAULTS if (fault.short or not short) and (not words or any(word in fault.name for word in words))]


def run(fault: Fault, place: Path, jobs: int) -> Row:
    """Inject one fault under a load of so many jobs or more; its row of the table. ``place``: a folder for files."""
    row = Row(fault.name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=place) as folder, Scene(row, Path(folder), fault.hosts, fault.arguments, jobs) as scene:
        try:
            fault.play(scene)
        except Unsupported as error:
            row.skipped = str(error)
        except Problem as problem:
            row.problems.append(str(problem))
        except Exception:
            row.problems.append(traceback.format_exc())
        if row.problems and scene.load is not None and not row.outcome.jobs:
            scene.finish()
    row.took = time.monotonic() - began
    return row
