# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An account on a worker host, as far as the scripts of the exchange see it: a home folder and a PATH."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.coasters.pool.plugins.module_utils import state
from ansible_collections.coasters.pool.plugins.plugin_utils import exchange

WORKER = b'''\
"""A worker that says how it was started, leaves a job, and ends as the file `behaviour` in the home folder says."""
import json, os, subprocess, sys, time
home = os.environ["HOME"]
job = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
mask = os.umask(0)
said = {"pid": os.getpid(), "job": job.pid, "words": sys.argv[1:], "environment": dict(os.environ), "umask": oct(mask)}
with open(home + "/started", "a") as file:
    file.write(json.dumps(said) + "\\n")
print("a line of the worker", flush=True)
if os.path.exists(home + "/behaviour"):
    sys.exit(int(open(home + "/behaviour").read()))
time.sleep(1000)
'''
LIMIT = 60.0
"""Seconds after which a test gives up waiting."""


@contextlib.contextmanager
def stranger(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of a pool's."""
    with subprocess.Popen(["sleep", "1000"], env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


class Account:
    def __init__(self, home: Path, shell: Path = Path("/bin/sh")) -> None:
        self.home = home
        self.bin = home.parent / "bin"
        for made in (home, self.bin):
            made.mkdir()
        (self.bin / "sh").symlink_to(shell)
        self.environment = {"HOME": str(home), "PATH": f"{self.bin}:{os.path.dirname(sys.executable)}:/usr/bin:/bin"}
        self.settings = {"engine": "builtin", "urls": "http://127.0.0.1:1", "block": "secret", "slots": "3", "time_limit": "60"}

    def folder(self, pool: str = "default") -> Path:
        return self.home / ".coasters" / pool

    def exchange(
        self, verb: str, pool: str = "default", program: bytes = b"", environment: dict[str, str] | None = None, cut: int = 0, **settings: str
    ) -> dict[str, str]:
        """An exchange by a real shell; what it answers. ``cut``: so many bytes of standard input never arrive."""
        data = exchange.standard_input(settings, program)
        done = subprocess.run(
            ["/bin/sh", "-c", exchange.command(verb, pool)], input=data[:len(data) - cut], capture_output=True,
            env=self.environment | (environment or {}), cwd=self.home, timeout=LIMIT, check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        self.output = done.stdout.decode()
        return exchange.answer(self.output, verb)

    def start(self, pool: str = "default", program: bytes = WORKER, verb: str = "start", **settings: Any) -> dict[str, str]:
        """An exchange that starts a worker, and has started one when this returns unless it failed."""
        before = len(self.started())
        known = {name: settings.pop(name) for name in ("environment", "cut") if name in settings}
        answer = self.exchange(verb, pool, program, **known, **(self.settings | {"version": exchange.version(program)} | settings))
        if verb == "start" and answer.get("changed") == "yes" and program == WORKER:
            self.wait(lambda: len(self.started()) > before)
        return answer

    def started(self) -> list[dict[str, Any]]:
        """What the workers said, the first one first."""
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.home / "started").read_text().splitlines()]
        return []

    def pid(self, name: str, pool: str = "default") -> int:
        return int((self.folder(pool) / f"{name}.pid").read_text())

    def alive(self, pid: int) -> bool:
        """Whether the process runs; a zombie does not."""
        return state.start_time(pid) is not None

    def processes(self) -> list[int]:
        """All processes of this account."""
        wanted = f"HOME={self.home}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0") and self.alive(int(folder.name)):
                    found.append(int(folder.name))
        return found

    @staticmethod
    def wait(condition: Callable[[], object]) -> None:
        """Until it holds; AssertionError after LIMIT seconds."""
        until = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < until, "it did not come true"
            time.sleep(0.01)

    def clear(self) -> None:
        """End whatever is left."""
        while found := self.processes():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
