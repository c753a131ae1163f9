# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client with many jobs in flight, and simulated workers that answer at once: real sockets, one process each."""

from __future__ import annotations

import selectors
import socket
import time
from typing import Any

from ansible_collections.coasters.pool.plugins.module_utils.coaster import jobs
from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import Channel, Failure, Reply, Request


class Peer:
    """One connection with its channel."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.channel = Channel(time.monotonic(), silence_limit=None)

    def flush(self) -> None:
        """Send what is due."""
        output = self.channel.take_output()
        if output:
            self.socket.sendall(b"".join(output))

    def receive(self) -> list[Any]:
        """Wait for bytes; their events. Raises ConnectionError at the end of the stream."""
        data = self.socket.recv(262144)
        if not data:
            raise ConnectionError("the service closed the connection")
        return self.channel.receive(data, time.monotonic())


class Client(Peer):
    """Submits no-op jobs and counts how they end."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self.channel.request("CONFIGSERVICE", (b"requireVersion=0.4", b"OS=null"))
        self.flush()
        while not any(isinstance(event, Reply) for event in self.receive()):
            pass

    def run(self, count: int, in_flight: int, executable: str = "/bin/true") -> float:
        """Seconds until all have completed; at most ``in_flight`` are submitted and not ended. Raises RuntimeError on a failed one."""
        submitted = ended = 0
        done: set[str] = set()
        began = time.monotonic()
        while ended < count:
            while submitted < count and submitted - ended < in_flight:
                job = jobs.Job(f"bench-{submitted}", executable)
                self.channel.request("SUBMITJOB", (jobs.encode_submission(job),))
                submitted += 1
            self.flush()
            for event in self.receive():
                if isinstance(event, Failure):
                    raise RuntimeError(event.message)
                if not isinstance(event, Request):
                    continue
                self.channel.reply(event.tag)
                if event.name != "JOBSTATUS":
                    continue
                identity, status = jobs.parse_status(event.args)
                if status.code in jobs.TERMINAL and identity not in done:
                    if status.code != jobs.COMPLETED:
                        raise RuntimeError(f"{identity}: {status.message}")
                    done.add(identity)
                    ended += 1
        self.flush()
        return time.monotonic() - began

    def submit_all(self, count: int) -> float:
        """Seconds until the service has accepted ``count`` jobs submitted at once."""
        began = time.monotonic()
        self.socket.setblocking(False)
        output = b""
        accepted = 0
        for number in range(count):
            self.channel.request("SUBMITJOB", (jobs.encode_submission(jobs.Job(f"queued-{number}", "/bin/true")),))
        output = b"".join(self.channel.take_output())
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while accepted < count:
                for _key, events in selector.select(30):
                    if events & selectors.EVENT_WRITE and output:
                        output = output[self.socket.send(output[:1048576]):]
                        if not output:
                            selector.modify(self.socket, selectors.EVENT_READ)
                    if events & selectors.EVENT_READ:
                        for event in self.receive():
                            if isinstance(event, Failure):
                                raise RuntimeError(event.message)
                            accepted += isinstance(event, Reply)
        return time.monotonic() - began

    def heartbeat(self) -> float:
        """Seconds until the service answers."""
        began = time.monotonic()
        self.channel.request("HEARTBEAT", (bytes(8),), context="heartbeat")
        self.flush()
        while not any(isinstance(event, Reply) and event.context == "heartbeat" for event in self.receive()):
            self.flush()
        return time.monotonic() - began


def simulate_workers(address: tuple[str, int], count: int, slots: int, ready: Any) -> None:
    """Workers that report each job as active and completed as soon as they get it; for ever. ``ready.set()`` when registered."""
    selector = selectors.DefaultSelector()
    registered = 0
    for number in range(count):
        peer = Peer(address)
        options = f"maxwalltime = -1, concurrency = {slots}".encode()
        peer.channel.request("REGISTER", (f"sim{number}".encode(), b"simulated", options), context="register")
        peer.flush()
        selector.register(peer.socket, selectors.EVENT_READ, peer)
    while True:
        for key, _events in selector.select():
            peer = key.data
            try:
                events = peer.receive()
            except ConnectionError:
                return
            for event in events:
                if isinstance(event, Reply) and event.context == "register":
                    registered += 1
                    if registered == count:
                        ready.set()
                elif isinstance(event, Request):
                    peer.channel.reply(event.tag)
                    if event.name == "SUBMITJOB":
                        identity = jobs.parse(event.args[0]).identity
                        for code in (jobs.ACTIVE, jobs.COMPLETED):
                            peer.channel.request("JOBSTATUS", jobs.encode_status(identity, jobs.Status(code), b""))
            peer.flush()
