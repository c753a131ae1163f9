# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a coaster service says of its workers and jobs: its control port's ``/wmInfo``, the same for both engines."""

import http.client
import json
import time
import urllib.parse

from .text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Set

LIMIT = 5.0
"""Seconds that the service may take to answer."""
MAX_ANSWER = 64 * 1048576
"""Largest answer in bytes that is read (1,000 workers take less than 1 MiB)."""


_PAUSE = 0.05


class StatisticsError(Exception):
    """The service gave no statistics; the text says why."""


class Worker:
    """One registered worker. ``name`` is its host in the pool, ``host`` what the machine calls itself.

    ``failed`` is None when the engine does not tell.
    """

    __slots__ = ("name", "host", "slots", "busy", "completed", "failed", "last_seen")

    def __init__(
        self, name: str, host: str, slots: int, busy: int, completed: int, failed: "Optional[int]", last_seen: float
    ) -> None:
        self.name, self.host, self.slots, self.busy = printable(name), printable(host), slots, busy
        self.completed, self.failed, self.last_seen = completed, failed, last_seen

    def as_dict(self) -> "Dict[str, Any]":
        """The fields by name; ``last_seen`` in epoch seconds, 0 when the engine does not tell."""
        return {name: getattr(self, name) for name in self.__slots__}


class Statistics:
    """Workers, and counts: ``jobs`` (queued, active, completed, failed) and ``lost`` workers; None is what the engine does not tell."""

    def __init__(self, workers: "List[Worker]", jobs: "Dict[str, Optional[int]]", lost: "Optional[int]") -> None:
        self.workers, self.jobs, self.lost = workers, jobs, lost


def fetch(control_url: str, limit: float = LIMIT) -> Statistics:
    """Ask the service. Raises StatisticsError when it does not answer within ``limit`` seconds, or with nonsense."""
    return read(_ask(control_url, "/wmInfo", limit))


def answering(control_url: str, limit: float) -> "Set[str]":
    """Names of the workers that live: those that answer a probe within ``limit`` seconds, all on the list with an engine that has none.

    A worker whose host went down is on the list until its connection is missed, which the probe itself may bring about.
    Raises StatisticsError.
    """
    info = _ask(control_url, "/wmInfo", LIMIT)
    if "coaster" not in info:
        return {worker.name for worker in read(info).workers}
    asked = _ask(control_url, "/probe", LIMIT)["coaster"]
    until = time.monotonic() + limit
    while True:
        workers = fetch(control_url).workers
        heard = {worker.name for worker in workers if worker.last_seen > asked["now"]}
        if len(heard) == len(workers) or time.monotonic() > until:
            return heard
        time.sleep(_PAUSE)


def _ask(control_url: str, path: str, limit: float) -> "Dict[str, Any]":
    where = urllib.parse.urlsplit(control_url)
    connection = http.client.HTTPConnection(where.hostname or "localhost", where.port or 80, timeout=limit)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        text = connection.getresponse().read(MAX_ANSWER)
        info = json.loads(text.decode("utf-8", "replace"))
        read(info)
        return info  # type: ignore[no-any-return]
    except (OSError, http.client.HTTPException) as error:
        raise StatisticsError("the coaster service does not answer at %s: %s" % (control_url, error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StatisticsError("the coaster service at %s gave statistics that cannot be read: %r" % (control_url, error)) from error
    finally:
        connection.close()


def read(info: "Dict[str, Any]") -> Statistics:
    """The statistics in the object of ``/wmInfo``. Raises KeyError, TypeError or ValueError when it is not one."""
    if not isinstance(info, dict):
        raise TypeError("no object")
    ours = info.get("coaster")
    if ours is None:
        return _read_swift(info)
    workers = [
        Worker(
            str(row["block"]), str(row["host"]), int(row["slots"]), int(row["busy"]), int(row["completed"]), int(row["failed"]),
            float(row["last_seen"]),
        )
        for row in ours["workers"]
    ]
    jobs: "Dict[str, Optional[int]]" = {name: int(ours["jobs"][name]) for name in ("queued", "active", "completed", "failed")}
    return Statistics(workers, jobs, int(ours.get("lost", 0)))


def _read_swift(info: "Dict[str, Any]") -> Statistics:
    """Swift/K lists blocks, each with its slots as ``cpus``; it tells neither queued nor failed jobs, nor lost workers.

    What a block completed (jobs that failed included) is gone with its last worker.
    """
    workers = []
    for block in info["blocks"]:
        slots = block["cpus"]
        busy = sum(slot["job"] is not None for slot in slots)
        hosts = [str(node["hostname"]) for node in block["nodes"]]
        workers.append(Worker(str(block["id"]), hosts[0] if hosts else "", len(slots), busy, int(block["jobsCompleted"]), None, 0.0))
    jobs: "Dict[str, Optional[int]]" = {
        "queued": None, "active": sum(worker.busy for worker in workers), "completed": sum(worker.completed for worker in workers),
        "failed": None,
    }
    return Statistics([worker for worker in workers if worker.slots], jobs, None)
