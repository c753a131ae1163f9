# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of a set of test hosts, where the programs are run as a user would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, collections_root
from tests.testhosts import Host, Hosts

LIMIT = 120.0
"""Seconds after which a test gives up waiting."""
ANY_PORTS = ("--port", "0", "--worker-port", "0")


def wait(condition: Callable[[], object], what: str = "it did not come true") -> None:
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


class Running:
    """A start_pool.py in the background."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process, self.errors = process, errors

    @property
    def said(self) -> str:
        """Its standard error so far."""
        return self.errors.read_text()

    def url(self) -> str:
        """The coaster service URL, once it is announced."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Started coaster service: http://"), line + self.said
        return line.split()[-1]

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT)


class Station:
    def __init__(self, hosts: Hosts, place: Path) -> None:
        self.hosts = hosts
        self.place = place
        self.state = hosts.client.home / "state"
        kept = {name: value for name, value in hosts.env().items() if not name.startswith(("ANSIBLE_", "XDG_", "COASTER"))}
        self.env = kept | {"XDG_STATE_HOME": str(self.state), "ANSIBLE_COLLECTIONS_PATH": str(collections_root())}
        self._count = 0

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program of ours or Ansible's to its end."""
        options = {"env": self.env, "cwd": self.place, "capture_output": True, "text": True, "timeout": LIMIT} | options
        return subprocess.run(words, **options, check=False)

    def start_pool(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, str(ROOT / "start_pool.py"), *words, **options)

    def playbook(self, name: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """ansible-playbook, whose ssh connections do not stay as long as they do by default."""
        options["env"] = options.get("env", self.env) | {"ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=1s"}
        return self.run(os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), name, *words, **options)

    @contextlib.contextmanager
    def pool(self, *words: str, **options: Any) -> Iterator[Running]:
        """A start_pool.py that runs in this context."""
        self._count += 1
        errors = self.place / f"errors{self._count}"
        with errors.open("w") as file:
            options = {"env": self.env, "cwd": self.place, "stdout": subprocess.PIPE, "stderr": file, "text": True} | options
            process = subprocess.Popen([sys.executable, str(ROOT / "start_pool.py"), *words], **options)
        running = Running(process, errors)
        try:
            yield running
        finally:
            if process.poll() is None:
                running.end(signal.SIGTERM)
            if process.stdout is not None:
                process.stdout.close()

    def program(self, name: str, pool: str = "default") -> str:
        return str(self.state / "coasters" / pool / "bin" / name)

    def job(self, url: str, *words: str, pool: str = "default", **options: Any) -> subprocess.Popen[str]:
        """A cog-job-submit that runs in the background."""
        command = [self.program("cog-job-submit", pool), "-provider", "coaster-persistent", "-service-contact", url, *words]
        options = {"env": self.env, "cwd": self.place, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        return subprocess.Popen(command, **options)

    def submit(self, url: str, *words: str, pool: str = "default") -> tuple[int, str, str]:
        """The exit status, output and errors of a job that is waited for."""
        with self.job(url, *words, pool=pool) as job:
            output, errors = job.communicate(timeout=LIMIT)
            return job.returncode, output, errors

    def status(self, pool: str = "default") -> dict[str, Any]:
        """What --status says."""
        done = self.start_pool("--status", "--json", "--name", pool)
        assert done.returncode in (0, 1), done.stderr
        known: dict[str, Any] = json.loads(done.stdout)
        return known

    def inventory(self, hosts: Sequence[Host], variables: str = "") -> str:
        """A plain list of hosts, as a file for Ansible."""
        path = self.place / "hosts"
        path.write_text("".join(f"{host.address} ansible_user={host.user} {variables}\n" for host in hosts))
        return str(path)

    def here(self) -> list[str]:
        """Our processes on the client: those with its home folder."""
        mark = f"HOME={self.hosts.client.home}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if words and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(f"{folder.name} {words}")
        return found

    def there(self) -> list[str]:
        """All processes on the hosts but the listening sshd."""
        return [f"{host.name} {process.pid} {process.args}" for host in self.hosts for process in host.processes() if "sshd -D" not in process.args]

    def files(self) -> list[str]:
        """What the hosts' users and the client's state folder hold of ours."""
        found = [f"{host.name} {name}" for host in self.hosts for name in host.run("ls -A").split() if name != ".ssh"]
        state = self.state / "coasters"
        return found + [str(path) for path in (state.iterdir() if state.exists() else ())]

    def left(self) -> list[str]:
        return self.here() + self.there() + self.files()

    def wait_until_nothing_is_left(self) -> None:
        until = time.monotonic() + LIMIT
        while left := self.left():
            assert time.monotonic() < until, "\n".join(left)
            time.sleep(0.05)
