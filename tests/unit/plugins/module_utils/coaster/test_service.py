# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service on real sockets, with hand-written clients and workers."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import jobs, transfers
from ansible_collections.coasters.pool.plugins.module_utils.coaster import service as module
from ansible_collections.coasters.pool.plugins.module_utils.coaster.admission import Admission
from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import Aborted, Reply, Request, encode_int, encode_long
from ansible_collections.coasters.pool.plugins.module_utils.coaster.frames import ERROR, FINAL, encode
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import (
    ACTIVE,
    CANCELED,
    COMPLETED,
    FAILED,
    STAGE_IN,
    STAGE_OUT,
    SUBMITTED,
    SUBMITTING,
)
from ansible_collections.coasters.pool.plugins.module_utils.coaster.service import Service
from tests.unit.plugins.module_utils.coaster.peers import PATIENCE, Closed, Refused, Running, WorkerPeer, job, with_staging

# the client port


def test_the_version_is_checked(service: Running) -> None:
    client = service.client()
    client.configure()
    for args, message in (
        ((), "No version requirement information supplied by the client. Please update the client."),
        ((b"OS=null", b"requireVersion=0.4"), "No version requirement information supplied by the client. Please update the client."),
        ((b"requireVersion=0.5",), "Client requires version 0.5, but this service is version 0.4"),
    ):
        with pytest.raises(Refused) as refused:
            client.call("CONFIGSERVICE", *args)
        assert str(refused.value) == message
    assert client.call("VERSION") == [b"0.4"]
    assert client.call("CHANNELCONFIG", b"compression: DEFLATE") == [b"compression: NONE"]


@pytest.mark.parametrize("command", [
    "GET", "PUT", "EXISTS", "DEL", "MKDIR", "RMDIR", "LIST", "FILEINFO", "ISDIR", "RENAME", "CHMOD", "WORKERSHELLCMD", "REGISTER", "JOBSTATUS",
    "RLOG", "NONSENSE",
])
def test_what_the_client_port_does_not_know(service: Running, command: str) -> None:
    client = service.client()
    with pytest.raises(Refused, match="Unknown command: " + command):
        client.call(command, encode_long(0), b"a", b"b")
    assert client.call("VERSION") == [b"0.4"]


@pytest.mark.parametrize("command", ["SUBMITJOB", "CONFIGSERVICE", "CANCELJOB", "STAGEIN", "INFO", "CHANNELCONFIG"])
def test_what_the_worker_port_does_not_know(service: Running, command: str) -> None:
    with pytest.raises(Refused, match="Unknown command: " + command):
        service.worker().call(command, b"a")


def test_commands_are_taken_in_lower_case(service: Running) -> None:
    client = service.client()
    client.socket.sendall(encode(1, 0x22, b"version"))
    client.channel.request("X")
    client.channel.take_output()
    assert client.reply(1).values == [b"0.4"]


@pytest.mark.parametrize(("argument", "message"), [
    (b"nonsense", "Could not deserialize job description"),
    (b"configid=0\nidentity=cog\nexecutable=a\n", "Could not deserialize job description"),
    (b"configid=0\nidentity=cog-1\nexecutable=a\nbatch=true\n", "batch"),
])
def test_jobs_that_are_refused(service: Running, argument: bytes, message: str) -> None:
    client = service.client()
    with pytest.raises(Refused, match=message):
        client.call("SUBMITJOB", argument)
    with pytest.raises(Refused, match="Missing command argument #1"):
        client.call("SUBMITJOB")


def test_an_identity_in_use_is_refused(service: Running) -> None:
    client = service.client()
    client.submit(job())
    with pytest.raises(Refused, match="cog-1 belongs to another job"):
        client.submit(job())


# the life of a job


def test_a_job_from_submission_to_its_end(service: Running) -> None:
    client, worker = service.client(), service.worker(slots=4)
    client.configure()
    identity = client.submit(job(arguments=["a b"], attributes={"maxwalltime": "240:00:00"}))
    assert identity.startswith("cog-1:")
    taken = worker.take_job()
    assert (taken.identity, taken.arguments, taken.attributes) == (identity, ["a b"], {"maxwalltime": "864000"})
    for code in (STAGE_IN, ACTIVE, STAGE_OUT, COMPLETED, COMPLETED):
        worker.report(identity, code)
    statuses = list(client.statuses("cog-1"))
    assert [status.code for status in statuses] == [SUBMITTING, SUBMITTED, STAGE_IN, ACTIVE, STAGE_OUT, COMPLETED]
    assert [status.message for status in statuses[2:4]] == ["workerid=w1:000000"] * 2
    assert all(abs(status.time / 1000 - time.time()) < 3600 for status in statuses)
    client.submit(job("cog-2"))
    assert client.status()[0] == "cog-2"


def test_exit_code_message_and_output_pass_through(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job(redirect=True))
    worker.report(worker.take(), FAILED, 200, "Process completed with exit code 200", stdout=b"out\xff\n", stderr=b"")
    end = client.end("cog-1")
    assert (end.code, end.exit_code, end.message, end.stdout, end.stderr) == (
        FAILED, 200, "Process completed with exit code 200", b"out\xff\n", b"")


def test_the_exit_code_of_a_job_without_redirection_passes_through(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    worker.report(worker.take(), FAILED, 3, "Process completed with exit code 3")
    end = client.end("cog-1")
    assert (end.exit_code, end.stdout) == (3, None)


def test_the_time_of_a_status_is_the_workers_if_it_gives_one(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    worker.call("JOBSTATUS", *jobs.encode_status(worker.take(), jobs.Status(COMPLETED, time=12345)))
    assert client.end("cog-1").time == 12345


def test_statuses_that_make_no_sense_are_not_passed_on(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    identity = worker.take()
    for code in (0, SUBMITTED, SUBMITTING, 99, -1):
        worker.report(identity, code)
    with pytest.raises(Refused, match="JOBSTATUS with 1 arguments"):
        worker.call("JOBSTATUS", identity.encode())
    with pytest.raises(Refused, match="4 bytes"):
        worker.call("JOBSTATUS", identity.encode(), b"x", b"x", b"", encode_long(0))
    worker.report(identity, COMPLETED)
    assert [status.code for status in client.statuses("cog-1")] == [SUBMITTING, SUBMITTED, COMPLETED]


def test_a_client_that_refuses_statuses_and_a_worker_that_sends_signals_for_jobs(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    request = worker.expect("SUBMITJOB")
    worker.channel.signal(request.tag, b"NONSENSE", to_replier=False)
    worker.answer(request)
    identity = jobs.parse(request.args[0]).identity
    for _times in range(2):
        client.channel.fail(client.expect("JOBSTATUS").tag, "Unknown command: JOBSTATUS")
        client.send()
    worker.report(identity, COMPLETED)
    assert client.end("cog-1").code == COMPLETED


def test_jobs_wait_for_slots_longest_walltime_first(service: Running) -> None:
    client = service.client()
    for name, minutes in (("a-0", "1"), ("b-1", "2"), ("c-2", "3")):
        client.submit(job(name, attributes={"maxwalltime": minutes}))
    worker = service.worker(slots=2)
    first = worker.take()
    assert first.startswith("c-2:")
    assert worker.take().startswith("b-1:")
    worker.report(first, COMPLETED)
    assert worker.take().startswith("a-0:")


def test_a_rejected_job_fails_and_the_slot_is_free(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    request = worker.expect("SUBMITJOB")
    worker.channel.fail(request.tag, "Missing executable")
    worker.send()
    end = client.end("cog-1")
    assert (end.code, end.message) == (FAILED, "Block task failed: Missing executable")
    client.submit(job("cog-2"))
    worker.take()


def test_a_walltime_over_the_limit(service: Running) -> None:
    client = service.client()
    client.submit(job(attributes={"maxwalltime": "9000:00:00"}))
    assert client.end("cog-1").message == "Task walltime > maxJobTime - reserve (9000:00:00 > 8639:59:00)"


def test_many_jobs_of_two_clients(service: Running) -> None:
    clients = [service.client(), service.client()]
    workers = [service.worker("w%d" % number, slots=3) for number in range(2)]
    for number in range(40):
        for client in clients:
            client.command("SUBMITJOB", jobs.encode_submission(job("cog-%d" % number)))
    left = 80
    while left:
        for worker in workers:
            running = service.look(lambda served, worker=worker: _jobs_of(served, worker))
            assert running <= 3
            for _times in range(running):
                worker.report(worker.take(), COMPLETED)
                left -= 1
    for client in clients:
        ended = set()
        while len(ended) < 40:
            identity, status = client.status()
            if status.code == COMPLETED:
                ended.add(identity)


def _jobs_of(running: Any, worker: WorkerPeer) -> int:
    name = worker.socket.getsockname()
    return next(len(peer.worker.jobs) for peer in running.peers.values() if peer.remote == name)


# cancelling and leaving


def test_a_client_cancels_its_running_job(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    identity = worker.take()
    assert client.call("CANCELJOB", b"cog-1") == [b"OK"]
    request = worker.expect("CANCELJOB")
    assert request.args == [identity.encode()]
    worker.report(identity, CANCELED)
    worker.answer(request)
    assert client.end("cog-1").code == CANCELED


def test_a_worker_that_only_answers_a_cancellation_has_cancelled(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    worker.take()
    client.call("CANCELJOB", b"cog-1")
    request = worker.expect("CANCELJOB")
    worker.channel.fail(request.tag, "no such job")
    worker.send()
    assert client.end("cog-1").code == CANCELED


def test_cancelling_what_is_not_there(service: Running) -> None:
    assert service.client().call("CANCELJOB", b"cog-7") == [b"OK"]


def test_a_lost_clients_jobs_are_cancelled_at_once(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job("cog-1"))
    client.submit(job("cog-2"))
    identity = worker.take()
    client.close()
    request = worker.expect("CANCELJOB")
    assert request.args == [identity.encode()]
    worker.report(identity, CANCELED)
    worker.answer(request)
    assert service.look(lambda running: (running.pool.queued, running.pool.active, running.pool.cancelled)) == (0, 0, 2)


def test_a_half_closed_client_counts_as_lost(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    worker.take()
    client.socket.shutdown(socket.SHUT_WR)
    worker.expect("CANCELJOB")


@pytest.mark.parametrize("command", ["SHUTDOWN", "SHUTDOWNSERVICE"])
def test_a_client_that_leaves_stays_connected(service: Running, command: str) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job("cog-1"))
    client.submit(job("cog-2"))
    identity = worker.take()
    assert client.call(command) == [b"OK"]
    worker.answer(worker.expect("CANCELJOB"))
    assert client.end("cog-1").code == CANCELED
    client.submit(job("cog-3"))
    assert worker.take() != identity


# workers


def test_worker_ids_count_per_block(service: Running) -> None:
    names = [service.stranger().register(block) for block in ("w1", "w1", "w2")]
    assert names == ["000000", "000001", "000000"]


def test_a_worker_has_one_slot_unless_it_says_more(service: Running) -> None:
    service.worker("w1")
    service.stranger().call("REGISTER", b"w2", b"node")
    service.stranger().call("REGISTER", b"w3", b"node", b" concurrency=3 , maxwalltime = -1, more")
    assert service.look(lambda running: [len(worker.slots) for worker in running.pool.workers()]) == [1, 1, 3]


@pytest.mark.parametrize(("args", "message"), [
    ((), "Missing command argument #1"), ((b"w1",), "Missing command argument #2"),
    ((b"w1", b"node", b"concurrency = many"), "concurrency = many is not a number"),
    ((b"w1", b"node", b"concurrency = 0"), "concurrency = 0 is not a number"),
    ((b"w1", b"node", "concurrency = \u0664".encode()), "is not a number"),
    ((b"w1", b"node", b"concurrency = " + b"9" * 5000), "is not a number"),
    ((b"", b"node"), "block id"), ((b"a b", b"node"), "block id"), ((b"a\x1b[2J", b"node"), "block id"), ((b"x" * 300, b"node"), "block id"),
    ((b"\xff", b"node"), "block id"),
])
def test_registrations_that_are_refused(service: Running, args: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(Refused, match=message):
        service.stranger().call("REGISTER", *args)
    assert service.look(lambda running: list(running.pool.workers())) == []


def test_a_stranger_may_take_its_time(service: Running) -> None:
    stranger = service.stranger()
    service.until(lambda running: len(running.peers) == 1)
    service.look(lambda running: running._tick())
    assert stranger.register() == "000000"


def test_a_worker_registers_once(service: Running) -> None:
    worker = service.worker()
    with pytest.raises(Refused, match="has registered before"):
        worker.register("w2")


def test_control_characters_in_a_host_name(service: Running) -> None:
    service.worker("w1", "node\x1b[2J\n1")
    assert service.look(lambda running: [worker.host for worker in running.pool.workers()]) == ["node?[2J?1"]


def test_nothing_but_registration_comes_first(service: Running) -> None:
    stranger = service.stranger()
    for command in ("JOBSTATUS", "RLOG"):
        with pytest.raises(Refused, match="the worker has not registered"):
            stranger.call(command, b"cog-1:1", encode_int(7), encode_int(0), b"", encode_long(0))
    with pytest.raises(Refused, match="the worker has not registered"):
        stranger.call("GET", b"proxy://1/x", b"y")
    assert stranger.call("VERSION") == [b"0.4"]
    assert stranger.call("ECHO", b"hello") == [b"hello"]


def test_a_lost_worker_fails_its_jobs_at_once(service: Running) -> None:
    client, worker = service.client(), service.worker("w1", "node7")
    client.submit(job())
    worker.take()
    worker.close()
    end = client.end("cog-1")
    assert (end.code, end.exit_code) == (FAILED, 0)
    assert end.message == "Block task failed: Connection to worker lost (worker w1:000000 on node7)"


def test_a_worker_that_says_goodbye(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    worker.take()
    assert worker.call("SHUTDOWN") == [b"OK"]
    assert worker.closed()
    assert client.end("cog-1").code == FAILED


def test_a_slow_peer_gets_all_in_order_before_its_connection_is_closed(service: Running) -> None:
    worker = service.worker()
    words = [bytes((number,)) * 1000000 for number in range(30)]
    tags = [worker.command("ECHO", word) for word in words]
    service.until(lambda running: running.peers[1].congested)
    tags.append(worker.command("SHUTDOWN"))
    assert [worker.reply(tag).values for tag in tags] == [[word] for word in [*words, b"OK"]]
    assert worker.closed()


def test_large_files_pass_both_ways_to_peers_who_read_slowly(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    data = random.Random(1).randbytes(700000)
    frames = [data[:300000], data[:500000], data, data]
    get = worker.command("GET", b"pinned:proxy://1/a/./x", b"dst", stream=True)
    request = client.expect("GET")
    put = worker.command("PUT", encode_long(2200000), b"out", b"proxy://1//cwd/many-1", final=False)
    for number, frame in enumerate(frames, 1):
        client.channel.reply_part(request.tag, frame, number == len(frames))
        worker.channel.data(put, frame, number == len(frames))
    client.send()
    worker.send()
    for number, frame in enumerate(frames, 1):
        assert worker.data(get) == (frame, number == len(frames))
    tag = client.expect("PUT").tag
    for number, frame in enumerate(frames, 1):
        assert client.data(tag) == (frame, number == len(frames))


def test_a_peer_that_is_gone_when_a_file_is_written_to_it(service: Running) -> None:
    service.worker()

    def write(running: Service) -> None:
        peer = running.peers[1]
        peer.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        peer.channel.reply_part(1, bytes(100000), True)
        peer.flush()

    service.look(write)
    service.until(lambda running: not running.peers)


def test_a_job_goes_to_another_worker_when_asked(start: Callable[..., Running]) -> None:
    service = start(resubmit=1)
    client, worker = service.client(), service.worker("w1")
    identity = client.submit(job())
    assert worker.take() == identity
    other = service.worker("w2")
    worker.close()
    again = other.take()
    assert again == identity + ":1"
    other.report(again, COMPLETED)
    assert [status.code for status in client.statuses("cog-1")] == [SUBMITTING, SUBMITTED, SUBMITTING, SUBMITTED, COMPLETED]


def test_a_worker_that_comes_back_ends_jobs_that_nobody_waits_for(service: Running) -> None:
    worker = service.worker(running="cog-1:5 cog-2:6")
    assert [worker.expect("CANCELJOB").args for _times in range(2)] == [[b"cog-1:5"], [b"cog-2:6"]]


def test_a_worker_that_comes_back_while_its_old_connection_seems_alive(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    identity = worker.take()
    back = service.worker(running=identity)
    assert worker.closed()
    back.report(identity, COMPLETED)
    assert client.end("cog-1").code == COMPLETED


def test_remote_log_messages_are_answered(service: Running) -> None:
    assert service.worker().call("RLOG", b"INFO", b"PROBE type=CPU") == [b"OK"]


# information


def test_info(service: Running) -> None:
    client, _worker = service.client(), service.worker("w1", slots=2)
    client.submit(job(attributes={"maxwalltime": "90"}))
    assert client.call("INFO", b"workers", b"") == [b"           ID    Cores     Running", b"    w1:000000        2          1"]
    heading, line = client.call("INFO", b"jobs", b"")
    assert heading == b"          ID          Worker            Executable           Start Time     Walltime"
    assert re.fullmatch(rb"cog-1:\d+        w1:000000               /bin/true    \d\d/\d\d/\d\d \d\d:\d\d:\d\d    1:30:00", line)
    heading, line = client.call("INFO", b"blocks", b"")
    assert heading == b"    ID    State    Workers           Start Time    Walltime"
    assert line.startswith(b"    w1        R          1    ")
    with pytest.raises(Refused, match="Unknown type: 'x'"):
        client.call("INFO", b"x", b"")
    with pytest.raises(Refused, match="Missing command argument #2"):
        client.call("INFO", b"workers")


# files


def test_files_pass_both_ways(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    get = worker.command("GET", b"pinned:proxy://1/a/./x", b"dst", stream=True)
    request = client.expect("GET")
    client.channel.signal(request.tag, b"QUEUED", to_replier=False)
    client.channel.reply_part(request.tag, encode_long(2), False)
    client.channel.reply_part(request.tag, b"hi", True)
    client.send()
    assert [worker.data(get), worker.data(get), worker.signal()] == [(encode_long(2), False), (b"hi", True), (get, b"QUEUED")]
    put = worker.command("PUT", encode_long(2), b"out", b"proxy://1//cwd/many-1", final=False)
    worker.channel.data(put, b"ho", True)
    worker.send()
    request = client.expect("PUT")
    assert client.data(request.tag) == (b"ho", True)
    client.answer(request)
    assert worker.reply(put).values == [b"OK"]
    missing = worker.command("GET", b"proxy://1/b", b"dst")
    client.channel.fail(client.expect("GET").tag, "No such file")
    client.send()
    assert worker.reply(missing).message == "No such file"


def test_files_are_held_back_while_a_peer_is_full(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    put = worker.command("PUT", encode_long(2), b"out", b"proxy://1//cwd/out", final=False)
    get = worker.command("GET", b"proxy://1/b", b"dst", stream=True)
    request = client.expect("GET")
    for peer, heard, signals in (
        (2, client, [(request.tag, b"SUSPEND"), (request.tag, b"RESUME")]), (1, worker, [(put, b"STOP"), (put, b"CONTINUE")]),
    ):
        service.look(lambda running, peer=peer: running.peers[peer].full())
        service.look(lambda running, peer=peer: running.peers[peer].free())
        assert [heard.signal(), heard.signal()] == signals
    worker.channel.signal(get, b"ABORT", to_replier=True)
    worker.channel.signal(99, b"ABORT", to_replier=True)
    worker.channel.abort(put)
    worker.send()
    assert client.signal() == (request.tag, b"ABORT")
    assert client.wait(lambda event: isinstance(event, Aborted))


@pytest.mark.parametrize("lost", ["client", "worker"])
def test_files_of_a_lost_peer(service: Running, lost: str) -> None:
    client, worker, _identity = with_staging(service)
    get = worker.command("GET", b"proxy://1/b", b"dst")
    request = client.expect("GET")
    (client if lost == "client" else worker).close()
    if lost == "client":
        assert worker.reply(get).message == "Connection to client lost"
    else:
        assert client.signal() == (request.tag, b"ABORT")


def test_what_comes_for_a_file_that_was_given_up_at_once(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "MAX_UNSENT_FILES", -1)
    monkeypatch.setattr(module, "HIGH_WATER", -1)
    monkeypatch.setattr(module, "LOW_WATER", -1)
    client, worker, _identity = with_staging(service)
    get = worker.command("GET", b"proxy://1/b", b"dst")
    request = client.expect("GET")
    for final in (False, True):
        client.channel.reply_part(request.tag, b"x", final)
    client.send()
    assert worker.reply(get).message == "the worker reads too slowly"
    assert client.call("VERSION") == [b"0.4"]


@pytest.mark.parametrize(("url", "message"), [
    (b"proxy://1/c", "no job on this worker has this file in its staging lists"),
    (b"proxy://1//a/x", "no job on this worker"), (b"proxy://1/a/../b", "no job on this worker"), (b"proxy://9/b", "no job on this worker"),
    (b"proxy:b", "no job on this worker"), (b"file://localhost/b", "no access to files of its own host"),
    (b"/etc/passwd", "no access to files of its own host"), (b"a/b:c", "no access to files of its own host"),
    (b"bogus://x/y", "Unknown protocol: bogus"),
])
def test_files_that_a_worker_gets_and_puts_in_vain(service: Running, url: bytes, message: str) -> None:
    client, worker, _identity = with_staging(service)
    with pytest.raises(Refused, match=message):
        worker.call("GET", url, b"dst")
    with pytest.raises(Refused, match=message):
        worker.call("PUT", encode_long(-1), b"src", url)
    assert client.call("VERSION") == [b"0.4"]
    assert not [event for event in client.events if isinstance(event, Request) and event.name in ("GET", "PUT")]


def test_what_may_be_read_may_not_be_written(service: Running) -> None:
    _client, worker, _identity = with_staging(service)
    with pytest.raises(Refused, match="no job on this worker"):
        worker.call("GET", b"proxy://1//cwd/out", b"dst")
    with pytest.raises(Refused, match="no job on this worker"):
        worker.call("PUT", encode_long(0), b"src", b"proxy://1/b")


def test_files_without_all_their_arguments(service: Running) -> None:
    _client, worker, _identity = with_staging(service)
    with pytest.raises(Refused, match="Missing command argument #2"):
        worker.call("GET", b"proxy://1/b")
    with pytest.raises(Refused, match="Missing command argument #3"):
        worker.call("PUT", encode_long(0), b"src")
    assert service.look(lambda running: [peer.transfers for peer in running.peers.values() if peer.transfers]) == []


def test_files_of_a_job_that_has_ended_or_runs_elsewhere(service: Running) -> None:
    client, worker, identity = with_staging(service)
    other = service.worker("w2")
    with pytest.raises(Refused, match="no job on this worker"):
        other.call("GET", b"proxy://1/b", b"dst")
    worker.report(identity, COMPLETED)
    with pytest.raises(Refused, match="no job on this worker"):
        worker.call("GET", b"proxy://1/b", b"dst")
    assert client.end("cog-1").code == COMPLETED


def test_files_of_a_client_that_is_gone(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    client.close()
    worker.expect("CANCELJOB")
    with pytest.raises(Refused, match="no job on this worker"):
        worker.call("GET", b"proxy://1/b", b"dst")


def test_files_under_way_have_a_limit(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TRANSFERS", 2)
    client, worker, _identity = with_staging(service)
    for _times in range(2):
        worker.command("GET", b"proxy://1/b", b"dst")
        client.expect("GET")
    with pytest.raises(Refused, match="limit of 2 files under way"):
        worker.call("GET", b"proxy://1/b", b"dst")


def test_frames_of_a_stage_out_that_was_refused_before(service: Running) -> None:
    _client, worker, _identity = with_staging(service)
    opening = encode(77, 0x20, b"PUT") + encode(77, 0, encode_long(5)) + encode(77, 0, b"o") + encode(77, 0, b"bad")
    worker.socket.sendall(opening + encode(77, 0, b"data") + encode(77, ERROR | FINAL, b""))
    assert worker.call("VERSION") == [b"0.4"]


def test_a_client_that_answers_a_file_before_its_end(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("PUT", encode_long(5), b"out", b"proxy://1//cwd/out", final=False)
    client.answer(client.expect("PUT"))
    assert worker.reply(tag).values == [b"OK"]
    worker.channel.data(tag, b"he", False)
    worker.send()
    worker.socket.sendall(encode(tag, ERROR | FINAL, b""))
    assert worker.call("VERSION") == [b"0.4"]


# peers that misbehave


def test_a_peer_that_does_not_speak_the_protocol(service: Running) -> None:
    for peer in (service.client(), service.stranger()):
        peer.socket.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        level, reason = peer.expect("RLOG").args
        assert (level, reason[:35]) == (b"ERROR", b"the header check of a frame is wron")
        assert peer.closed()
    client, worker = service.client(), service.worker()
    client.submit(job())
    worker.report(worker.take(), COMPLETED)
    assert client.end("cog-1").code == COMPLETED


@pytest.mark.usefixtures("low_water")
def test_a_peer_that_never_reads_is_dropped(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNSENT", 1048576)
    stuck = service.stranger(buffer=65536)
    worker = service.worker()
    echo = encode(1, 0x20, b"ECHO") + encode(1, FINAL, bytes(100000))
    with pytest.raises(OSError):
        for _times in range(1000):
            stuck.socket.sendall(echo)
    service.until(lambda running: len(running.peers) == 1)
    assert worker.call("VERSION") == [b"0.4"]


def test_a_peer_that_never_answers_is_dropped(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNANSWERED", 3)
    service = start(silence=5.0)
    client, worker = service.client(), service.worker()
    for number in range(2):
        client.submit(job("cog-%d" % number))
        worker.report(worker.take(), COMPLETED)
    assert client.closed()
    assert worker.call("VERSION") == [b"0.4"]


def test_connections_have_a_limit(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REFUSED", 1)
    monkeypatch.setattr(module, "REFUSAL_TIME", 0.5)
    service = start(max_connections=2)
    client, worker = service.client(), service.worker()
    refused = service.client()
    with pytest.raises(Refused, match="limit of 2 connections"):
        refused.submit(job())
    assert service.stranger().closed()
    assert refused.closed()
    client.submit(job())
    worker.report(worker.take(), COMPLETED)
    assert client.end("cog-1").code == COMPLETED


def test_a_reset_connection(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job())
    worker.take()
    worker.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    worker.close()
    assert client.end("cog-1").code == FAILED


# time


def test_small_messages_are_not_held_back(service: Running) -> None:
    """Without TCP_NODELAY a job would take 40 ms more for each of its messages."""
    service.client()
    service.worker()
    nodelay = service.look(lambda running: [
        peer.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for peer in running.peers.values()])
    assert len(nodelay) == 2
    assert all(nodelay)


def test_heartbeats(start: Callable[..., Running]) -> None:
    service = start(heartbeats=(0.05, 0.1), silence=10.0)
    worker = service.worker()
    before = worker.channel.last_received
    while worker.channel.last_received < before + 0.3:
        worker.receive()
    assert worker.call("HEARTBEAT")[0] != b""
    assert service.client().call("HEARTBEAT", encode_long(0))[0] != b""


def test_workers_that_are_probed_answer_at_once(service: Running) -> None:
    living, _stuck = service.worker("w1"), service.worker("w2")
    asked = service.look(lambda running: (running.probe(), running.now())[1])
    living.receive()
    service.until(lambda running: [worker.handle.channel.last_received > asked for worker in running.pool.workers()] == [True, False])


def test_probes_do_not_pile_up(service: Running) -> None:
    """However often somebody asks, a worker has one heartbeat to answer."""
    service.worker("w1")
    for _time in range(100):
        service.look(lambda running: running.probe())
    assert service.look(lambda running: [worker.handle.channel.unanswered() for worker in running.pool.workers()]) == [1]


def test_a_silent_peer_is_dropped(start: Callable[..., Running]) -> None:
    service = start(silence=1.0)
    client, worker = service.client(), service.worker("w1", "node3")
    client.submit(job())
    worker.take()
    deadline = time.monotonic() + 30
    while service.look(lambda running: running.pool.active):
        client.call("HEARTBEAT")
        time.sleep(0.05)
        assert time.monotonic() < deadline
    assert client.end("cog-1").message == "Block task failed: Connection to worker lost (worker w1:000000 on node3)"
    assert worker.closed()
    assert client.closed()


def test_the_periods_of_heartbeats_are_drawn_as_specified(service: Running) -> None:
    service.worker()
    service.client()
    now = service.look(lambda running: running.now())
    due = service.look(lambda running: [peer.channel._next_heartbeat for peer in running.peers.values()])
    assert now + 29 < due[0] < now + 40
    assert due[1] is None


# the end


def test_the_service_stops(service: Running) -> None:
    client, worker = service.client(), service.worker()
    client.submit(job("cog-1"))
    client.submit(job("cog-2"))
    worker.take()
    stopping = service.begin(service.service.stop())
    ends = dict(client.status() for _times in range(4))
    assert {name: (status.code, status.message) for name, status in ends.items()} == {
        "cog-1": (FAILED, "Shutting down worker"), "cog-2": (FAILED, "Shutting down service")}
    client.answer(client.expect("SHUTDOWN"))
    worker.answer(worker.expect("SHUTDOWN"))
    with pytest.raises(Closed):
        client.receive()
    with pytest.raises(ConnectionRefusedError):
        service.client()
    client.close()
    worker.close()
    stopping.result(30)


def test_what_is_asked_after_the_goodbye_has_no_answer(service: Running) -> None:
    client = service.client()
    client.configure()
    stopped = service.begin(service.service.stop())
    client.expect("SHUTDOWN")
    client.command("VERSION")
    assert client.closed()
    stopped.result(PATIENCE)
    assert not [event for event in client.events if isinstance(event, Reply)]


def test_peers_that_do_not_go_are_dropped_when_the_service_stops(service: Running) -> None:
    client, worker = service.client(), service.worker()
    service.run(service.service.stop())
    assert client.closed()
    assert worker.closed()
    assert not service.look(lambda running: running.peers)


def test_a_peer_that_has_just_gone_when_the_service_stops(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    worker = service.worker()
    service.look(lambda running: [setattr(peer.transport, "write_eof", gone) for peer in running.peers.values()])
    service.run(service.service.stop())
    assert worker.closed()


def test_no_job_is_taken_while_the_service_stops(service: Running) -> None:
    client = service.client()
    assert client.call("VERSION") == [b"0.4"]
    service.look(lambda running: setattr(running, "stopping", True))
    with pytest.raises(Refused, match="the service is shutting down"):
        client.submit(job())


# who may speak


def test_only_listed_workers_register(start: Callable[..., Running], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "workers"
    path.write_text("secret-1 node1\n")
    service = start(admission=Admission(str(path)))
    client = service.client()
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(Refused, match="its block id is not in this pool's list of workers"):
            service.worker("secret-2")
        path.write_text("secret-1 node1\nsecret-2\n")
        worker = service.worker("secret-1")
        client.submit(job())
        worker.take()
        worker.close()
        assert client.end("cog-1").message == "Block task failed: Connection to worker lost (worker node1:000000 on node1)"
        service.worker("secret-2")
    assert "refused a worker from 127.0.0.1: its block id is not" in caplog.text
    assert "registered worker node1:000000 on node1" in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in str(client.call("INFO", b"workers", b""))


def test_the_workers_own_name_for_itself_stays_with_it(start: Callable[..., Running], tmp_path: Path) -> None:
    path = tmp_path / "workers"
    path.write_text("secret-1 node1\n")
    service = start(admission=Admission(str(path)))
    client, worker = service.client(), service.worker("secret-1")
    client.submit(job())
    identity = worker.take()
    worker.report(identity, ACTIVE, 0, "workerid=secret-1:000000")
    worker.report(identity, COMPLETED)
    assert [status.message for status in client.statuses("cog-1")] == ["", "", "workerid=node1:000000", ""]


def test_a_block_id_in_use_is_refused_from_another_address(start: Callable[..., Running], tmp_path: Path) -> None:
    path = tmp_path / "workers"
    path.write_text("secret-1 node1\n")
    service = start(admission=Admission(str(path)))
    client, worker = service.client(), service.worker("secret-1")
    thief = service.stranger(source="127.0.0.9")
    with pytest.raises(Refused, match="in use by another worker, from 127.0.0.1"):
        thief.register("secret-1")
    with pytest.raises((Refused, Closed, ConnectionError)):
        thief.register("secret-1")
    client.submit(job())
    identity = worker.take()
    back = service.worker("secret-1", running=identity)
    assert worker.closed()
    back.report(identity, COMPLETED)
    assert client.end("cog-1").code == COMPLETED


def test_a_block_id_in_use_is_refused_through_another_tunnel(start: Callable[..., Running], tmp_path: Path) -> None:
    """Over loopback the addresses are the same, and the process at the other end, a tunnel's ssh, is another one."""
    path = tmp_path / "workers"
    path.write_text("secret-1 node1\n")
    service = start(admission=Admission(str(path)))
    command = [sys.executable, "-c", TUNNEL, str(service.worker_address[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tunnel:
        assert tunnel.stdout is not None
        with WorkerPeer(("127.0.0.1", int(tunnel.stdout.readline()))) as thief:
            service.worker("secret-1")
            with pytest.raises(Refused, match="in use by another worker, from 127.0.0.1"):
                thief.register("secret-1")
        tunnel.terminate()


TUNNEL = """
import socket, sys, threading
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
host, service = server.accept()[0], socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def carry(one, other):
    while data := one.recv(65536):
        other.sendall(data)
threading.Thread(target=carry, args=(service, host), daemon=True).start()
carry(host, service)
"""
"""What stands for the ends of a tunnel."""


def test_who_does_not_register_is_not_kept(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STRANGERS", 2)
    service = start()
    worker = service.worker()
    first, second, third = (service.stranger() for _number in range(3))
    assert first.closed()
    assert [peer.call("ECHO", b"here") for peer in (second, third)] == [[b"here"]] * 2
    monkeypatch.setattr(module, "REGISTER_TIME", 0.0)
    assert second.closed() and third.closed()
    assert worker.call("ECHO", b"here") == [b"here"]
    assert not service.look(lambda running: running.strangers)


def test_a_stranger_cannot_make_the_service_hold_much(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    stranger = service.stranger()
    with contextlib.suppress(ConnectionError):
        stranger.command("REGISTER", *[b"x" * 100000] * 4)
    assert stranger.closed()
    assert "larger than the limit of %d bytes" % module.MAX_FIRST_MESSAGE in caplog.text
    assert service.worker().command("RLOG", b"INFO", b"x" * 1000000)


def test_many_that_are_refused_take_no_room(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REFUSED", 2)
    service = start(admission=Admission(users=[os.getuid() + 1]))
    first, second, third = (service.client() for _number in range(3))
    assert third.closed()
    for peer in (first, second):
        with pytest.raises(Refused, match="may not use this service"):
            peer.configure()
    service.until(lambda running: len(running.peers) == 2)


def test_a_worker_that_is_taken_off_the_list_is_drained_and_sent_home(start: Callable[..., Running], tmp_path: Path) -> None:
    path = tmp_path / "workers"
    path.write_text("secret-1 node1\nsecret-2 node2\n")
    service = start(admission=Admission(str(path)))
    client, worker = service.client(), service.worker("secret-1", slots=2)
    client.submit(job())
    identity = worker.take()
    path.write_text("secret-2 node2\n")
    service.until(lambda running: all(other.closed for other in running.pool.workers()))
    second_client = service.client()
    second_client.submit(job(identity="cog-2"))
    other = service.worker("secret-2")
    second = other.take()
    worker.report(identity, COMPLETED)
    assert client.end("cog-1").code == COMPLETED
    worker.expect("SHUTDOWN")
    other.report(second, COMPLETED)
    assert second_client.end("cog-2").code == COMPLETED


def test_only_the_given_users_are_clients(start: Callable[..., Running]) -> None:
    with pytest.raises(Refused, match="user %d may not use this service" % os.getuid()):
        start(admission=Admission(users=[os.getuid() + 1])).client().submit(job())
    start(admission=Admission(users=[os.getuid()])).client().submit(job())


def test_arguments_and_environment_are_not_logged(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        client, worker = service.client(), service.worker()
        client.submit(job(arguments=["secret-argument"], environment=[("KEY", "secret-value")]))
        worker.report(worker.take(), FAILED, 3, "secret-message")
        client.end("cog-1")
    assert "secret" not in caplog.text
