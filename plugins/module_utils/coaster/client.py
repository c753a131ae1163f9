# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The submit client: hands one job to a coaster service, serves the job's files, waits for its end (coaster-protocol 3.1, 5).

One thread and no asyncio, because a submission has to cost little. Python 3.6 and later.
"""

import contextlib
import errno
import os
import re
import signal

from . import jobs
from .channel import Aborted, Channel, Data, Failure, Reply, Request, Signal, decode_long, encode_long
from .connection import Connection, Lost, begin, clock, finish, resolve, wait_for
from .jobs import TERMINAL, JobError, client_path, filled, staged_paths
from .processes import Signals
from .staging import FRAME, JAVA_FRAME, FileError, Incoming, Outgoing, because, native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Set

    from .jobs import Job, Status

VERSION = b"0.4"
CONNECT_LIMIT = 10.0
"""Seconds that one address has to take the connection."""
GOODBYE_LIMIT = 2.0
"""Seconds that the service has to answer the farewell."""
HEARTBEAT_PERIODS = (30.0, 10.0)
"""Seconds between heartbeats: the shortest period, and how much longer it may be by chance (coaster-protocol 3.3)."""
ROUNDS = 8
"""Most frames of one file that are sent before the service is heard again."""


class Interrupted(Exception):
    """A signal ended the wait; ``number`` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__("signal %d" % number)
        self.number = number


class Refused(Exception):
    """The service does not take the job; the text says why."""


class _Sender:
    """A file that the service gets."""

    __slots__ = ("file", "suspended")

    def __init__(self, file: Outgoing) -> None:
        self.file, self.suspended = file, False


class Client:
    """Submits ``job``; ``told`` hears of each status that the service reports. ``submitted``: the service has the job.

    Raises JobError when the job is too large for any service.
    """

    def __init__(self, job: "Job", told: "Callable[[Status], None]") -> None:
        self.job = job
        self.status: "Optional[Status]" = None
        self.submitted = False
        self._told = told
        self._description = jobs.encode_submission(job)
        self._complaint = ""
        self._reads = set(staged_paths(job.stage_in, "source"))
        writes = staged_paths(job.stage_out, "destination")
        self._writes = set(writes)
        self._patterns = [filled(path) for path in writes if re.search("[*?]", path)]
        self._connection: "Connection"
        self._signals: Signals
        self._senders: "Dict[int, _Sender]" = {}
        self._receivers: "Dict[int, Incoming]" = {}

    def run(self, host: str, port: int) -> "Status":
        """Submit the job and wait for its terminal status. Only in the main thread.

        Raises Lost when there is no service (any more), Refused, and Interrupted, after which the job is cancelled.
        """
        with Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            self._signals = signals
            self._connection = self._connect(host, port)
            try:
                self._ask("CONFIGSERVICE", (b"requireVersion=" + VERSION, b"OS=null"))
                self._ask("SUBMITJOB", (self._description,))
                self.submitted = True
                while self.status is None:
                    self._turn()
                return self.status
            except Lost as lost:
                if self._complaint:
                    raise Lost("%s, and had said: %s" % (lost, self._complaint), lost.number) from lost
                raise
            finally:
                self._leave()

    def _connect(self, host: str, port: int) -> Connection:
        reason = Lost("%s has no address" % host)
        for address in resolve(host, port):
            try:
                sock = begin(address)
                readable, writable = wait_for({self._signals}, {sock}, clock() + CONNECT_LIMIT)
                if not writable:
                    sock.close()
                    self._check_signals()
                    raise Lost("no answer within %g s" % CONNECT_LIMIT, errno.ETIMEDOUT)
                finish(sock)
            except Lost as lost:
                reason = Lost("%s:%d: %s" % (host, port, lost), lost.number)
                continue
            first, more = HEARTBEAT_PERIODS
            return Connection(sock, Channel(clock(), first + more * os.urandom(1)[0] / 256))
        raise reason

    def _ask(self, name: str, args: "Any") -> None:
        """Send a command and wait for its reply. Raises Refused, Lost, Interrupted."""
        answers: "List[Any]" = []
        self._connection.channel.request(name, args, answers.append)
        while not answers:
            self._turn()
        if isinstance(answers[0], Failure):
            raise Refused(answers[0].message)

    def _turn(self, until: float = float("inf")) -> None:
        """Wait for whatever comes next, at most until this time, and deal with it."""
        connection = self._connection
        self._send_data(connection)
        writing: "Set[Any]" = {connection} if connection.unsent or self._can_send() else set()
        until = min(until, connection.channel.deadline() or until)
        readable, writable = wait_for({connection, self._signals}, writing, until)
        self._check_signals()
        if connection in readable:
            for event in connection.receive():
                self._deal_with(event)
        if connection.channel.tick(clock()):
            raise Lost("nothing was heard of the service for too long", errno.ETIMEDOUT)

    def _check_signals(self) -> None:
        for number in self._signals.take():
            raise Interrupted(number)

    def _leave(self) -> None:
        """Say farewell, upon which the service cancels the job if it has not ended, and close."""
        for sender in self._senders.values():
            sender.file.close()
        self._senders.clear()
        for receiver in self._receivers.values():
            receiver.discard()
        self._receivers.clear()
        answers: "List[Any]" = []
        self._connection.channel.request("SHUTDOWN", (), answers.append)
        until = clock() + GOODBYE_LIMIT
        with contextlib.suppress(Lost, Interrupted):
            while not answers and clock() < until:
                self._turn(until)
        self._connection.close()

    # what the service says

    def _deal_with(self, event: "Any") -> None:
        if isinstance(event, Request):
            command = _COMMANDS.get(event.name)
            if command is None:
                self._connection.channel.fail(event.tag, "Unknown command: " + event.name[:100])
                return
            try:
                command(self, event)
            except (FileError, JobError) as error:
                self._connection.channel.fail(event.tag, str(error))
        elif isinstance(event, Data):
            self._data(event)
        elif isinstance(event, Aborted):
            self._drop(event.tag)
        elif isinstance(event, Signal):
            self._signal(event)
        elif isinstance(event, (Reply, Failure)) and event.context is not None:
            event.context(event)

    def _acknowledge(self, request: Request) -> None:
        self._connection.channel.reply(request.tag)

    def _remote_log(self, request: Request) -> None:
        """What a service has to complain of before it closes the connection."""
        if len(request.args) > 1 and request.args[0] == b"ERROR":
            self._complaint = request.args[1].decode("utf-8", "surrogateescape")
        self._acknowledge(request)

    def _version(self, request: Request) -> None:
        self._connection.channel.reply(request.tag, (VERSION,))

    def _job_status(self, request: Request) -> None:
        identity, status = jobs.parse_status(request.args)
        self._acknowledge(request)
        if identity == self.job.identity and self.status is None:
            self._told(status)
            if status.code in TERMINAL:
                self.status = status

    # files that the service gets

    def _get(self, request: Request) -> None:
        path = _named(request.args, 0)
        if path not in self._reads:
            raise FileError("%s is not among the files that this job stages in" % path)
        # The third argument is ours alone: what the service takes in one frame.
        asked = request.args[2] if len(request.args) > 2 else b""
        frame = min(int(asked), FRAME) if asked.isdigit() and len(asked) < 10 else 0
        file = Outgoing(native(path), max(frame, JAVA_FRAME))
        self._connection.channel.reply_part(request.tag, encode_long(file.size), not file.size)
        if file.size:
            self._senders[request.tag] = _Sender(file)
        else:
            file.close()

    def _signal(self, event: Signal) -> None:
        sender = self._senders.get(event.tag)
        if sender is None or event.from_replier:
            return
        if event.payload == b"SUSPEND":
            sender.suspended = True
        elif event.payload == b"RESUME":
            sender.suspended = False
        elif event.payload.startswith(b"ABORT"):
            self._stop_sending(event.tag, "ABORTED")

    def _stop_sending(self, tag: int, reason: str) -> None:
        self._senders.pop(tag).file.close()
        self._connection.channel.fail(tag, reason)

    def _can_send(self) -> bool:
        return any(not sender.suspended for sender in self._senders.values())

    def _send_data(self, connection: Connection) -> None:
        """Send what waits, and some frames of all files in turn as long as the socket takes them."""
        connection.flush()
        rounds = ROUNDS
        while rounds and not connection.unsent and self._can_send():
            rounds -= 1
            for tag, sender in list(self._senders.items()):
                if sender.suspended:
                    continue
                try:
                    data = sender.file.take()
                except FileError as error:
                    self._stop_sending(tag, str(error))
                    continue
                connection.channel.reply_part(tag, data, not sender.file.left)
                if not sender.file.left:
                    self._senders.pop(tag).file.close()
            connection.flush()

    # files that the service puts

    def _put(self, request: Request) -> None:
        path = _named(request.args, 2)
        if path not in self._writes and not any(pattern.match(path) for pattern in self._patterns):
            raise FileError("%s is not among the files that this job stages out" % path)
        size = decode_long(request.args[0])
        if size < 0:
            try:
                os.unlink(native(path))
            except FileNotFoundError:
                pass
            except OSError as error:
                raise FileError(because(native(path), error)) from error
            self._acknowledge(request)
            return
        self._receivers[request.tag] = Incoming(native(path), size)
        if request.final:
            self._finish(request.tag)

    def _data(self, event: Data) -> None:
        receiver = self._receivers.get(event.tag)
        if receiver is None:
            return
        try:
            receiver.write(event.payload)
            if event.final:
                self._finish(event.tag)
        except FileError as error:
            self._drop(event.tag)
            self._connection.channel.fail(event.tag, str(error))

    def _finish(self, tag: int) -> None:
        self._receivers[tag].finish()
        del self._receivers[tag]
        self._connection.channel.reply(tag)

    def _drop(self, tag: int) -> None:
        receiver = self._receivers.pop(tag, None)
        if receiver is not None:
            receiver.discard()


def exit_code(status: "Status") -> int:
    """0 for a job that completed, else its own exit code from 1 to 255, or 1 when it has none.

    Swift/K's service damages codes from 128 on, and loses them unless the job is redirected; then the message has the number
    (coaster-protocol 2.6, 4.2).
    """
    if status.code == jobs.COMPLETED:
        return 0
    code = status.exit_code
    if -128 <= code < 0:
        code += 256
    if code == 0 and status.code == jobs.FAILED:
        match = re.match(r"Process completed with exit code ([0-9]{1,3})\b", status.message)
        code = int(match.group(1)) if match is not None else 0
    return code if 0 < code < 256 else 1


def _named(args: "List[bytes]", index: int) -> str:
    if index >= len(args):
        raise FileError("Missing command argument #%d" % (index + 1))
    url = args[index].decode("utf-8", "surrogateescape")
    path = client_path(url)
    if path is None:
        raise FileError("%s does not name a file of this client" % url)
    return path


_COMMANDS: "Dict[str, Callable[[Client, Request], None]]" = {
    "JOBSTATUS": Client._job_status,
    "GET": Client._get,
    "PUT": Client._put,
    "VERSION": Client._version,
    "RLOG": Client._remote_log,
    "RESOURCEUPDATE": Client._acknowledge,
    "BQPSTATUS": Client._acknowledge,
    "SHUTDOWN": Client._acknowledge,
}
