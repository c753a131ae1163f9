# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import connection, frames, jobs, worker
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import ACTIVE, CANCELED, COMPLETED, Status

from .peers import PATIENCE, Closed
from .services import beside, listening, unused_port
from .workers import Job, Service, Stage, Worker, appears, gone, shell, work

HERE = "proxy://1/"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# registration


def test_registration() -> None:
    with listening() as listener:
        worker = Worker([("127.0.0.1", listener.port)], "b1", slots=4, walltime=60)

        def script() -> None:
            service = Service(listener)
            request, options = service.registration()
            assert request.args[:2] == [b"b1", socket.gethostname().encode()]
            assert options == {"maxwalltime": "60", "concurrency": "4"}
            service.link.answer(request, b"000007")
            service.shut_down()

        assert beside(script, worker.run, listener.close) == 0
        assert worker.id == "000007"


def test_without_slots_none_are_announced() -> None:
    options: list[dict[str, str]] = []
    with listening() as listener:
        worker = Worker([("127.0.0.1", listener.port)], "b1")

        def script() -> None:
            service = Service(listener)
            options.append(service.register())
            service.shut_down()

        beside(script, worker.run, listener.close)
    assert options == [{"maxwalltime": "-1"}]


def test_commands_may_come_before_the_answer_to_the_registration(tmp_path: Path) -> None:
    """Swift/K sends RESOURCEUPDATE first, and may send jobs (coaster-protocol 3.2)."""
    with listening() as listener:
        worker = Worker([("127.0.0.1", listener.port)], "b1")

        def script() -> None:
            service = Service(listener)
            registration, _options = service.registration()
            assert service.link.call("RESOURCEUPDATE", b"job-capacity", b"1") == [b"OK"]
            service.submit(shell("while [ ! -e go ]; do sleep 0.01; done"))
            assert service.status()[1].code == ACTIVE
            service.link.answer(registration, b"000000")
            (tmp_path / "go").touch()
            assert service.end().code == COMPLETED
            service.shut_down()

        assert beside(script, worker.run, listener.close) == 0


def test_a_refused_worker_ends() -> None:
    with listening() as listener:
        worker = Worker([("127.0.0.1", listener.port)], "a b:c")

        def script() -> None:
            service = Service(listener)
            service.link.channel.fail(service.registration()[0].tag, "Illegal character")
            service.link.send()
            assert service.link.closed()

        assert beside(script, worker.run, listener.close) == 1
        assert worker.problem == "Registration refused: Illegal character"


def test_a_worker_that_served_tries_again_when_it_is_refused() -> None:
    def script(service: Service) -> None:
        service.lose()
        service.link.channel.fail(service.registration()[0].tag, "too many connections")
        service.link.send()
        service.link = service.listener.accept()
        service.register()

    assert work(script).exit_code == 0


def test_a_service_that_does_not_answer_the_registration_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "REGISTER_LIMIT", 0.1)
    with listening() as mute, listening() as listener:
        both = Worker([("127.0.0.1", mute.port), ("127.0.0.1", listener.port)], "b1")

        def script() -> None:
            silent = mute.accept()
            service = Service(listener)
            service.register()
            assert silent.closed()
            service.shut_down()

        assert beside(script, both.run, listener.close) == 0


# dialling


def give_up(urls: list[tuple[str, int]]) -> Worker:
    begun = time.monotonic()
    worker = Worker(urls, "b1", limit=0.3)
    worker.run()
    assert time.monotonic() - begun >= 0.15
    return worker


def test_it_gives_up_after_its_limit_with_the_reason() -> None:
    port = unused_port()
    worker = give_up([("127.0.0.1", port)])
    assert worker.exit_code == errno.ECONNREFUSED
    assert worker.problem == "Failed to connect: 127.0.0.1:%d: Connection refused" % port


class Clock:
    """The time of the worker, which can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monkeypatch.setattr(worker, "clock", self)
        monkeypatch.setattr(connection, "clock", self)
        monkeypatch.setattr(worker, "PAUSES", (0.02, 0.1))

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.mark.parametrize(("found", "seconds"), [(False, 30), (True, 60)])
def test_it_waits_half_as_long_for_its_first_service(monkeypatch: pytest.MonkeyPatch, found: bool, seconds: int) -> None:
    clock = Clock(monkeypatch)
    with listening() as listener:
        dialler = Worker([("127.0.0.1", listener.port)], "b1")

        def script() -> None:
            if found:
                service = Service(listener)
                service.register()
                service.link.close()
            listener.accept().close()
            clock.ahead = seconds - 10
            for dummy in range(3):
                listener.accept().close()
            listener.close()
            clock.ahead = seconds + 1

        begun = clock()
        assert beside(script, dialler.run, listener.close) in (1, errno.ECONNREFUSED, errno.ECONNRESET)
        assert seconds <= clock() - begun < seconds + 20


def test_a_name_that_does_not_resolve() -> None:
    worker = give_up([("no-such-host.invalid", 1)])
    assert worker.exit_code == errno.EINVAL
    assert worker.problem.startswith("Failed to connect: no-such-host.invalid:1: no-such-host.invalid cannot be resolved")


def test_no_urls_at_all() -> None:
    worker = give_up([])
    assert (worker.exit_code, worker.problem) == (1, "Failed to connect: no URL was given")


def test_an_address_that_does_not_answer_costs_only_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux drops connections to a listener whose queue is full."""
    monkeypatch.setattr(worker, "CONNECT_LIMIT", 0.2)
    with socket.socket() as full, listening() as listener:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for dummy in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        dialler = Worker([full.getsockname(), ("127.0.0.1", listener.port)], "b1")

        def script() -> None:
            service = Service(listener)
            service.register()
            service.shut_down()

        assert beside(script, dialler.run, listener.close) == 0
        for sock in waiting:
            sock.close()


def test_who_closes_at_once_does_not_keep_it_from_the_next() -> None:
    """A tunnel whose other end is dead takes connections and closes them."""
    with listening() as dead, listening() as listener:
        worker = Worker([("127.0.0.1", unused_port()), ("127.0.0.1", dead.port), ("127.0.0.1", listener.port)], "b1")

        def script() -> None:
            dead.accept().close()
            service = Service(listener)
            service.register()
            service.shut_down()

        assert beside(script, worker.run, listener.close) == 0


def test_who_always_closes_at_once_is_given_up_in_the_end() -> None:
    with listening() as dead:
        worker = Worker([("127.0.0.1", dead.port)], "b1", limit=0.5)
        closed = 0

        def script() -> None:
            nonlocal closed
            while worker.exit_code is None:
                dead.socket.settimeout(1.0)
                try:
                    dead.accept().close()
                    closed += 1
                except TimeoutError:
                    assert worker.exit_code is not None

        assert beside(script, worker.run, dead.close) in (1, errno.ECONNRESET)
        assert worker.problem.startswith("Failed to connect: the ")
        assert 1 <= closed <= 10


# losing the service


def test_jobs_go_on_while_the_service_is_away_and_their_end_is_told_to_the_next(tmp_path: Path) -> None:
    with listening() as listener:
        port = listener.port
        worker = Worker([("127.0.0.1", port)], "b1")

        def script() -> None:
            service = Service(listener)
            service.register()
            service.submit(shell("while [ ! -e go ]; do sleep 0.01; done; exit 3"))
            service.submit(shell("while [ ! -e never ]; do sleep 0.01; done", "cog-2"))
            service.submit(shell("exit 4", "cog-4"))
            while jobs.parse_status(service.link.expect("JOBSTATUS").args)[1].exit_code != 4:
                pass  # and no answer, so that the worker has to tell it again
            listener.close()
            (tmp_path / "go").touch()
            time.sleep(0.5)
            with listening(port) as again:
                service = Service(again)
                options = service.register("cog-1:1", "cog-2", "cog-4")
                assert sorted(options["running"].split()) == ["cog-1:1", "cog-2", "cog-4"]
                told = dict(service.status() for dummy in range(5))
                assert {identity: status.exit_code for identity, status in told.items()} == {"cog-1:1": 3, "cog-2": 0, "cog-4": 4}
                (tmp_path / "never").touch()
                assert service.end("cog-2").code == COMPLETED
                service.shut_down()

        assert beside(script, worker.run, listener.close) == 0


def test_jobs_that_the_next_service_does_not_know_are_ended(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        service.submit(shell("echo $$ > first; sleep 600"))
        service.submit(shell("echo $$ > second; sleep 600; exit 7", "cog-2"))
        service.submit(shell("exit 3", "cog-3"))
        numbers = [int(appears(tmp_path / name)) for name in ("first", "second")]
        service.lose()
        service.register("cog-2")
        assert gone(numbers[0])
        service.link.events.clear()
        os.kill(numbers[1], signal.SIGKILL)
        while True:
            identity, status = service.status()
            assert identity == "cog-2"
            if status.code in jobs.TERMINAL:
                break
        service.lose()
        assert service.register() == {"maxwalltime": "-1"}

    work(script)


def test_a_job_that_is_being_ended_when_the_service_is_lost_is_not_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process does not die at once: it is ended by hand here, after the worker has come back."""
    from ansible_collections.coasters.pool.plugins.module_utils.coaster import run

    monkeypatch.setattr(run, "kill_group", lambda group: None)
    monkeypatch.setattr(run, "kill_marked", lambda mark: 0)

    def script(service: Service) -> None:
        service.submit(shell("echo $$ > first; exec sleep 600"))
        number = int(appears(tmp_path / "first"))
        service.reaches(ACTIVE)
        service.command("CANCELJOB", b"cog-1:1")
        service.link.call("RESOURCEUPDATE")
        service.lose()
        assert service.register()["running"] == "cog-1:1"
        service.link.call("RESOURCEUPDATE")
        os.kill(number, signal.SIGKILL)
        assert service.run(shell("true", "cog-2")) == Status(COMPLETED)

    work(script)


def test_when_no_service_comes_back_the_jobs_are_ended(tmp_path: Path) -> None:
    numbers: list[int] = []

    def script(service: Service) -> None:
        service.submit(shell("sleep 600 & echo $! > child; echo $$ > first; wait"))
        numbers.extend(int(appears(tmp_path / name)) for name in ("child", "first"))
        service.listener.close()

    assert work(script, limit=0.3).exit_code == errno.ECONNREFUSED
    assert all(gone(number) for number in numbers)


def test_a_silent_service_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SILENCE_LIMIT", 0.3)

    def script(service: Service) -> None:
        service.link.socket.recv(1)  # the end of it
        service.link = service.listener.accept()
        service.register()

    assert work(script).exit_code == 0


def test_heartbeats_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_PERIOD", 0.1)

    def script(service: Service) -> None:
        raw = b""
        service.link.socket.settimeout(PATIENCE)
        while b"HEARTBEAT" not in raw:
            raw += service.link.socket.recv(1000)
        assert len(service.link.call("HEARTBEAT", bytes(8))[0]) == 8

    work(script)


def test_two_heartbeats_go_out_before_the_service_counts_as_lost() -> None:
    assert 2 * worker.HEARTBEAT_PERIOD < worker.SILENCE_LIMIT


def test_a_service_that_vanishes_while_it_is_written_to_counts_as_lost(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(50000000))

    def script(service: Service) -> None:
        job = shell("true")
        job.stage_out = [Stage("big", HERE + "big")]
        service.submit(job)
        service.link.expect("PUT")
        service.link.reset()
        service.link = service.listener.accept()
        service.register()

    work(script)


# the end


def test_shutdown_ends_the_jobs_and_all_that_they_left(tmp_path: Path) -> None:
    numbers: list[int] = []

    def script(service: Service) -> None:
        service.run(shell("setsid sh -c 'echo $$ > escaped; sleep 600' & while [ ! -e escaped ]; do sleep 0.01; done", "cog-0"))
        service.submit(shell("sleep 600 & echo $! > child; setsid sh -c 'echo $$ > other; sleep 600' & echo $$ > first; wait"))
        numbers.extend(int(appears(tmp_path / name)) for name in ("escaped", "child", "other", "first"))
        service.shut_down()

    assert work(script).exit_code == 0
    assert all(gone(number) for number in numbers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_the_jobs_and_the_worker(tmp_path: Path, number: int) -> None:
    children: list[int] = []

    def script(service: Service) -> None:
        service.submit(shell("echo $$ > first; sleep 600"))
        children.append(int(appears(tmp_path / "first")))
        os.kill(os.getpid(), number)
        assert service.link.closed()

    assert work(script).exit_code == 128 + number
    assert gone(children[0])


def stuff(service: Service) -> None:
    """Read nothing, and wake the worker until it has more to send than goes out."""
    for dummy in range(50):
        service.link.channel.request("RESOURCEUPDATE")
        service.link.send()
        time.sleep(0.01)


def test_the_last_words_are_sent_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes wait because nobody reads them; the worker stays for as long as it may."""
    monkeypatch.setattr(worker, "GOODBYE_LIMIT", 0.2)
    (tmp_path / "big").write_bytes(bytes(50000000))

    def script(service: Service) -> None:
        job = shell("true")
        job.stage_out = [Stage("big", HERE + "big")]
        service.submit(job)
        service.link.expect("PUT")
        stuff(service)
        service.link.channel.request("SHUTDOWN")
        service.link.send()
        time.sleep(0.5)

    assert work(script).exit_code == 0


def test_a_service_that_is_gone_gets_no_last_words(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(50000000))

    def script(service: Service) -> None:
        job = shell("true")
        job.stage_out = [Stage("big", HERE + "big")]
        service.submit(job)
        service.link.expect("PUT")
        stuff(service)
        service.link.channel.request("SHUTDOWN")
        service.link.send()
        service.link.reset()

    # Either the command or the broken connection is seen first.
    assert work(script, limit=0.2).exit_code in (0, 1, errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE)


def test_it_ends_while_it_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for dummy in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        dialler = Worker([full.getsockname()], "b1")
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        assert dialler.run() == 143
        for sock in waiting:
            sock.close()


# commands


def test_unknown_commands_are_refused_and_the_connection_stays() -> None:
    def script(service: Service) -> None:
        assert service.answered(service.command("DANCE", b"x")) == "Unknown command: DANCE"
        assert service.answered(service.command("WORKERSHELLCMD")) == "Unknown command: WORKERSHELLCMD"
        assert service.answered(service.command("REGISTER", b"x")) == "OK"
        tag = service.link.channel.request("PUT", (bytes(7) + b"\1", b"a", b"b"), final=False)
        service.link.channel.data(tag, b"123", True)
        service.link.channel.signal(77, b"STOP", to_replier=True)
        service.link.send()
        assert service.answered(tag) == "Unknown command: PUT"
        assert service.run(shell("true")).code == COMPLETED

    work(script)


def test_jobs_that_cannot_be_read_are_refused() -> None:
    def script(service: Service) -> None:
        for text, reason in (
            (b"", "Missing job identity"),
            (b"executable=/bin/true\n", "Missing job identity"),
            (b"identity=cog-1\n", "Missing executable"),
            (b"nonsense", "a line has no '='"),
        ):
            assert reason in service.answered(service.command("SUBMITJOB", text))
        assert service.answered(service.command("SUBMITJOB")) == "Missing job identity"
        service.submit(shell("sleep 600"))
        assert service.answered(service.command("SUBMITJOB", jobs.encode(shell("true")))) == "The job cog-1:1 runs here already"

    work(script)


def test_unknown_keys_are_passed_over_one_by_one(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        text = b"identity=cog-1:1\nshoesize=44\nexecutable=/bin/sh\nhat=no\narg=-c\narg=echo done > out\n"
        assert service.answered(service.command("SUBMITJOB", text)) == "OK"
        assert service.end().code == COMPLETED

    work(script)
    assert (tmp_path / "out").read_text() == "done\n"


def test_cancelling_a_job_that_is_not_here() -> None:
    def script(service: Service) -> None:
        tag = service.command("CANCELJOB", b"cog-9")
        assert service.status() == ("cog-9", Status(CANCELED))
        assert service.answered(tag) == "OK"

    work(script)


def test_a_peer_that_speaks_otherwise_counts_as_lost() -> None:
    def script(service: Service) -> None:
        service.link.socket.sendall(b"HTTP/1.1 200 OK\r\n\r\n" * 2)
        service.link = service.listener.accept()
        service.register()

    assert work(script).exit_code == 0


def test_late_and_stray_answers_are_passed_over(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("true")
        job.stage_out = [Stage("none", HERE + "x", 1)]
        service.submit(job)
        put = service.link.expect("PUT")
        tag = service.command("CANCELJOB", b"cog-1:1")
        assert service.end() == Status(CANCELED)
        assert service.answered(tag) == "OK"
        service.link.answer(put)
        service.link.channel.reply(4711)
        service.link.send()
        assert service.run(shell("true", "cog-2")).code == COMPLETED

    work(script)


def test_a_receiver_can_stop_a_file_while_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(20000000))

    def script(service: Service) -> None:
        for number in (1, 2):
            job = shell("true", "cog-%d" % number)
            job.stage_out = [Stage("big", HERE + "big%d" % number)]
            service.submit(job)
        puts = {request.args[2][-1:]: request for request in (service.link.expect("PUT"), service.link.expect("PUT"))}
        service.link.channel.signal(puts[b"1"].tag, b"STOP", to_replier=False)
        service.link.send()
        sizes = {b"1": 0, b"2": 0}
        final = False
        while not final:
            data, final = service.link.data(puts[b"2"].tag)
            sizes[b"2"] += len(data)
        service.link.answer(puts[b"2"])
        assert service.end_among("cog-2").code == COMPLETED
        stopped = sum(len(event.payload) for event in service.link.events if getattr(event, "tag", None) == puts[b"1"].tag)
        assert stopped < 20000000
        service.link.channel.signal(puts[b"1"].tag, b"CONTINUE", to_replier=False)
        service.link.send()
        final = False
        while not final:
            data, final = service.link.data(puts[b"1"].tag)
            sizes[b"1"] += len(data)
        service.link.answer(puts[b"1"])
        assert service.end_among("cog-1").code == COMPLETED
        assert sizes == {b"1": 20000000, b"2": 20000000}

    work(script)


def test_a_job_with_all_that_it_may_ask_of_its_worker(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(5000000))

    def script(service: Service) -> None:
        job = shell("sleep 600")
        job.stage_in = [Stage("sfs:big", "copy"), Stage(HERE + "a", "a")]
        job.attributes = {"maxwalltime": "0"}
        service.submit(job)
        service.give(b"a")
        assert service.end().exit_code == jobs.WALLTIME_EXCEEDED
        assert service.answered(service.command("CLEANUP", b"copy\n")) == "OK"
        job = shell("sleep 600", "cog-2")
        service.submit(job)
        tags = [service.link.channel.request("CANCELJOB", (b"cog-2",)) for dummy in range(2)]
        service.link.send()
        assert service.end("cog-2") == Status(CANCELED)
        assert [service.answered(tag) for tag in tags] == ["OK", "OK"]

    work(script)
    assert not (tmp_path / "copy").exists()


def test_a_job_that_ends_without_a_service_stages_out_to_the_next(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("while [ ! -e go ]; do sleep 0.01; done; echo done > done")
        job.stage_out = [Stage("none", HERE + "a", 1)]
        service.submit(job)
        service.reaches(ACTIVE)
        service.lose()
        registration, _options = service.registration()
        (tmp_path / "go").touch()
        appears(tmp_path / "done")
        time.sleep(0.1)
        service.link.answer(registration, b"000001", b"cog-1:1")
        assert service.take() == (HERE + "a", 0, b"")
        assert service.end() == Status(COMPLETED)

    work(script)


def test_a_file_that_shrinks_while_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(50000000))

    def script(service: Service) -> None:
        job = shell("true")
        job.stage_out = [Stage("big", HERE + "1")]
        service.submit(job)
        service.link.expect("PUT")
        os.truncate(tmp_path / "big", 5)
        assert service.end().exit_code == jobs.STAGE_OUT_READ_FAILED

    work(script)


def test_children_that_are_not_its_own_do_not_disturb_it() -> None:
    def script(service: Service) -> None:
        os.posix_spawn("/bin/true", ["true"], {})
        assert service.run(shell("sleep 0.1")).code == COMPLETED

    work(script)


def test_a_cancelled_errand_of_a_lost_service(tmp_path: Path) -> None:
    """The service is lost while it waits for STAGEIN."""

    def script(service: Service) -> None:
        service.command("STAGEIN", b"proxy://1/a\\n/tmp/x\\n1\n")
        service.link.expect("GET")
        service.lose()
        assert service.register() == {"maxwalltime": "-1"}
        assert service.run(shell("true")).code == COMPLETED

    work(script)


def test_the_log_is_told(tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    with listening() as listener:
        worker = Worker([("127.0.0.1", listener.port)], "secret", name="myhost")
        worker.log = lambda level, words: lines.append((level, words))

        def script() -> None:
            service = Service(listener)
            service.register()
            service.submit(Job("cog-1:1", "true"))
            assert service.status()[1].message == "workerid=myhost:000000"
            service.end()
            assert service.link.call("RLOG", b"ERROR", b"go away") == [b"OK"]
            service.shut_down()

        beside(script, worker.run, listener.close)
    assert [level for level, _words in lines] == ["INFO"] * 3 + ["WARN", "INFO"]
    assert lines[3][1] == "the service says: ERROR go away"
    assert not any("secret" in words for _level, words in lines)


def frames_of(data: bytes) -> list[Any]:
    return frames.Decoder().feed(data)


def test_the_registration_on_the_wire() -> None:
    """As worker.pl says it (coaster-protocol 2.7 a)."""
    with listening() as listener:
        worker = Worker([("127.0.0.1", listener.port)], "w1", slots=4)

        def script() -> None:
            link = listener.accept()
            (tag, *first), *rest = frames_of(link.socket.recv(1000))
            assert [first, *[list(frame[1:]) for frame in rest]] == [
                [0x20, b"REGISTER"], [0, b"w1"], [0, socket.gethostname().encode()], [2, b"maxwalltime = -1, concurrency = 4"]
            ]
            link.channel.reply(tag, (b"000000",))
            link.command("SHUTDOWN")
            with pytest.raises(Closed):
                while True:
                    link.receive()

        assert beside(script, worker.run, listener.close) == 0
