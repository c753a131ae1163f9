# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import client, jobs
from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import (
    Channel,
    Chunk,
    Failure,
    Reply,
    decode_long,
    encode_long,
)
from ansible_collections.coasters.pool.plugins.module_utils.coaster.client import Client, Interrupted, Refused, exit_code
from ansible_collections.coasters.pool.plugins.module_utils.coaster.connection import Lost
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import (
    ACTIVE,
    CANCELED,
    COMPLETED,
    FAILED,
    SUBMITTED,
    Job,
    Stage,
    Status,
)
from ansible_collections.coasters.pool.plugins.module_utils.coaster.staging import FRAME, JAVA_FRAME

from .services import Link, Listener, beside, listening, unused_port


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Service:
    """The service that a client has dialled."""

    def __init__(self, listener: Listener) -> None:
        self.link: Link = listener.accept()

    def configure(self) -> None:
        request = self.link.expect("CONFIGSERVICE")
        assert request.args == [b"requireVersion=0.4", b"OS=null"]
        self.link.answer(request, b"0")

    def take_job(self) -> Job:
        request = self.link.expect("SUBMITJOB")
        self.link.answer(request, b"cog-1:17")
        return jobs.parse(jobs.decompress(request.args[0]))

    def tell(self, status: Status, identity: str = "cog-1") -> None:
        assert self.link.call("JOBSTATUS", *jobs.encode_status(identity, status)) == [b"OK"]

    def farewell(self) -> None:
        self.link.answer(self.link.expect("SHUTDOWN"))
        assert self.link.closed()

    def get(self, url: str) -> Any:
        """All of a file, or the message why not."""
        tag = self.link.command("GET", url.encode(), b"/there", stream=True)
        return self.answer(tag)

    def answer(self, tag: int) -> Any:
        content: list[bytes] = []
        while True:
            event = self.link.wait(lambda event: isinstance(event, (Chunk, Reply, Failure)) and event.tag == tag)
            if isinstance(event, Failure):
                return event.message
            if isinstance(event, Reply):
                return event.values
            content.append(event.payload)
            if event.final:
                assert decode_long(content[0]) == len(b"".join(content[1:]))
                return b"".join(content[1:])

    def put(self, url: str, *data: bytes, size: int | None = None) -> Any:
        """``[b"OK"]``, or the message why not."""
        length = sum(map(len, data)) if size is None else size
        tag = self.link.channel.request("PUT", (encode_long(length), b"/there", url.encode()), final=not data)
        for index, piece in enumerate(data, 1):
            self.link.channel.data(tag, piece, index == len(data))
        self.link.send()
        return self.answer(tag)


def submit(job: Job, script: Callable[[Service], None], told: list[Status] | None = None) -> Status:
    """Submit to a service that does what the script says once it has the job, then says that it completed."""
    with listening() as listener:
        statuses: list[Status] = [] if told is None else told
        submission = Client(job, statuses.append)

        def whole() -> None:
            service = Service(listener)
            service.configure()
            assert service.take_job() == job
            script(service)
            if submission.status is None:
                service.tell(Status(COMPLETED))
            service.farewell()

        return beside(whole, lambda: submission.run("127.0.0.1", listener.port), listener.close)


def a_job(stage_in: list[Stage] | None = None, stage_out: list[Stage] | None = None) -> Job:
    job = Job("cog-1", "/bin/true")
    job.stage_in, job.stage_out = stage_in or [], stage_out or []
    return job


def here(path: object) -> str:
    return "file://localhost/%s" % path


# the job


def test_statuses_are_told_and_the_terminal_one_is_the_result() -> None:
    told: list[Status] = []

    def script(service: Service) -> None:
        service.tell(Status(SUBMITTED, 0, "", 5))
        service.tell(Status(FAILED, 9, "of another job"), "cog-2")
        service.tell(Status(ACTIVE, 0, "workerid=b:000000", 6))
        service.tell(Status(FAILED, 3, "why", 7, b"out", b"err"))

    end = Status(FAILED, 3, "why", 7, b"out", b"err")
    assert submit(a_job(), script, told) == end
    assert told == [Status(SUBMITTED, 0, "", 5), Status(ACTIVE, 0, "workerid=b:000000", 6), end]


def test_the_end_may_come_before_the_answer_to_the_submission() -> None:
    with listening() as listener:
        submission = Client(a_job(), lambda status: None)

        def script() -> None:
            service = Service(listener)
            service.configure()
            request = service.link.expect("SUBMITJOB")
            service.tell(Status(COMPLETED))
            service.tell(Status(FAILED, 5, "a second end is passed over"))
            service.link.answer(request, b"cog-1:1")
            service.farewell()

        assert beside(script, lambda: submission.run("127.0.0.1", listener.port), listener.close) == Status(COMPLETED)


@pytest.mark.parametrize("at", ["CONFIGSERVICE", "SUBMITJOB"])
def test_a_service_that_refuses(at: str) -> None:
    with listening() as listener:

        def script() -> None:
            service = Service(listener)
            if at == "SUBMITJOB":
                service.configure()
            service.link.channel.fail(service.link.expect(at).tag, "Could not deserialize job description")
            service.link.send()
            service.farewell()

        with pytest.raises(Refused, match="Could not deserialize job description"):
            beside(script, lambda: Client(a_job(), lambda status: None).run("127.0.0.1", listener.port), listener.close)


def test_messages_that_need_no_more_than_an_answer() -> None:
    def script(service: Service) -> None:
        for name in ("RLOG", "RESOURCEUPDATE", "BQPSTATUS", "SHUTDOWN"):
            assert service.link.call(name, b"x", b"y") == [b"OK"]
        assert service.link.call("VERSION") == [b"0.4"]
        assert len(service.link.call("HEARTBEAT", bytes(8))[0]) == 8
        assert service.answer(service.link.command("DANCE")) == "Unknown command: DANCE"
        assert "JOBSTATUS with 1" in service.answer(service.link.command("JOBSTATUS", b"cog-1"))
        service.link.channel.reply(4711)
        service.link.channel.signal(4711, b"ABORT", to_replier=True)

    assert submit(a_job(), script).code == COMPLETED


# the service is lost


def expect_lost(script: Callable[[Listener], None], reason: str) -> None:
    with listening() as listener, pytest.raises(Lost, match=reason):
        beside(
            lambda: script(listener), lambda: Client(a_job(), lambda status: None).run("127.0.0.1", listener.port), listener.close
        )


def test_nobody_listens() -> None:
    port = unused_port()
    with pytest.raises(Lost, match="127.0.0.1:%d: Connection refused" % port) as caught:
        Client(a_job(), lambda status: None).run("127.0.0.1", port)
    assert caught.value.number == errno.ECONNREFUSED


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(Lost, match="no-such-host.invalid cannot be resolved"):
        Client(a_job(), lambda status: None).run("no-such-host.invalid", 1)


def test_a_name_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "resolve", lambda host, port: [])
    with pytest.raises(Lost, match="nowhere has no address"):
        Client(a_job(), lambda status: None).run("nowhere", 1)


def test_an_address_that_does_not_answer_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_LIMIT", 0.2)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for dummy in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        with pytest.raises(Lost, match="no answer within 0.2 s"):
            Client(a_job(), lambda status: None).run(*full.getsockname())
        for sock in waiting:
            sock.close()


def test_the_second_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as listener:
        addresses = [(socket.AF_INET, ("127.0.0.1", port)) for port in (unused_port(), listener.port)]
        monkeypatch.setattr(client, "resolve", lambda host, port: addresses)

        def script() -> None:
            service = Service(listener)
            service.configure()
            service.take_job()
            service.tell(Status(COMPLETED))
            service.farewell()

        submission = Client(a_job(), lambda status: None)
        assert beside(script, lambda: submission.run("127.0.0.1", 1), listener.close).code == COMPLETED


def test_a_service_that_closes_while_it_is_configured() -> None:
    expect_lost(lambda listener: Service(listener).link.close(), "the (service closed the connection|connection to the service broke)")


def test_a_service_that_ends_while_the_job_runs() -> None:
    def script(listener: Listener) -> None:
        service = Service(listener)
        service.configure()
        service.take_job()
        service.tell(Status(ACTIVE))
        service.link.close()

    expect_lost(script, "the service closed the connection")


def test_a_service_that_complains_before_it_closes() -> None:
    def script(listener: Listener) -> None:
        service = Service(listener)
        service.configure()
        service.take_job()
        for words in ((b"WARN", b"this"), (b"ERROR",), (b"ERROR", b"it does not answer")):
            assert service.link.call("RLOG", *words) == [b"OK"]
        service.link.close()

    expect_lost(script, "the service closed the connection, and had said: it does not answer")


def test_a_service_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "Channel", lambda now, heartbeat: Channel(now, heartbeat, silence_limit=0.3))
    monkeypatch.setattr(client, "GOODBYE_LIMIT", 0.1)

    def script(listener: Listener) -> None:
        service = Service(listener)
        service.configure()
        service.take_job()
        assert service.link.closed()

    expect_lost(script, "nothing was heard of the service for too long")


def test_heartbeats_keep_a_quiet_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "Channel", lambda now, heartbeat: Channel(now, heartbeat, silence_limit=0.6))
    monkeypatch.setattr(client, "HEARTBEAT_PERIODS", (0.1, 0.1))

    def script(service: Service) -> None:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            service.link.receive()  # and with it the answers to heartbeats

    assert submit(a_job(), script).code == COMPLETED


def test_a_service_that_does_not_take_leave_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GOODBYE_LIMIT", 0.2)
    with listening() as listener:

        def script() -> None:
            service = Service(listener)
            service.configure()
            service.take_job()
            service.tell(Status(COMPLETED))
            service.link.expect("SHUTDOWN")
            assert service.link.closed()

        submission = Client(a_job(), lambda status: None)
        assert beside(script, lambda: submission.run("127.0.0.1", listener.port), listener.close).code == COMPLETED


# signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait_and_the_service_is_told(number: int) -> None:
    with listening() as listener:

        def script() -> None:
            service = Service(listener)
            service.configure()
            service.take_job()
            service.tell(Status(ACTIVE))
            os.kill(os.getpid(), number)
            service.farewell()

        submission = Client(a_job(), lambda status: None)
        with pytest.raises(Interrupted) as caught:
            beside(script, lambda: submission.run("127.0.0.1", listener.port), listener.close)
        assert caught.value.number == number


def test_a_second_signal_ends_the_farewell() -> None:
    with listening() as listener:

        def script() -> None:
            service = Service(listener)
            service.configure()
            service.take_job()
            os.kill(os.getpid(), signal.SIGINT)
            service.link.expect("SHUTDOWN")
            os.kill(os.getpid(), signal.SIGINT)
            assert service.link.closed()

        submission = Client(a_job(), lambda status: None)
        with pytest.raises(Interrupted):
            beside(script, lambda: submission.run("127.0.0.1", listener.port), listener.close)


# stage in: the service gets files


def test_the_job_s_files_can_be_had(tmp_path: Path) -> None:
    data = os.urandom(3000000)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "rel").write_bytes(data)
    (tmp_path / "abs").write_bytes(b"abs")
    (tmp_path / "empty").touch()
    job = a_job([Stage(here("a/./b//rel"), "x"), Stage(here(tmp_path / "." / "abs"), "y"), Stage(here("empty"), "z")])

    def script(service: Service) -> None:
        assert service.get(here("a/b/rel")) == data
        assert service.get(here("a/./b/rel")) == data
        assert service.get(here(tmp_path / "abs")) == b"abs"
        assert service.get(here("empty")) == b""

    submit(job, script)


def test_no_other_file_can_be_had(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "listed").write_text("listed")
    job = a_job([Stage(here("listed"), "x"), Stage(here("none"), "x")], [Stage("x", here("secret"))])

    def script(service: Service) -> None:
        for path in ("secret", "listed/../secret", tmp_path / "listed"):
            assert service.get(here(path)) == "%s is not among the files that this job stages in" % path
        assert service.get("http://host/listed") == "http://host/listed does not name a file of this client"
        assert service.get(here("none")) == "none (No such file or directory)"
        assert service.answer(service.link.command("GET")) == "Missing command argument #1"

    submit(job, script)


def test_several_files_come_at_once_and_each_can_be_suspended(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(20000000))
    job = a_job([Stage(here("a"), "x"), Stage(here("b"), "x")])

    def script(service: Service) -> None:
        tags = [service.link.command("GET", here(name).encode(), b"", stream=True) for name in ("a", "b")]
        assert service.link.wait(lambda event: isinstance(event, Chunk) and event.tag == tags[0]).payload == encode_long(20000000)
        service.link.channel.signal(tags[0], b"SUSPEND", to_replier=True)
        service.link.channel.signal(tags[0], b"QUEUED", to_replier=True)
        service.link.send()
        assert service.answer(tags[1]) == bytes(20000000)
        had = sum(len(event.payload) for event in service.link.events if getattr(event, "tag", None) == tags[0])
        assert had < 20000000
        service.link.channel.signal(tags[0], b"RESUME", to_replier=True)
        service.link.send()
        size = 0
        final = False
        while not final:
            event = service.link.wait(lambda event: isinstance(event, Chunk) and event.tag == tags[0])
            size += len(event.payload)
            final = event.final
        assert size == 20000000

    submit(job, script)


@pytest.mark.parametrize(("asked", "size"), [
    ((), JAVA_FRAME), ((b"131072",), 131072), ((b"9999999",), FRAME), ((b"1",), JAVA_FRAME), ((b"x",), JAVA_FRAME),
    ((b"9" * 5000,), JAVA_FRAME),
])
def test_frames_are_as_large_as_the_service_takes(tmp_path: Path, asked: tuple[bytes, ...], size: int) -> None:
    (tmp_path / "a").write_bytes(bytes(600000))

    def script(service: Service) -> None:
        tag = service.link.command("GET", here("a").encode(), b"", *asked, stream=True)
        assert service.link.data(tag) == (encode_long(600000), False)
        assert len(service.link.data(tag)[0]) == size

    submit(a_job([Stage(here("a"), "x")]), script)


def test_a_file_can_be_aborted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(20000000))

    def script(service: Service) -> None:
        tag = service.link.command("GET", here("a").encode(), b"", stream=True)
        service.link.wait(lambda event: isinstance(event, Chunk) and event.tag == tag)
        service.link.channel.signal(tag, b"ABORT", to_replier=True)
        service.link.send()
        event = service.link.wait(lambda event: isinstance(event, Failure) and event.tag == tag)
        assert event.message == "ABORTED"

    submit(a_job([Stage(here("a"), "x")]), script)


def test_a_file_that_shrinks_on_its_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(50000000))

    def script(service: Service) -> None:
        tag = service.link.command("GET", here("a").encode(), b"", stream=True)
        service.link.wait(lambda event: isinstance(event, Chunk) and event.tag == tag)
        os.truncate(tmp_path / "a", 5)
        event = service.link.wait(lambda event: isinstance(event, Failure) and event.tag == tag)
        assert event.message == "a (Became shorter while it was sent)"

    submit(a_job([Stage(here("a"), "x")]), script)


# stage out: the service puts files


def test_the_job_s_files_are_taken(tmp_path: Path) -> None:
    data = os.urandom(3000000)
    (tmp_path / "old").write_text("old")
    job = a_job([], [
        Stage("x", here("new/rel")), Stage("x", here("%s/./abs" % tmp_path)), Stage("x", here("empty")), Stage("x", here("old")),
        Stage("x", here("never")), Stage("*", here("o/*_?.z")),
    ])

    def script(service: Service) -> None:
        assert service.put(here("new/rel"), data[:1000000], data[1000000:2000000], data[2000000:]) == [b"OK"]
        assert service.put(here(tmp_path / "abs"), b"abs") == [b"OK"]
        assert service.put(here("empty")) == [b"OK"]
        assert service.put(here("old"), size=-1) == [b"OK"]
        assert service.put(here("never"), size=-1) == [b"OK"]
        assert service.put(here("o/ab_c.z"), b"wild") == [b"OK"]

    submit(job, script)
    assert (tmp_path / "new" / "rel").read_bytes() == data
    assert (tmp_path / "abs").read_bytes() == b"abs"
    assert (tmp_path / "empty").read_bytes() == b""
    assert not (tmp_path / "old").exists()
    assert (tmp_path / "o" / "ab_c.z").read_bytes() == b"wild"


def test_a_skipped_file_that_comes_without_its_last_frame_is_deleted(tmp_path: Path) -> None:
    """Swift/K's service never sends the last frame of these (coaster-protocol 5.3)."""
    (tmp_path / "old").write_text("old")

    def script(service: Service) -> None:
        tag = service.link.channel.request("PUT", (encode_long(-1), b"/there", here("old").encode()), final=False)
        service.link.send()
        assert service.answer(tag) == [b"OK"]

    submit(a_job([], [Stage("x", here("old"))]), script)
    assert not (tmp_path / "old").exists()


def test_no_other_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "folder").mkdir()
    job = a_job([Stage(here("mine"), "x")], [Stage("x", here("out")), Stage("*", here("o_*")), Stage("x", here("folder"))])

    def script(service: Service) -> None:
        for path in ("mine", "out2", "o_a/b", "x/o_a", "../out"):
            assert service.put(here(path), b"data") == "%s is not among the files that this job stages out" % path
            assert service.put(here(path), size=-1) == "%s is not among the files that this job stages out" % path
        assert service.put(here("folder"), b"data") == "folder (Is a directory)"
        assert "folder (" in service.put(here("folder"), size=-1)
        assert service.put(here("out"), b"12", size=5) == "File size mismatch. Expected 5 bytes, got 2"
        assert service.answer(service.link.command("PUT", b"x")) == "Missing command argument #3"

    submit(job, script)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "mine"]


def test_a_file_whose_sender_gives_up_leaves_nothing(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        tags = [
            service.link.channel.request("PUT", (encode_long(10), b"/there", here(name).encode()), final=False) for name in ("a", "b")
        ]
        for tag in tags:
            service.link.channel.data(tag, b"12345", False)
        service.link.channel.abort(tags[0])
        service.link.channel.abort(service.link.channel.request("PUT", (encode_long(10), b"", here("other").encode()), final=False))
        service.link.send()
        service.link.call("VERSION")
        assert len(list(tmp_path.iterdir())) == 1

    submit(a_job([], [Stage("x", here("a")), Stage("x", here("b"))]), script)
    assert list(tmp_path.iterdir()) == []


def test_files_under_way_are_closed_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(50000000))

    def script(service: Service) -> None:
        service.link.command("GET", here("a").encode(), b"", stream=True)
        service.link.receive()
        service.link.channel.request("JOBSTATUS", jobs.encode_status("cog-1", Status(CANCELED)))
        service.link.send()
        service.link.expect("SHUTDOWN")
        service.link.close()

    with listening() as listener:
        submission = Client(a_job([Stage(here("a"), "x")]), lambda status: None)

        def whole() -> None:
            service = Service(listener)
            service.configure()
            service.take_job()
            script(service)

        assert beside(whole, lambda: submission.run("127.0.0.1", listener.port), listener.close).code == CANCELED


# exit codes


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status(COMPLETED), 0),
        (Status(COMPLETED, 3), 0),
        (Status(FAILED, 3), 3),
        (Status(FAILED, 255), 255),
        (Status(FAILED, -56), 200),
        (Status(FAILED, -128), 128),
        (Status(FAILED, -129), 1),
        (Status(FAILED, 256), 1),
        (Status(FAILED, 513, "Walltime exceeded"), 1),
        (Status(FAILED, 0, "Process completed with exit code 7"), 7),
        (Status(FAILED, 0, "Process completed with exit code 7; Stage out failed: x"), 7),
        (Status(FAILED, 0, "Process completed with exit code 999"), 1),
        (Status(FAILED), 1),
        (Status(CANCELED), 1),
        (Status(CANCELED, 0, "Process completed with exit code 7"), 1),
    ],
)
def test_exit_codes(status: Status, code: int) -> None:
    assert exit_code(status) == code
