# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The coaster service: the asyncio shell round channel and pool, with a port for clients and one for workers.

The two ports have different commands (coaster-protocol 4.1). What peers send is answered in the same pass of the event loop
and written once per pass and peer. Python 3.8 and later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import deque
from itertools import islice
from typing import Any, Callable

from . import jobs
from .admission import Admission, AdmissionError, same_origin
from .channel import MAX_MESSAGE, SILENCE_LIMIT, Aborted, Channel, ChannelError, Chunk, Data, Failure, Reply, Request, Signal
from .connection import RECEIVE_SIZE
from .frames import LARGE
from .jobs import JobError
from .meter import Meter
from .pool import Action, Cancel, Client, Pool, PoolError, Send, Tell, Worker, clock
from .sockets import plain
from .submission import accept
from .transfers import StageIn, StageOut, Transfer, TransferError

VERSION = "0.4"
"""The protocol's version, which clients ask for (coaster-protocol 3.1)."""
HEARTBEAT_PERIODS = (30.0, 40.0)
"""Seconds between heartbeats to a worker: a period between these is drawn for each (coaster-protocol 3.3)."""
MAX_CONNECTIONS = 16384
"""Most connections to both ports together; one more is refused."""
MAX_TRANSFERS = 1024
"""Most files that one worker may have under way."""
MAX_BLOCK_ID = 256
"""Longest block id in characters; a longer one is refused. Host names are cut there."""
HIGH_WATER = 1048576
"""Unsent bytes for one peer from which files for it are held back at their source."""
LOW_WATER = 262144
"""Unsent bytes for one peer at which its files flow again."""
MAX_UNSENT = 64 * 1048576
"""Unsent bytes for one peer at which it counts as stuck and is dropped."""
MAX_UNANSWERED = 500000
"""Commands that one peer may leave without an answer; one that leaves more is dropped."""
REFUSAL_TIME = 5.0
"""Seconds that a refused peer has to read why."""
MAX_REFUSED = 256
"""Connections beyond the limit, or refused for something else, that are told so; yet more are closed without a word."""
MAX_STRANGERS = 2048
"""Connections to the port for workers that have not registered; one more, and the oldest is closed."""
MAX_FIRST_MESSAGE = 262144
"""Most bytes of an incomplete message of a worker that has not registered."""
REGISTER_TIME = 30.0
"""Seconds until a worker has to have registered."""
GOODBYE_TIME = 0.5
"""Seconds that peers have to take leave when the service stops."""
RETURNED = "it has come back on another connection"

_MAX_VECTORS = 64
_FORWARDED = jobs.TERMINAL | {jobs.ACTIVE, jobs.STAGE_IN, jobs.STAGE_OUT}
_NAMING_WORKER = (jobs.ACTIVE, jobs.STAGE_IN)
_CANNOT_PROXY = "this service gives no access to files of its own host"

log = logging.getLogger("CoasterService")


class Service:
    """One service. ``heartbeats`` and ``silence`` are the periods and the limit in seconds of coaster-protocol 3.3."""

    def __init__(
        self, resubmit: int = 0, admission: Admission | None = None, max_connections: int = MAX_CONNECTIONS,
        heartbeats: tuple[float, float] = HEARTBEAT_PERIODS, silence: float = SILENCE_LIMIT, pool: Pool | None = None,
    ) -> None:
        self.started = time.time()
        self.pool = pool or Pool(first_number=int(self.started * 1e6), resubmit=resubmit)
        self.admission = admission or Admission()
        self.heartbeats, self.silence, self.max_connections = heartbeats, silence, max_connections
        self.peers: dict[int, Peer] = {}
        self.strangers: dict[WorkerPeer, float] = {}
        self.refusing: set[Peer] = set()
        self.received, self.sent = Meter(self.started), Meter(self.started)
        self.refused = 0
        self.stopping = False
        self._epoch = self.started - time.monotonic()
        self._next_channel_id = 1
        self._servers: list[asyncio.AbstractServer] = []
        self._written: list[Peer] = []
        self.buffer = memoryview(bytearray(RECEIVE_SIZE))
        self._empty: asyncio.Event | None = None

    def now(self) -> float:
        """Seconds since the epoch that never run backwards."""
        return self._epoch + time.monotonic()

    async def start(self, client_socket: socket.socket, *worker_sockets: socket.socket) -> None:
        """Serve clients and workers who connect to these listening sockets."""
        self._loop = asyncio.get_running_loop()
        self._servers.append(await self._loop.create_server(lambda: ClientPeer(self), sock=client_socket, backlog=1024))
        for worker_socket in worker_sockets:
            self._servers.append(await self._loop.create_server(lambda: WorkerPeer(self), sock=worker_socket, backlog=1024))
        self._tick()

    async def stop(self) -> None:
        """Report running jobs as failed, say SHUTDOWN to everybody, and close all within about GOODBYE_TIME seconds."""
        self.stopping = True
        for server in self._servers:
            server.close()
        self._ticker.cancel()
        self.perform(self.pool.shut_down())
        for peer in self.peers.values():
            peer.channel.request("SHUTDOWN")
            self.touch(peer)
        self._flush()
        self._empty = asyncio.Event()
        if self.peers:
            for peer in list(self.peers.values()):
                peer.finish(peer.transport.write_eof)
            try:
                await asyncio.wait_for(self._empty.wait(), GOODBYE_TIME)
            except asyncio.TimeoutError:
                for peer in list(self.peers.values()):
                    peer.transport.abort()
                await asyncio.sleep(0)

    def join(self, peer: Peer) -> int:
        """A peer has connected; its channel id."""
        channel_id = self._next_channel_id
        self._next_channel_id += 1
        self.peers[channel_id] = peer
        return channel_id

    def leave(self, peer: Peer) -> None:
        """A peer's connection is closed."""
        del self.peers[peer.channel_id]
        self.refusing.discard(peer)
        if self._empty is not None and not self.peers:
            self._empty.set()

    def perform(self, actions: list[Action]) -> None:
        """Do what the pool says."""
        for action in actions:
            if isinstance(action, Tell):
                peer = action.client.handle
                status = action.status
                if not status.time:
                    status.time = int(self.now() * 1000)
                peer.channel.request("JOBSTATUS", jobs.encode_status(action.identity, status))
            elif isinstance(action, Send):
                peer = action.worker.handle
                job = action.job
                context = (WorkerPeer.accepted, WorkerPeer.rejected, job.identity)
                job.started = self.now()
                peer.channel.request("SUBMITJOB", (job.description.for_worker(job.identity),), context)
            elif isinstance(action, Cancel):
                peer = action.worker.handle
                context = (WorkerPeer.cancel_answered, WorkerPeer.cancel_answered, action.identity)
                peer.channel.request("CANCELJOB", (_bytes(action.identity),), context)
            else:
                peer = action.worker.handle
                peer.drop(RETURNED)
            self.touch(peer)

    def probe(self) -> None:
        """Send all workers a heartbeat, but those that owe an answer anyway, so that the time at which they were last seen soon
        tells who lives."""
        for worker in self.pool.workers():
            if not worker.handle.channel.unanswered():
                worker.handle.channel.heartbeat(self.now())
                self.touch(worker.handle)

    def touch(self, peer: Peer) -> None:
        """The peer's channel may have output: write it at the end of this pass of the event loop."""
        if not peer.touched:
            peer.touched = True
            if not self._written:
                self._loop.call_soon(self._flush)
            self._written.append(peer)

    def _flush(self) -> None:
        written, self._written = self._written, []
        for peer in written:
            peer.touched = False
            peer.flush()

    def _tick(self) -> None:
        now = self.now()
        for stranger, since in list(self.strangers.items()):
            if now >= since + REGISTER_TIME:
                stranger.drop("it does not register")
        for peer in list(self.peers.values()):
            if peer.channel.tick(now):
                peer.drop("nothing was heard of it for %d s" % self.silence)
            elif peer.channel.unanswered() > MAX_UNANSWERED:
                peer.drop("it does not answer")
            else:
                peer.check()
                self.touch(peer)
        self.received.tick(now)
        self.sent.tick(now)
        self._ticker = self._loop.call_later(min(1.0, self.silence / 10), self._tick)


class Peer(asyncio.BufferedProtocol):
    """One connection: bytes to events to command methods, and back."""

    commands: dict[str, str] = {}
    kind = "peer"
    transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self.service = service
        self.touched = self.congested = self.silent = False
        self._waiting: deque[bytes | memoryview] = deque()
        self._held = 0
        self._paused = False
        self._last: Callable[[], None] | None = None
        self.refusal: str | None = None
        self.address = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._socket = transport.get_extra_info("socket")
        service = self.service
        self.channel = self.new_channel()
        self.remote = _end(transport.get_extra_info("peername"))
        self.local = _end(transport.get_extra_info("sockname"))
        self.address = self.remote[0]
        # What the transport cannot send at once it moves about with every write: it gets one block at a time.
        self.transport.set_write_buffer_limits(0)
        self.channel_id = service.join(self)
        self.joined()
        if len(service.peers) > service.max_connections + MAX_REFUSED:
            self.drop("there are too many connections")
        elif len(service.peers) > service.max_connections:
            self.refuse("the service has its limit of %d connections" % service.max_connections)
        else:
            try:
                service.admission.check_user(self.remote, self.local)
            except AdmissionError as error:
                self.refuse(str(error))

    def new_channel(self) -> Channel:
        return Channel(self.service.now(), silence_limit=self.service.silence)

    def check(self) -> None:
        """Called each second."""

    def joined(self) -> None:
        """The peer has its channel id."""

    def refuse(self, reason: str) -> None:
        """Answer every command with this reason, and close soon."""
        self.service.refused += 1
        log.warning("refused a %s from %s: %s", self.kind, self.address, reason)
        self.refusal = reason
        self.service.refusing.add(self)
        if len(self.service.refusing) > MAX_REFUSED:
            self.drop("too many are refused")
        asyncio.get_running_loop().call_later(REFUSAL_TIME, self.transport.abort)

    def drop(self, reason: str) -> None:
        """Close the connection at once. The peer hears why, if it takes that without delay."""
        log.warning("dropped %s: %s", self, reason)
        if not self.congested:
            self.channel.request("RLOG", (b"ERROR", _bytes(reason)))
            self.flush()
        self.transport.abort()
        self.lose()

    def lose(self) -> None:
        """The peer is gone, although its connection may be open for a while; may come more than once."""

    def get_buffer(self, sizehint: int) -> memoryview:
        self._room = self.channel.room(self.service.buffer)
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        service = self.service
        service.received.total += nbytes
        try:
            events = self.channel.arrived(self._room, nbytes, service.now())
        except ChannelError as error:
            self.drop(str(error))
            return
        for event in events:
            if isinstance(event, Request):
                self._request(event)
            elif not isinstance(event, Reply) or event.context is not None:
                self._other(event)
        service.touch(self)

    def _request(self, request: Request) -> None:
        name = self.commands.get(request.name)
        if self.refusal is not None:
            self.channel.fail(request.tag, self.refusal)
        elif name is None:
            self.channel.fail(request.tag, "Unknown command: " + request.name[:100])
        else:
            try:
                getattr(self, name)(request)
            except (JobError, ChannelError, PoolError, AdmissionError, TransferError) as error:
                self.channel.fail(request.tag, str(error))

    def _other(self, event: Any) -> None:
        context = getattr(event, "context", None)
        if isinstance(context, Transfer):
            if context.ended:
                return
            if isinstance(event, Chunk):
                context.chunk(event.payload, event.final)
            elif isinstance(event, Failure):
                context.failed(event.message)
            elif isinstance(event, Reply):
                context.replied(event.values)
            else:
                context.signalled(event.payload)
        elif context is not None:
            accepted, refused, identity = context
            if isinstance(event, Reply):
                accepted(self, identity)
            elif isinstance(event, Failure):
                refused(self, identity, event.message)

    def flush(self) -> None:
        chunks = self.channel.take_output()
        if not chunks or self.silent or self.transport.is_closing():
            return
        size = sum(map(len, chunks))
        self._waiting.extend(chunks)
        self.service.sent.total += size
        self._held += size
        self._write()
        if self.congested and self.unsent() > MAX_UNSENT:
            self.drop("it does not read what it is sent")

    def _write(self) -> None:
        """Write what waits as far as the peer takes it."""
        while self._waiting and not self._paused:
            if len(self._waiting) > 1:
                self._write_some()
            else:
                data = self._waiting.popleft()
                self._held -= len(data)
                self.transport.write(data)
        if not self.congested and self.unsent() > HIGH_WATER:
            self.full()
        elif self.congested and self.unsent() <= LOW_WATER:
            self.free()
        if self._last is not None and not self._waiting:
            last, self._last = self._last, None
            # Later, because a transport that says that it is free must not be closed at once.
            asyncio.get_running_loop().call_soon(_unless_gone, last)

    def _write_some(self) -> None:
        """Give the socket what it takes from where it lies; the transport gets a little more, to tell when the socket is free."""
        batch = list(islice(self._waiting, _MAX_VECTORS))
        try:
            sent = os.writev(self._socket.fileno(), batch)
        except OSError:
            sent = 0  # full; or closed, which the transport finds, too
        self._held -= sent
        for data in batch:
            if sent < len(data):
                rest = memoryview(data)[sent:]
                self._waiting[0] = rest[LARGE:]
                self._held -= min(len(rest), LARGE)
                self.transport.write(rest[:LARGE])
                break
            sent -= len(data)
            self._waiting.popleft()

    def finish(self, last: Callable[[], None]) -> None:
        """All has been said: what the peer still says gets no answer. When all is written, ``last`` is called."""
        self.silent = True
        self._last = last
        self._write()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write()

    def full(self) -> None:
        """The peer reads slower than it is sent to: files for it are held back at their source."""
        self.congested = True

    def free(self) -> None:
        """The peer has read enough: its files flow again."""
        self.congested = False

    def unsent(self) -> int:
        """Bytes that the peer's socket has not taken yet."""
        return self._held + self.transport.get_write_buffer_size()

    def eof_received(self) -> bool:
        self.lose()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose()
        self.service.leave(self)
        self.channel.close()

    def version(self, request: Request) -> None:
        self.channel.reply(request.tag, (VERSION.encode(),))


class ClientPeer(Peer):
    """A connection to the client port."""

    kind = "client"
    commands = {
        "VERSION": "version", "CHANNELCONFIG": "channel_config", "CONFIGSERVICE": "config_service",
        "SUBMITJOB": "submit", "CANCELJOB": "cancel", "SHUTDOWN": "shut_down", "SHUTDOWNSERVICE": "shut_down", "INFO": "info",
    }
    client: Client

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.transfers: set[Transfer] = set()

    def __str__(self) -> str:
        return "client %d from %s" % (self.channel_id, self.address)

    def joined(self) -> None:
        self.client = self.service.pool.add_client(self, self.channel_id)

    def lose(self) -> None:
        self.service.perform(self.service.pool.client_lost(self.client))
        for transfer in list(self.transfers):
            transfer.client_lost()

    def full(self) -> None:
        super().full()
        for transfer in self.transfers:
            transfer.client_full()

    def free(self) -> None:
        super().free()
        for transfer in self.transfers:
            transfer.client_free()

    def channel_config(self, request: Request) -> None:
        self.channel.reply(request.tag, (b"compression: NONE",))

    def config_service(self, request: Request) -> None:
        key, _equals, version = _text(request.args[0] if request.args else b"").partition("=")
        if key != "requireVersion":
            self.channel.fail(
                request.tag, "No version requirement information supplied by the client. Please update the client.")
        elif version != VERSION:
            self.channel.fail(
                request.tag, "Client requires version %s, but this service is version %s" % (version[:100], VERSION))
        else:
            self.channel.reply(request.tag, (b"0",))

    def submit(self, request: Request) -> None:
        if self.service.stopping:
            raise PoolError("the service is shutting down")
        submission = accept(_argument(request, 0), self.channel_id)
        job, actions = self.service.pool.submit(
            self.client, submission.identity, submission.walltime, submission, len(submission.body))
        self.channel.reply(request.tag, (_bytes(job.identity),))
        self.service.perform(actions)

    def cancel(self, request: Request) -> None:
        self.service.perform(self.service.pool.cancel(self.client, _text(_argument(request, 0))))
        self.channel.reply(request.tag)

    def shut_down(self, request: Request) -> None:
        self.service.perform(self.service.pool.client_leaves(self.client))
        self.channel.reply(request.tag)

    def info(self, request: Request) -> None:
        what = _text(_argument(request, 0))
        _argument(request, 1)
        pool = self.service.pool
        if what == "workers":
            lines = ["           ID    Cores     Running"]
            lines += ["%13s    %5d    %7d" % (worker, len(worker.slots), len(worker.jobs)) for worker in pool.workers()]
        elif what == "jobs":
            lines = ["          ID          Worker            Executable           Start Time     Walltime"]
            for worker in pool.workers():
                for identity, job in worker.jobs.items():
                    lines.append("%s    %13s    %20s    %s    %s" % (
                        identity, worker, job.description.executable, _date(job.started), clock(job.walltime)))
        elif what == "blocks":
            lines = ["    ID    State    Workers           Start Time    Walltime"]
            lines += ["%6s        R    %7d    %s    -" % (block.id, len(block.workers), _date(block.since))
                      for block in pool.blocks.values() if block.workers]
        else:
            raise PoolError("Unknown type: '%s'" % what[:100])
        self.channel.reply(request.tag, [_bytes(line) for line in lines])


class WorkerPeer(Peer):
    """A connection to the worker port; ``worker`` is None until it has registered."""

    kind = "worker"
    commands = {
        "VERSION": "version", "REGISTER": "register", "JOBSTATUS": "job_status", "RLOG": "remote_log",
        "GET": "get", "PUT": "put", "SHUTDOWN": "shut_down", "ECHO": "echo",
    }

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.worker: Worker | None = None
        self.block_id = ""
        self.sent_home = False
        self.transfers: dict[int, Transfer] = {}

    def __str__(self) -> str:
        if self.worker is None:
            return "worker not registered from %s" % self.address
        return "worker %s on %s from %s" % (self.worker, self.worker.host, self.address)

    def new_channel(self) -> Channel:
        shortest, longest = self.service.heartbeats
        period = shortest + (longest - shortest) * os.urandom(1)[0] / 255
        return Channel(self.service.now(), period, self.service.silence, max_message=MAX_FIRST_MESSAGE)

    def joined(self) -> None:
        strangers = self.service.strangers
        strangers[self] = self.service.now()
        if len(strangers) > MAX_STRANGERS:
            next(iter(strangers)).drop("there are too many that have not registered")

    def check(self) -> None:
        """A worker whose block id is no longer listed gets no more jobs, and is sent home when its last one has ended."""
        if self.worker is None or self.sent_home:
            return
        if not self.worker.closed and not self.service.admission.may_stay(self.block_id):
            log.info("draining %s: its block id is no longer in the list of workers", self)
            self.service.pool.drain(self.worker)
        if self.worker.closed and not self.worker.jobs:
            self.sent_home = True
            self.channel.request("SHUTDOWN")

    def lose(self) -> None:
        self.service.strangers.pop(self, None)
        if self.worker is not None and not self.worker.lost:
            log.info("lost %s", self)
            self.service.perform(self.service.pool.worker_lost(self.worker))
        for transfer in list(self.transfers.values()):
            transfer.worker_lost()

    def full(self) -> None:
        super().full()
        for transfer in self.transfers.values():
            transfer.worker_full()

    def free(self) -> None:
        super().free()
        for transfer in self.transfers.values():
            transfer.worker_free()

    def _other(self, event: Any) -> None:
        transfer = self.transfers.get(event.tag)
        if isinstance(event, Data):
            if transfer is not None:
                transfer.chunk(event.payload, event.final)
        elif isinstance(event, Aborted):
            if transfer is not None:
                transfer.worker_lost()
        elif isinstance(event, Signal) and not event.from_replier:
            if transfer is not None and event.payload.startswith(b"ABORT"):
                transfer.aborted()
        else:
            super()._other(event)

    # what the service asked of the worker

    def accepted(self, identity: str) -> None:
        self.service.perform(self.service.pool.accepted(self._registered(), identity))

    def rejected(self, identity: str, message: str) -> None:
        self.service.perform(self.service.pool.rejected(self._registered(), identity, message))

    def cancel_answered(self, identity: str, message: str = "") -> None:
        self.service.perform(self.service.pool.cancel_answered(self._registered(), identity))

    # what the worker asks

    def register(self, request: Request) -> None:
        if self.worker is not None:
            raise AdmissionError("this connection has registered before")
        block, host = _text(_argument(request, 0)), _text(_argument(request, 1))
        slots, running = _worker_options(_text(request.args[2]) if len(request.args) > 2 else "")
        pool, admission = self.service.pool, self.service.admission
        try:
            if not block or len(block) > MAX_BLOCK_ID or not block.isprintable() or " " in block:
                raise AdmissionError("its block id has blanks or control characters, or its length is not 1 to %d" % MAX_BLOCK_ID)
            self.block_id = block
            block = admission.block_name(block)
            for other in pool.blocks[block].workers.values() if admission.listed and block in pool.blocks else ():
                if not same_origin((other.handle.remote, other.handle.local), (self.remote, self.local)):
                    raise AdmissionError("its block id is in use by another worker, from %s" % other.handle.address)
        except AdmissionError as error:
            self.refuse(str(error))
            raise
        host = "".join(letter if letter.isprintable() else "?" for letter in host[:MAX_BLOCK_ID])
        self.service.strangers.pop(self, None)
        self.channel.max_message = MAX_MESSAGE
        self.worker, actions = pool.add_worker(
            self, block, host, slots, running, alone=admission.listed, now=self.service.now())
        # After the id the jobs that stay with the worker. Without them it cannot tell a service that knows its jobs from another.
        kept = [_bytes(identity) for identity in running if identity in self.worker.jobs]
        self.channel.reply(request.tag, [self.worker.id.encode()] + kept)
        log.info("registered %s with %d slots", self, slots)
        self.service.perform(actions)

    def job_status(self, request: Request) -> None:
        worker = self._registered()
        identity, status = jobs.parse_status(request.args)
        self.channel.reply(request.tag)
        if status.code in _NAMING_WORKER:
            status.message = "workerid=%s" % worker
        if status.code in _FORWARDED:
            self.service.perform(self.service.pool.status(worker, identity, status))

    def remote_log(self, request: Request) -> None:
        self._registered()
        log.debug("%s says %s", self, b" ".join(request.args[:2])[:1000])
        self.channel.reply(request.tag)

    def shut_down(self, request: Request) -> None:
        self.channel.reply(request.tag)
        self.flush()
        self.finish(self.transport.close)

    def echo(self, request: Request) -> None:
        self.channel.reply(request.tag, (_argument(request, 0),))

    def get(self, request: Request) -> None:
        client, path = self._proxied(_text(_argument(request, 0)), "may_read")
        destination = _argument(request, 1)
        StageIn(self, request.tag, client).begin(path, destination)

    def put(self, request: Request) -> None:
        client, path = self._proxied(_text(_argument(request, 2)), "may_write")
        StageOut(self, request.tag, client).begin(path, request.args[0], request.args[1], request.final)

    def _registered(self) -> Worker:
        if self.worker is None:
            raise AdmissionError("the worker has not registered")
        return self.worker

    def _proxied(self, url: str, access: str) -> tuple[ClientPeer, str]:
        """The client and its path behind a proxy URL, if a job on this worker has it in its staging lists."""
        bare = url[7:] if url.startswith("pinned:") else url
        scheme, colon, rest = bare.partition(":")
        path = jobs.client_path(url)
        if scheme != "proxy" or path is None:
            if not colon or "/" in scheme or scheme == "file":
                raise TransferError("%s: %s" % (url[:1000], _CANNOT_PROXY))
            raise TransferError("Unknown protocol: " + scheme[:100])
        number = rest[2:].partition("/")[0]
        for job in self._registered().jobs.values():
            if job.client is not None and str(job.client.number) == number and getattr(job.description, access)(path):
                if len(self.transfers) >= MAX_TRANSFERS:
                    raise TransferError("the worker has its limit of %d files under way" % MAX_TRANSFERS)
                client: ClientPeer = job.client.handle
                return client, path
        raise TransferError("%s: no job on this worker has this file in its staging lists" % url[:1000])


def _unless_gone(action: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):  # the peer has just gone by itself
        action()


def _worker_options(text: str) -> tuple[int, list[str]]:
    """Slots and identities still running, from REGISTER's options ``key = value, …`` (coaster-protocol 3.2)."""
    options = {}
    for option in text.split(","):
        key, _equals, value = option.partition("=")
        options[key.strip()] = value.strip()
    slots = options.get("concurrency", "1")
    if not slots.isdigit() or not slots.isascii() or not 1 <= int(slots[:9]) <= 10 ** 8:
        raise AdmissionError("concurrency = %s is not a number of slots" % slots[:100])
    return int(slots), options.get("running", "").split()


def _argument(request: Request, index: int) -> bytes:
    if index >= len(request.args):
        raise ChannelError("Missing command argument #%d" % (index + 1))
    return request.args[index]


def _date(seconds: float) -> str:
    return time.strftime("%m/%d/%y %H:%M:%S", time.localtime(seconds))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _end(name: tuple[Any, ...] | None) -> tuple[str, int]:
    """Address and port of one end of a connection; asyncio gives None when it was closed before it was looked at."""
    return (plain(name[0]), name[1]) if name else ("?", 0)
