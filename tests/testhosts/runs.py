# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run: one set of test hosts, the folder and the names it owns, and how all of it is removed again.

Whatever a run makes outside its own processes' memory is found again from its folder alone, so that a run whose
program was killed can be swept by anybody: ``BASE/<number>.owner`` (process id and start time of the owner; made
atomically, it is what claims the number) and ``BASE/<number>/`` with a file ``<host>/pids`` for each host.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

BASE = Path("/tmp") / f"testhosts-{os.getuid()}"
MARK = "COASTER_TEST_HOST"
"""Environment variable that every process of a plain host inherits; its value is the host's folder."""
RUNS = 1024


class Process(NamedTuple):
    """A process as the client sees it: ``pid`` can be given to os.kill from there; ``args`` is the command line, joined by blanks."""

    pid: int
    ppid: int
    args: str


def processes(wanted: Callable[[int], bool] = lambda pid: True) -> Iterator[Process]:
    """Every process of this machine that has a command line (no kernel threads, no zombies) and whose id is ``wanted``."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and wanted(int(entry)):
            with contextlib.suppress(OSError):
                folder = Path("/proc", entry)
                args = (folder / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
                if args:
                    yield Process(int(entry), int(_stat(int(entry))[1]), args)


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/<pid>/stat`` from the state on: [state, ppid, ...]; raises OSError when there is no such process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def identity(pid: int) -> str:
    """``"<pid> <start time>"``: names a process so that a reused process id is not taken for it. Raises OSError when it is gone."""
    return f"{pid} {_stat(pid)[19]}"


def alive(who: str) -> bool:
    """Whether the process named by identity() still runs (a zombie does not)."""
    pid, dummy, started = who.partition(" ")
    try:
        stat = _stat(int(pid))
    except (OSError, ValueError):
        return False
    return stat[19] == started and stat[0] not in "ZX"


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; nothing happens when the process is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def bury(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that is ending, and close the pipes to it."""
    process.wait(timeout=60)
    with process:
        pass


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until ``condition()`` is true; whether it became so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def bridge(number: int) -> str:
    return f"th{number}"


def link(number: int, host: int) -> str:
    """The client's end of a host's cable."""
    return f"th{number}h{host}"


def wire(number: int, host: int) -> str:
    """The bridge's end of a host's cable while a wire is between."""
    return f"th{number}w{host}"


def group(number: int) -> int:
    """Every link of a run is in this link group, so that one call removes them all."""
    return 0x7E570000 + number


def claim() -> int:
    """Take a free run number, and make its owner file and its folder."""
    BASE.mkdir(mode=0o700, exist_ok=True)
    if BASE.stat().st_uid != os.getuid():
        raise PermissionError(f"{BASE} belongs to somebody else: remove it")
    with tempfile.NamedTemporaryFile("w", dir=BASE) as mine:
        mine.write(identity(os.getpid()))
        mine.flush()
        for number in range(RUNS):
            if bridge_exists(number) or folder(number).exists():
                continue
            try:
                os.link(mine.name, owner_file(number))
            except FileExistsError:
                continue
            folder(number).mkdir()
            return number
    raise RuntimeError(f"all {RUNS} run numbers are taken: sweep {BASE}")


def owner_file(number: int) -> Path:
    return BASE / f"{number}.owner"


def owner(number: int) -> str:
    """The owner of the run as identity() names it; empty when nobody has it (any more)."""
    try:
        return owner_file(number).read_text()
    except FileNotFoundError:
        return ""


def folder(number: int) -> Path:
    return BASE / str(number)


def python(*arguments: str) -> tuple[list[str], Path]:
    """Command line and folder to run ``python -m`` this package, however it was imported."""
    package = __name__.rpartition(".")[0]
    return [sys.executable, "-m", package, *arguments], Path(__file__).resolve().parents[package.count(".") + 1]


class Reaper:
    """A process that outlives us, to remove our run when we end without doing so (even by SIGKILL): then its input ends."""

    def __init__(self) -> None:
        command, cwd = python("reap", identity(os.getpid()))
        self._process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE, start_new_session=True)

    def dismiss(self) -> None:
        """The run is removed: end the reaper. Nothing happens the second time."""
        if self._process.poll() is None:
            self._process.communicate(b"done", timeout=60)

    @staticmethod
    def watch(owner: str) -> None:
        """What the reaper does for the program that identity() names so."""
        if not sys.stdin.buffer.read():
            # A killed program's files are closed a moment before it counts as dead.
            while alive(owner):
                time.sleep(0.02)
            sweep()


def sweep() -> list[int]:
    """Remove what dead runs of this user left behind; their numbers."""
    if not BASE.exists():
        return []
    with (BASE / "lock").open("w") as lock:
        # One at a time, or a slow one could remove a run that took the number anew.
        fcntl.flock(lock, fcntl.LOCK_EX)
        owners = {int(path.stem): owner(int(path.stem)) for path in BASE.glob("*.owner")}
        dead = [number for number, who in owners.items() if who and not alive(who)]
        for number in dead:
            remove(number)
    return dead


def remove(number: int) -> None:
    """End every process of the run and remove its links, mounts and folder. Nothing happens when that is done already."""
    where = folder(number)
    _end_processes(where)
    if os.getuid() == 0 and bridge_exists(number):
        subprocess.run(["ip", "link", "del", "group", str(group(number))], check=True, capture_output=True)
    for point in _mounts(where):
        subprocess.run(["umount", "--lazy", point], check=False)
    shutil.rmtree(where, ignore_errors=True)
    owner_file(number).unlink(missing_ok=True)


def bridge_exists(number: int) -> bool:
    return Path("/sys/class/net", bridge(number)).exists()


def _end_processes(where: Path) -> None:
    records = list(where.glob("*/pids"))
    for who in _recorded(records):
        # A stopped sshd starts no session while we look.
        send(int(who.split()[0]), signal.SIGSTOP)
    wait_until(lambda: not kill(belonging(where, records), signal.SIGKILL), 30)


def kill(pids: Iterable[int], number: signal.Signals) -> int:
    """Send a signal to each; how many there are."""
    all_of_them = list(pids)
    for pid in all_of_them:
        send(pid, number)
    return len(all_of_them)


def belonging(where: Path, records: Iterable[Path]) -> set[int]:
    """Processes named in these files, or marked() with a folder at or below ``where``, and all that descend from them."""
    everything = list(processes())
    ours = marked(where) | {int(who.split()[0]) for who in _recorded(records)}
    size = 0
    while len(ours) > size:
        size = len(ours)
        ours |= {process.pid for process in everything if process.ppid in ours}
    return ours - {os.getpid()}


def record(file: Path, pids: Iterable[int]) -> None:
    """Append processes to a host's file ``pids``."""
    with file.open("a") as lines:
        for pid in pids:
            with contextlib.suppress(OSError):
                lines.write(f"{identity(pid)}\n")


def _recorded(records: Iterable[Path]) -> list[str]:
    return [who for file in records if file.exists() for who in file.read_text().splitlines() if alive(who)]


def marked(where: Path) -> set[int]:
    """Processes whose environment says that they belong to a plain host, or have the home of a client, below the folder.

    What a program under test has left on the client would else go on, and take the hosts of a later run for its own.
    """
    found = set()
    pattern = re.compile(rb"(?:^|\0)(?:HOME|%s)=%s(?:/[^\0]*)?\0" % (MARK.encode(), re.escape(str(where).encode())))
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if pattern.search(Path("/proc", entry, "environ").read_bytes()):
                    found.add(int(entry))
    return found


def _mounts(where: Path) -> list[str]:
    """Mount points at or below the folder, deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = [point for point in points if point == str(where) or point.startswith(f"{where}/")]
    return sorted(ours, key=len, reverse=True)
