# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transfers: files on their way between workers and clients, relayed frame by frame (coaster-protocol 5.4, 5.6).

Both ends are peers of the service, with a channel. Whoever reads slower than it is sent to holds up the source of the file
and nobody else: SUSPEND and RESUME to a client, STOP and CONTINUE to a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .staging import FRAME

if TYPE_CHECKING:
    from .channel import Payload
    from .service import ClientPeer, WorkerPeer

MAX_UNSENT_FILES = 32 * 1048576
"""Unsent bytes for one peer at which a file whose source does not stop is given up."""


class TransferError(ValueError):
    """A file that is not relayed; the text says why."""


class Transfer:
    """A file on its way between a worker, who asked with ``tag``, and a client."""

    __slots__ = ("worker", "tag", "client", "client_tag", "held", "ended")

    def __init__(self, worker: WorkerPeer, tag: int, client: ClientPeer) -> None:
        self.worker, self.tag, self.client = worker, tag, client
        self.client_tag = -1
        self.held = self.ended = False
        if tag in worker.transfers:
            raise TransferError("the tag %d belongs to another file under way" % tag)
        worker.transfers[tag] = self
        client.transfers.add(self)

    def end(self) -> None:
        """Nothing more is relayed."""
        self.ended = True
        del self.worker.transfers[self.tag]
        self.client.transfers.discard(self)

    def failed(self, message: str) -> None:
        """The client answered with an error."""
        self.end()
        self.worker.channel.fail(self.tag, message)
        self.worker.service.touch(self.worker)

    def client_lost(self) -> None:
        self.failed("Connection to client lost")

    def give_up(self, message: str) -> None:
        """Tell both sides that this does not go on."""
        self.worker_lost()
        self.worker.channel.fail(self.tag, message)
        self.worker.service.touch(self.worker)

    def worker_lost(self) -> None:
        """The worker is gone, or has given up."""
        self.end()

    def chunk(self, payload: Payload, final: bool) -> None:
        """The next frame of the file."""

    def replied(self, values: list[bytes]) -> None:
        """The client answered with all of it."""

    def signalled(self, payload: bytes) -> None:
        """A signal from the client."""

    def aborted(self) -> None:
        """The worker wants no more of it."""

    def client_full(self) -> None:
        """The client reads slower than it is sent to."""

    def client_free(self) -> None:
        """The client has read enough."""

    def worker_full(self) -> None:
        """The worker reads slower than it is sent to."""

    def worker_free(self) -> None:
        """The worker has read enough."""


class StageIn(Transfer):
    """The worker's GET, relayed from the client frame by frame (coaster-protocol 5.4, 5.6)."""

    __slots__ = ()

    def begin(self, path: str, destination: bytes) -> None:
        # The third argument is ours alone: how large a frame of the file may be. Others do not look at it.
        words = (_url(path), destination, b"%d" % FRAME)
        self.client_tag = self.client.channel.request("GET", words, context=self, stream=True)
        self.client.service.touch(self.client)

    def chunk(self, payload: Payload, final: bool) -> None:
        """The next frame from the client."""
        worker = self.worker
        if worker.congested:
            if worker.unsent() > MAX_UNSENT_FILES:
                if final:
                    self.failed("the worker reads too slowly")
                else:
                    self.give_up("the worker reads too slowly")
                return
            self.worker_full()
        worker.channel.reply_part(self.tag, payload, final)
        worker.service.touch(worker)
        if final:
            self.end()

    def signalled(self, payload: bytes) -> None:
        if payload == b"QUEUED":
            self.worker.channel.signal(self.tag, payload, to_replier=False)
            self.worker.service.touch(self.worker)

    def aborted(self) -> None:
        self._signal(b"ABORT")

    def worker_lost(self) -> None:
        super().worker_lost()
        self._signal(b"ABORT")
        self.client.channel.forget(self.client_tag)

    def worker_full(self) -> None:
        if not self.held:
            self.held = True
            self._signal(b"SUSPEND")

    def worker_free(self) -> None:
        if self.held:
            self.held = False
            self._signal(b"RESUME")

    def _signal(self, payload: bytes) -> None:
        self.client.channel.signal(self.client_tag, payload, to_replier=True)
        self.client.service.touch(self.client)


class StageOut(Transfer):
    """The worker's PUT, relayed to the client frame by frame (coaster-protocol 5.4, 5.6)."""

    __slots__ = ()

    def begin(self, path: str, length: bytes, source: bytes, final: bool) -> None:
        self.client_tag = self.client.channel.request("PUT", (length, source, _url(path)), context=self, final=final)
        self.client.service.touch(self.client)
        if not final and self.client.congested:
            self.client_full()

    def chunk(self, payload: Payload, final: bool) -> None:
        """The next frame from the worker."""
        client = self.client
        if client.congested and client.unsent() > MAX_UNSENT_FILES:
            self.give_up("the client reads too slowly")
            return
        client.channel.data(self.client_tag, payload, final)
        client.service.touch(client)

    def replied(self, values: list[bytes]) -> None:
        """The client has the file."""
        self.end()
        self.worker.channel.reply(self.tag, values)
        self.worker.service.touch(self.worker)

    def worker_lost(self) -> None:
        super().worker_lost()
        self.client.channel.abort(self.client_tag)
        self.client.service.touch(self.client)

    def client_full(self) -> None:
        self.held = True
        self._signal(b"STOP")

    def client_free(self) -> None:
        if self.held:
            self.held = False
            self._signal(b"CONTINUE")

    def _signal(self, payload: bytes) -> None:
        self.worker.channel.signal(self.tag, payload, to_replier=False)
        self.worker.service.touch(self.worker)


def _url(path: str) -> bytes:
    return b"file://localhost/" + path.encode("utf-8", "surrogateescape")
