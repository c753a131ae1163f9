# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct
import zlib
from itertools import cycle, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.coasters.pool.plugins.module_utils.coaster import frames
from ansible_collections.coasters.pool.plugins.module_utils.coaster.frames import (
    FINAL,
    INITIAL,
    LARGE,
    NEXT_HEADER,
    REPLY,
    Decoder,
    FrameError,
    encode,
)

WORD = st.integers(0, 0xFFFFFFFF)
FRAMES = st.lists(st.tuples(WORD, WORD, st.binary(max_size=200)))
SIZES = st.sampled_from([0, 1, 300, LARGE - 1, LARGE, LARGE, LARGE + 1, 3 * LARGE])
MIXED = st.lists(st.tuples(WORD, WORD, st.builds(lambda size, byte: bytes((byte,)) * size, SIZES, st.integers(0, 255))), max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(marks)]


def received(decoder: Decoder, stream: bytes, amounts: list[int]) -> list[tuple[int, int, bytes]]:
    """What comes when the stream is received in such amounts, one after the other."""
    buffer = memoryview(bytearray(2 * LARGE))
    came = []
    position = 0
    for amount in cycle(amounts):
        if position == len(stream):
            break
        room = decoder.room(buffer)
        size = min(amount, len(room), len(stream) - position)
        room[:size] = stream[position:position + size]
        came += [(tag, flags, bytes(payload)) for tag, flags, payload in decoder.arrived(room, size)]
        position += size
    return came


def test_a_frame_is_laid_out_as_on_the_wire() -> None:
    # The first frame of the annotated registration in coaster-protocol 2.7 (a).
    assert encode(0x1324, INITIAL, b"REGISTER") == bytes.fromhex("2413000020000000080000000c13000000000000") + b"REGISTER"
    assert frames.header(0x1324, INITIAL, 8) == encode(0x1324, INITIAL, b"REGISTER")[:20]


@given(FRAMES, st.lists(st.integers(0, 10 ** 6), max_size=20))
def test_any_split_of_the_stream_gives_the_same_frames(sent: list[tuple[int, int, bytes]], places: list[int]) -> None:
    stream = b"".join(encode(*frame) for frame in sent)
    decoder = Decoder()
    assert [frame for piece in cut(stream, places) for frame in decoder.feed(piece)] == sent


@given(MIXED, st.lists(st.integers(0, 10 ** 6), max_size=20))
def test_frames_of_all_sizes_in_any_pieces(sent: list[tuple[int, int, bytes]], places: list[int]) -> None:
    stream = b"".join(encode(*frame) for frame in sent)
    decoder = Decoder()
    assert [frame for piece in cut(stream, places) for frame in decoder.feed(piece)] == sent


@given(MIXED, st.lists(st.integers(1, 3 * LARGE), min_size=1, max_size=20))
def test_frames_that_are_received_at_their_place(sent: list[tuple[int, int, bytes]], amounts: list[int]) -> None:
    assert received(Decoder(), b"".join(encode(*frame) for frame in sent), amounts) == sent


def test_a_large_payload_after_another_is_received_at_its_place() -> None:
    decoder = Decoder()
    buffer = memoryview(bytearray(4 * LARGE))
    payload = bytes(range(256)) * (LARGE // 256)

    def head(size: int) -> memoryview:
        room = decoder.room(buffer)
        assert room.obj is buffer.obj
        room[:21] = frames.header(1, 0, size) + payload[:1]
        assert decoder.arrived(room, 21) == []
        return decoder.room(buffer)

    assert head(LARGE).obj is buffer.obj  # the first one may have been announced only
    assert decoder.feed(payload[1:]) == [(1, 0, payload)]
    assert len(decoder.room(buffer)) == NEXT_HEADER
    room = head(LARGE)
    assert room.obj is not buffer.obj and len(room) == LARGE - 1
    room[:] = payload[1:]
    assert decoder.arrived(room, 1000) == []
    assert len(decoder.room(buffer)) == LARGE - 1001
    kept = decoder.arrived(room, LARGE - 1001)
    assert kept == [(1, 0, payload)]
    seen = room.obj
    del room
    room = head(LARGE)
    assert room.obj is not seen and kept == [(1, 0, payload)], "somebody had a view of it"
    decoder.arrived(room, LARGE - 1)
    assert head(LARGE + 1).obj is buffer.obj, "the peer has sent none that is so large"
    assert decoder.feed(payload[1:] + b"x") == [(1, 0, payload + b"x")]
    room = head(LARGE + 1)
    memory = room.obj
    assert len(memory) == LARGE + 1
    decoder.arrived(room, LARGE)
    del room
    again = head(LARGE + 1)
    assert again.obj is memory  # new memory would have to be filled with zeros first
    assert len(decoder.arrived(again, LARGE)) == 1
    assert decoder.feed(encode(2, 0, b"small")) == [(2, 0, b"small")]
    assert len(decoder.room(buffer)) == len(buffer)


@given(FRAMES)
def test_byte_by_byte_gives_the_same_frames(sent: list[tuple[int, int, bytes]]) -> None:
    decoder = Decoder()
    stream = b"".join(encode(*frame) for frame in sent)
    assert [frame for byte in stream for frame in decoder.feed(bytes((byte,)))] == sent


def test_payloads_are_bytes_whole_or_in_pieces() -> None:
    decoder = Decoder()
    stream = encode(1, FINAL, b"abc")
    assert isinstance(decoder.feed(stream)[0][2], bytes)
    assert decoder.feed(stream[:21]) == []
    assert isinstance(decoder.feed(stream[21:])[0][2], bytes)


def test_large_payloads_are_not_copied() -> None:
    decoder = Decoder()
    payload = bytes(range(256)) * 64
    stream = encode(1, 0, payload) + encode(2, 0, payload[1:]) + encode(3, 0, payload)
    whole, small = decoder.feed(stream[:-5])
    assert isinstance(whole[2], memoryview) and whole[2].obj == stream[:-5]
    assert isinstance(small[2], bytes)
    (split,) = decoder.feed(stream[-5:] + encode(4, 0, b"next"))[:1]
    assert whole[2] == split[2] == payload and small[2] == payload[1:]


@pytest.mark.parametrize("size", [0, frames.MAX_PAYLOAD])
def test_sizes_up_to_the_limit_pass(size: int) -> None:
    assert Decoder().feed(encode(7, REPLY, bytes(size))) == [(7, REPLY, bytes(size))]


def test_a_frame_over_the_limit_is_refused_at_its_header() -> None:
    decoder = Decoder(max_payload=10)
    assert decoder.feed(encode(1, 0, bytes(10))) == [(1, 0, bytes(10))]
    with pytest.raises(FrameError, match="a frame of 11 bytes is larger than the limit of 10 bytes"):
        decoder.feed(frames.header(1, 0, 11))


@pytest.mark.parametrize("position", range(16))
def test_one_wrong_byte_in_the_header_is_found(position: int) -> None:
    stream = bytearray(encode(1, FINAL, b"x"))
    stream[position] ^= 0x40
    with pytest.raises(FrameError, match="header check"):
        Decoder().feed(bytes(stream))


def test_a_wrong_header_is_found_behind_a_good_frame_and_in_pieces() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\x01") == []
    with pytest.raises(FrameError):
        decoder.feed(b"\xff" * 30)


def test_payload_checksums_are_counted_when_wrong_and_never_stop_a_frame() -> None:
    decoder = Decoder()
    for checksum, wrong in ((0, 0), (zlib.adler32(b"abc"), 0), (12345, 1)):
        stream = struct.pack("<IIIII", 5, 2, 3, 5 ^ 2 ^ 3, checksum) + b"abc"
        before = decoder.checksum_mismatches
        assert decoder.feed(stream) == [(5, 2, b"abc")]
        assert decoder.checksum_mismatches - before == wrong
    for checksum, wrong in ((0, 0), (zlib.adler32(bytes(LARGE)), 0), (12345, 1)):
        stream = struct.pack("<IIIII", 5, 2, LARGE, 5 ^ 2 ^ LARGE, checksum) + bytes(LARGE)
        decoder.feed(encode(5, 2, bytes(LARGE)))
        before = decoder.checksum_mismatches
        assert decoder.feed(stream[:30]) + decoder.feed(stream[30:]) == [(5, 2, bytes(LARGE))]
        assert decoder.checksum_mismatches - before == wrong


def test_small_pieces_of_a_large_frame_take_no_more_room_than_it() -> None:
    decoder = Decoder()
    stream = encode(1, 0, bytes(3000))
    for at in range(len(stream) - 1):
        assert decoder.feed(stream[at:at + 1]) == []
    assert len(decoder._held) == len(stream) - 1
    assert decoder.feed(stream[-1:]) == [(1, 0, bytes(3000))]
    assert not decoder._held
