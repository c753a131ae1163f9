# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run of a job on a worker: stage in, process, stage out, cleanup (coaster-protocol 4.5 and 5). Python 3.6 and later.

A run is a generator that stops at each ``yield`` until the worker hands it what it waits for: a Chunk or Failure of its
stage in, the wait status of its process, or None for "look again". Cancelled, TimeUp and ServiceLost are thrown in.
"""

import contextlib
import errno
import os

from . import jobs
from .channel import Failure, decode_long, encode_long
from .connection import clock
from .jobs import ACTIVE, CANCELED, COMPLETED, FAILED, STAGE_IN, STAGE_OUT, Status
from .processes import kill_group, kill_marked, outcome
from .staging import FileError, Incoming, Outgoing, because, expand, native, skipped, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Generator, Iterable, List, Optional, Sequence, Tuple

    from .connection import Connection
    from .jobs import Job, Stage
    from .worker import Worker

    Life = Generator[None, Any, Any]

OUTPUT_LIMIT = 2048
"""Bytes of each stream that a redirected job's status carries (coaster-protocol 4.5)."""
KILL_LIMIT = 10.0
"""Seconds until a job whose killed process does not go away is reported nevertheless."""
CLEANUP_LIMIT = 600.0
"""Seconds that the removal of a job's cleanup list may take."""
NEVER = float("inf")

_REFERENCE = r"(?a)\$(?:(\w+)|\{(\w+)\})"
_UNSUPPORTED = ("softimage", "docker.image")


class JobFailed(Exception):
    """The job cannot go on: ``code`` and the text are those of its status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Cancelled(Exception):
    """The service does not want the job any more."""


class TimeUp(Exception):
    """The deadline of the job has come."""


class ServiceLost(Exception):
    """The connection over which the job's files go is gone."""


class Task:
    """What a worker does for its service and has to wait for.

    ``link`` is the connection that it belongs to, None while the service is lost; ``staging``: files are on their way over
    it; ``waiting``: it needs a new one. ``deadline`` is when TimeUp is due; ``stopping``: it is on its way to an early end.
    ``cancel_tags`` are the service's requests to cancel it, to be answered at the end.
    """

    def __init__(self, worker: "Worker", link: "Optional[Connection]", directory: bytes) -> None:
        self.worker, self.link, self.directory = worker, link, directory
        self.mark = b""
        self.staging = self.waiting = self.stopping = False
        self.deadline = NEVER
        self.open_tags: "Dict[int, bytes]" = {}
        self.cancel_tags: "List[int]" = []
        self.problem: "Optional[JobFailed]" = None
        self.life = self.live()

    def live(self) -> "Life":
        """All of the task, from its start to its end."""
        raise NotImplementedError

    def process(self, words: "Sequence[bytes]", environment: "Dict[bytes, bytes]", files: "Tuple[int, int, int]", limit: float) -> "Life":
        """Run a process for at most ``limit`` seconds; its wait status. Nothing of it is left after this.

        Raises OSError or ValueError when it cannot be started.
        """
        number = self.worker.start_process(self, words, environment, files)
        try:
            self.worker.wake(self, clock() + limit)
            return (yield)
        except (Cancelled, TimeUp):
            self.stopping = True
            kill_group(number)
            if self.mark:
                kill_marked(self.mark)
            self.worker.wake(self, clock() + KILL_LIMIT)
            with contextlib.suppress(TimeUp):
                yield
            raise
        finally:
            self.deadline = NEVER
            kill_group(number)
            self.worker.forget_process(number)

    def stage_in(self, stages: "Iterable[Stage]") -> "Life":
        """Fetch files one after another. Raises JobFailed, ServiceLost."""
        for stage in stages:
            destination = os.path.join(self.directory, native(stage.destination))
            try:
                if stage.source.startswith("sfs:"):
                    yield from self.copy(self.shared(stage.source), destination)
                else:
                    yield from self.fetch(stage.source, destination)
            except FileError as error:
                raise JobFailed(jobs.WRITE_FAILED, "Error staging in file: %s" % error) from error

    def fetch(self, source: str, destination: bytes) -> "Life":
        """GET one file from the service. Raises FileError, JobFailed, ServiceLost."""
        link = self.connected()
        incoming: "Optional[Incoming]" = None
        begun = False
        tag: "Optional[int]" = link.channel.request("GET", (native(source), destination), self, stream=True)
        self.staging = True
        try:
            while tag is not None:
                event = yield
                if isinstance(event, Failure):
                    tag = None
                    raise JobFailed(jobs.STAGE_IN_FAILED, "Error staging in file: " + event.message)
                if event.final:
                    tag = None
                if incoming is not None:
                    incoming.write(event.payload)
                elif not begun:
                    begun = True
                    if len(event.payload) != 8:
                        raise JobFailed(jobs.STAGE_IN_FAILED, "Error staging in file: %s came without its length" % source)
                    size = decode_long(event.payload)
                    if size >= 0:  # else the service has put the file there itself
                        incoming = Incoming(destination, size)
            if incoming is not None:
                incoming.finish()
        finally:
            self.staging = False
            if incoming is not None:
                incoming.discard()
            if tag is not None:
                link.channel.signal(tag, b"ABORT", to_replier=True)
                link.channel.forget(tag)

    def stage_out(self, stages: "Iterable[Stage]", failed: bool) -> "Life":
        """Send files one after another, and wait until all have been taken; what went wrong first as a JobFailed, or None.

        ``failed``: the job ended with an exit code other than 0. The files after one that cannot be sent are sent nevertheless.
        """
        try:
            for stage in stages:
                for path, destination in expand(os.path.join(self.directory, native(stage.source)), stage.destination):
                    try:
                        yield from self.put(path, destination, skipped(stage.mode, os.path.exists(path), failed))
                    except FileError as error:
                        self.stage_out_failed(jobs.STAGE_OUT_READ_FAILED, str(error))
            while self.open_tags:
                yield
        except ServiceLost as error:
            self.stage_out_failed(jobs.STAGE_OUT_FAILED, str(error))
        finally:
            self.staging = False
        return self.problem

    def put(self, path: bytes, destination: str, skip: bool) -> "Life":
        """PUT one file, or say that it is skipped; return when its last byte is queued. Raises FileError, ServiceLost."""
        while self.link is None:
            self.waiting = True
            yield
        self.waiting = False
        if destination.startswith("sfs:"):
            if not skip:
                yield from self.copy(path, self.shared(destination))
            return
        file = None if skip or not os.path.exists(path) else Outgoing(path)
        size = -1 if skip else file.size if file else 0
        tag = self.link.channel.request("PUT", (encode_long(size), path, native(destination)), self, final=size <= 0)
        self.staging = True
        self.open_tags[tag] = path
        if file is None:
            return
        if not size:
            file.close()
            return
        self.worker.send_file(self, tag, file)
        try:
            while self.worker.sends(tag):
                yield
        finally:
            self.worker.stop_file(tag)

    def taken(self, tag: int, problem: "Optional[str]") -> None:
        """The service has taken the file of a stage-out, or says why not."""
        path = self.open_tags.pop(tag, b"")
        if problem is not None:
            self.stage_out_failed(jobs.STAGE_OUT_FAILED, "%s: %s" % (text(path), problem))

    def stage_out_failed(self, code: int, reason: str) -> None:
        """Keep the first thing that went wrong."""
        self.problem = self.problem or JobFailed(code, "Stage out failed: " + reason)

    def copy(self, source: bytes, destination: bytes) -> "Life":
        """Copy a file piece by piece, so that nobody else has to wait. Raises FileError."""
        outgoing = Outgoing(source)
        incoming = None
        try:
            incoming = Incoming(destination, outgoing.size)
            while outgoing.left:
                incoming.write(outgoing.read())
                self.worker.step(self)
                yield
            incoming.finish()
        finally:
            outgoing.close()
            if incoming is not None:
                incoming.discard()

    def clean(self, paths: "Sequence[str]") -> "Life":
        """Remove files and folders with all that is in them, as far as possible."""
        found = [os.path.join(self.directory, native(path)) for path in paths if path]
        null = self.worker.null
        try:
            yield from self.process([b"rm", b"-rf", b"--"] + found, self.worker.environment, (null, null, null), CLEANUP_LIMIT)
        except (OSError, TimeUp) as error:
            self.worker.log("WARN", "cleanup failed: %s" % error)

    def shared(self, url: str) -> bytes:
        """The path in a URL of the shared file system, ``sfs://host/PATH``."""
        rest = url[4:]
        if rest.startswith("//"):
            rest = rest[2:].partition("/")[2]
        return os.path.join(self.directory, native(rest))

    def connected(self) -> "Connection":
        """The connection. Raises ServiceLost."""
        if self.link is None:
            raise ServiceLost("the connection to the service was lost")
        return self.link


class Run(Task):
    """The run of a job. When it is ``unwanted``, nobody is told how it ends."""

    def __init__(self, worker: "Worker", link: "Connection", job: "Job") -> None:
        self.job = job
        self.identity = job.identity
        self.unwanted = False
        self.output: "Optional[Tuple[bytes, bytes]]" = None
        super().__init__(worker, link, os.path.join(worker.home, native(job.directory or "")))
        self.mark = b"COASTERS_JOB=" + worker.next_mark()

    def live(self) -> "Life":
        """From stage in to the terminal status."""
        worker, job = self.worker, self.job
        try:
            worker.log("INFO", "job %s starts" % self.identity)
            for name in _UNSUPPORTED:
                if job.attributes.get(name):
                    raise JobFailed(jobs.CANNOT_EXECUTE, "The attribute %s is not supported by this worker" % name)
            if job.stage_in:
                worker.report(self, Status(STAGE_IN, 0, worker.title()))
                yield from self.stage_in(job.stage_in)
            worker.report(self, Status(ACTIVE, 0, worker.title()))
            code, message = yield from self.execute()
            if job.stage_out:
                worker.report(self, Status(STAGE_OUT))
                problem = yield from self.stage_out(job.stage_out, code != 0)
                if problem is not None:
                    code, message = code or problem.code, "; ".join(part for part in (message, str(problem)) if part)
            if not code and job.cleanup:
                yield from self.clean(job.cleanup)
            status = Status(FAILED if code else COMPLETED, code, message)
        except JobFailed as error:
            status = Status(FAILED, error.code, str(error))
        except ServiceLost as error:
            status = Status(FAILED, jobs.STAGE_IN_FAILED, "Error staging in file: %s" % error)
        except TimeUp:
            status = Status(FAILED, jobs.WALLTIME_EXCEEDED, "Walltime exceeded")
        except Cancelled:
            status = Status(CANCELED)
        except Exception as error:  # the other jobs go on
            status = Status(FAILED, jobs.COPY_FAILED, "The worker cannot handle this job: %s" % error)
        if self.output is not None and status.code != CANCELED:
            status.stdout, status.stderr = self.output
        worker.log("INFO", ("job %s: %s %s" % (self.identity, jobs.NAMES[status.code], status.message)).rstrip())
        worker.report(self, status)

    def execute(self) -> "Life":
        """Run the job's process; exit code and message. Raises JobFailed, TimeUp, Cancelled."""
        job, worker = self.job, self.worker
        if not os.path.isdir(self.directory):
            reason = os.strerror(errno.ENOTDIR if os.path.exists(self.directory) else errno.ENOENT)
            raise JobFailed(jobs.CANNOT_EXECUTE, "Could not change to directory %s: %s" % (text(self.directory), reason))
        slot = worker.take_slot()
        opened: "Dict[str, int]" = {}
        try:
            stdout = self.open_output(job.stdout, 1, opened)
            stderr = self.open_output(job.stderr, 2, opened)
            words = [native(job.executable)] + [native(argument) for argument in job.arguments]
            limit = job.attributes.get("maxwalltime", "")
            try:
                status = yield from self.process(
                    words, self.environment(slot), (worker.null, stdout, stderr),
                    int(limit) if limit.isdecimal() and len(limit) < 12 else jobs.DEFAULT_WALLTIME
                )
            except OSError as error:
                code = jobs.FORK_FAILED if error.errno in (errno.EAGAIN, errno.ENOMEM) else jobs.CANNOT_EXECUTE
                raise JobFailed(code, "Could not execute %s: %s" % (job.executable, error.strerror)) from error
            except ValueError as error:
                raise JobFailed(jobs.CANNOT_EXECUTE, "Could not execute %s: %s" % (job.executable, error)) from error
            finally:
                if job.redirect:
                    self.output = (_read_back(stdout), _read_back(stderr))
        finally:
            worker.free_slot(slot)
            for file in opened.values():
                os.close(file)
        return outcome(status)

    def open_output(self, name: "Optional[str]", inherited: int, opened: "Dict[str, int]") -> int:
        """A file descriptor for a stream: a file in the job's directory, a nameless one to read back, or the worker's own."""
        if name is None:
            if not self.job.redirect:
                return inherited
            opened[str(inherited)] = file = _nameless(self.worker.environment, self.mark)
            return file
        if name in opened:
            return opened[name]
        path = os.path.join(self.directory, native(name))
        access = os.O_RDWR if self.job.redirect else os.O_WRONLY
        try:
            # Not blocking, because opening a named pipe would wait for its reader.
            opened[name] = file = os.open(path, access | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise JobFailed(jobs.CANNOT_EXECUTE, "Could not write " + because(path, error)) from error
        os.set_blocking(file, True)
        return file

    def environment(self, slot: int) -> "Dict[bytes, bytes]":
        """The worker's environment and the job's, with references to variables filled in, and Swift/K's two variables."""
        environment = dict(self.worker.environment)
        for name, value in self.job.environment:
            if "$" in value:
                import re  # a millisecond that only such a job needs

                value = re.sub(_REFERENCE, lambda match: text(environment.get(native(match.group(1) or match.group(2)), b"")), value)
            environment[native(name)] = native(value)
        environment[b"SWIFT_JOB_SLOT"] = b"%d" % slot
        environment[b"SWIFT_WORKER_PID"] = b"%d" % os.getpid()
        environment[b"COASTERS_JOB"] = self.mark.partition(b"=")[2]
        return environment


class Errand(Task):
    """STAGEIN, STAGEOUT or CLEANUP for a job on several workers (coaster-protocol 4.2); answers the request ``tag``."""

    def __init__(self, worker: "Worker", link: "Connection", tag: int, command: str, lines: "List[str]") -> None:
        self.tag, self.command, self.lines = tag, command, lines
        super().__init__(worker, link, worker.home)

    def live(self) -> "Life":
        """From the request to its answer."""
        link = self.connected()
        try:
            if self.command == "CLEANUP":
                yield from self.clean([jobs.unescape(line) for line in self.lines])
            else:
                stages = [jobs.parse_stage(jobs.unescape(line)) for line in self.lines]
                if self.command == "STAGEIN":
                    yield from self.stage_in(stages)
                else:
                    problem = yield from self.stage_out(stages, False)
                    if problem is not None:
                        raise problem
        except Exception as error:  # the jobs go on
            link.channel.fail(self.tag, str(error))
        else:
            link.channel.reply(self.tag)


def _nameless(environment: "Dict[bytes, bytes]", mark: bytes) -> int:
    folder = environment.get(b"TMPDIR") or b"/tmp"
    path = os.path.join(folder, b"%s.%s" % (mark.partition(b"=")[2], os.urandom(4).hex().encode()))
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise JobFailed(jobs.CANNOT_EXECUTE, "Could not keep the output: " + because(path, error)) from error
    os.unlink(path)
    return file


def _read_back(file: int) -> bytes:
    try:
        data = os.pread(file, OUTPUT_LIMIT + 1, 0)
    except OSError:
        return b""  # a pipe or a terminal
    return data if len(data) <= OUTPUT_LIMIT else data[:OUTPUT_LIMIT] + b"\n<output truncated>"
