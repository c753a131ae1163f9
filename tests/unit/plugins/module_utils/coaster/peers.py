# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand-written peers for tests: a service in a thread, and blocking clients and workers that speak through a Channel."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any, Callable, Iterator

from ansible_collections.coasters.pool.plugins.module_utils.coaster import jobs, sockets
from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import (
    Channel,
    Chunk,
    Data,
    Failure,
    Reply,
    Request,
    Signal,
)
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import Job, Stage, Status
from ansible_collections.coasters.pool.plugins.module_utils.coaster.service import Service

PATIENCE = 30.0
"""Seconds after which a test that waits counts as hung."""


class Refused(Exception):
    """An error reply."""


class Closed(Exception):
    """The other side closed the connection."""


class Peer:
    """One end of a connection."""

    def __init__(self, address: tuple[str, int], source: str = "127.0.0.1", buffer: int | None = None, **channel: Any) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.bind((source, 0))
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.channel = Channel(time.time(), **channel)
        self.events: list[Any] = []

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self) -> None:
        self.socket.sendall(b"".join(self.channel.take_output()))

    def receive(self, limit: int = 262144) -> None:
        data = self.socket.recv(limit)
        if not data:
            raise Closed
        self.events += self.channel.receive(data, time.time())
        self.send()

    def wait(self, fits: Callable[[Any], bool]) -> Any:
        """The next event that fits; what came before it stays for later."""
        seen = 0
        deadline = time.monotonic() + PATIENCE
        while True:
            for index in range(seen, len(self.events)):
                if fits(self.events[index]):
                    return self.events.pop(index)
            seen = len(self.events)
            assert time.monotonic() < deadline, self.events
            self.receive()

    def expect(self, name: str) -> Any:
        """The next request with this name."""
        return self.wait(lambda event: isinstance(event, Request) and event.name == name)

    def call(self, name: str, *args: bytes) -> list[bytes]:
        """Send a command and wait for its reply. Raises Refused."""
        answer = self.reply(self.command(name, *args))
        if isinstance(answer, Failure):
            raise Refused(answer.message)
        return answer.values

    def command(self, name: str, *args: bytes, **options: Any) -> int:
        """Send a command; its tag."""
        tag = self.channel.request(name, args, **options)
        self.send()
        return tag

    def reply(self, tag: int) -> Any:
        """The whole reply to a command of ours, or the failure."""
        return self.wait(lambda event: isinstance(event, (Reply, Failure)) and event.tag == tag)

    def data(self, tag: int) -> tuple[bytes, bool]:
        """The next data of a file: of our GET (sent as a stream), or of a PUT to us; whether it is the last."""
        event = self.wait(lambda event: isinstance(event, (Chunk, Data)) and event.tag == tag)
        return event.payload, event.final

    def signal(self) -> tuple[int, bytes]:
        """The next signal: its tag and text."""
        event = self.wait(lambda event: isinstance(event, Signal))
        return event.tag, event.payload

    def answer(self, request: Request, *values: bytes) -> None:
        self.channel.reply(request.tag, values or (b"OK",))
        self.send()

    def closed(self) -> bool:
        """Whether the other side closes; False only by a timeout's exception."""
        try:
            while True:
                self.receive()
        except (Closed, ConnectionError):
            return True


class ClientPeer(Peer):
    """A submit client."""

    def configure(self) -> None:
        assert self.call("CONFIGSERVICE", b"requireVersion=0.4", b"OS=null") == [b"0"]

    def submit(self, job: Job) -> str:
        return self.call("SUBMITJOB", jobs.encode_submission(job))[0].decode()

    def status(self) -> tuple[str, Status]:
        """The next status of any job."""
        request = self.expect("JOBSTATUS")
        self.answer(request)
        return jobs.parse_status(request.args)

    def statuses(self, identity: str) -> Iterator[Status]:
        """The statuses up to the terminal one, all of which must be of this job."""
        while True:
            name, status = self.status()
            assert name == identity
            yield status
            if status.code in jobs.TERMINAL:
                return

    def end(self, identity: str) -> Status:
        """The terminal status."""
        return list(self.statuses(identity))[-1]


class WorkerPeer(Peer):
    """A worker that does nothing by itself."""

    def register(self, block: str = "w1", host: str = "node1", slots: int | None = None, running: str = "") -> str:
        options = "maxwalltime = -1"
        if slots is not None:
            options += ", concurrency = %d" % slots
        if running:
            options += ", running = " + running
        return self.call("REGISTER", block.encode(), host.encode(), options.encode())[0].decode()

    def take(self) -> str:
        """Accept the next job; its service-side identity."""
        return self.take_job().identity

    def take_job(self) -> Job:
        request = self.expect("SUBMITJOB")
        self.answer(request)
        return jobs.parse(request.args[0])

    def report(self, identity: str, code: int, exit_code: int = 0, message: str = "", **output: bytes) -> None:
        detail = None if output else b""
        status = Status(code, exit_code, message, 0, output.get("stdout"), output.get("stderr"))
        assert self.call("JOBSTATUS", *jobs.encode_status(identity, status, detail)) == [b"OK"]


class Running:
    """A service in a thread of its own."""

    def __init__(self, **settings: Any) -> None:
        client_socket, worker_socket = sockets.listen("127.0.0.1", 0), sockets.listen("127.0.0.1", 0)
        self.client_address: tuple[str, int] = client_socket.getsockname()
        self.worker_address: tuple[str, int] = worker_socket.getsockname()
        self.loop = asyncio.new_event_loop()
        self.errors: list[Any] = []
        self.peers: list[Peer] = []
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self.service = Service(**settings)
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self.service.start(client_socket, worker_socket))

    def run(self, coroutine: Any) -> Any:
        """Run it in the service's loop and wait."""
        return self.begin(coroutine).result(PATIENCE)

    def begin(self, coroutine: Any) -> Any:
        """Run it in the service's loop; a future."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def look(self, function: Callable[[Service], Any]) -> Any:
        """Call this with the service in its own thread."""
        async def call() -> Any:
            return function(self.service)
        return self.run(call())

    def until(self, function: Callable[[Service], Any]) -> Any:
        """Look until it is true."""
        deadline = time.monotonic() + PATIENCE
        while not (found := self.look(function)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found

    def client(self, **settings: Any) -> ClientPeer:
        return self._kept(ClientPeer(self.client_address, **settings))

    def stranger(self, **settings: Any) -> WorkerPeer:
        """Somebody at the worker port who has said nothing."""
        return self._kept(WorkerPeer(self.worker_address, first_tag=7, **settings))

    def worker(self, block: str = "w1", host: str = "node1", slots: int | None = None, running: str = "", **settings: Any) -> WorkerPeer:
        """A registered worker."""
        worker = self.stranger(**settings)
        worker.register(block, host, slots, running)
        return worker

    def _kept(self, peer: Any) -> Any:
        self.peers.append(peer)
        return peer

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.run(self.service.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        self.loop.close()
        assert not self.errors, self.errors


def job(identity: str = "cog-1", **fields: Any) -> Job:
    made = Job(identity, "/bin/true")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def staging(identity: str = "cog-1") -> Job:
    """A job that stages in ``a/x`` and ``b``, and stages out to ``/cwd/out`` and ``/cwd/many-*``."""
    return job(
        identity, stage_in=[Stage("file://localhost/a/./x", "x"), Stage("file://localhost/b", "b")],
        stage_out=[Stage("out", "file://localhost//cwd/out"), Stage("m*", "file://localhost//cwd/many-*")])


def with_staging(service: Running, **worker: Any) -> tuple[ClientPeer, WorkerPeer, str]:
    """A client with channel id 1, a worker who has its job, and the job's service-side identity."""
    client = service.client()
    client.configure()
    busy = service.worker(**worker)
    client.submit(staging())
    return client, busy, busy.take()
