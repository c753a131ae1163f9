# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets: listening ones, and who holds or owns one (as the kernel tells, Linux)."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
import sys
from typing import Any, Iterator, NamedTuple

PROC = "/proc"

_LISTEN = 0x0A
_SOCK_DIAG = 4
_BY_FAMILY = 20
_MAPPED = bytes(10) + b"\xff\xff"
_SIOCGIFADDR = 0x8915
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class Entry(NamedTuple):
    """A line of /proc/net/tcp or tcp6; ``inode`` is 0 once no process holds the socket."""

    local: tuple[str, int]
    remote: tuple[str, int]
    state: int
    uid: int
    inode: int


def listen(address: str | None, port: int, backlog: int = 1024) -> socket.socket:
    """A non-blocking socket that listens on a host name or address; None means every interface, IPv4 and IPv6.

    Raises OSError when the name does not resolve or the port is taken.
    """
    if address is None:
        try:
            return _bound(socket.AF_INET6, ("::", port), backlog, dual=True)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
            return _bound(socket.AF_INET, ("0.0.0.0", port), backlog)
    family, where = _resolve(address, port)
    return _bound(family, where, backlog)


def ipv4_address(name: str) -> str:
    """The IPv4 address of a host name. Raises OSError, also UnicodeError, when it has none."""
    found: str = _resolve(name, 0, socket.AF_INET)[1][0]
    return found


def outward_address() -> str | None:
    """An IPv4 address of this machine that others may reach, None when it has only loopback ones."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: only asks which address the default route uses
            found: str = probe.getsockname()[0]
            return found
        except OSError:
            pass
        for _index, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            found = socket.inet_ntoa(answer[20:24])
            if not found.startswith("127."):
                return found
    return None


def plain(host: str) -> str:
    """The address as text, an IPv4 address seen through an IPv6 socket as IPv4, without a scope."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


def owner(local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """The user id of the process at the ``local`` end of a connection on this machine; None when no process holds it."""
    entry = _connection(local, remote)
    return entry.uid if entry is not None else None


def process(local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """The id of a process that holds the ``local`` end of a connection; None when none can be seen."""
    entry = _connection(local, remote)
    holders = _holders({entry.inode}) if entry is not None else iter(())
    return next((int(found) for found in holders), None)


def _connection(local: tuple[str, int], remote: tuple[str, int]) -> Entry | None:
    """The entry of a connection's ``local`` end; None when no process holds it."""
    return _looked_up(local, remote) or _found(local, remote)


def _looked_up(local: tuple[str, int], remote: tuple[str, int]) -> Entry | None:
    """As the kernel looks up this one connection (sock_diag(7)); None when it cannot, or finds another socket or none.

    To make the table of all connections takes it 10 ms where there is much memory, because its own is large then.
    """
    ends = [ipaddress.ip_address(host).packed for host, _port in (local, remote)]
    family = socket.AF_INET if len(ends[0]) == 4 else socket.AF_INET6
    wanted = _diag_id(ends, local[1], remote[1])
    request = struct.pack("=IHHII4BI", 72, _BY_FAMILY, 1, 0, 0, family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + wanted + bytes(4) + b"\xff" * 8
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
            kernel.settimeout(1)
            kernel.sendto(request, (0, 0))
            answer = kernel.recv(4096)
    except (AttributeError, OSError):
        return None
    _size, kind = struct.unpack_from("=IH", answer)
    mapped = _diag_id([_MAPPED + end for end in ends], local[1], remote[1]) if family == socket.AF_INET else wanted
    if kind != _BY_FAMILY or answer[20:56] not in (wanted, mapped):
        return None
    uid, inode = struct.unpack_from("=II", answer, 80)
    return Entry(local, remote, answer[17], uid, inode) if inode else None


def _diag_id(ends: list[bytes], local_port: int, remote_port: int) -> bytes:
    """The part of the kernel's ``struct inet_diag_sockid`` that names a connection."""
    return struct.pack("!HH", local_port, remote_port) + b"".join(end.ljust(16, b"\0") for end in ends)


def _found(local: tuple[str, int], remote: tuple[str, int]) -> Entry | None:
    """As it stands in the table of all connections."""
    # Thousands of lines may be there: only the one that is wanted is taken apart.
    for table, mapped in (("tcp", False), ("tcp6", True)):
        text = _table(table)
        at = text.find(" %s %s " % (_written(local, mapped), _written(remote, mapped)))
        if at >= 0:
            entry = _entry(text[text.rfind("\n", 0, at) + 1:text.find("\n", at)])
            return entry if entry.inode else None
    return None


def holder(port: int) -> str | None:
    """``name (pid N)`` of a process that listens on the port, as far as this user may see it."""
    for found in _holders({entry.inode for entry in entries() if entry.state == _LISTEN and entry.local[1] == port}):
        try:
            with open(os.path.join(PROC, found, "comm"), encoding="utf-8", errors="replace") as name:
                return "%s (pid %s)" % (name.read().strip(), found)
        except OSError:
            continue
    return None


def _holders(inodes: set[int]) -> Iterator[str]:
    """The ids of the processes with one of these sockets, as far as this user may see them."""
    names = {"socket:[%d]" % inode for inode in inodes}
    for found in filter(str.isdigit, os.listdir(PROC) if names else ()):
        folder = os.path.join(PROC, found, "fd")
        try:
            if any(os.readlink(os.path.join(folder, descriptor)) in names for descriptor in os.listdir(folder)):
                yield found
        except OSError:
            continue


def entries() -> Iterator[Entry]:
    """All TCP sockets of this network namespace; none where there is no /proc."""
    for table in ("tcp", "tcp6"):
        for line in _table(table).splitlines()[1:]:
            yield _entry(line)


def _table(name: str) -> str:
    try:
        with open(os.path.join(PROC, "net", name), encoding="ascii") as table:
            return table.read()
    except OSError:
        return ""


def _entry(line: str) -> Entry:
    fields = line.split()
    return Entry(_end(fields[1]), _end(fields[2]), int(fields[3], 16), int(fields[7]), int(fields[9]))


def _end(text: str) -> tuple[str, int]:
    """``0100007F:0FD2`` as address and port: the address is written as 32-bit words in the machine's order."""
    words, _colon, port = text.partition(":")
    raw = b"".join(int(words[at:at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    return plain(str(ipaddress.ip_address(raw))), int(port, 16)


def _written(end: tuple[str, int], mapped: bool) -> str:
    """The inverse of _end(); ``mapped``: an IPv4 address as it is seen through IPv6."""
    raw = ipaddress.ip_address(end[0]).packed
    if mapped and len(raw) == 4:
        raw = _MAPPED + raw
    words = (int.from_bytes(raw[at:at + 4], sys.byteorder) for at in range(0, len(raw), 4))
    return "".join("%08X" % word for word in words) + ":%04X" % end[1]


def _resolve(name: str, port: int, family: int = socket.AF_UNSPEC) -> tuple[int, tuple[Any, ...]]:
    # As bytes, because for text Python loads its table of international names.
    found = socket.getaddrinfo(name.encode("utf-8", "surrogateescape"), port, family, socket.SOCK_STREAM)
    return found[0][0], found[0][4]


def _bound(family: int, where: tuple[Any, ...], backlog: int, dual: bool = False) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only where TCP is named
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        made.bind(where)
        made.listen(backlog)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
