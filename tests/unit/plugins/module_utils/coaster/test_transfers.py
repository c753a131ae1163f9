# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files between hand-written clients and workers, through the service on real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import service as service_module
from ansible_collections.coasters.pool.plugins.module_utils.coaster import transfers
from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import Aborted, Failure, Signal, encode_long
from ansible_collections.coasters.pool.plugins.module_utils.coaster.frames import ERROR, FINAL, REPLY, encode
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import COMPLETED, FAILED
from ansible_collections.coasters.pool.plugins.module_utils.coaster.staging import FRAME
from tests.unit.plugins.module_utils.coaster.peers import PATIENCE, Peer, Running, job, staging, with_staging

# stage in


def test_stage_in(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("GET", b"proxy://1/a/./x", b"/job/x", stream=True)
    request = client.expect("GET")
    assert request.args == [b"file://localhost/a/x", b"/job/x", b"%d" % FRAME]
    client.channel.reply_part(request.tag, encode_long(5), False)
    client.send()
    assert worker.data(tag) == (encode_long(5), False)
    client.channel.signal(request.tag, b"QUEUED", to_replier=False)
    client.channel.signal(request.tag, b"SOMETHING", to_replier=False)
    client.send()
    assert worker.signal() == (tag, b"QUEUED")
    client.channel.reply_part(request.tag, b"hello", True)
    client.send()
    assert worker.data(tag) == (b"hello", True)
    assert service.look(lambda running: [peer.transfers for peer in running.peers.values()]) == [set(), {}]


def test_stage_in_of_an_empty_file(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("GET", b"pinned:proxy://1/b", b"/job/b", stream=True)
    client.answer(client.expect("GET"), encode_long(0))
    assert worker.data(tag) == (encode_long(0), True)


def test_stage_in_of_a_missing_file(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("GET", b"proxy://1/b", b"/job/b")
    request = client.expect("GET")
    client.channel._output += [
        encode(request.tag, REPLY | ERROR, b"/b (No such file or directory)"), encode(request.tag, REPLY | ERROR | FINAL, b"\xac\xed\0\5")]
    client.send()
    assert worker.reply(tag).message == "/b (No such file or directory)"


def test_a_client_lost_in_the_middle_of_a_stage_in(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("GET", b"proxy://1/b", b"dst", stream=True)
    client.channel.reply_part(client.expect("GET").tag, encode_long(5), False)
    client.send()
    assert worker.data(tag) == (encode_long(5), False)
    client.close()
    assert worker.reply(tag).message == "Connection to client lost"


def test_a_worker_lost_in_the_middle_of_a_stage_in(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("GET", b"proxy://1/b", b"dst", stream=True)
    request = client.expect("GET")
    client.channel.reply_part(request.tag, encode_long(5), False)
    client.send()
    worker.data(tag)
    worker.close()
    assert client.signal() == (request.tag, b"ABORT")
    client.channel.fail(request.tag, "ABORTED")
    client.send()
    assert client.end("cog-1").code == FAILED


def test_a_worker_that_gives_up_a_stage_in(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("GET", b"proxy://1/b", b"dst")
    request = client.expect("GET")
    worker.channel.signal(tag, b"NONSENSE", to_replier=True)
    worker.channel.signal(99, b"ABORT", to_replier=True)
    worker.channel.signal(tag, b"ABORT No space left on device", to_replier=True)
    worker.send()
    assert client.signal() == (request.tag, b"ABORT")
    client.channel.fail(request.tag, "ABORTED")
    client.send()
    assert worker.reply(tag).message == "ABORTED"


def test_two_files_under_one_tag(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    for _times in range(2):
        worker.socket.sendall(encode(50, 0x20, b"GET") + encode(50, 0, b"proxy://1/b") + encode(50, FINAL, b"dst"))
    worker.channel._next_tag = 50
    worker.channel.request("X")
    worker.channel.take_output()
    assert "belongs to another file" in worker.reply(50).message
    client.expect("GET")


CHUNK = bytes(range(256)) * 256


def pour(peer: Peer, more: Callable[[], None]) -> int:
    """Send more and more until a signal comes; how often that was."""
    for total in range(1000):
        if any(isinstance(event, Signal) for event in peer.events):
            return total
        more()
        peer.send()
        peer.socket.settimeout(0.001)
        with contextlib.suppress(TimeoutError):
            peer.receive()
        peer.socket.settimeout(PATIENCE)
    pytest.fail("nothing stops it")


def _unsent_to_workers(running: Any) -> int:
    return max(peer.unsent() for peer in running.peers.values() if peer.kind == "worker")


def _transfers(running: Any) -> int:
    return sum(len(peer.transfers) for peer in running.peers.values())


@pytest.mark.usefixtures("low_water")
def test_a_slow_worker_holds_up_its_file_and_nobody_else(service: Running) -> None:
    client, slow, _identity = with_staging(service, buffer=65536)
    tag = slow.command("GET", b"proxy://1/b", b"dst", stream=True)
    request = client.expect("GET")
    client.channel.reply_part(request.tag, encode_long(1 << 40), False)
    total = pour(client, lambda: client.channel.reply_part(request.tag, CHUNK, False))
    assert client.signal() == (request.tag, b"SUSPEND")
    assert service.look(_unsent_to_workers) < 4 * 1048576
    # Others are served meanwhile, also by the same client.
    quick = service.worker("w2", slots=5)
    client.submit(job("cog-2"))
    quick.report(quick.take(), COMPLETED)
    while client.status()[1].code != COMPLETED:
        pass
    # Now the slow one reads all of it, and the client may go on.
    assert slow.data(tag)[0] == encode_long(1 << 40)
    for _times in range(total):
        assert slow.data(tag) == (CHUNK, False)
    assert client.signal() == (request.tag, b"RESUME")
    client.channel.reply_part(request.tag, b"end", True)
    client.send()
    assert slow.data(tag) == (b"end", True)


@pytest.mark.usefixtures("low_water")
def test_a_client_that_does_not_stop_loses_its_file_only(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "MAX_UNSENT_FILES", 1048576)
    client, slow, identity = with_staging(service, buffer=65536)
    tag = slow.command("GET", b"proxy://1/b", b"dst", stream=True)
    request = client.expect("GET")
    for _times in range(400):
        client.channel.reply_part(request.tag, CHUNK, False)
    client.send()
    service.until(lambda running: not _transfers(running))
    assert slow.wait(lambda event: isinstance(event, Failure) and event.tag == tag).message == "the worker reads too slowly"
    slow.report(identity, FAILED, 520, "Error staging in file")
    assert client.end("cog-1").code == FAILED


def test_a_file_whose_last_piece_is_one_too_many(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "MAX_UNSENT_FILES", -1)
    monkeypatch.setattr(service_module, "HIGH_WATER", -1)
    monkeypatch.setattr(service_module, "LOW_WATER", -1)
    client, worker, _identity = with_staging(service)
    for final in (True, False):
        tag = worker.command("GET", b"proxy://1/b", b"dst")
        request = client.expect("GET")
        client.channel.reply_part(request.tag, b"x", final)
        client.send()
        assert worker.reply(tag).message == "the worker reads too slowly"
    assert client.signal() == (request.tag, b"ABORT")


def test_a_file_that_was_not_held_back_is_not_resumed(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    service.look(lambda running: running.peers[2].full())
    get = worker.command("GET", b"proxy://1/b", b"dst", stream=True)
    request = client.expect("GET")
    service.look(lambda running: (running.peers[2].free(), running.peers[1].full()))
    put = worker.command("PUT", encode_long(0), b"out", b"proxy://1//cwd/out")
    out = client.expect("PUT")
    service.look(lambda running: running.peers[1].free())
    client.answer(out)
    assert worker.reply(put).values == [b"OK"]
    client.answer(request, encode_long(0))
    worker.data(get)
    assert not [event for event in client.events + worker.events if isinstance(event, Signal)]


# stage out


def test_stage_out(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    for url, where in ((b"proxy://1//cwd/out", b"/cwd/out"), (b"proxy://1//cwd/many-7", b"/cwd/many-7")):
        tag = worker.command("PUT", encode_long(5), b"/job/out", url, final=False)
        request = client.expect("PUT")
        assert request.args == [encode_long(5), b"/job/out", b"file://localhost/" + where]
        worker.channel.data(tag, b"hel", False)
        worker.channel.data(tag, b"lo", True)
        worker.send()
        assert [client.data(request.tag), client.data(request.tag)] == [(b"hel", False), (b"lo", True)]
        client.answer(request)
        assert worker.reply(tag).values == [b"OK"]
    assert not service.look(_transfers)


@pytest.mark.parametrize("length", [0, -1])
@pytest.mark.parametrize("final", [True, False])
def test_stage_out_of_nothing(service: Running, length: int, final: bool) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("PUT", encode_long(length), b"out", b"proxy://1//cwd/out", final=final)
    request = client.expect("PUT")
    assert (request.args[0], request.final) == (encode_long(length), True)
    client.answer(request)
    assert worker.reply(tag).values == [b"OK"]


def test_a_stage_out_that_the_client_refuses(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("PUT", encode_long(5), b"out", b"proxy://1//cwd/out", final=False)
    client.channel.fail(client.expect("PUT").tag, "Permission denied")
    client.send()
    assert worker.reply(tag).message == "Permission denied"
    worker.channel.data(tag, b"hello", True)
    worker.send()
    assert worker.call("VERSION") == [b"0.4"]


def test_a_worker_that_gives_up_a_stage_out(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("PUT", encode_long(5), b"out", b"proxy://1//cwd/out", final=False)
    request = client.expect("PUT")
    worker.channel.signal(tag, b"ABORT", to_replier=True)
    worker.channel.abort(tag)
    worker.send()
    assert client.wait(lambda event: isinstance(event, Aborted)).tag == request.tag
    service.until(lambda running: not _transfers(running))


def test_a_worker_lost_in_the_middle_of_a_stage_out(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    worker.command("PUT", encode_long(5), b"out", b"proxy://1//cwd/out", final=False)
    request = client.expect("PUT")
    worker.close()
    assert client.wait(lambda event: isinstance(event, Aborted)).tag == request.tag


def test_a_client_lost_in_the_middle_of_a_stage_out(service: Running) -> None:
    client, worker, _identity = with_staging(service)
    tag = worker.command("PUT", encode_long(5), b"out", b"proxy://1//cwd/out", final=False)
    client.expect("PUT")
    client.close()
    assert worker.reply(tag).message == "Connection to client lost"


@pytest.mark.usefixtures("low_water")
def test_a_slow_client_holds_up_its_files_and_nobody_else(service: Running) -> None:
    slow = service.client(buffer=65536)
    worker = service.worker(slots=2)
    slow.submit(staging())
    worker.take()
    tag = worker.command("PUT", encode_long(1 << 40), b"out", b"proxy://1//cwd/out", final=False)
    total = pour(worker, lambda: worker.channel.data(tag, CHUNK, False))
    assert worker.signal() == (tag, b"STOP")
    # A file that begins now is stopped before its data.
    late = worker.command("PUT", encode_long(5), b"out", b"proxy://1//cwd/many-1", final=False)
    assert worker.signal() == (late, b"STOP")
    # Others are served meanwhile, also by the same worker.
    other = service.client()
    other.submit(job("cog-2"))
    worker.report(worker.take(), COMPLETED)
    assert other.end("cog-2").code == COMPLETED
    request = slow.expect("PUT")
    for _times in range(total):
        assert slow.data(request.tag) == (CHUNK, False)
    assert {worker.signal() for _times in range(2)} == {(tag, b"CONTINUE"), (late, b"CONTINUE")}
    worker.channel.data(tag, b"end", True)
    worker.send()
    assert slow.data(request.tag) == (b"end", True)
    slow.answer(request)
    assert worker.reply(tag).values == [b"OK"]


@pytest.mark.usefixtures("low_water")
def test_a_worker_that_does_not_stop_loses_its_file_only(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "MAX_UNSENT_FILES", 1048576)
    slow = service.client(buffer=65536)
    worker = service.worker()
    slow.submit(staging())
    identity = worker.take()
    tag = worker.command("PUT", encode_long(1 << 40), b"out", b"proxy://1//cwd/out", final=False)
    for _times in range(400):
        worker.channel.data(tag, CHUNK, False)
    worker.send()
    assert worker.reply(tag).message == "the client reads too slowly"
    request = slow.expect("PUT")
    slow.wait(lambda event: isinstance(event, Aborted) and event.tag == request.tag)
    worker.report(identity, FAILED, 515, "Stage out failed")
    assert slow.end("cog-1").code == FAILED
