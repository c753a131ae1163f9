# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import sockets


def connects(address: str, listening: socket.socket) -> None:
    with socket.create_connection((address, listening.getsockname()[1]), 10):
        pass


def test_listening_on_every_interface() -> None:
    with sockets.listen(None, 0) as listening:
        connects("127.0.0.1", listening)
        connects("127.0.0.2", listening)
        if listening.family == socket.AF_INET6:
            connects("::1", listening)


def test_listening_on_one_address_only() -> None:
    with sockets.listen("127.0.0.2", 0) as listening:
        connects("127.0.0.2", listening)
        with pytest.raises(ConnectionRefusedError):
            connects("127.0.0.1", listening)
        assert not listening.getblocking()


def test_listening_on_an_ipv6_address_takes_no_ipv4() -> None:
    with sockets.listen("::1", 0) as listening, pytest.raises(ConnectionRefusedError):
        connects("127.0.0.1", listening)


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def no_ipv6(family: int, kind: int, protocol: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(code, "no IPv6")
        return real(family, kind, protocol)

    real = socket.socket
    monkeypatch.setattr(sockets.socket, "socket", no_ipv6)
    with sockets.listen(None, 0) as listening:
        assert listening.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize("address", [None, "127.0.0.1"])
def test_a_port_in_use(address: str | None) -> None:
    with sockets.listen(address, 0) as listening:
        with pytest.raises(OSError) as caught:
            sockets.listen(address, listening.getsockname()[1])
        assert caught.value.errno == errno.EADDRINUSE


def test_an_unknown_name() -> None:
    with pytest.raises(OSError):
        sockets.listen("no-such-host.invalid", 0)


@pytest.mark.parametrize(("host", "text"), [
    ("127.0.0.1", "127.0.0.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1"), ("::1", "::1"),
])
def test_addresses_as_text(host: str, text: str) -> None:
    assert sockets.plain(host) == text


@pytest.fixture(params=["looked up by the kernel", "in the table"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a connection is found: only by the first of the two ways, or only by the second."""
    if request.param == "in the table":
        monkeypatch.delattr(socket, "AF_NETLINK")
    else:
        monkeypatch.setattr(sockets, "_table", lambda name: "")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_owner_of_a_connection(address: str) -> None:
    with sockets.listen(address, 0) as listening:
        where = listening.getsockname()[:2]
        with socket.create_connection(where) as client:
            assert sockets.owner(client.getsockname()[:2], where) == os.getuid()
            assert sockets.owner(where, where) is None


@pytest.mark.usefixtures("way")
def test_the_process_of_a_connection() -> None:
    with sockets.listen("127.0.0.1", 0) as server, socket.create_connection(server.getsockname()) as client:
        here, there = client.getsockname(), server.getsockname()
        assert sockets.process(here, there) == os.getpid()
        assert sockets.process(here, ("127.0.0.1", 1)) is None


@pytest.mark.usefixtures("way")
def test_a_connection_that_nobody_holds_has_no_owner() -> None:
    """What a process sent before it closed must not count as that of the root user, whom /proc names then."""
    with sockets.listen("127.0.0.1", 0) as listening:
        where = listening.getsockname()
        client = socket.create_connection(where)
        name = client.getsockname()
        client.close()
        assert sockets.owner(name, where) is None


@pytest.mark.usefixtures("way")
def test_an_ipv4_connection_to_a_socket_for_both_is_found() -> None:
    with sockets.listen(None, 0) as listening:
        where = ("127.0.0.1", listening.getsockname()[1])
        with socket.create_connection(where) as client:
            assert sockets.owner(client.getsockname(), where) == os.getuid()


@pytest.mark.usefixtures("way")
def test_an_ipv4_connection_made_through_an_ipv6_socket_is_found() -> None:
    with sockets.listen(None, 0) as listening, socket.socket(socket.AF_INET6) as client:
        port = listening.getsockname()[1]
        client.connect(("::ffff:127.0.0.1", port))
        remote = (sockets.plain(client.getsockname()[0]), client.getsockname()[1])
        assert sockets.owner(remote, ("127.0.0.1", port)) == os.getuid()


def test_the_address_of_a_name() -> None:
    assert sockets.ipv4_address("localhost") == "127.0.0.1"
    assert sockets.ipv4_address("192.0.2.7") == "192.0.2.7"
    for name in ("no-such-host.invalid", "::1", "a" * 70 + ".invalid"):
        with pytest.raises((OSError, UnicodeError)):
            sockets.ipv4_address(name)


def test_who_holds_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sockets.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert sockets.holder(port) == "%s (pid %d)" % (Path("/proc/self/comm").read_text().strip(), os.getpid())
    assert sockets.holder(port) is None
    monkeypatch.setattr(sockets, "PROC", tmp_path)
    assert sockets.holder(port) is None


def test_processes_that_cannot_be_looked_at_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net").mkdir()
    line = "0: 0100007F:0FD2 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1\n"
    (tmp_path / "net" / "tcp").write_text("heading\n" + line)
    (tmp_path / "1").mkdir()
    monkeypatch.setattr(sockets, "PROC", tmp_path)
    assert [entry.uid for entry in sockets.entries()] == [1000]
    assert sockets.holder(0x0FD2) is None
    (tmp_path / "2" / "fd").mkdir(parents=True)
    (tmp_path / "2" / "fd" / "3").symlink_to("socket:[4711]")
    assert sockets.holder(0x0FD2) is None  # it has just gone
    (tmp_path / "2" / "comm").write_text("thing\n")
    assert sockets.holder(0x0FD2) == "thing (pid 2)"


def test_an_address_for_others() -> None:
    found = sockets.outward_address()
    assert found is None or not ipaddress.ip_address(found).is_loopback


class Offline(socket.socket):
    """A socket on a machine without a default route."""

    def connect(self, _address: Any) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")


def test_an_address_for_others_without_a_default_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets.socket, "socket", Offline)
    found = sockets.outward_address()
    assert found is None or not ipaddress.ip_address(found).is_loopback
    monkeypatch.setattr(sockets.socket, "if_nameindex", lambda: [(1, "lo"), (2, "gone0")])
    assert sockets.outward_address() is None
    monkeypatch.setattr(sockets.fcntl, "ioctl", lambda *_args: bytes(20) + socket.inet_aton("192.0.2.9") + bytes(8))
    assert sockets.outward_address() == "192.0.2.9"
