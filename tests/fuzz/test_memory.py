# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory of a service, which is a process of its own here, while peers come, send much, and go."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import bundle, jobs
from ansible_collections.coasters.pool.plugins.module_utils.coaster.frames import encode
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import COMPLETED, Job
from tests.fuzz.examples import EXAMPLES
from tests.unit.plugins.module_utils.coaster.peers import PATIENCE, ClientPeer, WorkerPeer

GROWTH = 8000
"""KiB that the service may grow by while it is fuzzed, beyond what a first round took."""


class Program:
    """A running coaster-service."""

    def __init__(self, folder: Path) -> None:
        bundle.programs(str(folder), sys.executable)
        words = [str(folder / "coaster-service"), "-nosec", "-passive", "-port", "0", "-localport", "0"]
        self.process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True)
        self.clients, self.workers = self._address("Started coaster service: "), self._address("Worker connection URL: ")
        self.files = self._open_files()

    def _open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def _address(self, start: str) -> tuple[str, int]:
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if line.startswith(start))
        host, dummy, port = line.rpartition("//")[2].strip().rpartition(":")
        return host, int(port)

    def memory(self) -> int:
        """KiB that it has resident, once it has missed all who have gone."""
        until = time.monotonic() + PATIENCE
        while self._open_files() > self.files:
            assert time.monotonic() < until
            time.sleep(0.01)
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    program.process.terminate()
    program.process.communicate(timeout=30)


def peers(service: Program) -> None:
    """Come, register and submit, announce more than they send, and go."""
    for number in range(30):
        with ClientPeer(service.clients) as client, WorkerPeer(service.workers) as worker:
            worker.register(f"block-{number}", running=" ".join(f"x-{other}" for other in range(50)))
            for other in range(20):
                client.command("SUBMITJOB", jobs.encode_submission(Job(f"cog-{other}", "/bin/true", ["x" * 10000])))
            client.socket.sendall(encode(5, 0x20, b"SUBMITJOB") + encode(5, 0, bytes(1000000)))


def job(service: Program) -> None:
    """One of a good client on a good worker, which may be given some of a client that is about to be missed."""
    with ClientPeer(service.clients) as client, WorkerPeer(service.workers) as worker:
        client.configure()
        worker.register("canary", slots=1000)
        identity = client.submit(Job("canary-1", "/bin/true"))
        while worker.take() != identity:
            pass
        worker.report(identity, COMPLETED)
        assert client.end("canary-1").code == COMPLETED


def test_it_does_not_grow(service: Program) -> None:
    """What peers sent is forgotten with them."""
    peers(service)
    job(service)
    before = service.memory()
    deadline = time.monotonic() + 2 + EXAMPLES / 20
    while time.monotonic() < deadline:
        peers(service)
        job(service)
    assert service.memory() - before < GROWTH
