# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.coasters.pool.plugins.module_utils.coaster import channel as module
from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import (
    Aborted,
    Channel,
    ChannelError,
    Chunk,
    Data,
    Failure,
    Reply,
    Request,
    Signal,
    Silent,
    decode_int,
    decode_long,
    encode_int,
    encode_long,
)
from ansible_collections.coasters.pool.plugins.module_utils.coaster.frames import (
    ERROR,
    FINAL,
    INITIAL,
    LARGE,
    REPLY,
    SIGNAL,
    Decoder,
    encode,
)

NOW = 1795383600.25


def pair(**settings: Any) -> tuple[Channel, Channel]:
    return Channel(NOW, **settings), Channel(NOW, **settings)


def pass_on(sender: Channel, receiver: Channel) -> list[Any]:
    """What the receiver makes of all that the sender wants to send."""
    data = b"".join(sender.take_output())
    return receiver.receive(data, NOW) if data else []


def told(event: Any) -> tuple[Any, ...]:
    """An event as plain data."""
    return (type(event).__name__, *(getattr(event, name) for name in event.__slots__))


def flags(sender: Channel) -> list[int]:
    return [frame[1] for frame in Decoder().feed(b"".join(sender.take_output()))]


def test_bytes_are_received_into_the_room_of_the_channel() -> None:
    one, other = pair()
    one.request("ECHO", (b"hi",))
    data = b"".join(one.take_output())
    room = other.room(memoryview(bytearray(100)))
    room[:len(data)] = data
    (request,) = other.arrived(room, len(data), NOW + 5)
    assert told(request) == ("Request", 1, "ECHO", [b"hi"], True)
    assert other.last_received == NOW + 5
    room[:20] = b"\1" + bytes(19)
    with pytest.raises(ChannelError, match="header check"):
        other.arrived(room, 20, NOW)


# requests and replies


def test_a_request_is_one_frame_for_the_name_and_one_for_each_argument() -> None:
    one = Channel(NOW)
    one.request("REGISTER", (b"w1", b"vm", b""))
    assert b"".join(one.take_output()) == (
        encode(1, INITIAL, b"REGISTER") + encode(1, 0, b"w1") + encode(1, 0, b"vm") + encode(1, FINAL, b""))
    one.request("SHUTDOWN")
    assert flags(one) == [INITIAL | FINAL]
    assert one.take_output() == []


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1).filter(lambda name: name not in ("HEARTBEAT", "PUT")),
       st.lists(st.binary(max_size=50)), st.lists(st.binary(max_size=50), min_size=1))
def test_a_command_and_its_reply_arrive_as_they_were_sent(name: str, args: list[bytes], values: list[bytes]) -> None:
    one, two = pair()
    tag = one.request(name, args, context="mine")
    assert one.unanswered() == 1
    assert one.contexts() == ["mine"]
    assert [told(event) for event in pass_on(one, two)] == [("Request", tag, name, args, True)]
    two.reply(tag, values)
    assert [told(event) for event in pass_on(two, one)] == [("Reply", tag, values, "mine")]
    assert one.unanswered() == 0


def test_the_usual_reply_is_ok() -> None:
    one, two = pair()
    tag = one.request("RLOG", (b"INFO", b"x"))
    pass_on(one, two)
    two.reply(tag)
    assert pass_on(two, one)[0].values == [b"OK"]


def test_tags_of_the_two_directions_are_apart() -> None:
    one, two = pair()
    assert one.request("ECHO", (b"a",), context="one") == two.request("ECHO", (b"b",), context="two") == 1
    to_two, to_one = one.take_output(), two.take_output()
    assert two.receive(b"".join(to_two), NOW)[0].args == [b"a"]
    assert one.receive(b"".join(to_one), NOW)[0].args == [b"b"]
    one.reply(1, (b"for two",))
    two.reply(1, (b"for one",))
    assert (pass_on(one, two)[0].values, pass_on(two, one)[0].values) == ([b"for two"], [b"for one"])


def test_tags_wrap_around_past_those_in_use_and_the_reserved_one() -> None:
    one = Channel(NOW, first_tag=0xFFFFFFFE)
    assert [one.request("A"), one.request("B")] == [0xFFFFFFFE, 0]
    one._next_tag = 0xFFFFFFFE
    assert one.request("C") == 1


def test_names_are_taken_in_any_case_and_with_any_bytes() -> None:
    events = Channel(NOW).receive(encode(3, INITIAL | FINAL, b"version\xff"), NOW)
    assert events[0].name == "VERSION\ufffd"


def test_interleaved_requests_are_kept_apart() -> None:
    stream = (encode(1, INITIAL, b"A") + encode(2, INITIAL, b"B") + encode(1, 0, b"a1") + encode(2, FINAL, b"b1")
              + encode(1, FINAL, b"a2"))
    assert [told(event) for event in Channel(NOW).receive(stream, NOW)] == [
        ("Request", 2, "B", [b"b1"], True), ("Request", 1, "A", [b"a1", b"a2"], True)]


@pytest.mark.parametrize("frame", [
    encode(9, 0, b"argument of nothing"), encode(9, FINAL, b""), encode(9, ERROR | FINAL, b""), encode(9, REPLY | FINAL, b"stray"),
    encode(9, REPLY | FINAL | ERROR, b"stray"), encode(9, SIGNAL | REPLY, b"late"),
])
def test_frames_of_unknown_commands_are_passed_over(frame: bytes) -> None:
    one = Channel(NOW)
    assert one.receive(frame, NOW) == []
    assert one.take_output() == []


def test_only_the_data_of_files_is_passed_on_as_a_view() -> None:
    one, two = pair()
    large = b"x" * LARGE
    one.request("A", (large, large))
    (request,) = pass_on(one, two)
    assert [type(arg) for arg in request.args] == [bytes, bytes]
    two.reply(request.tag, (large, large))
    (reply,) = pass_on(two, one)
    assert [type(value) for value in reply.values] == [bytes, bytes]
    assert one.receive(encode(3, SIGNAL, large), NOW)[0].payload.startswith(b"x")
    assert one.receive(encode(3, INITIAL | FINAL, large), NOW)[0].name == "X" * LARGE
    tag = one.request("B")
    assert one.receive(encode(tag, REPLY | FINAL | ERROR, large), NOW)[0].message == "x" * LARGE
    tag = one.request("GET", stream=True)
    assert isinstance(one.receive(encode(tag, REPLY | FINAL, large), NOW)[0].payload, memoryview)


def test_initial_on_a_reply_is_passed_over() -> None:
    one = Channel(NOW)
    tag = one.request("A")
    assert told(one.receive(encode(tag, REPLY | FINAL | INITIAL, b"OK"), NOW)[0]) == ("Reply", tag, [b"OK"], None)


# errors


def test_an_error_of_one_frame() -> None:
    one, two = pair()
    tag = one.request("A", context="c")
    pass_on(one, two)
    two.fail(tag, "not this, caf\u00e9 \udcff")
    assert flags(two) == [REPLY | FINAL | ERROR]
    two.fail(tag, "not this, caf\u00e9 \udcff")
    assert told(pass_on(two, one)[0]) == ("Failure", tag, "not this, caf\u00e9 \udcff", "c")


def test_an_error_of_two_frames_leaves_out_the_java_object() -> None:
    one = Channel(NOW)
    tag = one.request("A")
    assert one.receive(encode(tag, REPLY | ERROR, b"why"), NOW) == []
    assert told(one.receive(encode(tag, REPLY | ERROR | FINAL, b"\xac\xed\x00\x05"), NOW)[0]) == ("Failure", tag, "why", None)
    assert one._held == 0


def test_a_request_can_be_given_up_by_its_sender() -> None:
    one, two = pair()
    tag = one.request("GET", (b"a",), final=False)
    one.abort(tag)
    assert flags(one) == [INITIAL, 0, ERROR | FINAL]
    one.abort(tag)
    assert one.take_output() == []
    assert one.unanswered() == 0
    stream = encode(4, INITIAL, b"A") + encode(4, ERROR, b"") + encode(4, 0, b"x") + encode(4, ERROR | FINAL, b"")
    assert two.receive(stream + encode(4, FINAL, b"y"), NOW) == []
    assert two._held == 0


def test_a_request_that_begins_anew_under_its_tag_forgets_what_it_was() -> None:
    two = Channel(NOW)
    stream = encode(4, INITIAL, b"A") + encode(4, 0, b"x") + encode(4, INITIAL, b"B") + encode(4, FINAL, b"y")
    assert [told(event) for event in two.receive(stream, NOW)] == [("Request", 4, "B", [b"y"], True)]
    assert [event.name for event in two.receive(encode(4, INITIAL, b"A") + encode(4, INITIAL | FINAL, b"C"), NOW)] == ["C"]
    assert two._held == 0


def test_a_forgotten_command_takes_no_reply() -> None:
    one = Channel(NOW)
    tag = one.request("A")
    one.receive(encode(tag, REPLY, b"x"), NOW)
    assert one._held
    one.forget(tag)
    one.forget(tag)
    assert one.receive(encode(tag, REPLY | FINAL, b"x"), NOW) == []
    assert one._held == 0


# files


def test_a_reply_piece_by_piece() -> None:
    one, two = pair()
    tag = one.request("GET", (b"a", b"b"), context="file", stream=True)
    pass_on(one, two)
    large = bytes(LARGE)
    two.reply_part(tag, encode_long(3), False)
    two.reply_part(tag, large, True)
    two.signal(tag, b"x", to_replier=False)
    two.reply(99)
    output = two.take_output()
    assert [len(piece) for piece in output] == [28 + 20, len(large), 21 + 22]
    assert output[1] is large
    assert [told(event) for event in one.receive(b"".join(output), NOW)] == [
        ("Chunk", tag, encode_long(3), False, "file"), ("Chunk", tag, large, True, "file")]
    assert one.unanswered() == 0


def test_an_error_ends_a_reply_piece_by_piece() -> None:
    one = Channel(NOW)
    tag = one.request("GET", (b"a", b"b"), stream=True)
    events = one.receive(encode(tag, REPLY, b"x") + encode(tag, REPLY | FINAL | ERROR, b"gone") + encode(tag, REPLY, b"y"), NOW)
    assert [told(event)[0] for event in events] == ["Chunk", "Failure"]


def test_a_put_is_delivered_frame_by_frame() -> None:
    one, two = pair()
    tag = one.request("PUT", (encode_long(4), b"a", b"b"), final=False)
    one.data(tag, b"12", False)
    one.data(tag, b"34", True)
    assert [told(event) for event in pass_on(one, two)] == [
        ("Request", tag, "PUT", [encode_long(4), b"a", b"b"], False), ("Data", tag, b"12", False), ("Data", tag, b"34", True)]
    assert two._held == 0


@pytest.mark.parametrize("length", [0, -1])
@pytest.mark.parametrize("final", [True, False])
def test_a_put_without_data_is_whole_with_its_arguments(length: int, final: bool) -> None:
    one, two = pair()
    tag = one.request("PUT", (encode_long(length), b"a", b"b"), final=final)
    assert [told(event) for event in pass_on(one, two)] == [("Request", tag, "PUT", [encode_long(length), b"a", b"b"], True)]
    assert two._held == 0


def test_a_put_given_up_in_the_middle() -> None:
    one, two = pair()
    tag = one.request("PUT", (encode_long(4), b"a", b"b"), final=False)
    one.data(tag, b"1", False)
    one.abort(tag)
    assert [told(event)[0] for event in pass_on(one, two)] == ["Request", "Data", "Aborted"]
    assert isinstance(Aborted(3), Aborted)


def test_a_put_that_was_refused_brings_no_more_data() -> None:
    one, two = pair()
    tag = one.request("PUT", (encode_long(4), b"a", b"b"), final=False)
    pass_on(one, two)
    two.fail(tag, "no")
    one.data(tag, b"1234", True)
    assert pass_on(one, two) == []


def test_a_put_with_a_malformed_length() -> None:
    one, two = pair()
    one.request("PUT", (b"12", b"a", b"b"), final=False)
    with pytest.raises(ChannelError, match="8 bytes, not 2"):
        pass_on(one, two)


# signals


def test_signals_both_ways() -> None:
    one, two = pair()
    tag = one.request("GET", (b"a", b"b"), context="file")
    pass_on(one, two)
    one.signal(tag, b"SUSPEND", to_replier=True)
    two.signal(tag, b"QUEUED", to_replier=False)
    assert [told(event) for event in pass_on(one, two)] == [("Signal", tag, b"SUSPEND", False, None)]
    assert [told(event) for event in pass_on(two, one)] == [("Signal", tag, b"QUEUED", True, "file")]


# time


def test_heartbeats_are_answered_with_the_time_of_the_replier() -> None:
    one, two = pair()
    for args in ((), (encode_long(5),)):
        tag = one.request("HEARTBEAT", args)
        assert two.receive(b"".join(one.take_output()), NOW + 1) == []
        assert told(pass_on(two, one)[0]) == ("Reply", tag, [encode_long(1795383601250)], None)


def test_heartbeats_are_sent_in_their_period() -> None:
    one = Channel(NOW, heartbeat_every=30.0, silence_limit=None)
    assert one.deadline() == NOW + 30
    assert (one.tick(NOW + 29), one.take_output()) == ([], [])
    assert one.tick(NOW + 30) == []
    request = Channel(NOW).receive(b"".join(one.take_output()), NOW)
    assert request == []
    assert one.unanswered() == 1
    assert one.deadline() == NOW + 60
    one.tick(NOW + 200)  # after a long sleep there is one heartbeat, not six
    assert one.unanswered() == 2
    assert one.deadline() == NOW + 210


def test_silence() -> None:
    one = Channel(NOW)
    assert one.deadline() == NOW + module.SILENCE_LIMIT
    assert one.tick(NOW + 119) == []
    assert [type(event) for event in one.tick(NOW + 120)] == [Silent]
    one.receive(b"x", NOW + 130)
    assert one.tick(NOW + 240) == []
    assert one.deadline() == NOW + 250


def test_no_deadline_without_limits() -> None:
    one = Channel(NOW, silence_limit=None)
    assert one.deadline() is None
    assert one.tick(NOW + 10 ** 9) == []


# limits


def test_a_damaged_stream() -> None:
    with pytest.raises(ChannelError, match="header check"):
        Channel(NOW).receive(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", NOW)


def test_incomplete_requests_have_a_limit_in_number() -> None:
    one = Channel(NOW)
    for tag in range(module.MAX_OPEN):
        one.receive(encode(tag, INITIAL, b"A"), NOW)
    with pytest.raises(ChannelError, match="more than 4096 incomplete requests"):
        one.receive(encode(module.MAX_OPEN, INITIAL, b"A"), NOW)


@pytest.mark.parametrize("frames", [
    [encode(1, INITIAL, b"A"), encode(1, 0, bytes(60))],
    [encode(1, INITIAL, bytes(81))],
    [encode(1, INITIAL, b"A"), encode(2, INITIAL, bytes(60))],
    [encode(5, REPLY, bytes(81))],
    [encode(5, REPLY, bytes(40)), encode(6, REPLY, bytes(21))],
    [encode(5, REPLY | ERROR, bytes(81))],
])
def test_incomplete_messages_have_one_limit_in_bytes(frames: list[bytes]) -> None:
    one = Channel(NOW, max_message=100, first_tag=5)
    one.request("A")
    one.request("B")
    for frame in frames[:-1]:
        one.receive(frame, NOW)
    with pytest.raises(ChannelError, match="larger than the limit of 100 bytes"):
        one.receive(frames[-1], NOW)


def test_what_is_not_complete_is_dropped_with_the_connection() -> None:
    """Not later, when the garbage is collected: something may still refer to the channel."""
    client, service = pair()
    tracemalloc.start()
    client.request("SUBMITJOB", [b"x" * 1000000], final=False)
    pass_on(client, service)
    service.request("GET", [b"y" * 1000000])
    before = tracemalloc.get_traced_memory()[0]
    service.close()
    client.close()
    assert tracemalloc.get_traced_memory()[0] < before - 1900000
    tracemalloc.stop()
    assert service.take_output() == []
    service.forget(1)


def test_what_is_complete_frees_its_room() -> None:
    one = Channel(NOW, max_message=100)
    for _times in range(10):
        one.receive(encode(1, INITIAL, b"A") + encode(1, 0, bytes(50)) + encode(1, FINAL, b""), NOW)
        tag = one.request("B")
        one.receive(encode(tag, REPLY, bytes(50)) + encode(tag, REPLY | FINAL, b""), NOW)


# numbers


@given(st.integers(-2 ** 31, 2 ** 31 - 1))
def test_integers(number: int) -> None:
    assert decode_int(encode_int(number)) == number


@given(st.integers(-2 ** 63, 2 ** 63 - 1))
def test_long_integers(number: int) -> None:
    assert decode_long(encode_long(number)) == number


def test_integers_of_other_sizes() -> None:
    assert encode_int(200) == b"\xc8\0\0\0"
    with pytest.raises(ChannelError, match="4 bytes, not 3"):
        decode_int(b"abc")
    with pytest.raises(ChannelError, match="8 bytes, not 9"):
        decode_long(bytes(9))


# any stream


COMMANDS = st.one_of(
    st.tuples(st.just("request"), st.sampled_from(["ECHO", "GET", "HEARTBEAT"]), st.lists(st.binary(max_size=30), max_size=4)),
    st.tuples(st.just("put"), st.integers(-1, 100), st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=4)),
    st.tuples(st.just("reply"), st.integers(1, 5), st.lists(st.binary(max_size=30), min_size=1, max_size=4)),
    st.tuples(st.just("fail"), st.integers(1, 5), st.text(max_size=10)),
    st.tuples(st.just("signal"), st.integers(1, 5), st.booleans()),
)


def speak(commands: list[Any]) -> bytes:
    """The stream of somebody who does all this."""
    one = Channel(NOW)
    for kind, first, second in commands:
        if kind == "request":
            one.request(first, second)
        elif kind == "put":
            tag = one.request("PUT", (encode_long(first), b"a", b"b"), final=False)
            for index, payload in enumerate(second, 1):
                one.data(tag, payload, index == len(second))
        elif kind == "reply":
            one.reply(first, second)
        elif kind == "fail":
            one.fail(first, second)
        else:
            one.signal(first, b"S", second)
    return b"".join(one.take_output())


def listen(pieces: list[bytes]) -> tuple[list[Any], bytes]:
    """Events and answers of somebody who has sent two commands and hears this."""
    one = Channel(NOW, max_message=10 ** 6)
    for stream in (False, True, False):
        one.request("X", context=stream, stream=stream)
    one.take_output()
    events = [told(event) for piece in pieces if piece for event in one.receive(piece, NOW)]
    return events, b"".join(one.take_output())


@given(st.lists(COMMANDS, max_size=8), st.lists(st.integers(0, 10 ** 6), max_size=10))
def test_any_split_of_the_stream_gives_the_same_events_and_answers(commands: list[Any], places: list[int]) -> None:
    stream = speak(commands)
    marks = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    assert listen([stream[start:end] for start, end in pairwise(marks)]) == listen([stream])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 63), st.binary(max_size=20)), max_size=40))
def test_any_frames_give_events_or_one_clear_error(frames: list[tuple[int, int, bytes]]) -> None:
    one = Channel(NOW, max_message=200)
    for stream in (False, True, False):
        one.request("X", stream=stream)
    try:
        for frame in frames:
            for event in one.receive(encode(*frame), NOW):
                assert isinstance(event, (Request, Reply, Failure, Chunk, Data, Aborted, Signal))
    except ChannelError as error:
        assert str(error)
    else:
        assert 0 <= one._held <= 200
        assert one._held == sum(entry.size for entry in (*one._open.values(), *one._sent.values()))
