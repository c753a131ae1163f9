# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statistics of both engines, from text of the shape that each gives, and over real sockets."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import statistics

SWIFT = json.loads("""
{"supported":true,"time":1700000010000,"wmdata":{},"runtime":{"maxHeap":1000,"crtHeap":500},"blocks":[
 {"id":"node01","running":true,"workerCount":3,"jobsCompleted":7,"walltime":4611686018427387903,"utilization":5.0E-4,
  "nodes":[{"id":0,"startTime":1700000000000,"hostname":"node01.cluster"}],
  "cpus":[{"id":0,"quality":2.0,"job":{"id":"cog-1:2","startTime":1700000001000,"endTime":1700000601000,"walltime":600000}},
          {"id":1,"quality":1.0,"job":null},{"id":2,"quality":1.0,"job":{"id":"cog-1:3"}}]},
 {"id":"node02","running":true,"workerCount":1,"jobsCompleted":1,"utilization":0.0,
  "nodes":[{"id":0,"startTime":1700000000000,"hostname":"node02.cluster"}],"cpus":[{"id":0,"quality":1.0,"job":null}]},
 {"id":"gone","running":true,"workerCount":0,"jobsCompleted":2,"utilization":0.0,"nodes":[],"cpus":[]}
],"utilization":0.1}
""")
BUILTIN = json.loads("""
{"supported":true,"time":1700000010000,"wmdata":{},"runtime":{},"blocks":[],"utilization":0.5,"coaster":{
 "version":"1.0.0","started":1700000000.5,"url":"http://127.0.0.1:4050","worker_url":"http://127.0.0.1:4051","lost":2,"connections":3,
 "workers":[{"block":"node01","id":"0001","host":"node01.cluster","address":"10.0.0.1","slots":4,"busy":2,"completed":9,"failed":1,
             "registered":1700000001.0,"last_seen":1700000009.5}],
 "jobs":{"queued":5,"active":2,"completed":9,"failed":1,"cancelled":0,"resubmitted":0}}}
""")


def rows(found: statistics.Statistics) -> list[dict[str, Any]]:
    return [worker.as_dict() for worker in found.workers]


def test_swift() -> None:
    found = statistics.read(SWIFT)
    assert rows(found) == [
        {"name": "node01", "host": "node01.cluster", "slots": 3, "busy": 2, "completed": 7, "failed": None, "last_seen": 0.0},
        {"name": "node02", "host": "node02.cluster", "slots": 1, "busy": 0, "completed": 1, "failed": None, "last_seen": 0.0},
    ]
    assert (found.jobs, found.lost) == ({"queued": None, "active": 2, "completed": 10, "failed": None}, None)


def test_swift_without_workers() -> None:
    found = statistics.read({"supported": True, "blocks": []})
    assert (rows(found), found.jobs["active"]) == ([], 0)


def test_builtin() -> None:
    found = statistics.read(BUILTIN)
    assert rows(found) == [
        {"name": "node01", "host": "node01.cluster", "slots": 4, "busy": 2, "completed": 9, "failed": 1, "last_seen": 1700000009.5}
    ]
    assert (found.jobs, found.lost) == ({"queued": 5, "active": 2, "completed": 9, "failed": 1}, 2)


def test_a_hosts_words_are_made_printable() -> None:
    assert statistics.Worker("a\x1b", "b\n", 1, 0, 0, 0, 0.0).as_dict()["host"] == "b?"


@contextmanager
def answering(*chunks: bytes, hold: bool = False) -> Iterator[str]:
    """A server of one connection that reads a request, sends the chunks, and closes or (``hold``) keeps the connection."""
    asked: list[bytes] = []
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, dummy = listening.accept()
            with connection:
                asked.append(connection.recv(65536))
                for chunk in chunks:
                    connection.sendall(chunk)
                if hold:
                    done.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://localhost:{listening.getsockname()[1]}"
        done.set()
        thread.join(60)
    assert asked[0].startswith(b"GET /wmInfo HTTP/1.1\r\n")


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("info", [SWIFT, BUILTIN])
def test_fetch(info: dict[str, Any]) -> None:
    with answering(answer(json.dumps(info).encode())) as url:
        assert rows(statistics.fetch(url)) == rows(statistics.read(info))


def test_fetch_in_pieces() -> None:
    data = answer(json.dumps(SWIFT).encode())
    with answering(*(data[at:at + 100] for at in range(0, len(data), 100))) as url:
        assert len(statistics.fetch(url).workers) == 2


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"{}", b'{"blocks":7}', b'{"blocks":[{}]}', b'{"coaster":[]}', b'{"coaster":{"workers":[{}]}}', b"\xff"]
)
def test_nonsense(body: bytes) -> None:
    with answering(answer(body)) as url, pytest.raises(statistics.StatisticsError, match="gave statistics that cannot be read"):
        statistics.fetch(url)


@pytest.mark.parametrize("data", [b"", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"])
def test_no_http(data: bytes) -> None:
    with answering(data) as url, pytest.raises(statistics.StatisticsError, match="the coaster service (does not answer )?at http://localhost:"):
        statistics.fetch(url)


def test_silence() -> None:
    with answering(hold=True) as url, pytest.raises(statistics.StatisticsError, match="timed out"):
        statistics.fetch(url, limit=0.2)


def test_nobody_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(statistics.StatisticsError, match="refused"):
            statistics.fetch(f"http://127.0.0.1:{closed.getsockname()[1]}")


@contextmanager
def saying(*infos: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """A service that gives these answers one after the other, then the last one again and again; its URL, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.wfile.write(answer(json.dumps(infos[min(len(asked), len(infos)) - 1]).encode()))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join(60)


def seen(at: float) -> dict[str, Any]:
    """The answer of a service that was asked at 100 s and heard of its worker at ``at``."""
    ours = BUILTIN["coaster"]
    return {**BUILTIN, "coaster": {**ours, "now": 100.0, "workers": [{**ours["workers"][0], "last_seen": at}]}}


def test_a_worker_that_answers_the_probe() -> None:
    with saying(seen(98.0), seen(99.0), seen(99.5), seen(100.5)) as (url, asked):
        assert statistics.answering(url, limit=60) == {"node01"}
    assert asked == ["/wmInfo", "/probe", "/wmInfo", "/wmInfo"]


def test_a_worker_that_is_silent() -> None:
    with saying(seen(99.0)) as (url, asked):
        assert statistics.answering(url, limit=0.1) == set()


def test_a_worker_whose_connection_is_lost_at_the_probe() -> None:
    gone = {**BUILTIN, "coaster": {**BUILTIN["coaster"], "now": 100.0, "workers": []}}
    with saying(seen(99.0), seen(99.0), gone) as (url, asked):
        assert statistics.answering(url, limit=60) == set()
    assert asked == ["/wmInfo", "/probe", "/wmInfo"]


def test_an_engine_that_cannot_tell_who_lives() -> None:
    with saying(SWIFT) as (url, asked):
        assert statistics.answering(url, limit=60) == {"node01", "node02"}
    assert asked == ["/wmInfo"]
