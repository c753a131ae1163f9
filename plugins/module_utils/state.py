# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pool keeps on the client: one folder a pool, mode 0700, below ``${XDG_STATE_HOME:-~/.local/state}/coasters``.

``pool.json``   the running pool: name, engine, url, worker_url, control_url, pids (written by the keeper)
``keeper.json`` how the keeper was started: the service's command line, who owns the pool
``workers``     the block ids that may register, one a line: ``ID NAME`` (mode 0600)
``logs/``       what the service and the keeper logged

Beside them ``.runs`` has the private folders of processes that work on pools, which others remove when a process was killed.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, TypeVar

    Made = TypeVar("Made")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")


RUNS = ".runs"
TRIES = 100
"""How often a folder is made, when others remove the one that it is in: each removes what it leaves empty."""


class StateError(Exception):
    """A pool's folder cannot be used; the text names it and what to do."""


def check_name(pool: str) -> str:
    """The pool's name, when it can be a folder's name. Raises StateError."""
    if not NAME.match(pool):
        raise StateError(
            "%r cannot be a pool's name: use letters, digits, '_', '.' and '-', starting with a letter or digit, at most 63" % pool
        )
    return pool


def root() -> str:
    """The folder that holds the folders of all pools of this user."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "coasters")


def folder(pool: str) -> str:
    """The pool's folder, which need not exist. Raises StateError on a bad name."""
    return os.path.join(root(), check_name(pool))


def make_folder(path: str) -> None:
    """Make the folder and its parents, for this user alone. Raises StateError when that is not possible."""
    _make(path, lambda: _make_folder(path))


def _make_folder(path: str) -> None:
    os.makedirs(path, mode=0o700, exist_ok=True)
    if os.stat(path).st_mode & 0o077:
        os.chmod(path, 0o700)


def _make(path: str, make: "Callable[[], Made]") -> "Made":
    tries = 0
    while True:
        try:
            return make()
        except OSError as error:
            tries += 1
            if tries == TRIES or not isinstance(error, FileNotFoundError):
                raise StateError("the folder %s cannot be made (%s): free it or set XDG_STATE_HOME" % (path, error.strerror)) from error


@contextlib.contextmanager
def private_folder() -> "Iterator[str]":
    """A folder for this process alone, which is gone after the context; of a killed process, sweep() removes it.

    Raises StateError when it cannot be made.
    """
    sweep()
    base = os.path.join(root(), RUNS)
    path = _make(base, lambda: _make_private_folder(base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(base)


def _make_private_folder(base: str) -> str:
    _make_folder(base)
    return tempfile.mkdtemp(prefix="%(pid)d.%(started)s." % this_process(), dir=base)


def sweep() -> None:
    """Remove the private folders of processes that are gone."""
    base = os.path.join(root(), RUNS)
    with contextlib.suppress(OSError):
        for name in os.listdir(base):
            pid, started = (name + "..").split(".")[:2]
            if not alive({"pid": int(pid) if pid.isdigit() else 0, "started": started}):
                shutil.rmtree(os.path.join(base, name), ignore_errors=True)
        os.rmdir(base)


def write(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace a file in one step, so that readers see the old content or the new."""
    handle, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix="." + os.path.basename(path))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_json(path: str, value: "Any") -> None:
    """write() of a JSON text."""
    write(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: str) -> "Optional[Dict[str, Any]]":
    """The object in a JSON file, None when there is no such file or it holds something else."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read().decode())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def block_ids(pool: str, hosts: "Iterable[str]") -> "Dict[str, str]":
    """The block id of each host of the pool: 128 random bits in hexadecimal, made when the host has none yet.

    They are kept in the pool's ``workers`` file, which the service reads again when it changed.
    """
    path = folder(pool)
    make_folder(path)
    with open(os.path.join(path, "workers.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read_workers(os.path.join(path, "workers"))
        missing = [host for host in hosts if host not in known]
        if missing:
            for host in missing:
                known[host] = secrets.token_hex(16)
            lines = "".join("%s %s\n" % (block, host) for host, block in known.items())
            write(os.path.join(path, "workers"), lines.encode())
    return {host: known[host] for host in hosts}


def take_over_blocks(pool: str, workers: str) -> None:
    """Let the pool's ``workers`` file have the text of one that is elsewhere."""
    path = folder(pool)
    make_folder(path)
    lines = "".join("%s %s\n" % (block, host) for host, block in _parse_workers(workers.splitlines()).items())
    write(os.path.join(path, "workers"), lines.encode())


def forget_blocks(pool: str, hosts: "Iterable[str]") -> None:
    """Take the hosts' block ids off the list: the service gives their workers no more jobs."""
    path = folder(pool)
    gone = set(hosts)
    with open(os.path.join(path, "workers.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read_workers(os.path.join(path, "workers"))
        lines = "".join("%s %s\n" % (block, host) for host, block in known.items() if host not in gone)
        write(os.path.join(path, "workers"), lines.encode())


def read_workers(path: str) -> "Dict[str, str]":
    """Host name to block id, as a ``workers`` file has them; empty when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return _parse_workers(file)
    except FileNotFoundError:
        return {}


def _parse_workers(lines: "Iterable[str]") -> "Dict[str, str]":
    rows = [line.split(None, 1) for line in lines]
    return {row[1].strip(): row[0] for row in rows if len(row) > 1}


def pools() -> "List[str]":
    """The names of the pools of this user that have a folder."""
    try:
        return sorted(name for name in os.listdir(root()) if NAME.match(name))
    except FileNotFoundError:
        return []


def start_time(pid: int) -> "Optional[str]":
    """A mark of when the process started, which tells it from a later one with the same id; None when it is gone.

    Where there is no /proc only whether the process lives is known, and the mark is empty.
    """
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    except OSError:
        pass
    if os.path.exists("/proc/self/stat"):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def alive(process: "Any") -> bool:
    """Whether the process ``{"pid": …, "started": …}`` of a state file still runs."""
    if not isinstance(process, dict) or not isinstance(process.get("pid"), int):
        return False
    mark = start_time(process["pid"])
    return mark is not None and mark == process.get("started")


def group_alive(group: int) -> bool:
    """Whether a process of the process group still runs. Where there is no /proc also zombies count."""
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        names = []
    if not names:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True
    for name in names:
        try:
            with open("/proc/%s/stat" % name, "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[2] == b"%d" % group and fields[0] not in (b"Z", b"X"):
            return True
    return False


def this_process() -> "Dict[str, Any]":
    """This process as alive() takes it."""
    return {"pid": os.getpid(), "started": start_time(os.getpid())}
