# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A channel whose peer sends anything, while this side sends commands and answers of its own."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import Channel, ChannelError, encode_long
from ansible_collections.coasters.pool.plugins.module_utils.coaster.frames import HEADER_SIZE, Decoder, encode
from tests.fuzz.examples import FUZZ

LIMIT = 2000
"""Most bytes that the channel may hold here."""
TAGS = st.integers(0, 6)
NAMES = st.sampled_from([b"PUT", b"put", b"GET", b"HEARTBEAT", b"SUBMITJOB", b"", b"\xff", b"x" * 300])
PAYLOADS = st.one_of(st.binary(max_size=40), NAMES, st.integers(-2, 2 ** 40).map(encode_long), st.just(bytes(1500)))
FRAMES = st.builds(encode, TAGS, st.integers(0, 63) | st.integers(0, 2 ** 32 - 1), PAYLOADS)


@st.composite
def puts(draw: st.DrawFn) -> bytes:
    """A PUT with content, perhaps given up."""
    tag = draw(TAGS)
    flags = [0x20, 0, 0, 0, *draw(st.lists(st.sampled_from([0, 2, 4, 6]), max_size=4))]
    payloads = [b"PUT", encode_long(draw(st.integers(-1, 100))), b"a", b"b"] + [b"data"] * 4
    return b"".join(encode(tag, flag, payload) for flag, payload in zip(flags, payloads, strict=False))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Frames with a few bytes that were changed, left out or added."""
    stream = bytearray(b"".join(draw(st.lists(FRAMES, min_size=1, max_size=3))))
    for place, kind, byte in draw(st.lists(st.tuples(st.integers(0, 10 ** 6), st.integers(0, 2), st.integers(0, 255)), max_size=3)):
        at = place % len(stream)
        stream[at:at + (kind != 2)] = b"" if kind == 1 and len(stream) > 1 else bytes([byte])
    return bytes(stream)


OURS = st.tuples(st.sampled_from(["request", "stream", "put", "data", "abort", "forget", "reply", "part", "fail", "signal", "tick"]), TAGS)
STEPS = st.lists(st.one_of(FRAMES, FRAMES, puts(), damaged(), OURS), max_size=40)


def act(channel: Channel, kind: str, tag: int, now: float) -> None:
    """Something that this side does."""
    if kind in ("request", "stream"):
        channel.request("GET", (b"a", b"b")[:tag % 3], context=kind, stream=kind == "stream")
    elif kind == "put":
        channel.request("PUT", (encode_long(5), b"a", b"b"), context=kind, final=False)
    elif kind == "tick":
        channel.tick(now)
    else:
        {
            "data": lambda: channel.data(tag, b"data", tag % 2 == 0), "abort": lambda: channel.abort(tag), "forget": lambda: channel.forget(tag),
            "reply": lambda: channel.reply(tag), "part": lambda: channel.reply_part(tag, b"part", tag % 2 == 0),
            "fail": lambda: channel.fail(tag, "no"), "signal": lambda: channel.signal(tag, b"STOP", tag % 2 == 0),
        }[kind]()


@FUZZ
@given(steps=STEPS)
def test_anything_gives_events_or_one_clear_error(steps: list[Any]) -> None:
    now = 1000.0
    channel = Channel(now, heartbeat_every=5.0, max_message=LIMIT, first_tag=0)
    heard = Decoder()
    for step in steps:
        now += 1
        if isinstance(step, tuple):
            act(channel, *step, now)
        elif step:
            try:
                channel.receive(step, now)
            except ChannelError as error:
                assert str(error)
                return
        for _tag, _flags, payload in heard.feed(b"".join(channel.take_output()) or encode(0, 0)):
            assert len(payload) <= LIMIT
        assert channel.last_received <= now
        assert sum(entry.size for entry in (*channel._open.values(), *channel._sent.values())) == channel._held <= LIMIT
        assert len(channel._decoder._held) <= HEADER_SIZE + 2 ** 20
