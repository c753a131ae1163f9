# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool as the wrapper sees it: started or joined by new hosts, watched, and stopped, through the collection's playbooks."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from . import collection, members, playbook
from .end import Ending
from .failure import NO_SERVICE, NO_WORKERS, USAGE, Failure
from .hosts import folded
from .progress import Progress

SERVICE = "coasters.pool.coaster_service"
READY = "coasters.pool.coaster_service_info"
WORKER = "coasters.pool.swift_worker"
LOG = "coasters.pool.swift_worker_info"
EXTRA = "ansible_ssh_extra_args"
NEEDS = {"swift_worker_packages", "swift_worker_files"}
"""Variables of hosts on which there is more to do than to start a worker; Ansible takes a tenth of a second to find that there is not."""
UNDONE = {"msg": "ansible-playbook ended before it was done with this host: run the same command again"}
"""Where somebody killed it, or it has failed itself, as with very few files that it may open."""
OF_A_PLAY = "a play started it, and coasters.pool.stop_pool with the same inventory stops it"
STOPPED_WITHIN = 3.0
"""Seconds after the end of the keeper in which a stop on purpose has removed the pool's folder."""
READY_LIMIT = 15.0
"""Seconds in which the service must list the workers that were started, as in the role coaster_service."""
ANSWER_LIMIT = 3.0
"""Seconds that a worker has to show that it lives; then its host is contacted."""
DRAIN_LIMIT = 60.0
"""Seconds that the running jobs of a host that is removed may take, unless told otherwise."""


class Pool:
    """A context. A pool that start() began in this process is stopped when the context is left, unless it is detached.

    ``url`` is the coaster service URL once start() has returned; ``failed`` has the hosts without a worker, and why.
    """

    def __init__(self, options: argparse.Namespace, progress: Progress, ending: Ending) -> None:
        self.name: str = options.name
        self.options = options
        self.progress = progress
        self.ending = ending
        self.info: dict[str, Any] = {}
        self.workers: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        self._unstopped: dict[str, str] = {}
        self._aliases: set[str] = set()
        self._awaited: set[str] = set()
        self._started: dict[str, dict[str, Any]] = {}
        self._there: dict[str, dict[str, Any]] = {}
        self.kept = False
        self._check_error: Failure | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="coasters-")
        self.collections = collection.importable(Path(self._scratch.name))
        from ansible_collections.coasters.pool.plugins.module_utils import launcher, pool_info, service_state, state, statistics
        from ansible_collections.coasters.pool.plugins.module_utils.coaster import bundle

        self._bundle, self._launcher, self._pool_info, self._state, self._statistics = bundle, launcher, pool_info, state, statistics
        self._service_state = service_state
        try:
            state.check_name(self.name)
        except state.StateError as error:
            raise Failure(USAGE, str(error)) from error

    @property
    def url(self) -> str:
        """The coaster service URL."""
        return str(self.info["url"])

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self.kept:
                self.stop()
        finally:
            self._scratch.cleanup()

    def status(self) -> dict[str, Any] | None:
        """What the running pool's service says (pool_info.wait), None when the pool does not run. Raises Failure."""
        if self._launcher.running(self.name) is None:
            return None
        try:
            known: dict[str, Any] = self._pool_info.wait(self.name)
        except (self._launcher.LaunchError, self._statistics.StatisticsError) as error:
            raise Failure(NO_SERVICE, str(error)) from error
        return dict(known, members=sorted(members.load(self.name)))

    def _living(self, running: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
        """The workers that live, by host: one that was just rebooted is on the service's list for a while. Raises Failure."""
        if running is None:
            return {}
        try:
            answering = set(self._statistics.answering(running["control_url"], ANSWER_LIMIT))
        except self._statistics.StatisticsError as error:
            raise Failure(NO_SERVICE, str(error)) from error
        return {worker["name"]: worker for worker in running["workers"] if worker["name"] in answering}

    def _as_known(self, hosts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The hosts with what led to the workers that they have, where less is said now: ``node01`` for a host of an inventory."""
        known = members.load(self.name)
        return {name: {**known.get(name, {}), **own} if name in self._there else own for name, own in hosts.items()}

    def start(self, hosts: dict[str, dict[str, Any]]) -> None:
        """Make the pool run with a worker on every host (name to variables); hosts that have theirs are not contacted.

        Raises Failure when there is no service, or when fewer workers than wanted could be started.
        """
        running = self.status()
        self._there = self._living(running)
        hosts = self._as_known(hosts)
        wanted = {name: variables for name, variables in hosts.items() if name not in self._there or self.options.restart}
        if running:
            self.info = running
            self._say_differences(running, hosts)
        else:
            try:
                self._state.make_folder(self._state.folder(self.name))
            except self._state.StateError as error:
                raise Failure(NO_SERVICE, str(error)) from error
            self.kept = True
            self._started = hosts  # somebody else may stop the pool meanwhile, and forget them
        members.save(self.name, {**hosts, **members.load(self.name), **wanted})
        if wanted:
            variables = self._begin_service(hosts)
            self.progress.doing(f"connecting to {folded(sorted(wanted))}")
            if any(NEEDS & own.keys() for own in wanted.values()):
                self._run("start_pool", wanted, self._heard_at_start, self.ending, {**self._service_variables(hosts), **variables})
            else:
                self._run("start_workers", wanted, self._heard_at_start, self.ending, variables)
            self._forget(self._aliases)
            if not self.ending.came:
                self.info = self._awaited_of(self._pool_info.wait, list(self.workers), READY_LIMIT)
            self.progress.doing("")
        elif running:
            self.progress.say(f"pool {self.name!r} runs already with a worker on every host: nothing to do")
        self._check_start(hosts)
        if not self.kept:
            self.progress.say("the pool stays with whoever started it")
        self.kept = self.kept and not self.options.detach

    def watch(self) -> None:
        """Return when a signal ends the pool, or somebody stopped it. Raises Failure when its service is gone for good."""
        while not self.ending.wait(1.0):
            if not self.check():
                return

    def check(self) -> bool:
        """Whether the pool still runs; False when it was stopped on purpose. Raises Failure when its keeper is gone."""
        if self._launcher.running(self.name) is not None or self.ending.came:
            return True
        until = time.monotonic() + STOPPED_WITHIN
        while time.monotonic() < until:
            if not members.load(self.name):
                self.kept = False
                self.progress.say("the pool was stopped")
                return False
            time.sleep(0.1)
        raise Failure(NO_SERVICE, "the coaster service has ended: see its log, and start the pool again")

    def stop(self, keep_logs: bool = False) -> None:
        """End the workers and the service, and remove what was put on the hosts; safe at any moment."""
        hosts = {**self._started, **members.load(self.name)}
        if not hosts and self._launcher.running(self.name) is None and not self._launcher.stop(self.name, keep_logs, check=True):
            self.progress.say(f"there is no pool named {self.name!r}: nothing to stop")
            return
        self.progress.say("stopping the pool")
        with contextlib.suppress(Failure):  # a service that does not answer is ended all the same
            running = self.status() or {"workers": ()}
            self._unstopped.update({worker["name"]: OF_A_PLAY for worker in running["workers"] if worker["name"] not in hosts})
        self._run("stop_workers", hosts, self._heard_at_stop, None, {"swift_worker_keep_logs": keep_logs})
        self._say_unstopped()
        try:
            self._launcher.stop(self.name, keep_logs)
        except (self._launcher.LaunchError, self._state.StateError) as error:
            raise Failure(NO_SERVICE, str(error)) from error

    def remove(self, hosts: dict[str, dict[str, Any]], limit: float = DRAIN_LIMIT) -> None:
        """Take hosts out of the pool: no new jobs for them, then, when they are idle or after ``limit`` s, the end."""
        leaving = self._members(hosts)
        self._state.forget_blocks(self.name, list(leaving))
        until = time.monotonic() + limit
        while time.monotonic() < until and not self.ending.wait(0.2):
            running = self.status()
            if not running or not any(worker["name"] in leaving and worker["busy"] for worker in running["workers"]):
                break
        else:
            self.progress.say(f"jobs still run there after {limit:g} s: ending them")
        self._run("stop_workers", leaving, self._heard_at_stop, None)
        self._say_unstopped()
        self._forget(leaving)

    def logs(self, hosts: dict[str, dict[str, Any]]) -> None:
        """Print the end of the hosts' logs. Raises Failure when one of them is no host of the pool."""
        self._run("pool_logs", self._members(hosts), self._heard_log, None)
        self._say_failed()

    def check_start(self, hosts: dict[str, dict[str, Any]]) -> None:
        """Say what start() would do; hosts are contacted and nothing is changed."""
        running = self.status()
        self._there = self._living(running)
        hosts = self._as_known(hosts)
        wanted = {name: variables for name, variables in hosts.items() if name not in self._there or self.options.restart}
        if running:
            self._say_differences(running, hosts)
        for name in sorted(set(hosts) - set(wanted)):
            self.progress.host(name, "has its worker")
        if wanted:
            self._run("start_pool", wanted, self._heard_at_check, self.ending, self._service_variables(hosts), check=True)
            self._check_run()
            self._say_failed()

    def _service(self, hosts: Collection[str]) -> dict[str, Any]:
        """The coaster service that is wanted, as arguments of its module."""
        return {
            "pool": self.name,
            "engine": "swift" if self.options.swift_bin_dir else "auto",
            "bin_dir": self.options.swift_bin_dir or "",
            "listen": self.options.listen,
            "allow_users": self.options.allow_user,
            "service_port": self.options.port,
            "worker_port": self.options.worker_port,
            "owner": 0 if self.options.detach else os.getpid(),
            "reach": list(hosts) if self.options.route == "direct" else self.options.trust,
        }

    def _service_variables(self, hosts: Collection[str]) -> dict[str, Any]:
        """The same for its role."""
        return {f"coaster_service_{option.removeprefix('service_')}": value for option, value in self._service(hosts).items()}

    def _begin_service(self, hosts: Collection[str]) -> dict[str, Any]:
        """Start the service unless it runs, and do not wait for it: Ansible takes a second until it does what it finds done then.

        Returns what the workers' role has to know of it. Raises Failure.
        """
        defaults = {name: option.get("default") for name, option in self._service_state.ARGUMENTS.items()}
        begun = self._service_state.ensure({**defaults, **self._service(hosts), "hosts": list(hosts), "wait": False}, check=False)
        if begun.get("failed"):
            raise Failure(NO_SERVICE, begun["msg"], begun.get("log", ()))
        if "open_ports" in begun:
            self.progress.say(begun["open_ports"])
        port = self.options.worker_port if begun["changed"] else begun["ports"]["worker"]
        return {
            "swift_worker_engine": begun["engine"],
            "swift_worker_bin_dir": begun["bin_dir"] if begun["engine"] == "swift" else "",
            "swift_worker_service_url": [],
            "swift_worker_service_port": port or self._awaited_of(self._launcher.answer, defaults["limit"])["ports"]["worker"],
        }

    def _awaited_of(self, wait: Callable[..., dict[str, Any]], *words: Any) -> dict[str, Any]:
        """What the service answers in the end. Raises Failure when it does not, and when a signal came meanwhile."""
        try:
            return wait(self.name, *words, self._pause)
        except (self._launcher.LaunchError, self._statistics.StatisticsError) as error:
            raise Failure(NO_SERVICE, str(error), getattr(error, "log", [])) from error

    def _pause(self, seconds: float) -> None:
        if self.ending.wait(seconds):
            raise self._interrupted()

    def _interrupted(self) -> Failure:
        return Failure(self.ending.status, "interrupted while the pool was starting")

    def _members(self, hosts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The hosts as the pool knows them; those that a play has started, as they are named now. Raises Failure."""
        known = members.load(self.name)
        running = None if hosts.keys() <= known.keys() else self.status()
        there = set(known) | {worker["name"] for worker in (running or {"workers": ()})["workers"]}
        for name in hosts:
            if name not in there:
                raise Failure(USAGE, f"{name} is no host of pool {self.name!r}: it has {', '.join(sorted(there)) or 'none'}")
        return {name: known.get(name, own) for name, own in hosts.items()}

    def _forget(self, names: Collection[str]) -> None:
        if names:
            members.save(self.name, {name: kept for name, kept in members.load(self.name).items() if name not in names})

    def _check_run(self) -> None:
        if self.ending.came:
            raise self._interrupted()
        if self._check_error is not None:
            raise self._check_error
        for name in self._awaited:
            self._fail(name, UNDONE)

    def _check_start(self, hosts: dict[str, dict[str, Any]]) -> None:
        self._check_run()
        trouble = self._launcher.failure(self.name)
        if trouble is not None:
            raise Failure(NO_SERVICE, str(trouble), trouble.log)
        for name in self.info.get("missing", ()):
            if name not in self.failed:
                urls = " or ".join(self.workers.get(name, {}).get("urls", ()))
                self._fail(name, {"msg": f"its worker did not register with the coaster service: check that the host can reach {urls}"})
        self._say_failed()
        there = len(self.info.get("workers") or ())
        if there == 0:
            raise Failure(NO_WORKERS, "no worker could be started")
        needed = self.options.min_workers
        if self.options.require_all:
            there, needed = len(hosts) - len(self.failed), len(hosts)
        if there < needed:
            raise Failure(NO_WORKERS, f"only {there} of the {needed} workers that are needed could be started")

    def _say_differences(self, running: dict[str, Any], hosts: dict[str, dict[str, Any]]) -> None:
        """What is not as this command would start it, and what changes it; a pool that runs is left as it is unless asked."""
        engine = "swift" if self.options.swift_bin_dir else running["engine"]
        if running["engine"] != engine:
            self.progress.say(f"the pool runs the {running['engine']} engine: stop it, then start it with the other")
        elif engine == "builtin" and not self._bundle.is_current(running["bin_dir"]):
            self.progress.say("the pool runs another version of the engine: --restart renews its workers, a stop and a new start all of it")
        for name, variables in hosts.items():
            slots = variables.get("swift_worker_slots")
            if name in self._there and slots and slots != self._there[name]["slots"] and not self.options.restart:
                self.progress.host(name, f"runs with {_slots(self._there[name])}, not {slots}; --restart ends its jobs and changes it")

    def _run(
        self, name: str, hosts: dict[str, dict[str, Any]], heard: Callable[[playbook.Outcome], None], ending: Ending | None,
        more: dict[str, Any] | None = None, check: bool = False,
    ) -> None:
        variables = {"swift_worker_pool": self.name, "swift_worker_restart": self.options.restart, **(more or {})}
        ssh = playbook.ssh_options(self.options.accept_new_host_keys)
        table = {host: {**own, EXTRA: f"{ssh} {own[EXTRA]}"} if EXTRA in own else own for host, own in hosts.items()}
        common = {EXTRA: ssh, "swift_worker_route": self.options.route, "swift_worker_trust": self.options.trust}
        inventory = {"all": {"hosts": table, "vars": common}}
        self._awaited = set(hosts)
        try:
            with self._state.private_folder() as private:
                playbook.run(name, inventory, variables, self.collections, ending, heard, private, self.options.connect_limit, check)
        except self._state.StateError as error:
            raise Failure(NO_SERVICE, str(error)) from error

    def _heard_at_start(self, outcome: playbook.Outcome) -> None:
        result = outcome.result
        if outcome.action == WORKER:
            if outcome.kind == "ok":
                self.workers[outcome.host] = result
                self.progress.host(outcome.host, f"{'worker started' if result['changed'] else 'has its worker'}, {_slots(result)}")
                if "fallback" in result:
                    self.progress.host(outcome.host, result["fallback"])
            elif result.get("cause") != "service":
                self._fail(outcome.host, result)
                if result.get("cause") == "twice":
                    self._aliases.add(outcome.host)
            self._awaited.discard(outcome.host)
            awaited = folded(sorted(self._awaited))
            several = f"{len(self._awaited)} hosts: " if len(self._awaited) > 1 else ""
            rest = several + awaited if awaited else "the workers to register"
            self.progress.doing(f"waiting for {rest}")
        elif outcome.kind != "ok" and outcome.action not in (SERVICE, READY):  # of which start() hears from the service itself
            items = [item for item in result.get("results", ()) if item.get("failed")]
            self._fail(outcome.host, (items or [result])[0])
            self._awaited.discard(outcome.host)

    def _heard_at_check(self, outcome: playbook.Outcome) -> None:
        result = outcome.result
        if outcome.action == SERVICE and outcome.kind != "ok":
            self._check_error = Failure(NO_SERVICE, _reason(result))
        elif outcome.kind != "ok":
            self._awaited.discard(outcome.host)
            self._fail(outcome.host, result)
        elif outcome.action == WORKER:
            self._awaited.discard(outcome.host)
            would = "would end its worker and start one" if outcome.host in self._there else "would start a worker"
            self.progress.host(outcome.host, f"{would} with {_slots(result)}" if result["changed"] else "has its worker")
        elif outcome.action == SERVICE and result["changed"]:
            self.progress.say(f"would start a coaster service ({result['engine']} engine) at port {self.options.port}")

    def _heard_log(self, outcome: playbook.Outcome) -> None:
        if outcome.action == LOG:
            if outcome.kind == "ok":
                print(f"== {outcome.host} ==", *outcome.result["log"], sep="\n", flush=True)
                if not outcome.result["log"]:
                    self.progress.host(outcome.host, "its log is empty")
            else:
                self._fail(outcome.host, outcome.result)

    def _heard_at_stop(self, outcome: playbook.Outcome) -> None:
        if outcome.action == WORKER:
            self._awaited.discard(outcome.host)
        if outcome.kind != "ok" and outcome.host not in self.failed:
            self._unstopped[outcome.host] = _reason(outcome.result)

    def _fail(self, host: str, result: dict[str, Any]) -> None:
        self.failed[host] = _reason(result)

    def _say_failed(self) -> None:
        for names, reason in _by_reason(self.failed):
            self.progress.trouble(names, f"failed: {reason}")

    def _say_unstopped(self) -> None:
        for name in self._awaited:
            self._unstopped.setdefault(name, _reason(UNDONE))
        for names, reason in _by_reason(self._unstopped):
            self.progress.trouble(names, f"not stopped: {reason}; a worker there ends by itself, and what is in ~/.coasters/{self.name} stays")


def _slots(worker: dict[str, Any]) -> str:
    return f"{worker['slots']} slot{'' if worker['slots'] == 1 else 's'}"


def _reason(result: dict[str, Any]) -> str:
    """Why a module failed, in words that can do a terminal no harm; of a loop, why its first item that did."""
    from ansible_collections.coasters.pool.plugins.module_utils.text import printable

    if "timedout" in result:
        return f"it gave no whole answer in {result['timedout']['period']} s: check that `ssh HOST true` ends, and the load of the machine"
    failed = [  # ansible-core 2.21 does not say which failed, only how
        item for item in result.get("results", ()) if isinstance(item, dict) and (item.get("failed") or "exception" in item)
    ]
    return str(printable(str((failed or [result])[0].get("msg", "failed"))))


def _by_reason(reasons: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each reason once, with all the hosts that have it."""
    for reason in dict.fromkeys(reasons.values()):
        yield folded(sorted(name for name in reasons if reasons[name] == reason)), reason
