# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a running pool: what the client keeps of it, and what its service says now."""

import time

from . import launcher, statistics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Sequence

_PAUSE = 0.05
KEPT = ("name", "engine", "bin_dir", "url", "worker_url", "control_url", "ports", "since", "restarts")


def wait(pool: str, names: "Sequence[str]" = (), limit: float = 0.0) -> "Dict[str, Any]":
    """The pool's state, once its service lists a worker of each name, or after ``limit`` seconds.

    Keys: KEPT, ``workers`` (list of dicts, statistics.Worker), ``jobs``, ``lost``, ``missing`` (names without a worker).
    Raises launcher.LaunchError when there is no running pool, statistics.StatisticsError when its service is silent.
    """
    until = time.monotonic() + limit
    known = launcher.answer(pool, limit)
    while True:
        now = statistics.fetch(known["control_url"])
        listed = {worker.name for worker in now.workers}
        missing = [name for name in names if name not in listed]
        if not missing or time.monotonic() > until:
            break
        time.sleep(_PAUSE)
    result = {name: known.get(name) for name in KEPT}
    result.update(workers=[worker.as_dict() for worker in now.workers], jobs=now.jobs, lost=now.lost, missing=missing)
    return result
