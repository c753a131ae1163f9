# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts and stops the coaster service of a pool on this machine, through the pool's keeper."""

import contextlib
import errno
import fcntl
import ipaddress
import os
import pkgutil
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time

from . import state, swift, systemd
from .coaster import bundle, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

    # Ansible packs only what it sees imported; these are read as text and run as programs of their own.
    from . import keeper, tunnel_requests, tunnels  # noqa: F401
    from .coaster import service_command, submit_command, worker_command  # noqa: F401

ENGINES = ("auto", "builtin", "swift")
STOP_LIMIT = 15.0
"""Seconds that a keeper has to end its service and itself."""
GUARD_LIMIT = 7.0
"""Seconds in which the guard of a keeper that was killed has ended the service (keeper.LEASH)."""
UNIT_ENVIRONMENT = ("HOME", "PATH", "SSH_AUTH_SOCK", "XDG_STATE_HOME")
"""What a keeper under systemd takes along of the environment of the process that starts it, for the pool's folder and the ssh of tunnels."""
_PAUSE = 0.02


class LaunchError(Exception):
    """The service cannot be started or stopped; the text says why and what to do. ``log`` has its last lines."""

    def __init__(self, sentence: str, log: "Optional[List[str]]" = None) -> None:
        super().__init__(sentence)
        self.log = log or []


class Wanted:
    """The service that is asked for. Ports: 0 is any free one; addresses: None leaves the choice to the program; ``users``:
    names of those who may be clients over loopback beside the user of this process."""

    def __init__(
        self, pool: str, engine: str = "auto", bin_dir: "Optional[str]" = None, service_port: int = 4050, worker_port: int = 4051,
        control_port: int = 0, listen: "Optional[str]" = None, reach: "Sequence[str]" = (),
        address: "Optional[str]" = None, owner: "Optional[int]" = None, limit: float = 30.0, users: "Sequence[str]" = (),
        supervisor: str = "detached"
    ) -> None:
        self.pool, self.bin_dir, self.listen, self.reach = pool, bin_dir, listen, reach
        self.address, self.owner, self.limit, self.users, self.supervisor = address, owner, limit, users, supervisor
        self.ports = {"service": service_port, "worker": worker_port, "control": control_port}
        self.engine = engine
        if engine != "builtin" and not bin_dir:
            self.bin_dir = swift.in_path()
        if engine == "auto":
            self.engine = "swift" if self.bin_dir else "builtin"


def running(pool: str) -> "Optional[Dict[str, Any]]":
    """The content of pool.json while the pool's keeper lives, else None."""
    known = state.read_json(os.path.join(state.folder(pool), "pool.json"))
    return known if known and state.alive(known.get("keeper")) else None


def start(wanted: Wanted, wait: bool = True, check: bool = False) -> "Dict[str, Any]":
    """Start the service unless it runs. Returns pool.json's content and ``changed``; with ``check`` nothing is done.

    Without ``wait`` the result may lack the addresses, which answer() then waits for.
    Raises LaunchError or state.StateError.
    """
    folder = state.folder(wanted.pool)
    known = running(wanted.pool)
    if known is not None:
        return dict(known, changed=False)
    if check or failure(wanted.pool) is not None:
        _begin(folder, wanted, check)
    if check:
        return {"name": wanted.pool, "engine": wanted.engine, "bin_dir": wanted.bin_dir, "changed": True}
    if not wait:
        return {"name": wanted.pool, "engine": wanted.engine, "changed": True}
    return dict(answer(wanted.pool, wanted.limit), changed=True)


def _begin(folder: str, wanted: Wanted, check: bool) -> None:
    """Start the keeper, unless somebody else has meanwhile. Raises LaunchError or state.StateError."""
    java = None
    user_ids(wanted.users)
    try:
        if wanted.supervisor == "systemd":
            _unit(wanted.pool).check()
        if wanted.engine == "swift":
            wanted.bin_dir = swift.check(wanted.bin_dir)
            java = swift.find_java()
        if check:
            check_ports(wanted.ports, wanted.listen if wanted.engine == "builtin" else None)
            return
        with _locked(folder):
            if running(wanted.pool) is None and failure(wanted.pool) is not None:
                _launch(folder, wanted, java)
    except (swift.SwiftError, systemd.SystemdError) as error:
        raise LaunchError(str(error)) from error


def answer(pool: str, limit: float, pause: "Callable[[float], object]" = time.sleep) -> "Dict[str, Any]":
    """pool.json's content once the service answers. Raises LaunchError when it does not within ``limit`` seconds.

    ``pause``: takes so many seconds; what it raises ends the waiting.
    """
    until = time.monotonic() + limit
    while True:
        known = running(pool)
        if known is not None:
            return known
        error = failure(pool)
        if error is not None:
            raise error
        if time.monotonic() > until:
            raise LaunchError("the coaster service of pool %r did not answer within %g s" % (pool, limit))
        pause(_PAUSE)


def failure(pool: str) -> "Optional[LaunchError]":
    """Why the pool has no service; None while its keeper keeps one or is about to."""
    folder = state.folder(pool)
    alive = state.alive(_keeper(folder))
    known = state.read_json(os.path.join(folder, "pool.json")) or {}
    if "error" in known:
        return _explained(known["error"], known.get("log") or [])
    return None if alive else LaunchError("the coaster service of pool %r is not running: start it first" % pool)


def stop(pool: str, keep_logs: bool = False, check: bool = False) -> bool:
    """End the pool's keeper, service and all they started, and remove the pool's folder; whether there was anything.

    Safe at any moment, also after a start that was cut off. Raises LaunchError when something of it does not end.
    """
    folder = state.folder(pool)
    if not os.path.isdir(folder):
        return False
    if check:
        return not keep_logs or os.listdir(folder) != ["logs"]
    with _locked(folder):
        _end_all(folder)
        names = [name for name in os.listdir(folder) if name not in ("lock", "logs" if keep_logs else "")]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        os.unlink(os.path.join(folder, "lock"))
    if not keep_logs:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return bool(names) or not keep_logs


def worker_addresses(reach: "Sequence[str]") -> "List[str]":
    """Loopback, and the addresses of this machine from which it reaches the hosts or networks; nothing is sent.

    A host that does not resolve is passed over: it is named when it is contacted.
    """
    found = ["127.0.0.1"]
    for word in reach:
        with contextlib.suppress(OSError, ValueError):
            there = str(ipaddress.ip_network(word, strict=False)[0]) if "/" in word else word
            family, kind, protocol, _name, address = socket.getaddrinfo(there, 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                mine = str(probe.getsockname()[0])
            if mine not in found and mine != "::1":
                found.append(mine)
    return found


def check_ports(ports: "Dict[str, int]", address: "Optional[str]" = None) -> None:
    """Raises LaunchError when one of the ports is not to be had at the address (None: at any)."""
    for port in ports.values():
        if port and list(ports.values()).count(port) > 1:
            raise LaunchError("port %d is given twice: choose another port for clients or for workers" % port)
        try:
            sockets.listen(address, port).close()
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", 0) != errno.EADDRINUSE:
                raise LaunchError("port %d cannot be used (%s): choose another port" % (port, error)) from error
            holder = sockets.holder(port) or "another process"
            raise LaunchError("port %d is taken by %s: end that process or choose another port" % (port, holder)) from error


def user_ids(names: "Sequence[str]") -> str:
    """The ids of this process's user and of the named ones, as the service takes them. Raises LaunchError."""
    found = [os.getuid()]
    for name in names:
        try:
            found.append(pwd.getpwnam(name).pw_uid)
        except (KeyError, ValueError, UnicodeError) as error:
            raise LaunchError("there is no user %r on this machine who could be allowed: check the name" % name) from error
    return ",".join(str(user) for user in dict.fromkeys(found))


def announced_address(wanted: Wanted) -> str:
    """The address of this machine in the URLs that the service announces.

    Swift/K listens on all addresses whatever it announces: where workers connect directly it is the one that leads to
    them, which clients here can use as well. Never 127.0.1.1, which many systems give to their own name.
    """
    address = wanted.address or wanted.listen
    if wanted.engine == "swift" and not wanted.address:
        address = (worker_addresses(wanted.reach) + [address or ""])[1]
    resolved = address
    with contextlib.suppress(OSError, UnicodeError):
        resolved = socket.gethostbyname(address or "")
    if address and resolved not in ("0.0.0.0", "::", "127.0.1.1"):
        return address
    return sockets.outward_address() or "127.0.0.1"


def _launch(folder: str, wanted: Wanted, java: "Optional[swift.Java]") -> None:
    _end_all(folder)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, "pool.json"))
    logs = os.path.join(folder, "logs")
    state.make_folder(logs)
    command = []
    if java is not None:
        check_ports(wanted.ports)  # Swift/K itself overlooks a busy port for workers
        bin_dir = swift.furnish(folder, str(wanted.bin_dir), java)
    else:
        bin_dir = os.path.join(folder, "bin")
        bundle.programs(bin_dir, sys.executable)
        if wanted.listen:
            command += ["-listen", wanted.listen]
        command += ["-workerlisten", ",".join(worker_addresses(wanted.reach))]
        command += ["-workers", os.path.join(folder, "workers"), "-users", user_ids(wanted.users)]
    command = [os.path.join(bin_dir, "coaster-service"), "-nosec", "-passive", "-logdir", logs] + command
    state.write_json(os.path.join(folder, "keeper.json"), {
        "name": wanted.pool,
        "engine": wanted.engine,
        "bin_dir": bin_dir,
        "supervisor": wanted.supervisor,
        "command": command,
        "environment": {"GLOBUS_HOSTNAME": announced_address(wanted)},
        "owner": {"pid": wanted.owner, "started": state.start_time(wanted.owner)} if wanted.owner else None,
        "ports": wanted.ports,
        "limit": wanted.limit,
    })
    program = os.path.join(folder, "program")
    state.make_folder(program)
    state.write(os.path.join(program, "__init__.py"), b"")
    for name in ("keeper.py", "state.py", "tunnel_requests.py", "tunnels.py"):
        state.write(os.path.join(program, name), pkgutil.get_data(str(__package__), name) or b"")
    keep = [sys.executable, "-m", "program.keeper", folder]
    log = os.path.join(logs, "keeper.log")
    if wanted.supervisor == "systemd":
        environment = {name: os.environ[name] for name in UNIT_ENVIRONMENT if name in os.environ}
        pid = _unit(wanted.pool).start("Coaster service of the pool %s" % wanted.pool, keep, environment, folder, log)
    else:
        pid = _detach(keep, folder, log)
    state.write_json(os.path.join(folder, "keeper.pid"), {"pid": pid, "started": state.start_time(pid)})


def _detach(command: "List[str]", folder: str, log: str) -> int:
    """Start a process of its own, which outlives this one; its id."""
    with open(log, "ab") as file:
        keeper = subprocess.Popen(  # pylint: disable=ansible-bad-function  # it outlives the module
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, cwd=folder,
        )
    keeper.returncode = 0  # it outlives this process on purpose
    return keeper.pid


def _unit(pool: str) -> systemd.Unit:
    return systemd.Unit("coaster-service-%s" % pool, os.getuid())


def _keeper(folder: str) -> "Optional[Dict[str, Any]]":
    return state.read_json(os.path.join(folder, "keeper.pid"))


def _end_all(folder: str) -> None:
    """End the pool's keeper and what it started. Raises LaunchError."""
    known = state.read_json(os.path.join(folder, "pool.json")) or {}
    keeper = _keeper(folder)
    if (state.read_json(os.path.join(folder, "keeper.json")) or {}).get("supervisor") == "systemd":
        _unit(os.path.basename(folder)).remove()
    if keeper is not None and state.alive(keeper):
        _end(keeper, signal.SIGTERM)
    _await_group(known.get("service"))


def _end(process: "Dict[str, Any]", number: int) -> None:
    """End a process, by force after STOP_LIMIT."""
    for signal_number in (number, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], signal_number)
        until = time.monotonic() + STOP_LIMIT
        while state.alive(process):
            if time.monotonic() > until:
                break
            time.sleep(_PAUSE)
        else:
            return
    raise LaunchError("process %d does not end: end it by hand" % process["pid"])


def _await_group(service: "Optional[Dict[str, Any]]") -> None:
    """After the end of a keeper: wait for what it may have left, which its guard in the service's process group ends."""
    if service is None:
        return
    until = time.monotonic() + GUARD_LIMIT
    while state.group_alive(service["pid"]):
        if time.monotonic() > until:
            if state.alive(service):
                os.killpg(service["pid"], signal.SIGKILL)
            return
        time.sleep(_PAUSE)


def _explained(error: str, log: "List[str]") -> LaunchError:
    """With the line of the service's output that says why, when there is one, and the log, when there is more in it."""
    telling = [line for line in log if line.startswith("Error")][:1] or [line for line in log if "Error" in line][-1:]
    return LaunchError(": ".join([error] + telling), [] if log == telling else log)


@contextlib.contextmanager
def _locked(folder: str) -> "Iterator[None]":
    """One start or stop of a pool at a time. The folder is there, also when a stop before us has removed it."""
    with contextlib.ExitStack() as stack:
        while not _lock(folder, stack):
            pass
        yield


def _lock(folder: str, stack: contextlib.ExitStack) -> bool:
    """Wait for the folder's lock; whether it is still the folder's when it is ours."""
    path = os.path.join(folder, "lock")
    state.make_folder(folder)
    try:
        lock = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        stack.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except FileNotFoundError:
        return False
