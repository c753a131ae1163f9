# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import control as module
from ansible_collections.coasters.pool.plugins.module_utils.coaster import sockets
from ansible_collections.coasters.pool.plugins.module_utils.coaster.admission import Admission
from ansible_collections.coasters.pool.plugins.module_utils.coaster.control import Control
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import COMPLETED, FAILED, Job
from tests.unit.plugins.module_utils.coaster.peers import PATIENCE, Running


class Controlled(Running):
    """A service with a control port."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        listening = sockets.listen("127.0.0.1", 0)
        self.port: int = listening.getsockname()[1]
        self.control = Control(self.service, "http://c:1", "http://w:2")
        self.run(self.control.start(listening))

    def get(self, target: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ask(self, target: str) -> Any:
        status, text = self.get(target)
        assert status == 200
        return json.loads(text)

    def raw(self, data: bytes) -> bytes:
        """What comes back for these bytes, up to the end of the connection."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.sendall(data)
            answer = b""
            while True:
                try:
                    more = connection.recv(65536)
                except ConnectionError:
                    return answer
                if not more:
                    return answer
                answer += more

    def close(self) -> None:
        self.look(lambda _running: self.control.stop())
        super().close()


@pytest.fixture
def service() -> Iterator[Controlled]:
    running = Controlled()
    yield running
    running.close()


def busy(service: Controlled) -> tuple[Any, Any]:
    """Two blocks with three workers; one job completed, one failed, one runs and one waits."""
    client = service.client()
    worker = service.worker("w1", "node1")
    for number, code in enumerate((COMPLETED, FAILED)):
        client.submit(Job("cog-%d" % number, "/bin/true"))
        worker.report(worker.take(), code)
    job = Job("cog-8", "/bin/true")
    job.attributes["maxwalltime"] = "90"
    client.submit(job)
    client.submit(Job("cog-9", "/bin/true"))
    return client, worker


def test_nothing_yet(service: Controlled) -> None:
    info = service.ask("/wmInfo")
    assert (info["supported"], info["wmdata"], info["blocks"], info["utilization"]) == (True, {}, [], 0.0)
    assert set(info["runtime"]) == {
        "maxHeap", "crtHeap", "usedHeap", "freeHeap", "readBytesTotal", "readCurrentRate", "readAverageRate",
        "writeBytesTotal", "writeCurrentRate", "writeAverageRate"}
    assert info["runtime"]["maxHeap"] > info["runtime"]["crtHeap"] >= info["runtime"]["usedHeap"] > 10 ** 6


def test_blocks_as_swift_shows_them(service: Controlled) -> None:
    _client, _worker = busy(service)
    info = service.ask("/wmInfo")
    block = info["blocks"][0]
    now = info["time"]
    assert [block[name] for name in ("id", "running", "workerCount", "jobsCompleted", "utilization")] == ["w1", True, 1, 1, 1.0]
    assert block["walltime"] == 4611686018427387903
    assert now - 60000 < block["creationTime"] == block["startTime"] <= now
    assert block["endTime"] == block["startTime"] + block["walltime"]
    assert (block["shutdownTime"], block["terminationTime"]) == (None, None)
    assert block["nodes"] == [{"id": 0, "startTime": block["startTime"], "hostname": "node1"}]
    (slot,) = block["cpus"]
    assert (slot["id"], slot["quality"]) == (0, 1.0)
    assert slot["job"]["id"].startswith("cog-8:")
    assert slot["job"]["walltime"] == 5400000
    assert abs(slot["job"]["endTime"] - slot["job"]["startTime"] - 5400000) <= 1
    assert info["utilization"] == 1.0


def test_idle_slots_have_no_job(service: Controlled) -> None:
    service.worker("w1", "node1", slots=2)
    service.worker("w1", "node1", slots=1)
    (block,) = service.ask("/wmInfo")["blocks"]
    assert block["cpus"] == [{"id": number, "quality": 1.0, "job": None} for number in range(3)]
    assert [node["id"] for node in block["nodes"]] == [0, 1]


def test_our_own_statistics(service: Controlled) -> None:
    service.worker("w2", "node2", slots=2).close()
    service.until(lambda running: running.pool.workers_lost)
    _client, _worker = busy(service)
    info = service.ask("/wmInfo")
    ours = info["coaster"]
    assert {name: ours[name] for name in ("version", "url", "worker_url", "lost", "connections")} == {
        "version": module.RELEASE, "url": "http://c:1", "worker_url": "http://w:2", "lost": 1, "connections": 2}
    assert abs(ours["started"] - info["time"] / 1000) < 60
    (worker,) = ours["workers"]
    assert abs(worker.pop("registered") - info["time"] / 1000) < 60
    assert abs(worker.pop("last_seen") - info["time"] / 1000) < 60
    assert worker == {
        "block": "w1", "id": "000000", "host": "node1", "address": "127.0.0.1", "slots": 1, "busy": 1, "completed": 1, "failed": 1}
    assert ours["jobs"] == {"queued": 1, "active": 1, "completed": 1, "failed": 1, "cancelled": 0, "resubmitted": 0}


def test_a_probe_shows_which_workers_live(service: Controlled) -> None:
    living, _stuck = service.worker("w1"), service.worker("w2")
    asked = service.ask("/probe")["coaster"]
    assert [worker["last_seen"] <= asked["now"] for worker in asked["workers"]] == [True, True]
    living.receive()
    service.until(lambda running: [worker.handle.channel.last_received > asked["now"] for worker in running.pool.workers()] == [True, False])


def test_the_version_is_that_of_the_collection() -> None:
    root = Path(__file__).resolve().parents[5]
    assert re.search(r"^version: (\S+)$", (root / "galaxy.yml").read_text(), re.M)[1] == module.RELEASE  # type: ignore[index]


def test_settings(service: Controlled) -> None:
    names = service.ask("/list")
    everything = service.ask("/getAll")
    assert (names["error"], names["errorMessage"], everything["error"], everything["errorMessage"]) == (False, None, False, None)
    assert names["result"] == list(everything["result"])
    for name, value in everything["result"].items():
        assert service.ask("/get?name=" + name) == {"success": True, "errorMessage": None, "result": value}
    assert everything["result"]["workerManager"] == "passive"
    assert service.ask("/get?name=x") == {"success": False, "errorMessage": "there is no setting 'x'", "result": None}
    assert service.ask("/get")["success"] is False


def test_metrics(service: Controlled) -> None:
    _client, _worker = busy(service)
    service.worker("w\"2\\", "node2", slots=2)
    status, text = service.get("/metrics")
    assert status == 200
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert {name: samples[name] for name in (
        "coaster_workers", "coaster_slots", 'coaster_jobs{state="queued"}', 'coaster_jobs{state="active"}',
        'coaster_jobs_ended_total{state="completed"}', 'coaster_jobs_ended_total{state="failed"}', "coaster_jobs_submitted_total",
        'coaster_worker_busy_slots{block="w1",id="000000",host="node1"}',
        'coaster_worker_busy_slots{block="w\\"2\\\\",id="000000",host="node2"}',
    )} == {
        "coaster_workers": "2", "coaster_slots": "3", 'coaster_jobs{state="queued"}': "0", 'coaster_jobs{state="active"}': "2",
        'coaster_jobs_ended_total{state="completed"}': "1", 'coaster_jobs_ended_total{state="failed"}': "1",
        "coaster_jobs_submitted_total": "4", 'coaster_worker_busy_slots{block="w1",id="000000",host="node1"}': "1",
        'coaster_worker_busy_slots{block="w\\"2\\\\",id="000000",host="node2"}': "1",
    }
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP \w+ .+|TYPE \w+ (gauge|counter))|\w+(\{.*\})? [0-9.e+]+", line), line


def test_memory_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    real = open

    def hidden(path: Any, *args: Any, **options: Any) -> Any:
        return real("/nonexistent" if path == "/proc/self/status" else path, *args, **options)

    monkeypatch.setattr("builtins.open", hidden)
    assert module.memory() == (0, 0)


# http


def test_what_there_is_not(service: Controlled) -> None:
    for target in ("/", "/set?name=resubmit&value=3", "/wminfo", "/wmInfo/", "/../etc/passwd", "//[", "/%00"):
        assert service.get(target)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "DELETE"])
def test_only_get(service: Controlled, method: str) -> None:
    assert service.get("/wmInfo", method)[0] == 405


@pytest.mark.parametrize(("host", "status"), [
    ("localhost", 200), ("localhost:80", 200), ("127.0.0.1:1", 200), ("[::1]:5", 200), ("LOCALHOST", 200), ("", 200),
    ("evil.example", 403), ("evil.example:80", 403), ("localhost.evil.example", 403), ("[", 403),
])
def test_only_for_pages_of_this_machine(service: Controlled, host: str, status: int) -> None:
    assert service.get("/list", Host=host)[0] == status


@pytest.mark.parametrize("request_", [b"GET /list\r\n\r\n", b"\r\n\r\n", b"GET list HTTP/1.1\r\n\r\n", b"GET /list FTP/1.0\r\n\r\n", b"\xff \0 x\r\n\r\n"])
def test_what_is_not_http(service: Controlled, request_: bytes) -> None:
    assert service.raw(request_).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_http_1_0_without_a_host_in_pieces(service: Controlled) -> None:
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE) as connection:
        for piece in (b"GET /li", b"st HTTP/1.0\r", b"\n\r", b"\n"):
            connection.sendall(piece)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_requests_have_a_limit(service: Controlled) -> None:
    assert service.raw(b"GET /list HTTP/1.1\r\nX: " + bytes(10000)).startswith(b"HTTP/1.1 413 ")
    assert service.raw(b"GET /list HTTP/1.1\r\n\r\n" + bytes(100000)).startswith(b"HTTP/1.1 200 ")


def test_data_after_the_answer_is_passed_over(service: Controlled) -> None:
    made: list[Any] = []
    service.look(lambda _running: made.append(module._Connection(service.control)))

    class Closing:
        """A transport that is being closed."""

        def is_closing(self) -> bool:
            return True

    made[0].transport = Closing()
    made[0].data_received(b"GET /list HTTP/1.1\r\n\r\n")
    assert made[0].data == b""


def test_time_has_a_limit(service: Controlled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIME_LIMIT", 0.2)
    assert service.raw(b"GET /list HTTP/1.1\r\n") == b""


def test_connections_have_a_limit(service: Controlled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE):
        service.until(lambda _running: service.control.connections == 1)
        assert service.raw(b"GET /list HTTP/1.1\r\n\r\n") == b""
    service.until(lambda _running: service.control.connections == 0)
    assert service.get("/list")[0] == 200


def test_only_the_given_users_see_it() -> None:
    for users, status in (([os.getuid()], 200), ([os.getuid() + 1], 403)):
        service = Controlled(admission=Admission(users=users))
        try:
            assert service.get("/wmInfo")[0] == status
        finally:
            service.close()
