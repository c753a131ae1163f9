# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool on isolated test hosts that works on a load while a fault is injected, and what is looked at afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests import testhosts
from tests.conftest import ROOT
from tests.integration.station import ANY_PORTS, Station
from tests.testhosts import Host, Process
from tests.testhosts.runs import alive, identity

from . import load as loads
from .table import Row

from ansible_collections.coasters.pool.plugins.module_utils import state, statistics  # isort: skip

SLOTS = 2
START_LIMIT = 150.0
JOBS_LIMIT = 180.0
WHOLE_LIMIT = 150.0
GONE_LIMIT = 65.0
"""Seconds after the end of a pool in which its last process must have ended."""
BYSTANDERS = ("sleep 86400", "tail -F .coasters/default/logs/worker.log")
"""The host's user runs these; they have nothing to do with the pool."""
MUTE = "sleep 86399"
"""What an sshd that says nothing runs in place of what it is asked to."""


class Problem(Exception):
    """Something is not as it must be, and the scene cannot go on."""


class Scene:
    """``hosts``: how many, or the options of each. ``arguments``: further ones for start_pool.py. ``jobs``: at least."""

    def __init__(self, row: Row, place: Path, hosts: int | Sequence[dict[str, Any]] = 4, arguments: Sequence[str] = (), jobs: int = 100) -> None:
        self.row = row
        self.jobs = jobs
        self.hosts = testhosts.start(hosts, "isolated")
        self.place = place
        self.arguments = list(arguments)
        self.station = Station(self.hosts, place)
        self.environment = self.station.env
        self.pool: subprocess.Popen[bytes] | None = None
        self.load: loads.Load | None = None
        self.injected = 0.0
        self._marks: dict[str, int] = {}
        self._starts = 0
        self._client_bystander = subprocess.Popen(["sleep", "86400"], start_new_session=True)
        self._witnesses: dict[str, list[str]] = {}
        for host in self.hosts:
            loads.open_ledger(host)
            self.expect_bystanders(host)

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.load is not None:
            self.load.finish(0)
        if self.pool is not None and self.pool.poll() is None:
            self.pool.kill()
            self.pool.wait()
        for process in self.station.here():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.split()[0]), signal.SIGKILL)
        self._client_bystander.kill()
        self._client_bystander.wait()
        self.hosts.close()

    # the pool

    def words(self, hosts: Iterable[Host] | None = None) -> list[str]:
        return [f"{host.target}*{SLOTS}" for host in (self.hosts if hosts is None else hosts)]

    def command(self, hosts: Iterable[Host] | None = None) -> list[str]:
        return [sys.executable, str(ROOT / "start_pool.py"), *ANY_PORTS, *self.arguments, *self.words(hosts)]

    def said(self) -> str:
        """Standard output and error of the last start_pool.py."""
        return self._output().read_text(errors="replace")

    def _output(self) -> Path:
        return self.place / f"said.{self._starts}"

    def begin(self, *more: str, hosts: Iterable[Host] | None = None) -> subprocess.Popen[bytes]:
        """Run the start command in the background."""
        self._starts += 1
        with self._output().open("wb") as output:
            self.pool = subprocess.Popen(
                [*self.command(hosts), *more], env=self.environment, cwd=self.place, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )
        return self.pool

    def start(self, *more: str, hosts: Iterable[Host] | None = None) -> float:
        """Start the pool, and wait until it is ready; the seconds that it took. Raises Problem."""
        began = time.monotonic()
        pool = self.begin(*more, hosts=hosts)
        self.until(lambda: "Started coaster service" in self.said() or pool.poll() is not None, "the pool starts", START_LIMIT)
        if "Started coaster service" not in self.said():
            raise Problem(f"the pool did not start: {self.said()}")
        if self.load is not None:
            self.load.url = self.url
        return time.monotonic() - began

    def again(self) -> str:
        """The same command once more beside the pool that runs; what it said. Raises Problem when it fails."""
        self._starts += 1
        with self._output().open("wb") as output:
            done = subprocess.run(
                self.command(), env=self.environment, cwd=self.place, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                timeout=START_LIMIT, check=False,
            )
        if done.returncode:
            raise Problem(f"the same command ended with status {done.returncode}: {self.said()}")
        return self.said()

    @property
    def known(self) -> dict[str, Any]:
        """The pool's pool.json."""
        return state.read_json(str(self.station.state / "coasters" / "default" / "pool.json")) or {}

    @property
    def url(self) -> str:
        return str(self.known["url"])

    def pid(self, name: str) -> int:
        """The process id of the pool's ``service`` or ``keeper``."""
        return int(self.known[name]["pid"])

    def workers(self) -> dict[str, int]:
        """Name to slots of the workers that the service lists; none when it does not answer."""
        with contextlib.suppress(statistics.StatisticsError, KeyError):
            return {worker.name: worker.slots for worker in statistics.fetch(self.known["control_url"], 2.0).workers}
        return {}

    def on_host(self, host: Host, what: str) -> int:
        """The process id of the pool's ``worker`` or ``supervisor`` there."""
        found = [process.pid for process in host.processes() if f"/.coasters/default/{what}" in process.args and "tail" not in process.args]
        if len(found) != 1:
            raise Problem(f"{host.name} has {len(found)} processes in place of one {what}")
        return found[0]

    # the load and the fault

    def begin_load(self, hosts: Iterable[Host] | None = None, **options: Any) -> loads.Load:
        """Submit jobs from now on, with further ``options`` of Load; returns when each of the hosts runs some."""
        # The pool's own copy is gone as soon as the pool is.
        programs = self.place / "bin"
        shutil.copytree(Path(self.station.program("cog-job-submit")).parent, programs, dirs_exist_ok=True)
        environment = {name: value for name, value in self.environment.items() if name != "HOME"}
        self.load = loads.Load(programs / "cog-job-submit", self.url, self.place / "load", environment, **options)
        self.load.start()
        busy = list(self.hosts if hosts is None else hosts)
        self.until(lambda: all(len(loads.ledger(host)) >= 2 * SLOTS for host in busy), "every host runs jobs", 60)
        return self.load

    def inject(self) -> None:
        """The fault begins now: what runs on the hosts from here on tells when the pool is whole."""
        self._marks = {host.name: len(loads.ledger(host)) for host in self.hosts}
        self.injected = time.monotonic()

    def works(self, host: Host) -> bool:
        """Whether a job that began there after inject() is reported as completed."""
        if self.load is None:
            return False
        seen = [int(number) for what, number in loads.ledger(host)[self._marks[host.name]:] if what == "start"]
        return any(self.load.jobs[number].code == 0 for number in seen)

    def await_whole(self, hosts: Iterable[Host] | None = None) -> None:
        """Wait until each of the hosts has done a job since the fault, and the service lists their workers and no others."""
        wanted = list(self.hosts if hosts is None else hosts)
        names = {host.address: SLOTS for host in wanted}
        self.until(lambda: all(map(self.works, wanted)) and self.workers() == names, "the pool is whole", WHOLE_LIMIT)
        self.row.whole = time.monotonic() - self.injected

    def finish(self) -> None:
        """Submit jobs until there are enough, wait for them all, and count."""
        load = self.load
        if load is not None:
            self.until(lambda: len(load.jobs) >= self.jobs, "there are enough jobs", JOBS_LIMIT)
            load.finish(JOBS_LIMIT)
            self.row.outcome = load.outcome(self.hosts)

    # the end

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End start_pool.py by a signal."""
        pool = self.pool
        if pool is None or pool.poll() is not None:
            raise Problem(f"start_pool.py had ended before: {self.said()}")
        pool.send_signal(number)
        self.until(lambda: pool.poll() is not None, "start_pool.py ends", START_LIMIT)

    def expect_bystanders(self, host: Host) -> None:
        """Start processes on the host that must survive all that the pool does."""
        host.run("mkdir -p .coasters/default/logs; " + " ".join(f"setsid {words} </dev/null >/dev/null 2>&1 &" for words in BYSTANDERS))

        def run() -> list[Process]:
            return [process for process in host.processes() if process.args in BYSTANDERS]

        self.until(lambda: len(run()) == len(BYSTANDERS), "bystanders run", 20)
        self._witnesses[host.name] = [identity(process.pid) for process in run()]

    def theirs(self, host: Host) -> list[Process]:
        """The processes on a host that came with the pool."""
        own = {int(who.split()[0]) for who in self._witnesses[host.name]}
        return [process for process in host.processes() if process.pid not in own and "sshd -D" not in process.args]

    def left(self, but: Iterable[Host] = ()) -> list[str]:
        """What is left of the pool on the client and on the hosts; of those in ``but`` sshd's own processes and MUTE do not count."""
        found = [f"client: {process}" for process in self.station.here()]
        cut = {host.name for host in but}
        for host in self.hosts:
            found += [f"{host.name}: {process.pid} {process.args}" for process in self.theirs(host)
                      if host.name not in cut or not process.args.startswith(("sshd", MUTE))]
        return found

    def await_gone(self, but: Iterable[Host] = (), since: float | None = None) -> float:
        """Wait until nothing is left, GONE_LIMIT seconds after ``since`` (default: now) at most; the seconds that it took."""
        since = time.monotonic() if since is None else since
        while left := self.left(but):
            if time.monotonic() > since + GONE_LIMIT:
                self.problem(f"left {GONE_LIMIT:.0f} s after the end: {left}")
                break
            time.sleep(0.1)
        return time.monotonic() - since

    def check_bystanders(self) -> None:
        """Nothing but the pool's own processes was ended."""
        for host in self.hosts:
            if not all(map(alive, self._witnesses[host.name])):
                self.problem(f"a process on {host.name} that is none of the pool's was ended")
        if self._client_bystander.poll() is not None:
            self.problem("a process on the client that is none of the pool's was ended")

    def end(self, but: Iterable[Host] = ()) -> None:
        """The usual end of a scene: all jobs end, Ctrl-C, nothing is left."""
        self.finish()
        self.stop()
        gone = self.await_gone(but)
        self.note(f"nothing left {gone:.0f} s after Ctrl-C")
        self.check_bystanders()

    def until(self, condition: Callable[[], object], what: str, limit: float) -> None:
        """Wait for it. Raises Problem after ``limit`` seconds."""
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                raise Problem(f"{what}: not within {limit:.0f} s ({self.workers()})\n{self.said() if self._starts else ''}")
            time.sleep(0.1)

    def problem(self, sentence: str) -> None:
        self.row.problems.append(sentence)

    def note(self, sentence: str) -> None:
        self.row.note += ("; " if self.row.note else "") + sentence
