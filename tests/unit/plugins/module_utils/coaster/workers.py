# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker in the main thread and the script of its service beside it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, Callable, Iterator

from ansible_collections.coasters.pool.plugins.module_utils import state
from ansible_collections.coasters.pool.plugins.module_utils.coaster import jobs
from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import Failure, Reply, Request, encode_long
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import Job, Stage, Status
from ansible_collections.coasters.pool.plugins.module_utils.coaster.worker import Worker

from .peers import PATIENCE, Closed
from .services import Link, Listener, beside, listening

__all__ = ["PATIENCE", "Job", "Service", "Stage", "Status", "Worker", "appears", "gone", "shell", "work"]


def shell(script: str, identity: str = "cog-1:1") -> Job:
    return Job(identity, "/bin/sh", ["-c", script])


class Service:
    """The service that a worker has dialled; every wait is limited by PATIENCE."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.link: Link = listener.accept()

    def lose(self) -> None:
        """Lose the connection; the worker comes back."""
        self.link.close()
        self.link = self.listener.accept()

    def registration(self) -> tuple[Request, dict[str, str]]:
        """The worker's REGISTER and its options."""
        request = self.link.expect("REGISTER")
        options = dict(option.split(" = ", 1) for option in request.args[2].decode().split(", "))
        return request, options

    def register(self, *kept: str) -> dict[str, str]:
        """Take the worker as 000000, with the jobs that it keeps; the options that it gave."""
        request, options = self.registration()
        self.link.answer(request, b"000000", *(identity.encode() for identity in kept))
        return options

    def submit(self, job: Job) -> None:
        assert self.link.call("SUBMITJOB", jobs.encode(job)) == [b"OK"]

    def command(self, name: str, *args: bytes) -> int:
        return self.link.command(name, *args)

    def answered(self, tag: int) -> str:
        """``OK``, or the message of the error that a command got."""
        answer = self.link.wait(lambda event: isinstance(event, (Reply, Failure)) and event.tag == tag)
        return answer.message if isinstance(answer, Failure) else b" ".join(answer.values).decode()

    def status(self) -> tuple[str, Status]:
        request = self.link.expect("JOBSTATUS")
        self.link.answer(request)
        return jobs.parse_status(request.args)

    def statuses(self, identity: str = "cog-1:1") -> Iterator[Status]:
        """The statuses of a job up to the terminal one; none of another job may be among them."""
        while True:
            name, status = self.status()
            assert name == identity
            yield status
            if status.code in jobs.TERMINAL:
                return

    def end(self, identity: str = "cog-1:1") -> Status:
        return list(self.statuses(identity))[-1]

    def end_among(self, identity: str) -> Status:
        """The terminal status of a job while others run."""
        while True:
            name, status = self.status()
            if name == identity and status.code in jobs.TERMINAL:
                return status

    def reaches(self, code: int) -> None:
        """Wait for this status."""
        while self.status()[1].code != code:
            pass

    def run(self, job: Job) -> Status:
        self.submit(job)
        return self.end(job.identity)

    def give(self, data: bytes, frame: int = 65536) -> Request:
        """Answer the worker's next GET."""
        request: Request = self.link.expect("GET")
        channel = self.link.channel
        channel.reply_part(request.tag, encode_long(len(data)), not data)
        for start in range(0, len(data), frame):
            channel.reply_part(request.tag, data[start:start + frame], start + frame >= len(data))
        self.link.send()
        return request

    def take(self) -> tuple[str, int, bytes]:
        """Take the worker's next PUT: its destination, announced size and content."""
        request = self.link.expect("PUT")
        content = b""
        final = request.final
        while not final:
            data, final = self.link.data(request.tag)
            content += data
        self.link.answer(request)
        return request.args[2].decode(), int.from_bytes(request.args[0], "little", signed=True), content

    def shut_down(self) -> None:
        assert self.link.call("SHUTDOWN") == [b"OK"]


def work(script: Callable[[Service], None], limit: float = 60.0, **settings: Any) -> Worker:
    """Run a worker against the script of a service that registers it, and shuts it down after the script if it has not ended."""

    def dialled(listener: Listener) -> None:
        service = Service(listener)
        service.register()
        script(service)
        if worker.exit_code is None:
            with contextlib.suppress(Closed, OSError):
                service.shut_down()

    with listening() as listener:
        worker = Worker([("127.0.0.1", listener.port)], "b1", limit=limit, **settings)

        def rescue() -> None:
            worker.limit = 0
            listener.close()

        beside(lambda: dialled(listener), worker.run, rescue)
        return worker


def appears(path: Path) -> str:
    """The content of a file once it ends with a newline."""
    until = time.monotonic() + PATIENCE
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < until, "%s does not appear" % path
        time.sleep(0.01)
    return path.read_text()


def gone(number: int) -> bool:
    """Whether the process ends within PATIENCE; one that was killed may still be on its way out."""
    until = time.monotonic() + PATIENCE
    while state.start_time(number) is not None:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
