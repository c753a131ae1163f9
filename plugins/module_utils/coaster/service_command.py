# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program ``coaster-service``: drop-in for Swift/K's by options, output lines and exit status (coaster-protocol 6.1).

Exit status: 0 help; 1 usage error; 2 the service cannot start; 3 a mode that this engine does not have;
128 + N when ended by signal N (130 SIGINT, 143 SIGTERM).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import pwd
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections import deque
from typing import Sequence

from . import options, sockets
from .admission import Admission
from .control import Control
from .options import Option, UsageError
from .screen import END, MAX_MESSAGES, START, Screen
from .service import MAX_CONNECTIONS, MAX_REFUSED, Service

DEFAULT_PORT = 1984
SPARE_FILES = MAX_REFUSED + 64
"""Open files that are kept for peers that are told why they are refused, and for other things than connections; half of all files
where a process may have only few."""
COLLECT_AFTER = 20000
"""Objects made and not freed after which Python looks for those that only refer to each other."""

OPTIONS = [
    Option("port", "p", "port", "port for clients, 0 = any free one (default %d)" % DEFAULT_PORT),
    Option("localport", "", "port", "port for workers (default any free one)"),
    Option("portfile", "S", "file", "choose the port for clients freely and write it to this file"),
    Option("localportfile", "W", "file", "choose the port for workers freely and write it to this file"),
    Option("nosec", "", "", "plain TCP; required, this engine has no GSI security"),
    Option("proxy", "", "file", "GSI credential; not used"),
    Option("local", "", "", "bind the port for clients to the address of the local host name"),
    Option("passive", "", "", "passive workers; required, this engine starts none itself"),
    Option("shared", "", "file", "shared block allocator; not supported by this engine"),
    Option("controlPort", "", "port", "port for statistics over HTTP on the loopback interface, 0 = any free one"),
    Option("logdir", "", "directory", "where the log file goes (default the current directory)"),
    Option("stats", "", "", "show a screen of statistics"),
    Option("listen", "", "address", "bind the port for clients to this address (default all interfaces)"),
    Option("workerlisten", "", "address", "bind the port for workers to these addresses, A,B (default all interfaces)"),
    Option("workers", "", "file", "only workers with a block id in this file may register (lines: BLOCKID [NAME])"),
    Option("users", "", "users", "only these users (names or ids, comma between) may connect over loopback"),
    Option("resubmit", "", "times", "how often a job whose worker is lost goes back to the queue (default 0)"),
    Option("help", "h", "", "show this"),
]

_GOODBYE = "Shutting down service..."
_ALL_ADDRESSES = ("0.0.0.0", "::")
_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}
_CONTROL_CHARACTERS = {code: "?" for code in (*range(32), *range(127, 160)) if code != 10}

log = logging.getLogger("CoasterServiceCommand")


class StartError(Exception):
    """The service cannot start; the text says why."""


class Configuration:
    """What a command line asks for. Raises UsageError."""

    def __init__(self, argv: Sequence[str]) -> None:
        values, rest = options.parse(argv, OPTIONS)
        self.values = values
        self.help = "help" in values
        if rest:
            raise UsageError("Unexpected argument: %s (coaster-service takes options only)" % rest[0])
        for port, file in (("port", "portfile"), ("localport", "localportfile")):
            if port in values and file in values:
                raise UsageError("-%s and -%s are mutually exclusive" % (file, port))
        if "local" in values and "listen" in values:
            raise UsageError("-local and -listen are mutually exclusive")
        self.port = 0 if "portfile" in values else options.number(values, "port", DEFAULT_PORT, most=65535)
        self.local_port = options.number(values, "localport", 0, most=65535)
        self.control_port = options.number(values, "controlPort", -1, most=65535)
        self.resubmit = options.number(values, "resubmit", 0)
        self.users = [_user(name) for name in values["users"].split(",")] if "users" in values else None

    def unsupported(self) -> str | None:
        """A sentence about a mode that was asked for and does not exist here, or None."""
        if "shared" in self.values and "passive" in self.values:
            return "You cannot specify both -shared and -passive. Passive workers are shared by all clients anyway."
        if "nosec" not in self.values:
            return "Error loading credential: this engine has no GSI security; start it with -nosec."
        if "passive" not in self.values:
            return "This engine starts no workers by itself; start it with -passive."
        return None


class LogFormatter(logging.Formatter):
    """``YYYY-MM-DD HH:MM:SS,mmm+ZZZZ LEVEL Class message``, without control characters that a peer may have sent."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return log_line(record.created, record.levelname, record.name, super().format(record))


def log_line(created: float, level: str, name: str, message: str) -> str:
    """One line of the log; ``created`` in seconds since the epoch."""
    moment = time.localtime(created)
    return "%s,%03d%s %-5s %s %s" % (
        time.strftime("%Y-%m-%d %H:%M:%S", moment), int(created * 1000) % 1000, time.strftime("%z", moment),
        _LEVELS.get(level, level), name, message.translate(_CONTROL_CHARACTERS),
    )


class LastMessages(logging.Handler):
    """Keeps the last warnings for the screen."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[str] = deque(maxlen=MAX_MESSAGES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record's line."""
        self.lines.append(log_line(record.created, record.levelname, record.name, record.getMessage()))


class Painter(threading.Thread):
    """Writes pictures to standard output; a terminal that takes none holds up nothing but this thread."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._pictures: queue.Queue[str] = queue.Queue(2)

    def run(self) -> None:
        """Write until the last picture, or until nobody reads any more."""
        picture = self._pictures.get()
        with contextlib.suppress(OSError):
            while picture:
                left = picture.encode("utf-8", "replace")
                while left:
                    left = left[os.write(1, left):]
                picture = self._pictures.get()

    def paint(self, picture: str) -> None:
        """Show this next, unless the terminal is behind."""
        with contextlib.suppress(queue.Full):
            self._pictures.put_nowait(picture)

    def finish(self, picture: str) -> None:
        """Show this as the last one and wait a moment until it is there."""
        with contextlib.suppress(queue.Full):
            self._pictures.put(picture, timeout=0.1)
            self._pictures.put("", timeout=0.1)
            self.join(0.1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a service until a signal ends it; the exit status."""
    try:
        configuration = Configuration(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        sys.stderr.write("%s\n" % error)
        say(_usage(), end="")
        return 1
    if configuration.help:
        say(_usage(), end="")
        return 0
    complaint = configuration.unsupported()
    if complaint is not None:
        sys.stderr.write("%s\n" % complaint)
        return 3
    try:
        return asyncio.run(_serve(configuration))
    except StartError as error:
        say("Error starting coaster service: %s" % error)
        log.error("Error starting coaster service: %s", error)
        return 2


async def _serve(configuration: Configuration) -> int:
    """Start everything, announce it, wait for a signal, stop."""
    values = configuration.values
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _end, ended, number)
    messages = _start_log(values.get("logdir"))
    address = _local_address() if "local" in values else values.get("listen")
    client_socket = _listen(address, configuration.port)
    first, *others = (values.get("workerlisten") or "").split(",")
    worker_socket = _listen(first or None, configuration.local_port)
    other_sockets = [_listen(other, worker_socket.getsockname()[1]) for other in others]
    service = Service(
        resubmit=configuration.resubmit, admission=Admission(values.get("workers"), configuration.users),
        max_connections=_connections(_open_files()),
    )
    host = announced_host(os.environ)
    url, worker_url = _url(client_socket, host), _url(worker_socket, host)
    control = Control(service, url, worker_url)
    if configuration.control_port >= 0:
        control_socket = _listen("127.0.0.1", configuration.control_port)
        await control.start(control_socket)
        say("Settings server URL: http://localhost:%d" % control_socket.getsockname()[1])
    await service.start(client_socket, worker_socket, *other_sockets)
    _write_port(values.get("portfile"), client_socket)
    _write_port(values.get("localportfile"), worker_socket)
    say("Started coaster service: " + url)
    say("Worker connection URL: " + worker_url)
    log.info("clients connect to %s, workers to %s", url, worker_url)
    # What is loaded now stays; and to search for cycles as often as Python does by itself costs a tenth of the CPU of a busy service.
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    painter = asyncio.ensure_future(_show(control, messages)) if "stats" in values else None
    signalled = await ended
    log.info("ended by signal %d", signalled)
    if painter is None:
        say(_GOODBYE)
    else:
        painter.cancel()
        await asyncio.wait([painter])
    await service.stop()
    return 128 + signalled


def _end(ended: asyncio.Future[int], number: int) -> None:
    if not ended.done():
        ended.set_result(number)


async def _show(control: Control, messages: LastMessages) -> None:
    """Draw the screen each second until cancelled."""
    screen, painter = Screen(), Painter()
    painter.start()
    painter.paint(START)
    try:
        while True:
            painter.paint(screen.frame(control.information(), messages.lines))
            await asyncio.sleep(1)
    finally:
        painter.finish(END + "\n" + _GOODBYE + "\n")


def announced_host(environment: os._Environ[str] | dict[str, str]) -> str:
    """The address in the URLs for ports on all interfaces: GLOBUS_HOSTNAME if it resolves; else that of the host name,
    or when that is a loopback one (127.0.1.1 on Debian) another one of this machine; else 127.0.0.1."""
    for name in (environment.get("GLOBUS_HOSTNAME"), socket.gethostname()):
        try:
            found = sockets.ipv4_address(name) if name else ""
        except (OSError, UnicodeError):
            continue
        if found and (not found.startswith("127.") or name == environment.get("GLOBUS_HOSTNAME")):
            return found
    return sockets.outward_address() or "127.0.0.1"


def say(line: str, end: str = "\n") -> None:
    """Write to standard output at once; when nobody reads it any more, the service goes on."""
    try:
        sys.stdout.write(line + end)
        sys.stdout.flush()
    except OSError:  # Python would try to write it once more at its end, and then end with a status of its own
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _usage() -> str:
    return options.usage("coaster-service <options>", OPTIONS)


def _user(name: str) -> int:
    """The id of a user given by name or id. Raises UsageError."""
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise UsageError("The value of -users names an unknown user: %r" % name) from None


def _start_log(directory: str | None) -> LastMessages:
    """Open the log file, readable by this user only, and say where it is. Raises StartError."""
    name = time.strftime("cps-%Y-%m-%d_%H-%M-%S.log")
    try:
        if directory is not None:
            name = os.path.join(directory, name)
            os.makedirs(directory, exist_ok=True)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        file = os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StartError("the log file %s cannot be written: %s" % (name, error.strerror)) from error
    text = "Switching log to: " + name
    say(text)
    say(log_line(time.time(), "WARNING", "CoasterPersistentService", text))
    logging.raiseExceptions = False  # a full disk must not stop the service
    handler = logging.StreamHandler(file)
    handler.setFormatter(LogFormatter())
    messages = LastMessages()
    logging.basicConfig(level=logging.INFO, handlers=[handler, messages], force=True)
    return messages


def _listen(address: str | None, port: int) -> socket.socket:
    """A listening socket. Port 0 is any free one, of those in GLOBUS_TCP_PORT_RANGE if set. Raises StartError."""
    where = address if address not in (None, *_ALL_ADDRESSES) else None
    if address in _ALL_ADDRESSES:
        where = address
    low, high = _port_range() if port == 0 else (port, port)
    for candidate in range(low, high + 1):
        try:
            return sockets.listen(where, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise StartError("%s port %d: %s" % (address or "all interfaces,", candidate, error.strerror or error)) from error
    if port == 0:
        raise StartError("Address already in use: no port from %d to %d (GLOBUS_TCP_PORT_RANGE) is free" % (low, high))
    holder = sockets.holder(port)
    raise StartError("Address already in use: port %d is held by %s; end it, or choose another port" % (
        port, holder or "a process that this user cannot see"))


def _port_range() -> tuple[int, int]:
    text = os.environ.get("GLOBUS_TCP_PORT_RANGE")
    if not text:
        return 0, 0
    try:
        low, high = (int(word) for word in text.replace(",", " ").split())
    except ValueError:
        raise StartError("GLOBUS_TCP_PORT_RANGE must be two numbers, low,high, not %r" % text) from None
    if not 0 < low <= high < 65536:
        raise StartError("GLOBUS_TCP_PORT_RANGE must be two ports, low,high, not %r" % text)
    return low, high


def _local_address() -> str:
    try:
        return sockets.ipv4_address(socket.gethostname())
    except OSError as error:
        raise StartError("-local: the host name %s has no address: %s" % (socket.gethostname(), error.strerror)) from error


def _url(listening: socket.socket, host: str) -> str:
    """The URL of a port: with its own address when it has one, else with ``host``."""
    address, port = listening.getsockname()[:2]
    if address in _ALL_ADDRESSES:
        address = host
    return "http://%s:%d" % ("[%s]" % address if ":" in address else address, port)


def _write_port(path: str | None, listening: socket.socket) -> None:
    """Put the port into the file, whole from the first moment. Raises StartError."""
    if path is None:
        return
    part = "%s.%d" % (path, os.getpid())
    try:
        with open(part, "w", encoding="ascii") as file:
            file.write(str(listening.getsockname()[1]))
        os.replace(part, path)
    except OSError as error:
        raise StartError("the port file %s cannot be written: %s" % (path, error.strerror)) from error


def _connections(files: int) -> int:
    """How many connections fit into this many open files."""
    return min(MAX_CONNECTIONS, max(files // 2, files - SPARE_FILES))


def _open_files() -> int:
    """How many files this process may have open, once it has asked for as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


if __name__ == "__main__":
    raise SystemExit(main())
