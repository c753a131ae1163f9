# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client machine's share of the work: runs commands and tells what they, and all that they left running, took.

``python -m benchmarks.start.meter`` is the process that all those commands descend from: detached ones come back to it, because it is
their subreaper. It takes requests and gives answers as JSON, one a line; when its input ends it kills what is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

TICK = 1 / os.sysconf("SC_CLK_TCK")
PAUSE = 0.005
"""Seconds between two looks at whether a command is done."""
ASK_PAUSE = 0.1
"""Seconds between two questions to a service, whose answers are work of the client's as well."""
_PR_SET_CHILD_SUBREAPER = 36


class Cost(NamedTuple):
    """``seconds`` of wall clock until it was ready; ``cpu`` seconds of all processes of the client, up to the end of the command when
    there was one; the exit ``status``, None for a command that was still running; seconds until it ``ended``.
    """

    seconds: float
    cpu: float
    status: int | None
    ended: float


class Client:
    """A context: a client without any history, whose processes are all killed at the end."""

    def __init__(self, env: dict[str, str], cwd: Path) -> None:
        root = Path(__file__).resolve().parents[2]
        self._env, self._cwd = env, cwd
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(cwd)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, start_new_session=True,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate(timeout=60)

    def run(self, command: list[str], limit: float = 300.0, ready: dict[str, Any] | None = None, **env: str) -> Cost:
        """Run a command to its end; its output goes to ``log`` in the working directory.

        With ``ready`` its time is up before: ``{"file": PATH}``, when that file is there, and then the command is left alone;
        ``{"workers": N, "control": PORT}`` or ``{"workers": N, "pool": PATH of pool.json}``, when the coaster service lists so many;
        with ``"settled": S`` also when it listed the last that came, if no more have come for S seconds.
        Raises TimeoutError with the end of the output.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("the meter has no pipes")
        request = {"command": command, "env": {**self._env, **env}, "ready": ready, "limit": limit}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise TimeoutError(answer["error"])
        return Cost(**answer)

    def log(self) -> str:
        """What the last command said."""
        return (self._cwd / "log").read_text(errors="replace")


class _Tree:
    """The processes that descend from this one."""

    def __init__(self) -> None:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "this process cannot be a subreaper")
        self.reaped = 0.0

    def reap(self) -> dict[int, int]:
        """Take the ended children off the system's hands; process id to exit status."""
        ended = {}
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, used = os.wait4(-1, os.WNOHANG)
                if not pid:
                    break
                ended[pid] = os.waitstatus_to_exitcode(status)
                self.reaped += used.ru_utime + used.ru_stime
        return ended

    def cpu(self) -> float:
        """CPU seconds of all descendants there have been; what has ended must have been reaped."""
        return self.reaped + sum(_cpu(pid) for pid in self.living())

    @staticmethod
    def living() -> list[int]:
        parents = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(name)] = int(_stat(int(name))[1])
        ours = {os.getpid()}
        size = 0
        while len(ours) > size:
            size = len(ours)
            ours |= {pid for pid, parent in parents.items() if parent in ours}
        return sorted(ours - {os.getpid()})


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu(pid: int) -> float:
    """CPU seconds of a living process and of its children that it has waited for. The kernel's ticks are too coarse for the former."""
    own = waited = 0.0
    with contextlib.suppress(OSError):
        fields = _stat(pid)
        own, waited = (TICK * (int(fields[i]) + int(fields[i + 1])) for i in (11, 13))
        own = max(own, sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9)
    return own + waited


def _listed(ready: dict[str, Any]) -> int:
    """How many workers the coaster service lists."""
    try:
        control = ready.get("control") or json.loads(Path(ready["pool"]).read_text())["control_url"].rsplit(":", 1)[1].strip("/")
        with urllib.request.urlopen(f"http://127.0.0.1:{control}/wmInfo", timeout=5) as answer:
            return len(json.load(answer)["blocks"])
    except (OSError, ValueError, KeyError):
        return 0


class _Watch:
    """When what is waited for is there: what ``ready`` names, and without it the end of the command."""

    def __init__(self, ready: dict[str, Any] | None) -> None:
        self.ready = ready
        self.most = 0
        self.last = 0.0
        self.spent: float | None = None

    def done(self, now: float, status: int | None, cpu: Callable[[], float]) -> tuple[float, float] | None:
        """Seconds and CPU seconds then; None while it is not."""
        if self.ready is None:
            return (now, cpu()) if status is not None else None
        if "file" in self.ready:
            return (now, cpu()) if os.path.exists(self.ready["file"]) else None
        listed = _listed(self.ready)
        if listed > self.most:
            self.most, self.last, self.spent = listed, now, None
        elif self.spent is None and "settled" in self.ready:
            self.spent = cpu()  # not while more come: with many processes it is work, which would make what is measured slower
        settled = self.most > 0 and now - self.last > self.ready.get("settled", now)
        return (self.last, self.spent or cpu()) if listed >= self.ready["workers"] or settled else None


def _run(tree: _Tree, cwd: str, command: list[str], env: dict[str, str], ready: dict[str, Any] | None, limit: float) -> dict[str, Any]:
    tree.reap()
    cpu, began = tree.cpu(), time.monotonic()
    with open(os.path.join(cwd, "log"), "wb") as log:
        process = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    watch, done, status = _Watch(ready), None, None
    while True:
        ended = tree.reap()
        if process.pid in ended:
            status = process.returncode = ended[process.pid]
        done = done or watch.done(time.monotonic() - began, status, lambda: tree.cpu() - cpu)
        if status or (done is not None and (status is not None or (ready and "file" in ready))):
            now = time.monotonic() - began
            settled = done is not None and watch.most < (ready or {}).get("workers", 0)
            return {"seconds": done[0] if done else now, "cpu": done[1] if done and settled else tree.cpu() - cpu, "status": status, "ended": now}
        if time.monotonic() - began > limit:
            said = Path(cwd, "log").read_text(errors="replace")[-2000:]
            return {"error": f"{command[0]} was not done after {limit:g} s; it said: {said}"}
        time.sleep(ASK_PAUSE if ready else PAUSE)


def main(cwd: str) -> None:
    """Answer requests until the input ends."""
    tree = _Tree()
    for line in sys.stdin:
        print(json.dumps(_run(tree, cwd, **json.loads(line))), flush=True)
    while living := tree.living():
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)
        tree.reap()


if __name__ == "__main__":
    main(sys.argv[1])
