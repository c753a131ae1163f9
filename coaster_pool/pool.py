# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool as the wrapper sees it: started, watched and stopped through the collection's playbooks."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from . import collection, hosts, playbook
from .end import Ending
from .failure import NO_SERVICE, NO_WORKERS, Failure
from .progress import Progress

SERVICE = "coasters.pool.coaster_service"
READY = "coasters.pool.coaster_service_info"
WORKER = "coasters.pool.swift_worker"


class Pool:
    """A context: leaving it stops the pool. ``url`` is the coaster service URL once start() has returned."""

    def __init__(self, wanted: list[hosts.Host], options: argparse.Namespace, progress: Progress, ending: Ending) -> None:
        self.hosts = wanted
        self.options = options
        self.progress = progress
        self.ending = ending
        self.info: dict[str, Any] = {}
        self.workers: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        self._service_error: Failure | None = None
        self._touched = False
        self._scratch = tempfile.TemporaryDirectory(prefix="coasters-")
        self.collections = collection.importable(Path(self._scratch.name))

    @property
    def url(self) -> str:
        """The coaster service URL."""
        return str(self.info["url"])

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._touched:
                self.stop()
        finally:
            self._scratch.cleanup()

    def start(self) -> None:
        """Start the service here and a worker on every host. Raises Failure when there is no service or no worker."""
        self._touched = True
        self._run("start_pool", self._heard_at_start, self.ending)
        if self.ending.event.is_set():
            raise Failure(self.ending.status, "interrupted while the pool was starting")
        if self._service_error is not None:
            raise self._service_error
        for name in self.info.get("missing", ()):
            if name not in self.failed:
                self._fail(name, "its worker did not register with the coaster service: check that the host can reach "
                           f"{' or '.join(self.workers.get(name, {}).get('urls', ()))}")
        if not self.info.get("workers"):
            raise Failure(NO_WORKERS, "no worker could be started")

    def watch(self, ending: Ending) -> None:
        """Return when a signal ends the pool. Raises Failure when its service is gone for good."""
        while not ending.wait(1.0):
            self.check()

    def check(self) -> None:
        """Raises Failure when the pool's keeper is gone."""
        from ansible_collections.coasters.pool.plugins.module_utils import launcher

        if launcher.running(self.options.name) is None and not self.ending.event.is_set():
            raise Failure(NO_SERVICE, "the coaster service has ended: see its log, and start the pool again")

    def stop(self) -> None:
        """End the workers and the service, and remove what was put on the hosts."""
        self.progress.say("stopping the pool")
        self._run("stop_pool", self._heard_at_stop, None)

    def _run(self, name: str, heard: Any, ending: Ending | None) -> None:
        pool = self.options.name
        variables = {
            "coaster_service_pool": pool,
            "swift_worker_pool": pool,
            "coaster_service_engine": "swift" if self.options.swift_bin_dir else "auto",
            "coaster_service_bin_dir": self.options.swift_bin_dir or "",
            "coaster_service_port": self.options.port,
            "coaster_service_worker_port": self.options.worker_port,
            "coaster_service_owner": os.getpid(),
            "swift_worker_route": self.options.route,
            "swift_worker_trust": self.options.trust,
        }
        inventory = hosts.inventory(self.hosts, {"ansible_ssh_extra_args": playbook.SSH_OPTIONS})
        playbook.run(name, inventory, variables, self.collections, ending, heard)

    def _heard_at_start(self, outcome: playbook.Outcome) -> None:
        result = outcome.result
        if outcome.action == WORKER:
            if outcome.kind == "ok":
                self.workers[outcome.host] = result
                self.progress.host(outcome.host, f"worker started, {result['slots']} slots")
            else:
                self._fail(outcome.host, str(result.get("msg", "failed")))
        elif outcome.action in (SERVICE, READY):
            self.info.update(result)
            if outcome.kind != "ok" and not result.get("workers"):
                self._service_error = Failure(NO_SERVICE, str(result.get("msg")), [str(line) for line in result.get("log", ())])

    def _heard_at_stop(self, outcome: playbook.Outcome) -> None:
        if outcome.kind != "ok" and outcome.host not in self.failed:
            self.progress.host(outcome.host, f"not stopped: {outcome.result.get('msg', 'failed')}")

    def _fail(self, host: str, reason: str) -> None:
        self.failed[host] = reason
        self.progress.host(host, f"failed: {reason}")
