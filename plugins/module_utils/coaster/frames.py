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
    from typing import List, Tuple, Union

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

# The C library gives a freed block's pages back to the system, and takes new ones for the next, until it has seen a larger one freed.
bytearray(4 * MAX_PAYLOAD)

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

    ``checksum_mismatches`` counts payloads whose checksum was neither 0 nor right; such frames are still delivered,
    as Java peers do (coaster-protocol 2.1).
    """

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self.checksum_mismatches = 0
        self._max_payload = max_payload
        self._held = bytearray()
        self._need = HEADER_SIZE

    def feed(self, data: bytes) -> "List[Frame]":
        """The frames ``(tag, flags, payload)`` that ``data`` completes, in order; a payload of LARGE bytes or more is a view.

        Raises FrameError on a header whose check word is wrong or that announces more than ``max_payload`` bytes.
        """
        held = self._held
        frames: "List[Frame]" = []
        position = 0
        while held:  # first the header of the frame that has begun, then its payload, and no byte of others
            end = position + self._need - len(held)
            with memoryview(data) as view:
                held += view[position:end]
            if len(held) < self._need:
                return frames
            position = end
            frames = self._cut(held, 0)[1]
            if frames:
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
            if checksum and checksum != zlib.adler32(payload):
                self.checksum_mismatches += 1
            frames.append((tag, flags, payload))
            position = end
        return position, frames
