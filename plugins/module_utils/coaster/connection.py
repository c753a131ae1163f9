# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's or a submit client's connection to a coaster service: a socket that never blocks, and its channel.

Runs on Python 3.6 and later.
"""

import errno
import os
import select
import socket
import time
from collections import deque
from itertools import islice, takewhile

from .channel import ChannelError
from .staging import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, List, Set, Tuple

    from .channel import Channel, Event

    Address = Tuple[int, Any]

PLAIN_SCHEMES = ("http", "tcp")
GSI_SCHEMES = ("https", "tcps")
RECEIVE_SIZE = 262144
"""Most bytes that are taken from the socket at once."""

_MAX_VECTORS = 64
_EPOCH = time.time() - time.monotonic()


class AddressError(ValueError):
    """A service URL that cannot be used; the text says why."""


class Lost(Exception):
    """The connection to the service is gone or cannot be made; the text says why, ``number`` is the errno or 0."""

    def __init__(self, reason: str, number: int = 0) -> None:
        super().__init__(reason)
        self.number = number


def clock() -> float:
    """Seconds since the epoch that never run backwards."""
    return _EPOCH + time.monotonic()


def parse_url(url: str, default_port: int = 0) -> "Tuple[str, int]":
    """Host and port of a service URL ``http://host:port`` (coaster-protocol 1.1); ``default_port`` 0: the port is mandatory.

    Raises AddressError.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme in GSI_SCHEMES:
        raise AddressError("%s asks for GSI security, which this engine does not have: write http://HOST:PORT" % url)
    if scheme not in PLAIN_SCHEMES:
        raise AddressError("Scheme not supported: %s (in %s): write http://HOST:PORT" % (scheme, url))
    host, port = _split(rest.partition("/")[0])
    if not host or (not port and not default_port):
        raise AddressError("%s has no %s: write http://HOST:PORT" % (url, "port" if host else "host"))
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise AddressError("%s is not a port (in %s): write http://HOST:PORT" % (port, url))
    return host, int(port) if port else default_port


def _split(authority: str) -> "Tuple[str, str]":
    if authority.startswith("["):
        host, _bracket, rest = authority[1:].partition("]")
        return host, rest[1:]
    host, _colon, port = authority.partition(":")
    return host, port


def resolve(host: str, port: int) -> "List[Address]":
    """The addresses of a host, best first. Raises Lost when it has none."""
    try:
        # As bytes, because for text Python loads its table of international names.
        found = socket.getaddrinfo(host.encode("utf-8", "surrogateescape"), port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Lost("%s cannot be resolved: %s" % (host, reason), errno.EINVAL) from error
    return [(family, address) for family, _kind, _protocol, _name, address in found]


def begin(address: "Address") -> socket.socket:
    """A socket that connects to the address; it is writable when done, see finish(). Raises Lost."""
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    number = sock.connect_ex(where)
    if number not in (0, errno.EINPROGRESS):
        sock.close()
        raise Lost(os.strerror(number), number)
    return sock


def finish(sock: socket.socket) -> None:
    """The socket has become writable: is it connected? Raises Lost, and closes it, when it is not."""
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        sock.close()
        raise Lost(os.strerror(number), number)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def wait_for(reading: "Set[Any]", writing: "Set[Any]", until: float) -> "Tuple[Set[Any], Set[Any]]":
    """Those of ``reading`` and of ``writing`` (whatever has a fileno) that are ready or broken, as soon as there is one;
    none when the time ``until`` has come."""
    poll = select.poll()
    items = {}
    for item in reading | writing:
        items[item.fileno()] = item
        poll.register(item, (select.POLLIN if item in reading else 0) | (select.POLLOUT if item in writing else 0))
    milliseconds = 0 if until <= 0 else min(max(0.0, until - clock()), 3600.0) * 1000 + 1
    ready = [(items[number], mask) for number, mask in poll.poll(milliseconds)]
    return (
        {item for item, mask in ready if item in reading and mask & ~select.POLLOUT},
        {item for item, mask in ready if item in writing and mask & ~select.POLLIN},
    )


class Connection:
    """A connected socket and its channel. ``unsent`` is the number of bytes that wait for the socket."""

    def __init__(self, sock: socket.socket, channel: "Channel") -> None:
        self.socket, self.channel = sock, channel
        self.unsent = 0
        self._waiting: "Deque[Any]" = deque()
        self._buffer = memoryview(bytearray(RECEIVE_SIZE))

    def fileno(self) -> int:
        return self.socket.fileno()

    def receive(self) -> "List[Event]":
        """The events in what has arrived. Raises Lost when the service is gone or breaks the protocol."""
        room = self.channel.room(self._buffer)
        try:
            size = self.socket.recv_into(room)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Lost("the connection to the service broke: %s" % error.strerror, error.errno or 0) from error
        if not size:
            raise Lost("the service closed the connection")
        try:
            return self.channel.arrived(room, size, clock())
        except ChannelError as error:
            raise Lost("the service does not speak the coaster protocol: %s" % error) from error

    def flush(self) -> None:
        """Send what the channel has to send, as far as the socket takes it. Raises Lost."""
        waiting = self._waiting
        for payload in self.channel.take_output():
            waiting.append(payload)
            self.unsent += len(payload)
        try:
            while waiting:
                self._send(waiting)
        except BlockingIOError:
            pass
        except OSError as error:
            raise Lost("the connection to the service broke: %s" % error.strerror, error.errno or 0) from error

    def _send(self, waiting: "Deque[Any]") -> None:
        """Send some of what waits, and forget it. Raises OSError."""
        if isinstance(waiting[0], Piece):
            self.unsent -= waiting[0].send(self.socket)
            if not waiting[0]:
                waiting.popleft()
            return
        batch = list(takewhile(lambda payload: not isinstance(payload, Piece), islice(waiting, _MAX_VECTORS)))
        more = socket.MSG_MORE if len(batch) < len(waiting) else 0
        sent = self.socket.sendmsg(batch, (), more)
        self.unsent -= sent
        for payload in batch:
            if sent < len(payload):
                waiting[0] = memoryview(payload)[sent:]
                break
            sent -= len(payload)
            waiting.popleft()

    def close(self) -> None:
        self.socket.close()
