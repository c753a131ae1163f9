# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers that send anything to the two ports: the service answers or drops them, and others' work goes on."""

from __future__ import annotations

import contextlib
import select
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import encode_int, encode_long
from ansible_collections.coasters.pool.plugins.module_utils.coaster.frames import encode
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import ACTIVE, COMPLETED, Job, Stage
from ansible_collections.coasters.pool.plugins.module_utils.coaster.pool import Pool
from tests.fuzz.examples import FUZZ
from tests.unit.plugins.module_utils.coaster.peers import ClientPeer, Running, WorkerPeer

COMMANDS = [
    "VERSION", "CHANNELCONFIG", "CONFIGSERVICE", "HEARTBEAT", "SUBMITJOB", "CANCELJOB", "JOBSTATUS", "REGISTER", "SHUTDOWN", "SHUTDOWNSERVICE",
    "GET", "PUT", "RLOG", "INFO", "ECHO", "NONSENSE", "",
]


def description(number: int, lines: list[bytes]) -> bytes:
    return b"configid=0\nidentity=fuzz-%d\nexecutable=/bin/true\n" % number + b"\n".join(lines)


KEYS = st.sampled_from([
    b"stagein", b"stageout", b"attr", b"arg", b"env", b"redirect", b"cleanup", b"identity", b"executable", b"batch", b"directory", b"",
])
VALUES = st.sampled_from([
    b"file://localhost/a\\nb\\n2", b"file://localhost//x\\ny\\n9", b"a*\\nfile:b*?\\n1", b"cs://localhost/x\\ny\\n2", b"x", b"a\\nb\\nc\\nd",
    b"maxwalltime=1:2:3", b"maxwalltime=99999999:0", b"maxwalltime=x", b"count=2", b"\xff\\", b"", b"fuzz-9:9:9", b"pinned:file:z\\nq\\n4",
])
LINES = st.lists(st.builds(lambda key, value: key + b"=" + value, KEYS, VALUES) | st.binary(max_size=20), max_size=5)
DESCRIPTIONS = st.builds(description, st.integers(-1, 3), LINES)
ARGUMENTS = st.one_of(
    st.binary(max_size=40), DESCRIPTIONS, DESCRIPTIONS.map(zlib.compress), st.integers(-2 ** 31, 2 ** 31 - 1).map(encode_int),
    st.integers(-2, 70000).map(encode_long), st.sampled_from([2, 5, 6, 7, 8, 16, 17]).map(encode_int),
    st.sampled_from([
        b"requireVersion=0.4", b"workers", b"jobs", b"blocks", b"w1", b"node", b"concurrency = 3", b"concurrency = 3, running = fuzz-1:1 canary-1:2",
        b"proxy://1/a", b"proxy://1//x", b"proxy://99/a", b"file://localhost/etc/passwd", b"fuzz-1", b"fuzz-1:1", b"canary-1", b"ABORT",
    ]),
)
TAGS = st.sampled_from([0, 1, 2, 3, 7, 0xFFFFFFFF])
FRAMES = st.builds(encode, TAGS, st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0x11, 0x20, 0x22, 0x23, 0x27, 0x3F, 0xFFFFFFFF]), ARGUMENTS)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A whole command with some arguments; a PUT may have content."""
    tag, name, args = draw(TAGS), draw(st.sampled_from(COMMANDS)), draw(st.lists(ARGUMENTS, max_size=9))
    if name == "PUT" and draw(st.booleans()):
        args[:0] = [encode_long(draw(st.integers(-1, 10))), b"src", b"proxy://1//x"]
    frames = [encode(tag, 0x20 if args else 0x22, name.encode())]
    return b"".join(frames + [encode(tag, 2 if index == len(args) else 0, arg) for index, arg in enumerate(args, 1)])


STREAMS = st.lists(st.one_of(requests(), FRAMES, st.binary(max_size=30)), max_size=12)


class Canary:
    """A good client of a service, whose jobs must always get through."""

    def __init__(self, service: Running) -> None:
        self.service = service
        self.client: ClientPeer = service.client()
        self.client.configure()
        self.url = b"proxy://%d/" % max(service.look(lambda running: running.pool.clients))
        self.number = 0

    def sing(self) -> None:
        """A job of the good client runs on a good worker, with a file each way; everything else has gone."""
        self.service.until(lambda running: len(running.peers) == 1)
        with WorkerPeer(self.service.worker_address, first_tag=9) as worker:
            worker.register("canary")
            self.number += 1
            name = "canary-%d" % self.number
            job = Job(name, "/bin/true")
            job.stage_in, job.stage_out = [Stage("file://localhost/c", "c")], [Stage("d", "file://localhost/d")]
            self.client.submit(job)
            identity = worker.take()
            get = worker.command("GET", self.url + b"c", b"c")
            self.client.answer(self.client.expect("GET"), encode_long(2), b"hi")
            assert worker.reply(get).values == [encode_long(2), b"hi"]
            put = worker.command("PUT", encode_long(0), b"d", self.url + b"d")
            self.client.answer(self.client.expect("PUT"))
            assert worker.reply(put).values == [b"OK"]
            worker.report(identity, ACTIVE)
            worker.report(identity, COMPLETED)
            assert self.client.end(name).code == COMPLETED
            assert not self.service.errors, self.service.errors
        self.service.until(lambda running: len(running.peers) == 1)
        pool = self.service.look(lambda running: running.pool)
        assert (pool.queued, pool.active, pool.slots, len(pool.clients), list(pool.workers())) == (0, 0, 0, 1, [])


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    service = Running(max_connections=50, silence=86400.0)
    yield Canary(service)
    service.close()


def throw(peer: ClientPeer | WorkerPeer, pieces: list[bytes]) -> None:
    """Send the pieces and take what comes, until the end or a moment of silence."""
    with peer, contextlib.suppress(ConnectionError):
        for piece in pieces:
            peer.socket.sendall(piece)
        while select.select([peer.socket], [], [], 0.02)[0]:
            if not peer.socket.recv(262144):
                break


@FUZZ
@given(pieces=STREAMS)
def test_anything_at_the_client_port(canary: Canary, pieces: list[bytes]) -> None:
    throw(ClientPeer(canary.service.client_address), pieces)
    canary.sing()


@FUZZ
@given(pieces=STREAMS, registered=st.booleans())
def test_anything_at_the_worker_port(canary: Canary, pieces: list[bytes], registered: bool) -> None:
    worker = WorkerPeer(canary.service.worker_address, first_tag=100)
    if registered:
        worker.register("fuzz", slots=2)
    throw(worker, pieces)
    canary.sing()


@FUZZ
@given(client_pieces=STREAMS, worker_pieces=STREAMS)
def test_a_bad_worker_with_the_job_of_a_bad_client(client_pieces: list[bytes], worker_pieces: list[bytes]) -> None:
    service = Running(pool=Pool(first_number=1))
    try:
        client, worker = service.client(), service.stranger()
        worker.register("fuzz", slots=3)
        job = Job("fuzz-1", "/bin/true")
        job.stage_in, job.stage_out = [Stage("file://localhost/a", "a")], [Stage("x*", "file://localhost//x*")]
        assert client.submit(job) == "fuzz-1:1"  # what the pieces speak of, as they do of client 1
        worker.take()
        with contextlib.suppress(ConnectionError):
            for piece in worker_pieces:
                worker.socket.sendall(piece)
        throw(client, client_pieces)
        throw(worker, [])
        Canary(service).sing()
    finally:
        service.close()
