# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker: registers with a coaster service and runs the jobs that it is sent (coaster-protocol 3.2 to 3.5, 4.2).

One thread, one loop, woken by the service, by signals and by deadlines only. No asyncio: loading it costs more than a
worker may use until it has registered. Python 3.6 and later.
"""

import contextlib
import errno
import os
import signal
import socket

from . import jobs
from .channel import Channel, Chunk, Failure, Reply, Request, Signal
from .connection import Connection, Lost, begin, clock, finish, resolve, wait_for
from .jobs import CANCELED, JobError, Status
from .processes import Signals, kill_group, kill_marked, reap, reap_all, spawn
from .run import NEVER, Cancelled, Errand, Run, ServiceLost, Task, TimeUp
from .staging import FileError, native, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Generator, List, Optional, Sequence, Set, Tuple

    from .staging import Outgoing

    Dialing = Generator[Tuple[Optional[socket.socket], float], bool, None]
    Report = Tuple[str, List[bytes]]

CONNECT_LIMIT = 3.0
"""Seconds that one address has to take the connection."""
REGISTER_LIMIT = 15.0
"""Seconds that the service has to answer the registration."""
PAUSES = (0.1, 2.0)
"""Seconds between rounds over all URLs: the first pause, doubled up to the last; a quarter more or less by chance."""
LOST_LIMIT = 60.0
"""Seconds without a service after which a worker ends its jobs and itself, unless told otherwise. Half of it when it never found
one: the service was started before, and a pool that has ended meanwhile is waited for in vain."""
HEARTBEAT_PERIOD = 20.0
"""Seconds between heartbeats to the service, whose answers show that it is there: two of them before it counts as lost. They are
most of what an idle worker does."""
SILENCE_LIMIT = 45.0
"""Seconds without a byte from the service after which its connection counts as lost; the time without a service counts from
the last byte on, so that a worker whose cable is cut ends no later than LOST_LIMIT after the cut."""
GOODBYE_LIMIT = 1.0
"""Seconds that the last bytes have to leave."""
ROUNDS = 8
"""Most frames of one file that are sent before everybody else has a turn."""


class Sender:
    """The data of a stage-out on its way."""

    __slots__ = ("task", "file", "stopped")

    def __init__(self, task: Task, file: "Outgoing") -> None:
        self.task, self.file, self.stopped = task, file, False


class Worker:
    """A worker for the services at ``urls`` (host and port, tried in order) under the id ``block``.

    ``slots``: how many jobs at once to announce; None leaves it to the service. ``walltime``: seconds to announce.
    ``limit``: seconds without a service after which it gives up, having tried all at least once; half of it before the first one.
    ``name``: what status messages call it instead of its block id, which may be a secret. ``log(level, words)`` is told what happens.
    """

    def __init__(
        self, urls: "Sequence[Tuple[str, int]]", block: str, slots: "Optional[int]" = None, walltime: int = -1,
        limit: float = LOST_LIMIT, name: str = ""
    ) -> None:
        self.urls, self.block, self.slots, self.walltime, self.limit = urls, block, slots, walltime, limit
        self.name = name or block
        self.id = ""
        self.exit_code: "Optional[int]" = None
        self.problem = ""
        self.log: "Callable[[str, str], None]" = lambda level, words: None
        self.home = os.getcwdb()
        self.mark = os.urandom(8).hex().encode()
        self.environment = dict(os.environb)
        self.environment[b"COASTERS_WORKER"] = self.mark
        self.null = os.open(os.devnull, os.O_RDWR)
        self._count = self._slots_made = 0
        self._free_slots: "List[int]" = []
        self._runs: "Dict[str, Run]" = {}
        self._tasks: "Dict[Task, None]" = {}
        self._children: "Dict[int, Task]" = {}
        self._senders: "Dict[int, Sender]" = {}
        self._steps: "Dict[Task, None]" = {}
        self._reports: "List[Report]" = []
        self._next_deadline = NEVER
        self._connection: "Optional[Connection]" = None
        self._registered = False
        self._register_until = NEVER
        self._lost_since = clock()
        self._reason = Lost("no URL was given")
        self._pause = PAUSES[0]

    # the loop

    def run(self) -> int:
        """Work until told to stop, or until the service is gone for too long; the exit code. Only in the main thread.

        0 after the service's SHUTDOWN, 128 + the signal, 1 when the service refuses the worker, else the errno of the
        last attempt to connect (1 where it has none). But after 0 and signals ``problem`` says what happened.
        """
        with Signals(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            self._redial(0.0)
            try:
                while self.exit_code is None:
                    self._turn(signals)
            finally:
                self._end()
        return self.exit_code

    def _turn(self, signals: Signals) -> None:
        """Wait for whatever comes next, and deal with it."""
        connection = self._connection
        reading: "Set[Any]" = {signals}
        writing: "Set[Any]" = set()
        until = min(self._next_deadline, self._dial_until, self._register_until)
        if self._has_tried:
            until = min(until, self._give_up_at())
        if connection is not None:
            reading.add(connection)
            if connection.unsent or self._can_send():
                writing.add(connection)
            until = min(until, connection.channel.deadline() or NEVER)
        elif self._dialed is not None:
            writing.add(self._dialed)
        readable, writable = wait_for(reading, writing, 0 if self._steps else until)
        if signals in readable:
            self._take_signals(signals)
        if connection is not None:
            self._serve(connection, connection in readable)
        elif self._dialed in writable or clock() >= self._dial_until:
            self._dial_on(self._dialed in writable)
        self._expire()
        for task in list(self._steps):
            self._resume(task)
        if self._has_tried and clock() >= self._give_up_at() and self.exit_code is None:
            self._stop(self._reason.number if 0 < self._reason.number < 256 else 1, "Failed to connect: %s" % self._reason)
        elif self._connection is not None:
            self._serve(self._connection, False)

    def _give_up_at(self) -> float:
        return self._lost_since + (self.limit if self.id else self.limit / 2)

    def _take_signals(self, signals: Signals) -> None:
        for number in signals.take():
            if number != signal.SIGCHLD:
                self._stop(128 + number, "")
        for child, status in reap():
            task = self._children.pop(child, None)
            if task is not None:
                self._resume(task, status)

    def _expire(self) -> None:
        now = clock()
        if now >= self._next_deadline:
            for task in [task for task in self._tasks if task.deadline <= now]:
                task.deadline = NEVER
                self._throw(task, TimeUp("it takes too long"))
            self._next_deadline = min([task.deadline for task in self._tasks] + [NEVER])

    def _stop(self, exit_code: int, problem: str) -> None:
        self.exit_code, self.problem = exit_code, problem
        self.log("ERROR" if problem else "INFO", problem or "stopping")

    def _end(self) -> None:
        """End all jobs, and leave."""
        children = list(self._children)
        for child in children:
            kill_group(child)
        if children or self._count:
            kill_marked(b"COASTERS_WORKER=" + self.mark)
        reap_all(children)
        for task in list(self._tasks):
            task.life.close()
        os.close(self.null)
        if self._dialed is not None:
            self._dialed.close()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(Lost):
                connection.flush()
                until = clock() + GOODBYE_LIMIT
                while connection.unsent and clock() < until:
                    wait_for(set(), {connection}, until)
                    connection.flush()
            connection.close()

    # the service

    def _dial(self, pause: float) -> "Dialing":
        """After a pause try all URLs again and again. Yields the socket that is to become writable, or None, and until when to wait for
        it; is sent whether it did. Stops at a connection until that is lost."""
        yield None, clock() + pause
        while True:
            for host, port in self.urls:
                try:
                    addresses = resolve(host, port)
                except Lost as lost:
                    self._missed(host, port, lost)
                    continue
                for address in addresses:
                    try:
                        sock = begin(address)
                        if not (yield sock, clock() + CONNECT_LIMIT):
                            sock.close()
                            raise Lost("no answer within %g s" % CONNECT_LIMIT, errno.ETIMEDOUT)
                        finish(sock)
                    except Lost as lost:
                        self._missed(host, port, lost)
                        continue
                    self._connect(sock)
                    yield None, NEVER
            self._has_tried = True
            yield None, clock() + self._pause * (0.75 + os.urandom(1)[0] / 512)
            self._pause = min(self._pause * 2, PAUSES[1])

    def _missed(self, host: str, port: int, lost: Lost) -> None:
        self._reason = Lost("%s:%d: %s" % (host, port, lost), lost.number)
        self.log("DEBUG", "cannot connect to %s" % self._reason)

    def _redial(self, pause: float) -> None:
        self._has_tried = False
        self._dialing = self._dial(pause)
        self._dialed, self._dial_until = next(self._dialing)

    def _dial_on(self, ready: bool) -> None:
        self._dialed, self._dial_until = self._dialing.send(ready)

    def _connect(self, sock: socket.socket) -> None:
        """A service took the connection: register."""
        connection = self._connection = Connection(sock, Channel(clock(), HEARTBEAT_PERIOD, SILENCE_LIMIT))
        options = "maxwalltime = %d" % self.walltime
        if self.slots is not None:
            options += ", concurrency = %d" % self.slots
        running = dict.fromkeys([identity for identity, _args in self._reports] + list(self._runs))
        if running:
            options += ", running = " + " ".join(running)
        words = (native(self.block), native(socket.gethostname()), native(options))
        connection.channel.request("REGISTER", words, lambda event: self._register(connection, event))
        self._register_until = clock() + REGISTER_LIMIT

    def _register(self, connection: Connection, event: "Any") -> None:
        """The service's answer: this worker's id, and which of the jobs that still run it keeps."""
        if isinstance(event, Failure):
            if self.id:
                raise Lost("Registration refused: " + event.message)
            self._stop(1, "Registration refused: " + event.message)
            return
        self.id = text(event.values[0])
        self.log("INFO", "registered as %s" % self.id)
        self._registered = True
        self._has_tried = False
        self._register_until = NEVER
        self._pause = PAUSES[0]
        kept = {text(value) for value in event.values[1:]}
        reports, self._reports = self._reports, []
        for identity, args in reports:
            if identity in kept:
                connection.channel.request("JOBSTATUS", args, (identity, args))
        for run in [run for run in self._runs.values() if run.link is None]:
            if run.identity in kept:
                run.link = connection
                if run.waiting:
                    self._resume(run)
                continue
            self.log("WARN", "the service does not want job %s any more" % run.identity)
            run.unwanted = True
            if not run.stopping:
                run.stopping = True
                self._throw(run, Cancelled("unwanted"))

    def _serve(self, connection: Connection, readable: bool) -> None:
        """Receive and send what there is."""
        try:
            if readable:
                for event in connection.receive():
                    self._deal_with(connection, event)
            if connection.channel.tick(clock()):
                self._lose(connection, Lost("nothing was heard of the service for too long", errno.ETIMEDOUT), connection.channel.last_received)
                return
            if clock() >= self._register_until:
                raise Lost("the service does not answer the registration", errno.ETIMEDOUT)
            connection.flush()
            rounds = ROUNDS
            while rounds and not connection.unsent and self._can_send():
                self._send_data(connection)
                rounds -= 1
        except Lost as lost:
            self._lose(connection, lost)

    def _lose(self, connection: Connection, lost: Lost, since: "Optional[float]" = None) -> None:
        """The connection is gone, ``since`` now or some time ago: keep what runs, and dial again."""
        self.log("WARN", "lost the service: %s" % lost)
        connection.close()
        self._connection = None
        self._reports += [context for context in connection.channel.contexts() if isinstance(context, tuple)]
        self._register_until = NEVER
        if self._registered:
            self._registered = False
            self._lost_since = clock() if since is None else since
            self._redial(self._pause)
        else:
            self._reason = lost
            self._dial_on(False)
        for task in list(self._tasks):
            task.link = None
            task.cancel_tags = []
            if task.staging or isinstance(task, Errand):
                self._throw(task, ServiceLost("the connection to the service was lost"))

    # what the service says

    def _deal_with(self, connection: Connection, event: "Any") -> None:
        if isinstance(event, Request):
            command = _COMMANDS.get(event.name)
            try:
                if command is None:
                    raise JobError("Unknown command: " + event.name[:100])
                command(self, connection, event, event.args[0] if event.args else b"")
            except JobError as error:
                connection.channel.fail(event.tag, str(error))
        elif isinstance(event, Signal):
            sender = self._senders.get(event.tag) if event.from_replier else None
            if sender is not None and event.payload in (b"STOP", b"CONTINUE"):
                sender.stopped = event.payload == b"STOP"
        elif isinstance(event, (Reply, Failure, Chunk)):
            context = event.context
            if isinstance(context, Task):
                self._answered(context, event)
            elif callable(context):
                context(event)

    def _answered(self, task: Task, event: "Any") -> None:
        """An answer to something that a task has asked of the service."""
        if task not in self._tasks:
            return  # it was cancelled
        if event.tag in task.open_tags:
            self.stop_file(event.tag)
            task.taken(event.tag, event.message if isinstance(event, Failure) else None)
            event = None
        self._resume(task, event)

    def _submit_job(self, connection: Connection, request: Request, argument: bytes) -> None:
        job = jobs.parse(argument)
        if not job.identity:
            raise JobError("Missing job identity")
        if not job.executable:
            raise JobError("Missing executable")
        if job.identity in self._runs:
            raise JobError("The job %s runs here already" % job.identity)
        connection.channel.reply(request.tag)
        run = self._runs[job.identity] = Run(self, connection, job)
        self._begin(run)

    def _cancel_job(self, connection: Connection, request: Request, argument: bytes) -> None:
        identity = text(argument)
        run = self._runs.get(identity)
        if run is None:
            connection.channel.request("JOBSTATUS", jobs.encode_status(identity, Status(CANCELED)))
            connection.channel.reply(request.tag)
            return
        run.cancel_tags.append(request.tag)
        if not run.stopping:
            run.stopping = True
            self._throw(run, Cancelled("cancelled"))

    def _shut_down(self, connection: Connection, request: Request, argument: bytes) -> None:
        connection.channel.reply(request.tag)
        self._stop(0, "")

    def _run_errand(self, connection: Connection, request: Request, argument: bytes) -> None:
        lines = [line for line in text(argument).split("\n") if line]
        self._begin(Errand(self, connection, request.tag, request.name, lines))

    def _remote_log(self, connection: Connection, request: Request, argument: bytes) -> None:
        self.log("WARN", "the service says: %s" % text(b" ".join(request.args))[:1000])
        connection.channel.reply(request.tag)

    def _acknowledge(self, connection: Connection, request: Request, argument: bytes) -> None:
        connection.channel.reply(request.tag)

    # tasks

    def _begin(self, task: Task) -> None:
        self._tasks[task] = None
        self._resume(task)

    def _resume(self, task: Task, event: "Any" = None) -> None:
        """Let a task go on with what it waited for."""
        self._steps.pop(task, None)
        try:
            task.life.send(event)
        except StopIteration:
            self._done(task)

    def _throw(self, task: Task, error: Exception) -> None:
        self._steps.pop(task, None)
        try:
            task.life.throw(error)
        except StopIteration:
            self._done(task)

    def _done(self, task: Task) -> None:
        del self._tasks[task]
        if isinstance(task, Run):
            del self._runs[task.identity]
        if task.link is not None:
            for tag in task.cancel_tags:
                task.link.channel.reply(tag)

    # what tasks ask of their worker

    def title(self) -> str:
        """How status messages name this worker."""
        return "workerid=%s:%s" % (self.name, self.id)

    def next_mark(self) -> bytes:
        """The value of COASTERS_JOB for one more job."""
        self._count += 1
        return b"%s.%d" % (self.mark, self._count)

    def take_slot(self) -> int:
        """A small number that no other running job has."""
        if self._free_slots:
            return self._free_slots.pop()
        self._slots_made += 1
        return self._slots_made - 1

    def free_slot(self, slot: int) -> None:
        """The job with this number has ended."""
        self._free_slots.append(slot)

    def report(self, run: Run, status: Status) -> None:
        """Tell the service the status of a job, as soon as there is a service.

        Without the empty detail that worker.pl sends, Swift/K's service keeps the exit code (coaster-protocol 4.2).
        """
        if run.unwanted:
            return
        args = jobs.encode_status(run.identity, status)
        if run.link is None:
            self._reports.append((run.identity, args))
        else:
            run.link.channel.request("JOBSTATUS", args, (run.identity, args))

    def wake(self, task: Task, when: float) -> None:
        """Throw TimeUp into the task at this time."""
        task.deadline = when
        self._next_deadline = min(self._next_deadline, when)

    def step(self, task: Task) -> None:
        """Let the task go on after everybody else had a turn."""
        self._steps[task] = None

    def start_process(self, task: Task, words: "Sequence[bytes]", environment: "Dict[bytes, bytes]", files: "Tuple[int, int, int]") -> int:
        """Start a process in the task's directory; its process id. The task gets its wait status. Raises OSError, ValueError."""
        child = spawn(words, environment, task.directory, *files)
        self._children[child] = task
        return child

    def forget_process(self, child: int) -> None:
        """Nobody waits for the process any more."""
        self._children.pop(child, None)

    def send_file(self, task: Task, tag: int, file: "Outgoing") -> None:
        """Send the data of a PUT; the task goes on when all of it is queued or cannot be read."""
        self._senders[tag] = Sender(task, file)

    def sends(self, tag: int) -> bool:
        """Whether data of this PUT is still to be queued."""
        return tag in self._senders

    def stop_file(self, tag: int) -> None:
        """No more data of this PUT; one that is not complete is given up."""
        sender = self._senders.pop(tag, None)
        if sender is not None:
            sender.file.close()
            if self._connection is not None:
                self._connection.channel.abort(tag)

    def _can_send(self) -> bool:
        return any(not sender.stopped for sender in self._senders.values())

    def _send_data(self, connection: Connection) -> None:
        """One more frame of each file that is on its way."""
        for tag, sender in list(self._senders.items()):
            if sender.stopped:
                continue
            try:
                data = sender.file.take()
            except FileError as error:
                self.stop_file(tag)
                del sender.task.open_tags[tag]
                sender.task.stage_out_failed(jobs.STAGE_OUT_READ_FAILED, str(error))
                self._resume(sender.task)
                continue
            final = not sender.file.left
            connection.channel.data(tag, data, final)
            connection.flush()
            if final:
                del self._senders[tag]
                sender.file.close()
                self._resume(sender.task)


_COMMANDS: "Dict[str, Callable[[Worker, Connection, Request, bytes], None]]" = {
    "SUBMITJOB": Worker._submit_job,
    "CANCELJOB": Worker._cancel_job,
    "SHUTDOWN": Worker._shut_down,
    "STAGEIN": Worker._run_errand,
    "STAGEOUT": Worker._run_errand,
    "CLEANUP": Worker._run_errand,
    "REGISTER": Worker._acknowledge,
    "RESOURCEUPDATE": Worker._acknowledge,
    "RLOG": Worker._remote_log,
}
