# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocol state of one connection (coaster-protocol 2.3 to 2.5 and 3.3): bytes in, events out; commands in, bytes out.

No sockets and no clock. Every ``now`` is in seconds and never runs backwards; shells pass the epoch time carried on by
the monotonic clock. Runs on Python 3.6 and later.

Both sides may send commands at any time. A tag names one command in one direction, and the two directions are apart.
``PUT`` requests, and replies to commands sent with ``stream=True``, are delivered frame by frame; all else when whole.
"""

import struct

from .frames import ERROR, FINAL, HEADER_SIZE, INITIAL, LARGE, REPLY, SIGNAL, Decoder, FrameError, encode, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Union

    from .frames import Frame

    Payload = Union[bytes, memoryview]
    Event = Union["Request", "Data", "Aborted", "Reply", "Failure", "Chunk", "Signal", "Silent"]

MAX_MESSAGE = 4 * 1048576
"""Most bytes of incoming requests and replies that may be held while they are incomplete; streamed data does not count."""
MAX_OPEN = 4096
"""Most incoming requests that may be incomplete at once."""
SILENCE_LIMIT = 120.0
"""Seconds without any byte from the peer after which it counts as lost (coaster-protocol 3.3)."""

_NAMES = {
    name.encode("ascii"): name for name in (
        "CANCELJOB", "CONFIGSERVICE", "GET", "HEARTBEAT", "JOBSTATUS", "PUT", "REGISTER", "RLOG", "SHUTDOWN", "SUBMITJOB",
    )
}
_LONG = struct.Struct("<q")
_INT = struct.Struct("<i")


class ChannelError(ValueError):
    """The peer broke the protocol or passed a limit: the connection has to be closed; the text says why."""


class Request:
    """A command from the peer. ``final`` is False only for a PUT whose data is still to come as Data events."""

    __slots__ = ("tag", "name", "args", "final")

    def __init__(self, tag: int, name: str, args: "List[bytes]", final: bool = True) -> None:
        self.tag, self.name, self.args, self.final = tag, name, args, final


class Data:
    """The next data frame of the PUT request with this tag."""

    __slots__ = ("tag", "payload", "final")

    def __init__(self, tag: int, payload: "Payload", final: bool) -> None:
        self.tag, self.payload, self.final = tag, payload, final


class Aborted:
    """The peer gave up the PUT request with this tag in the middle of its data."""

    __slots__ = ("tag",)

    def __init__(self, tag: int) -> None:
        self.tag = tag


class Reply:
    """The whole reply to a command of ours; ``context`` is what was given to request()."""

    __slots__ = ("tag", "values", "context")

    def __init__(self, tag: int, values: "List[bytes]", context: "Any") -> None:
        self.tag, self.values, self.context = tag, values, context


class Failure:
    """An error reply to a command of ours. The detail frame of Java peers is dropped, never deserialized."""

    __slots__ = ("tag", "message", "context")

    def __init__(self, tag: int, message: str, context: "Any") -> None:
        self.tag, self.message, self.context = tag, message, context


class Chunk:
    """One frame of a streamed reply."""

    __slots__ = ("tag", "payload", "final", "context")

    def __init__(self, tag: int, payload: "Payload", final: bool, context: "Any") -> None:
        self.tag, self.payload, self.final, self.context = tag, payload, final, context


class Signal:
    """Out-of-band text for a running command. From the replier of a command of ours it carries our ``context``;
    from a requester ``context`` is None and ``tag`` is the peer's."""

    __slots__ = ("tag", "payload", "from_replier", "context")

    def __init__(self, tag: int, payload: bytes, from_replier: bool, context: "Any") -> None:
        self.tag, self.payload, self.from_replier, self.context = tag, payload, from_replier, context


class Silent:
    """Nothing came from the peer for the silence limit: it is lost."""

    __slots__ = ()


class _Sent:
    __slots__ = ("context", "stream", "values", "size", "error")

    def __init__(self, context: "Any", stream: bool) -> None:
        self.context, self.stream = context, stream
        self.values: "Optional[List[bytes]]" = None  # thousands of commands may wait for their reply, and an empty list has a size
        self.size = 0
        self.error: "Optional[bytes]" = None


class _Open:
    __slots__ = ("name", "args", "size", "streaming")

    def __init__(self, name: str) -> None:
        self.name = name
        self.args: "List[bytes]" = []
        self.size = 0
        self.streaming = False


class Channel:
    """One connection. ``heartbeat_every`` seconds (None: never) a HEARTBEAT is sent; after ``silence_limit`` seconds
    (None: never) without a byte from the peer tick() says Silent. ``first_tag`` is the tag of the first command."""

    def __init__(
        self, now: float, heartbeat_every: "Optional[float]" = None, silence_limit: "Optional[float]" = SILENCE_LIMIT,
        first_tag: int = 1, max_message: int = MAX_MESSAGE
    ) -> None:
        self.last_received = now
        self._heartbeat_every = heartbeat_every
        self._next_heartbeat = None if heartbeat_every is None else now + heartbeat_every
        self._silence_limit = silence_limit
        self.max_message = max_message
        self._decoder = Decoder()
        self._next_tag = first_tag
        self._sent: "Dict[int, _Sent]" = {}
        self._open: "Dict[int, _Open]" = {}
        self._held = 0
        # What has to be sent: large payloads as they are, all else in as few pieces as possible, and the latest of these by itself.
        # An object for each small frame, made in one pass and sent in another, costs a service with many workers a fifth of its CPU.
        self._output: "List[Any]" = []
        self._latest = bytearray()

    # commands in, bytes out

    def request(self, name: str, args: "Any" = (), context: "Any" = None, stream: bool = False, final: bool = True) -> int:
        """Send a command with its arguments (a sequence of bytes); return its tag.

        ``stream``: deliver the reply as Chunk events. ``final=False``: data() will follow (a PUT with content).
        """
        tag = self._tag()
        self._sent[tag] = _Sent(context, stream)
        output = self._latest
        left = len(args)
        output += encode(tag, INITIAL if left or not final else INITIAL | FINAL, name.encode("ascii"))
        for arg in args:
            left -= 1
            output += encode(tag, 0 if left or not final else FINAL, arg)
        return tag

    def data(self, tag: int, payload: "Any", final: bool) -> None:
        """The next data frame of a command of ours that was sent with final=False."""
        self._frame(tag, FINAL if final else 0, payload)

    def abort(self, tag: int) -> None:
        """Give up a command of ours whose last frame has not been sent; no reply will come."""
        if tag in self._sent:
            self.forget(tag)
            self._latest += encode(tag, ERROR | FINAL)

    def close(self) -> None:
        """The connection has gone: drop what came in part and what is still to be sent, megabytes at times, at once. Whoever
        refers to this channel may do so until the garbage of Python is next collected."""
        self._open.clear()
        self._sent.clear()
        self._output.clear()
        self._latest = bytearray()
        self._held = 0
        self._decoder = Decoder()

    def forget(self, tag: int) -> None:
        """Drop a command of ours: a reply that still comes is ignored."""
        sent = self._sent.pop(tag, None)
        if sent is not None:
            self._held -= sent.size

    def reply(self, tag: int, values: "Any" = (b"OK",)) -> None:
        """Answer a command of the peer with one frame a value."""
        last = len(values)
        for index, value in enumerate(values, 1):
            self._latest += encode(tag, REPLY | FINAL if index == last else REPLY, value)

    def reply_part(self, tag: int, payload: "Any", final: bool) -> None:
        """One frame of a reply that is sent piece by piece (the answer to a GET)."""
        self._frame(tag, REPLY | FINAL if final else REPLY, payload)

    def fail(self, tag: int, message: str) -> None:
        """Answer a command of the peer with an error."""
        self._latest += encode(tag, REPLY | FINAL | ERROR, message.encode("utf-8", "surrogateescape"))
        self._close(tag)

    def signal(self, tag: int, payload: bytes, to_replier: bool) -> None:
        """Attach a signal to a running command: ``to_replier`` of a command of ours, else to the requester of the peer's."""
        self._latest += encode(tag, SIGNAL if to_replier else SIGNAL | REPLY, payload)

    def take_output(self) -> "List[Any]":
        """What has to be sent, in order and in pieces that have a length; the channel forgets it."""
        output, self._output = self._output, []
        if self._latest:
            output.append(self._latest)
            self._latest = bytearray()
        return output

    # bytes in, events out

    def receive(self, data: bytes, now: float) -> "List[Event]":
        """The events that ``data`` (never empty) completes. HEARTBEAT commands are answered here.

        Raises ChannelError, after which the connection must be closed.
        """
        try:
            return self._receive(self._decoder.feed(data), now)
        except FrameError as error:
            raise ChannelError(str(error)) from error

    def room(self, buffer: memoryview) -> memoryview:
        """Where the next bytes have to be received: at the place of the payload that they belong to, or in ``buffer``."""
        return self._decoder.room(buffer)

    def arrived(self, room: memoryview, size: int, now: float) -> "List[Event]":
        """As receive(), with the first ``size`` bytes of what room() gave."""
        try:
            return self._receive(self._decoder.arrived(room, size), now)
        except FrameError as error:
            raise ChannelError(str(error)) from error

    def _receive(self, arrived: "List[Frame]", now: float) -> "List[Event]":
        self.last_received = now
        events: "List[Event]" = []
        opened = self._open
        for tag, flags, payload in arrived:
            if flags & SIGNAL:
                self._receive_signal(tag, flags, bytes(payload), events)
            elif flags & REPLY:
                self._receive_reply(tag, flags, payload, events)
            elif flags & INITIAL:
                self._receive_name(tag, flags, bytes(payload), events, now)
            else:
                request = opened.get(tag)
                if request is None:
                    continue
                if request.streaming or flags & ERROR:
                    self._receive_data(request, tag, flags, payload, events)
                    continue
                # Most frames are arguments: no call for them.
                args = request.args
                args.append(bytes(payload))
                if flags & FINAL:
                    del opened[tag]
                    self._held -= request.size
                    self._deliver(tag, request.name, args, events, now)
                    continue
                size = len(payload) + HEADER_SIZE
                request.size += size
                self._held += size
                if self._held > self.max_message:
                    raise self._too_much()
                if len(args) == 3 and request.name == "PUT":
                    self._receive_put(request, tag, events)
        return events

    def tick(self, now: float) -> "List[Event]":
        """What is due at ``now``: sends a heartbeat, or says Silent."""
        if self._silence_limit is not None and now - self.last_received >= self._silence_limit:
            return [Silent()]
        if self._next_heartbeat is not None and now >= self._next_heartbeat:
            self.heartbeat(now)
            while self._next_heartbeat <= now:
                self._next_heartbeat += self._heartbeat_every  # type: ignore[operator]
        return []

    def heartbeat(self, now: float) -> None:
        """Send a HEARTBEAT; its answer shows that the peer lives."""
        self.request("HEARTBEAT", (encode_long(int(now * 1000)),))

    def deadline(self) -> "Optional[float]":
        """When tick() has to be called next; None: never."""
        times = []
        if self._next_heartbeat is not None:
            times.append(self._next_heartbeat)
        if self._silence_limit is not None:
            times.append(self.last_received + self._silence_limit)
        return min(times) if times else None

    def unanswered(self) -> int:
        """How many commands of ours still wait for their reply."""
        return len(self._sent)

    def contexts(self) -> "List[Any]":
        """The contexts of all commands that still wait for their reply (for the shell when the connection is lost)."""
        return [sent.context for sent in self._sent.values()]

    def _tag(self) -> int:
        tag = self._next_tag
        while tag in self._sent or tag == 0xFFFFFFFF:
            tag = (tag + 1) & 0xFFFFFFFF
        self._next_tag = (tag + 1) & 0xFFFFFFFF
        return tag

    def _frame(self, tag: int, flags: int, payload: "Any") -> None:
        if len(payload) < LARGE:
            self._latest += encode(tag, flags, payload)
        else:
            self._latest += header(tag, flags, len(payload))
            self._output += (self._latest, payload)
            self._latest = bytearray()

    def _receive_signal(self, tag: int, flags: int, payload: bytes, events: "List[Event]") -> None:
        if not flags & REPLY:
            events.append(Signal(tag, payload, False, None))
            return
        sent = self._sent.get(tag)
        if sent is not None:
            events.append(Signal(tag, payload, True, sent.context))

    def _receive_reply(self, tag: int, flags: int, payload: "Payload", events: "List[Event]") -> None:
        sent = self._sent.get(tag)
        if sent is None:
            return
        final = flags & FINAL
        if flags & ERROR:
            if sent.error is None:
                sent.error = bytes(payload)
                self._hold(sent, payload)
            if final:
                self.forget(tag)
                events.append(Failure(tag, sent.error.decode("utf-8", "surrogateescape"), sent.context))
            return
        if sent.stream:
            if final:
                self.forget(tag)
            events.append(Chunk(tag, payload, bool(final), sent.context))
            return
        if sent.values is None:
            sent.values = [bytes(payload)]
        else:
            sent.values.append(bytes(payload))
        if final:
            self.forget(tag)
            events.append(Reply(tag, sent.values, sent.context))
        else:
            self._hold(sent, payload)

    def _receive_name(self, tag: int, flags: int, payload: bytes, events: "List[Event]", now: float) -> None:
        name = _NAMES.get(payload) or payload.upper().decode("ascii", "replace")
        if tag in self._open:
            self._close(tag)
        if flags & FINAL:
            self._deliver(tag, name, [], events, now)
            return
        if len(self._open) >= MAX_OPEN:
            raise ChannelError("more than %d incomplete requests at once" % MAX_OPEN)
        opened = self._open[tag] = _Open(name)
        self._hold(opened, payload)

    def _receive_data(self, request: "_Open", tag: int, flags: int, payload: "Payload", events: "List[Event]") -> None:
        """A frame of a PUT's content, or of a request that its sender gives up."""
        final = flags & FINAL
        if final:
            self._close(tag)
        if not flags & ERROR:
            events.append(Data(tag, payload, bool(final)))
        elif final and request.streaming:
            events.append(Aborted(tag))

    def _receive_put(self, request: "_Open", tag: int, events: "List[Event]") -> None:
        """A PUT has all its arguments. A size of 0 or -1 has no data; the Java service then leaves the FINAL flag out
        (coaster-protocol 5.3)."""
        request.streaming = decode_long(request.args[0]) > 0
        events.append(Request(tag, "PUT", request.args, not request.streaming))
        if not request.streaming:
            self._close(tag)

    def _hold(self, entry: "Union[_Open, _Sent]", payload: "Payload") -> None:
        size = len(payload) + HEADER_SIZE
        entry.size += size
        self._held += size
        if self._held > self.max_message:
            raise self._too_much()

    def _too_much(self) -> ChannelError:
        return ChannelError("the peer's incomplete messages are larger than the limit of %d bytes" % self.max_message)

    def _close(self, tag: int) -> None:
        opened = self._open.pop(tag, None)
        if opened is not None:
            self._held -= opened.size

    def _deliver(self, tag: int, name: str, args: "List[bytes]", events: "List[Event]", now: float) -> None:
        if name == "HEARTBEAT":
            self.reply(tag, (encode_long(int(now * 1000)),))
        else:
            events.append(Request(tag, name, args))


def encode_int(value: int) -> bytes:
    """A 4-byte little-endian integer."""
    return _INT.pack(value)


def decode_int(data: bytes) -> int:
    """The integer in 4 bytes. Raises ChannelError when there are more or fewer."""
    if len(data) != 4:
        raise ChannelError("an integer must have 4 bytes, not %d" % len(data))
    value: int = _INT.unpack(data)[0]
    return value


def encode_long(value: int) -> bytes:
    """An 8-byte little-endian integer."""
    return _LONG.pack(value)


def decode_long(data: bytes) -> int:
    """The integer in 8 bytes. Raises ChannelError when there are more or fewer."""
    if len(data) != 8:
        raise ChannelError("a long integer must have 8 bytes, not %d" % len(data))
    value: int = _LONG.unpack(data)[0]
    return value
