# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a running pool: what the client keeps of it, and what its service says now."""

import time

from . import launcher, state, statistics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Sequence

_PAUSE = 0.05
KEPT = ("name", "engine", "bin_dir", "url", "worker_url", "control_url", "ports", "since", "restarts")
ARGUMENTS = {
    "pool": {"type": "str", "default": "default"},
    "workers": {"type": "list", "elements": "str", "default": []},
    "min_workers": {"type": "int", "default": 0},
    "limit": {"type": "float", "default": 0},
}
"""Of the coaster_service_info module, as Ansible validates them."""


def tell(wanted: "Dict[str, Any]", check: bool) -> "Dict[str, Any]":
    """The result of the coaster_service_info module; with ``check`` there is nothing to wait for. A failure has ``failed`` and ``msg``."""
    try:
        result = wait(wanted["pool"], wanted["workers"], 0 if check else wanted["limit"])
    except (launcher.LaunchError, state.StateError, statistics.StatisticsError) as error:
        return {"failed": True, "msg": str(error), "log": getattr(error, "log", [])}
    if len(result["workers"]) < wanted["min_workers"] and not check:
        text = "%d of the %d workers that are needed registered with the coaster service within %g s"
        return dict(result, failed=True, msg=text % (len(result["workers"]), wanted["min_workers"], wanted["limit"]))
    return dict(result, changed=False)


def wait(
    pool: str, names: "Sequence[str]" = (), limit: float = 0.0, pause: "Callable[[float], object]" = time.sleep
) -> "Dict[str, Any]":
    """The pool's state, once its service lists a worker of each name, or after ``limit`` seconds.

    ``pause``: takes so many seconds; what it raises ends the waiting.
    Keys: KEPT, ``workers`` (list of dicts, statistics.Worker), ``jobs``, ``lost``, ``missing`` (names without a worker).
    Raises launcher.LaunchError when there is no running pool, statistics.StatisticsError when its service is silent.
    """
    until = time.monotonic() + limit
    known = launcher.answer(pool, limit, pause)
    while True:
        now = statistics.fetch(known["control_url"])
        listed = {worker.name for worker in now.workers}
        missing = [name for name in names if name not in listed]
        if not missing or time.monotonic() > until:
            break
        pause(_PAUSE)
    result = {name: known.get(name) for name in KEPT}
    result.update(workers=[worker.as_dict() for worker in now.workers], jobs=now.jobs, lost=now.lost, missing=missing)
    return result
