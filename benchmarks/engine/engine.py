# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine under measurement: the three programs of a bin directory, run for real on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of the process tree so far, by the scheduler's nanoseconds."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{member}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_mb(pid: int) -> float:
    """Resident memory of the process tree in MB."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
    return total / 1024


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Engine:
    """A context with the engine's service running; workers are added to it."""

    def __init__(self, bin_dir: Path, folder: Path) -> None:
        self.bin, self.folder = bin_dir, folder
        self.port, self.worker_port = free_port(), free_port()
        self.address, self.worker_address = ("127.0.0.1", self.port), ("127.0.0.1", self.worker_port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Engine:
        self.folder.mkdir(parents=True, exist_ok=True)
        output = (self.folder / "service.out").open("w+b")
        self.service = self._spawn([
            str(self.bin / "coaster-service"), "-nosec", "-passive", "-port", str(self.port), "-localport", str(self.worker_port),
            "-controlPort", "0", "-logdir", str(self.folder)], output)
        until = time.monotonic() + 30
        self.control = ""
        while time.monotonic() < until:
            text = (self.folder / "service.out").read_text()
            if "Worker connection URL: " in text:
                self.control = text.split("Settings server URL: ")[1].split()[0]
                return self
            if self.service.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"{self.bin}/coaster-service did not start: {(self.folder / 'service.out').read_text()}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in reversed(self.processes):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)

    def workers(self, count: int, slots: int) -> list[subprocess.Popen[bytes]]:
        """Start workers and wait until the service lists them all."""
        before = self.listed()
        started = [
            self._spawn([str(self.bin / "worker.pl"), "-c", str(slots), f"http://127.0.0.1:{self.worker_port}", f"w{before + number}",
                         str(self.folder)], subprocess.DEVNULL)
            for number in range(count)
        ]
        until = time.monotonic() + 60
        while self.listed() < before + count:
            if time.monotonic() > until:
                raise RuntimeError("the workers did not register within 60 s")
            time.sleep(0.005)
        return started

    def listed(self) -> int:
        """How many workers the service lists."""
        with urllib.request.urlopen(self.control + "/wmInfo", timeout=10) as answer:
            return sum(bool(block["cpus"]) for block in json.load(answer)["blocks"])

    def submit(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Run cog-job-submit with these words behind the service's address."""
        command = [str(self.bin / "cog-job-submit"), "-provider", "coaster-persistent", "-service-contact", self.url, *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=True, cwd=self.folder)

    def _spawn(self, command: list[str], output: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=self.folder,  # type: ignore[call-overload]
        )
        self.processes.append(process)
        return process
