# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's mind: workers and their slots, clients and their jobs, and which job goes where (coaster-protocol 1.3, 1.4).

Pure: events in, actions out, each event in O(log n) of the slots and jobs. ``handle`` is whatever the shell wants to find
again on a worker or client; the pool never looks at it. Every job that was accepted ends with exactly one terminal status,
unless its client is gone; a job that ended is forgotten, so a status that comes late or twice finds nothing.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, Iterable, Union

from .jobs import CANCELED, COMPLETED, FAILED, MAX_WALLTIME, SUBMITTED, SUBMITTING, TERMINAL, Status

MAX_QUEUED = 1000000
"""Most jobs that may wait for a slot; one more is refused."""
MAX_QUEUED_BYTES = 512 * 1048576
"""Largest sum of the sizes of waiting jobs' descriptions."""
MAX_SLOTS = 4096
"""Most slots of one worker; a worker that announces more gets this many."""
MAX_EMPTY_BLOCKS = 4096
"""Blocks without workers whose counters are remembered; beyond that the one empty for the longest is forgotten."""


class PoolError(ValueError):
    """The pool refuses what was asked; the text says why."""


class Send:
    """Hand the job to the worker."""

    __slots__ = ("worker", "job")

    def __init__(self, worker: Worker, job: Job) -> None:
        self.worker, self.job = worker, job


class Tell:
    """Tell the client the status of its job; ``identity`` is the client's own name for it."""

    __slots__ = ("client", "identity", "status")

    def __init__(self, client: Client, identity: str, status: Status) -> None:
        self.client, self.identity, self.status = client, identity, status


class Cancel:
    """Make the worker end what it runs under this service-side identity."""

    __slots__ = ("worker", "identity")

    def __init__(self, worker: Worker, identity: str) -> None:
        self.worker, self.identity = worker, identity


class Drop:
    """Close the connection of the worker, which counts as lost already: it has come back on another."""

    __slots__ = ("worker",)

    def __init__(self, worker: Worker) -> None:
        self.worker = worker


Action = Union[Send, Tell, Cancel, Drop]


class Slot:
    """Room for one job at a time on a worker. Its quality ranks it among idle slots (coaster-protocol 1.4)."""

    __slots__ = ("worker", "index", "completed", "failed", "job")

    def __init__(self, worker: Worker, index: int) -> None:
        self.worker, self.index = worker, index
        self.completed = self.failed = 0
        self.job: Job | None = None

    @property
    def quality(self) -> float:
        """More for a slot whose jobs completed, less for one whose jobs failed; 1 for a new one."""
        return (self.completed + 1) / (self.failed + 1)


class Worker:
    """One registered worker: ``block`` is its block's id, ``number`` its place in there, ``jobs`` what it was sent, by
    service-side identity, ``since`` when it registered. A ``closed`` one gets no more jobs: it is drained or lost."""

    __slots__ = ("handle", "block", "number", "host", "slots", "since", "jobs", "completed", "failed", "lost", "closed")

    def __init__(self, handle: Any, block: str, number: int, host: str, slots: int, since: float) -> None:
        self.handle, self.block, self.number, self.host, self.since = handle, block, number, host, since
        self.slots = [Slot(self, index) for index in range(slots)]
        self.jobs: dict[str, Job] = {}
        self.completed = self.failed = 0
        self.lost = self.closed = False

    @property
    def id(self) -> str:
        """The worker id as sent to it: six digits, counting per block."""
        return "%06d" % self.number

    def __str__(self) -> str:
        return "%s:%s" % (self.block, self.id)


class Client:
    """One client: ``number`` is its channel id, ``jobs`` its jobs that have not ended, by the client's identity."""

    __slots__ = ("handle", "number", "jobs")

    def __init__(self, handle: Any, number: int) -> None:
        self.handle, self.number = handle, number
        self.jobs: dict[str, Job] = {}


class Job:
    """One job. ``identity`` is the service-side one and new for each attempt; ``client`` is None once it is gone;
    ``slot`` is None while the job waits. ``description`` (of ``size`` bytes) and ``started`` are the shell's."""

    __slots__ = (
        "client", "client_identity", "identity", "walltime", "order", "description", "size", "started", "slot",
        "waiting", "accepted", "cancelled", "attempts",
    )

    def __init__(self, client: Client, client_identity: str, walltime: int, description: Any, size: int) -> None:
        self.client: Client | None = client
        self.client_identity, self.walltime, self.description, self.size = client_identity, walltime, description, size
        self.identity = ""
        self.order = 0
        self.started = 0.0
        self.slot: Slot | None = None
        self.waiting = self.accepted = self.cancelled = False
        self.attempts = 0


class Block:
    """The workers that registered under one block id; the counts outlive them. ``since``: when the first one did."""

    __slots__ = ("id", "since", "next_number", "workers", "completed", "failed")

    def __init__(self, identity: str, since: float) -> None:
        self.id, self.since = identity, since
        self.next_number = 0
        self.workers: dict[int, Worker] = {}
        self.completed = self.failed = 0


class Pool:
    """``first_number`` starts the numbers in service-side identities: give microseconds since the epoch, so that a service
    that was restarted never reuses one. ``resubmit``: how often a job goes back to the queue when its worker is lost."""

    def __init__(
        self, first_number: int = 0, resubmit: int = 0, max_queued: int = MAX_QUEUED, max_queued_bytes: int = MAX_QUEUED_BYTES
    ) -> None:
        self.resubmit = resubmit
        self.blocks: dict[str, Block] = {}
        self.clients: dict[int, Client] = {}
        self.slots = self.queued = self.queued_bytes = self.active = 0
        self.submitted = self.completed = self.failed = self.cancelled = self.resubmitted = 0
        self.workers_seen = self.workers_lost = 0
        self.max_queued, self.max_queued_bytes = max_queued, max_queued_bytes
        self._first_number = first_number
        self._next_order = 0
        self._next_turn = 0
        self._queue: list[tuple[int, int, Job]] = []
        self._idle: list[tuple[float, int, int, Slot]] = []
        self._dead_slots = 0
        self._empty_blocks: dict[str, None] = {}

    def workers(self) -> Iterable[Worker]:
        """All workers, block by block, in order of registration."""
        return (worker for block in self.blocks.values() for worker in block.workers.values())

    # workers

    def add_worker(
        self, handle: Any, block_id: str, host: str, slots: int = 1, running: Iterable[str] = (), alone: bool = False, now: float = 0.0,
    ) -> tuple[Worker, list[Action]]:
        """A worker registers. ``running``: service-side identities that it still runs from an earlier connection. Those
        that the pool believes to be on another connection of the same block move here, and that connection is dropped; the
        rest are cancelled. ``alone``: every other connection of the block is dropped."""
        block = self.blocks.get(block_id)
        if block is None:
            block = self.blocks[block_id] = Block(block_id, now)
        self._empty_blocks.pop(block_id, None)
        slots = max(1, min(slots, MAX_SLOTS))
        worker = Worker(handle, block_id, block.next_number, host, slots, now)
        block.next_number += 1
        self.workers_seen += 1
        self.slots += slots
        actions: list[Action] = []
        free = worker.slots[::-1]
        left = dict.fromkeys(block.workers.values() if alone else ())
        for identity in islice(dict.fromkeys(running), MAX_SLOTS):
            other = next((other for other in block.workers.values() if identity in other.jobs), None)
            if other is None or not free:
                actions.append(Cancel(worker, identity))
                continue
            job = worker.jobs[identity] = other.jobs.pop(identity)
            self._vacate(job)
            self._occupy(job, free.pop())
            left[other] = None
            if job.cancelled:
                actions.append(Cancel(worker, identity))
        block.workers[worker.number] = worker
        for slot in reversed(free):
            self._offer(slot)
        for other in left:
            actions.append(Drop(other))
            self._lose(other, actions)
        self._dispatch(actions)
        return worker, actions

    def worker_lost(self, worker: Worker) -> list[Action]:
        """The worker is gone: its jobs fail at once, or go back to the queue when they may."""
        actions: list[Action] = []
        if not worker.lost:
            self._lose(worker, actions)
            self._dispatch(actions)
        return actions

    def drain(self, worker: Worker) -> None:
        """Hand the worker no more jobs; those that it has go on."""
        if not worker.closed:
            self._close(worker)

    def accepted(self, worker: Worker, identity: str) -> list[Action]:
        """The worker took the job that it was sent."""
        actions: list[Action] = []
        job = worker.jobs.get(identity)
        if job is not None and not job.accepted:
            job.accepted = True
            self._tell(job, Status(SUBMITTED), actions)
        return actions

    def rejected(self, worker: Worker, identity: str, message: str) -> list[Action]:
        """The worker refused the job that it was sent."""
        return self.status(worker, identity, Status(FAILED, 0, "Block task failed: " + message))

    def status(self, worker: Worker, identity: str, status: Status) -> list[Action]:
        """The worker reports on a job; anything about a job that is not on this worker is passed over."""
        actions: list[Action] = []
        job = worker.jobs.get(identity)
        if job is None:
            return actions
        if not job.accepted and status.code != FAILED:
            job.accepted = True
            self._tell(job, Status(SUBMITTED), actions)
        if status.code in TERMINAL:
            del worker.jobs[identity]
            slot = self._vacate(job)
            block = self.blocks[worker.block]
            if status.code == COMPLETED:
                slot.completed += 1
                worker.completed += 1
                block.completed += 1
            elif status.code == FAILED:
                slot.failed += 1
                worker.failed += 1
                block.failed += 1
            self._offer(slot)
            self._end(job, status, actions)
            self._dispatch(actions)
        else:
            self._tell(job, status, actions)
        return actions

    def cancel_answered(self, worker: Worker, identity: str) -> list[Action]:
        """The worker answered a CANCELJOB; if it gave no terminal status before, the job counts as cancelled now."""
        return self.status(worker, identity, Status(CANCELED))

    # clients

    def add_client(self, handle: Any, number: int) -> Client:
        """A client has come; ``number`` is its channel id."""
        client = self.clients[number] = Client(handle, number)
        return client

    def client_leaves(self, client: Client) -> list[Action]:
        """The client wants nothing more of its jobs: waiting ones are dropped in silence, running ones cancelled."""
        actions: list[Action] = []
        for job in list(client.jobs.values()):
            if job.slot is None:
                del client.jobs[job.client_identity]
                job.client = None
            self._cancel(job, actions)
        return actions

    def client_lost(self, client: Client) -> list[Action]:
        """The client is gone: as client_leaves, and nothing is told any more."""
        actions: list[Action] = []
        if self.clients.pop(client.number, None) is not None:
            for job in client.jobs.values():
                job.client = None
                self._cancel(job, actions)
            client.jobs.clear()
        return actions

    def submit(self, client: Client, identity: str, walltime: int, description: Any, size: int = 0) -> tuple[Job, list[Action]]:
        """The client submits a job under its own ``identity``, unique among its jobs that have not ended; ``walltime`` in
        seconds. Raises PoolError when a limit is passed or the identity is taken."""
        if identity in client.jobs:
            raise PoolError("the identity %s belongs to another job of this client that has not ended" % identity)
        if self.queued >= self.max_queued:
            raise PoolError("the queue is full: %d jobs wait; submit again when some have started" % self.queued)
        if self.queued_bytes + size > self.max_queued_bytes:
            raise PoolError("the queue is full: its descriptions have %d bytes; submit again when some have started" % self.queued_bytes)
        job = Job(client, identity, walltime, description, size)
        job.identity = "%s:%d" % (identity, self._first_number + self._next_order)
        job.order = self._next_order
        self._next_order += 1
        self.submitted += 1
        client.jobs[identity] = job
        actions: list[Action] = []
        if walltime > MAX_WALLTIME:
            message = "Task walltime > maxJobTime - reserve (%s > %s)" % (clock(walltime), clock(MAX_WALLTIME))
            self._end(job, Status(FAILED, 0, message), actions)
        else:
            self._enqueue(job)
            self._dispatch(actions)
        return job, actions

    def cancel(self, client: Client, identity: str) -> list[Action]:
        """The client gives up one of its jobs, named by its own or by a service-side identity; unknown ones are passed over."""
        actions: list[Action] = []
        job = client.jobs.get(identity)
        if job is None:
            job = client.jobs.get(identity.rpartition(":")[0])
            if job is None or not (job.identity + ":").startswith(identity + ":"):
                return actions
        self._cancel(job, actions)
        return actions

    def shut_down(self) -> list[Action]:
        """The service stops: every job fails. The pool takes no events after this but losses."""
        actions: list[Action] = []
        for client in self.clients.values():
            for job in list(client.jobs.values()):
                if job.slot is None:
                    self._unqueue(job)
                    self._end(job, Status(FAILED, 0, "Shutting down service"), actions)
                else:
                    del job.slot.worker.jobs[job.identity]
                    self._vacate(job)
                    self._end(job, Status(FAILED, 0, "Shutting down worker"), actions)
        return actions

    # inside

    def _tell(self, job: Job, status: Status, actions: list[Action]) -> None:
        if job.client is not None:
            actions.append(Tell(job.client, job.client_identity, status))

    def _enqueue(self, job: Job) -> None:
        job.waiting = True
        self.queued += 1
        self.queued_bytes += job.size
        heappush(self._queue, (-job.walltime, job.order, job))

    def _unqueue(self, job: Job) -> None:
        """The entry of a job that no longer waits stays in the heap until it is met or such entries prevail."""
        job.waiting = False
        self.queued -= 1
        self.queued_bytes -= job.size
        if len(self._queue) > 2 * self.queued + 64:
            self._queue = [entry for entry in self._queue if entry[2].waiting]
            heapify(self._queue)

    def _offer(self, slot: Slot) -> None:
        """Put an idle slot up: best quality first; among equals the first slots of all workers before the second ones
        (so that few jobs spread over many hosts), and then the one idle for the longest. Not those of a closed worker."""
        if slot.worker.closed:
            return
        heappush(self._idle, (-slot.quality, slot.index, self._next_turn, slot))
        self._next_turn += 1

    def _vacate(self, job: Job) -> Slot:
        slot = job.slot
        if slot is None:
            raise RuntimeError("a job without a slot was vacated")
        job.slot = slot.job = None
        self.active -= 1
        return slot

    def _occupy(self, job: Job, slot: Slot) -> None:
        job.slot, slot.job = slot, job
        self.active += 1

    def _dispatch(self, actions: list[Action]) -> None:
        queue, idle = self._queue, self._idle
        while self.queued and idle:
            slot = heappop(idle)[3]
            if slot.worker.closed:
                self._dead_slots -= 1
                continue
            job = heappop(queue)[2]
            while not job.waiting:
                job = heappop(queue)[2]
            job.waiting = False
            self.queued -= 1
            self.queued_bytes -= job.size
            self._occupy(job, slot)
            job.accepted = False
            slot.worker.jobs[job.identity] = job
            self._tell(job, Status(SUBMITTING), actions)
            actions.append(Send(slot.worker, job))

    def _lose(self, worker: Worker, actions: list[Action]) -> None:
        worker.lost = True
        if not worker.closed or worker.jobs:  # a drained one leaves as it should
            self.workers_lost += 1
        self.slots -= len(worker.slots)
        block = self.blocks[worker.block]
        del block.workers[worker.number]
        if not block.workers:
            self._empty_blocks[block.id] = None
            if len(self._empty_blocks) > MAX_EMPTY_BLOCKS:
                oldest = next(iter(self._empty_blocks))
                del self._empty_blocks[oldest], self.blocks[oldest]
        if not worker.closed:
            self._close(worker)
        for job in worker.jobs.values():
            self._worker_gone(job, worker, actions)
        worker.jobs.clear()

    def _close(self, worker: Worker) -> None:
        """Its idle slots stay in the heap until they are met or such entries prevail."""
        worker.closed = True
        self._dead_slots += len(worker.slots) - len(worker.jobs)
        if self._dead_slots * 2 > len(self._idle):
            self._idle = [entry for entry in self._idle if not entry[3].worker.closed]
            heapify(self._idle)
            self._dead_slots = 0

    def _cancel(self, job: Job, actions: list[Action]) -> None:
        if job.slot is None:
            self._unqueue(job)
            self._end(job, Status(CANCELED), actions)
        elif not job.cancelled:
            job.cancelled = True
            actions.append(Cancel(job.slot.worker, job.identity))

    def _worker_gone(self, job: Job, worker: Worker, actions: list[Action]) -> None:
        self._vacate(job)
        if job.client is not None and not job.cancelled and job.attempts < self.resubmit:
            submitted_as = job.identity if not job.attempts else job.identity.rpartition(":")[0]
            job.attempts += 1
            job.identity = "%s:%d" % (submitted_as, job.attempts)
            self.resubmitted += 1
            self._enqueue(job)
        else:
            message = "Block task failed: Connection to worker lost (worker %s on %s)" % (worker, worker.host)
            self._end(job, Status(FAILED, 0, message), actions)

    def _end(self, job: Job, status: Status, actions: list[Action]) -> None:
        if status.code == COMPLETED:
            self.completed += 1
        elif status.code == FAILED:
            self.failed += 1
        else:
            self.cancelled += 1
        if job.client is not None:
            job.client.jobs.pop(job.client_identity, None)
            self._tell(job, status, actions)


def clock(seconds: int) -> str:
    """``H:MM:SS``, as Swift/K writes walltimes."""
    return "%d:%02d:%02d" % (seconds // 3600, seconds // 60 % 60, seconds % 60)
