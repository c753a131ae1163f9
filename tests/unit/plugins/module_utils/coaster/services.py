# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scripted services for tests of what dials a service: a script in a thread, the worker or client in the main thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any, Callable, Iterator, TypeVar

from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import Channel, Request

from .peers import PATIENCE, Peer

Result = TypeVar("Result")


class Link(Peer):
    """The service's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.socket.settimeout(PATIENCE)
        self.channel = Channel(time.time(), first_tag=1000)
        self.events: list[Any] = []

    def request(self) -> Request:
        """The next request, whatever it is."""
        request: Request = self.wait(lambda event: isinstance(event, Request))
        return request

    def reset(self) -> None:
        """Close so that the other side gets an error instead of an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


class Listener:
    """A port on which the script waits for connections."""

    def __init__(self, port: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        self.socket.listen(16)
        self.socket.settimeout(PATIENCE)
        self.port: int = self.socket.getsockname()[1]
        self.links: list[Link] = []

    def accept(self) -> Link:
        self.links.append(Link(self.socket.accept()[0]))
        return self.links[-1]

    def close(self) -> None:
        self.socket.close()
        for link in self.links:
            link.close()


@contextlib.contextmanager
def listening(port: int = 0) -> Iterator[Listener]:
    listener = Listener(port)
    try:
        yield listener
    finally:
        listener.close()


def beside(script: Callable[[], None], action: Callable[[], Result], rescue: Callable[[], None]) -> Result:
    """What ``action`` returns, while ``script`` runs in a thread; ``rescue`` ends the action when the script fails."""
    failures: list[BaseException] = []

    def perform() -> None:
        try:
            script()
        except BaseException as error:
            failures.append(error)
            rescue()

    thread = threading.Thread(target=perform, daemon=True)
    thread.start()
    try:
        return action()
    finally:
        thread.join(PATIENCE)
        if failures:
            raise failures[0]
        assert not thread.is_alive()


def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
