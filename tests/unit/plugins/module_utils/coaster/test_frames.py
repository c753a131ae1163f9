# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.coasters.pool.plugins.module_utils.coaster import frames
from ansible_collections.coasters.pool.plugins.module_utils.coaster.frames import FINAL, INITIAL, REPLY, Decoder, FrameError, encode

WORD = st.integers(0, 0xFFFFFFFF)
FRAMES = st.lists(st.tuples(WORD, WORD, st.binary(max_size=200)))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(marks)]


def test_a_frame_is_laid_out_as_on_the_wire() -> None:
    # The first frame of the annotated registration in coaster-protocol 2.7 (a).
    assert encode(0x1324, INITIAL, b"REGISTER") == bytes.fromhex("2413000020000000080000000c13000000000000") + b"REGISTER"
    assert frames.header(0x1324, INITIAL, 8) == encode(0x1324, INITIAL, b"REGISTER")[:20]


@given(FRAMES, st.lists(st.integers(0, 10 ** 6), max_size=20))
def test_any_split_of_the_stream_gives_the_same_frames(sent: list[tuple[int, int, bytes]], places: list[int]) -> None:
    stream = b"".join(encode(*frame) for frame in sent)
    decoder = Decoder()
    assert [frame for piece in cut(stream, places) for frame in decoder.feed(piece)] == sent


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


def test_small_pieces_of_a_large_frame_take_no_more_room_than_it() -> None:
    decoder = Decoder()
    stream = encode(1, 0, bytes(3000))
    for at in range(len(stream) - 1):
        assert decoder.feed(stream[at:at + 1]) == []
    assert len(decoder._held) == len(stream) - 1
    assert decoder.feed(stream[-1:]) == [(1, 0, bytes(3000))]
    assert not decoder._held
