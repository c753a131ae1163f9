# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A slow and lossy piece of cable, in user space: kernels are often built without ``netem``.

It joins the client's end of a host's cable (a raw socket) and a tap device in the bridge. Frames keep their virtio header,
in which the kernel says which checksums are still to be computed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import socket
import struct
import time
from collections import deque
from typing import Protocol

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
ETH_P_ALL = 3
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
FRAME = 65536 + 64


class _End(Protocol):
    def fileno(self) -> int:
        ...


def _tap(name: str) -> _End:
    tap = open("/dev/net/tun", "r+b", buffering=0)  # noqa: SIM115 - it lives as long as the process
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    os.set_blocking(tap.fileno(), False)
    return tap


def _raw(link: str) -> _End:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    raw.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    raw.bind((link, ETH_P_ALL))
    raw.setblocking(False)
    return raw


def carry(link: str, tap: str, delay: float, loss: float) -> None:
    """Carry frames both ways, each ``delay`` seconds late, dropping the share ``loss``, until killed. Prints a line when it begins."""
    ends = _raw(link), _tap(tap)
    other = {ends[0].fileno(): ends[1].fileno(), ends[1].fileno(): ends[0].fileno()}
    under_way: deque[tuple[float, int, bytes]] = deque()
    print("ready", flush=True)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for end in select.select(list(other), [], [], wait)[0]:
            # An end that is down gives an error here and works again once it is up.
            with contextlib.suppress(OSError):
                frame = os.read(end, FRAME)
                if random.random() >= loss:
                    under_way.append((time.monotonic() + delay, other[end], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            dummy, end, frame = under_way.popleft()
            with contextlib.suppress(OSError):
                os.write(end, frame)
