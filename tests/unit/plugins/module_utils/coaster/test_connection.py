# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import frames
from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import Channel, Reply, Request
from ansible_collections.coasters.pool.plugins.module_utils.coaster.connection import (
    AddressError,
    Connection,
    Lost,
    begin,
    clock,
    finish,
    parse_url,
    resolve,
    wait_for,
)
from ansible_collections.coasters.pool.plugins.module_utils.coaster.staging import FRAME, Outgoing

from .services import Listener, listening, unused_port


@pytest.mark.parametrize(
    ("url", "port", "expected"),
    [
        ("http://host:4050", 0, ("host", 4050)),
        (" tcp://10.0.0.1:1/ ", 0, ("10.0.0.1", 1)),
        ("http://host", 1984, ("host", 1984)),
        ("http://host:80", 1984, ("host", 80)),
        ("http://[::1]:4051", 0, ("::1", 4051)),
        ("http://[::1]", 1984, ("::1", 1984)),
    ],
)
def test_urls(url: str, port: int, expected: tuple[str, int]) -> None:
    assert parse_url(url, port) == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://h:1", "GSI security"),
        ("tcps://h:1", "GSI security"),
        ("h:1", "GSI security"),
        ("ftp://h:1", "Scheme not supported: ftp"),
        ("http://h", "has no port"),
        ("http://:1", "has no host"),
        ("http://h:x", "x is not a port"),
        ("http://h:0", "0 is not a port"),
        ("http://h:65536", "65536 is not a port"),
    ],
)
def test_urls_that_cannot_be_used(url: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        parse_url(url)


def test_resolve() -> None:
    assert (socket.AF_INET, ("127.0.0.1", 80)) in resolve("127.0.0.1", 80)
    for name in ("no-such-host.invalid", "a" * 70 + ".invalid"):
        with pytest.raises(Lost, match=name + " cannot be resolved") as caught:
            resolve(name, 80)
        assert caught.value.number == errno.EINVAL


def test_nobody_listens() -> None:
    with pytest.raises(Lost, match="Connection refused") as caught:
        sock = begin(resolve("127.0.0.1", unused_port())[0])
        wait_for(set(), {sock}, clock() + 10)
        finish(sock)
    assert caught.value.number == errno.ECONNREFUSED


def test_an_address_that_cannot_be_dialled() -> None:
    with pytest.raises(Lost) as caught:
        begin((socket.AF_INET, ("255.255.255.255", 80)))
    assert caught.value.number in (errno.EACCES, errno.ENETUNREACH)


def test_waiting_ends_in_time() -> None:
    reading, writing = socket.socketpair()
    with reading, writing:
        begun = time.monotonic()
        assert wait_for({reading}, set(), clock() + 0.05) == (set(), set())
        assert time.monotonic() - begun >= 0.05
        assert wait_for({reading}, set(), 0) == (set(), set())
        assert wait_for({reading}, {reading}, clock() + 10) == (set(), {reading})
        writing.send(b"x")
        assert wait_for({reading}, {reading}, clock() + 10) == ({reading}, {reading})
        writing.close()
        assert wait_for({reading}, set(), clock() + 10) == ({reading}, set())


def pair(listener: Listener) -> tuple[Connection, socket.socket]:
    sock = begin(resolve("127.0.0.1", listener.port)[0])
    other = listener.accept().socket
    wait_for(set(), {sock}, clock() + 10)
    finish(sock)
    return Connection(sock, Channel(clock())), other


def test_commands_and_replies() -> None:
    with listening() as listener:
        connection, other = pair(listener)
        assert connection.fileno() == connection.socket.fileno()
        assert connection.receive() == []
        tag = connection.channel.request("ECHO", (b"x",), "context")
        connection.flush()
        assert other.recv(1000) == frames.encode(tag, 0x20, b"ECHO") + frames.encode(tag, 2, b"x")
        other.sendall(frames.encode(tag, 3, b"y"))
        wait_for({connection}, set(), clock() + 10)
        (event,) = connection.receive()
        assert isinstance(event, Reply) and event.values == [b"y"] and event.context == "context"
        connection.close()


def test_more_than_the_socket_takes_waits_and_arrives_whole(tmp_path: Path) -> None:
    with listening() as listener:
        connection, other = pair(listener)
        tag = connection.channel.request("PUT", (b"0" * 8, b"", b""), final=False)
        payloads = [os.urandom(size) for size in [100000, 5] + [1000000] * 20] + [b"small"] * 500
        receiver = Channel(clock())
        (tmp_path / "file").write_bytes(os.urandom(52 * FRAME))
        file = Outgoing(os.fsencode(tmp_path / "file"))
        for index, payload in enumerate(payloads):
            connection.channel.data(tag, file.take() if index % 10 == 7 else payload, index == len(payloads) - 1)
        file.close()
        with (tmp_path / "file").open("rb") as content:
            payloads[7::10] = iter(lambda: content.read(FRAME), b"")
        connection.flush()
        assert connection.unsent > 0
        received: list[Any] = []
        while not received or not received[-1].final:
            wait_for({other}, set(), clock() + 10)
            connection.flush()
            received += receiver.receive(other.recv(300000), clock())
        assert isinstance(received[0], Request)
        assert [event.payload for event in received[1:]] == payloads
        assert connection.unsent == 0
        connection.close()


def test_the_end_of_the_service_is_noticed() -> None:
    with listening() as listener:
        connection, other = pair(listener)
        other.close()
        wait_for({connection}, set(), clock() + 10)
        with pytest.raises(Lost, match="the service closed the connection"):
            connection.receive()
        connection.close()


def test_a_broken_connection_is_noticed() -> None:
    with listening() as listener:
        connection, _other = pair(listener)
        listener.links[0].reset()
        wait_for({connection}, set(), clock() + 10)
        with pytest.raises(Lost, match="broke: Connection reset by peer") as caught:
            connection.receive()
        assert caught.value.number == errno.ECONNRESET
        connection.channel.request("HEARTBEAT")
        with pytest.raises(Lost, match="broke: Broken pipe"):
            connection.flush()
        connection.close()


def test_somebody_who_speaks_otherwise_is_noticed() -> None:
    with listening() as listener:
        connection, other = pair(listener)
        other.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        wait_for({connection}, set(), clock() + 10)
        with pytest.raises(Lost, match="does not speak the coaster protocol: the header check"):
            connection.receive()
        connection.close()


def test_clock_is_the_time_of_day() -> None:
    assert abs(clock() - time.time()) < 5
