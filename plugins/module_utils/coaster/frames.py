# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes to frames and back: the bottom layer of the coaster protocol (coaster-protocol 2.1 and 2.2).

A frame is a 20-byte header of five little-endian unsigned 32-bit words (tag, flags, length, XOR of these three,
payload checksum) and its payload. Runs on Python 3.6 and later.
"""

import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional, Tuple, Union

    Frame = Tuple[int, int, Union[bytes, memoryview]]

REPLY = 0x01
FINAL = 0x02
ERROR = 0x04
SIGNAL = 0x10
INITIAL = 0x20

MAX_PAYLOAD = 1048576
"""Largest payload in bytes that Java peers take; more breaks their channel for good (coaster-protocol 2.1)."""

LARGE = 16384
"""Bytes from which on a payload is not copied, neither behind its header nor out of the bytes that it came with."""

NEXT_HEADER = 1024
"""Bytes that are received at once after a large payload, because another is likely to follow: more would have to be copied."""

# The C library gives a freed block's pages back to the system, and takes new ones for the next, until it has seen a larger one freed.
# Of bytes, unlike of a bytearray, no page is touched.
bytes(4 * MAX_PAYLOAD)

HEADER_SIZE = 20
_HEADER = struct.Struct("<IIIII")
_pack = _HEADER.pack
_unpack_from = _HEADER.unpack_from


class FrameError(ValueError):
    """The peer's byte stream is not made of coaster frames; nothing after it can be trusted."""


def encode(tag: int, flags: int, payload: bytes = b"") -> bytes:
    """One frame as bytes. The payload checksum is sent as 0, as every implementation does."""
    size = len(payload)
    return _pack(tag, flags, size, tag ^ flags ^ size, 0) + payload


def header(tag: int, flags: int, size: int) -> bytes:
    """Only the header of a frame, for payloads that are sent from where they lie."""
    return _pack(tag, flags, size, tag ^ flags ^ size, 0)


class Decoder:
    """Cuts a byte stream into frames, however the stream is split.

    Its bytes come by feed(), or, with fewer copies, by room() and arrived().

    ``checksum_mismatches`` counts payloads whose checksum was neither 0 nor right; such frames are still delivered,
    as Java peers do (coaster-protocol 2.1).
    """

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self.checksum_mismatches = 0
        self._max_payload = max_payload
        self._held = bytearray()
        self._need = HEADER_SIZE
        # Bytes of the last payload if it was large, else 0. The next one arrives at its place if it is large and no larger: a peer gets
        # no memory for what it merely announces.
        self._large = 0
        self._payload: "Optional[memoryview]" = None
        self._memory = bytearray()
        self._got = 0
        self._start = (0, 0, 0)

    def room(self, buffer: memoryview) -> memoryview:
        """Where the next bytes have to be received: at the place of the payload that they belong to, or in ``buffer``."""
        if self._payload is not None:
            return self._payload[self._got:]
        return buffer[:NEXT_HEADER] if self._large else buffer

    def arrived(self, room: memoryview, size: int) -> "List[Frame]":
        """As feed(), with the first ``size`` bytes of what room() gave."""
        return self.feed(bytes(room[:size])) if self._payload is None else self._filled(size)

    def _filled(self, size: int) -> "List[Frame]":
        """So many bytes more are at their place in the payload."""
        self._got += size
        payload = self._payload
        if payload is None or self._got < len(payload):
            return []
        self._payload = None
        tag, flags, checksum = self._start
        if checksum:
            self._check(payload, checksum)
        return [(tag, flags, payload)]

    def feed(self, data: bytes) -> "List[Frame]":
        """The frames ``(tag, flags, payload)`` that ``data`` completes, in order; a payload of LARGE bytes or more is a view.

        Raises FrameError on a header whose check word is wrong or that announces more than ``max_payload`` bytes.
        """
        held = self._held
        frames: "List[Frame]" = []
        position = 0
        while held or self._payload is not None:
            if self._payload is not None:
                piece = memoryview(data)[position:position + len(self._payload) - self._got]
                self._payload[self._got:self._got + len(piece)] = piece
                position += len(piece)
                frames += self._filled(len(piece))
                if self._payload is not None:
                    return frames
                continue
            # First the header of the frame that has begun, then its payload, and no byte of others.
            end = position + self._need - len(held)
            with memoryview(data) as view:
                held += view[position:end]
            if len(held) < self._need:
                return frames
            position = end
            used, frames = self._cut(held, 0)
            if used:
                self._held = held = bytearray()
        position, more = self._cut(data, position)
        if position < len(data):
            held += memoryview(data)[position:]
        return frames + more if frames else more

    def _cut(self, data: "Union[bytes, bytearray]", position: int) -> "Tuple[int, List[Frame]]":
        """The whole frames in ``data`` from ``position`` on, and where they end."""
        frames: "List[Frame]" = []
        have = len(data)
        self._need = HEADER_SIZE
        while have - position >= HEADER_SIZE:
            tag, flags, size, check, checksum = _unpack_from(data, position)
            if tag ^ flags ^ size != check:
                raise FrameError("the header check of a frame is wrong: this is not a coaster peer, or its stream is damaged")
            if size > self._max_payload:
                raise FrameError("a frame of %d bytes is larger than the limit of %d bytes" % (size, self._max_payload))
            end = position + HEADER_SIZE + size
            if end > have:
                self._need = HEADER_SIZE + size
                break
            position += HEADER_SIZE
            payload = bytes(data[position:end]) if size < LARGE else memoryview(data)[position:end]
            if checksum:
                self._check(payload, checksum)
            frames.append((tag, flags, payload))
            position = end
        if frames:
            self._large = len(frames[-1][2])
            if self._large < LARGE:
                self._large = 0
                self._memory = bytearray()
        if LARGE <= self._need - HEADER_SIZE <= self._large:
            self._begin(memoryview(data)[position:])
            position = have
        return position, frames

    def _begin(self, data: memoryview) -> None:
        """The header of a large frame that follows another, and what there is of its payload, which gets its place now."""
        tag, flags, size, _check, checksum = _unpack_from(data)
        self._start = (tag, flags, checksum)
        self._got = len(data) - HEADER_SIZE
        if len(self._memory) != size or _is_viewed(self._memory):
            self._memory = bytearray(size)
        self._payload = memoryview(self._memory)
        self._payload[:self._got] = data[HEADER_SIZE:]

    def _check(self, payload: "Union[bytes, memoryview]", checksum: int) -> None:
        if checksum != zlib.adler32(payload):
            self.checksum_mismatches += 1


def _is_viewed(memory: bytearray) -> bool:
    """Whether somebody has a view of it. If not, it serves again: new memory is filled with zeros first, which takes its time."""
    try:
        memory.append(0)
    except BufferError:
        return True
    del memory[-1:]
    return False
