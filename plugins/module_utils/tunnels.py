# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ssh reverse tunnels of a pool, one a host, kept open by the pool's keeper, which is asked for them (tunnel_requests).

A tunnel's ssh is the master of its host's control connection, so that the exchange with the host needs no second login.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

from .tunnel_requests import MAX_LINE, OPEN_LIMIT, SOCKET, TunnelError, in_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each new try of a tunnel that broke; the last one goes on."""
STEADY = 60.0
"""Seconds that a tunnel has to stand until the pauses begin anew."""
MAX_TEXT = 4000
_ALLOCATED = re.compile(rb"Allocated port (\d+) for remote forward")
_STANDS = re.compile(rb"^debug1: remote forward success", re.M)
_TAKEN = re.compile(rb"remote port forwarding failed")
_CHATTER = re.compile(rb"^debug\d: .*\n?", re.M)
GUARD = """\
read -r _
trap '' TERM
kill -TERM 0
sleep 2
kill -KILL 0
"""
"""Ends all of its process group, which every ssh is in, when its input ends; so a keeper that is killed takes its tunnels along."""


class Guard:
    """The process group that all tunnels' ssh are in, led by a process that ends them when we end."""

    def __init__(self) -> None:
        self.process: "Optional[subprocess.Popen[bytes]]" = None
        self.leash = -1

    def group(self) -> int:
        """The process group; made when there is none."""
        if self.process is None or self.process.poll() is not None:
            self.close()
            end, self.leash = os.pipe()
            # pylint: disable-next=ansible-bad-function  # it lives as long as the tunnels
            self.process = subprocess.Popen(["/bin/sh", "-c", GUARD], stdin=end, preexec_fn=os.setpgrp)
            os.close(end)
        return self.process.pid

    def close(self) -> None:
        """End the group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            os.close(self.leash)
            self.process = None


class Tunnel:
    """One host's tunnel. ``port`` is the one on the host, 0 until the first ssh stands; later ones ask for the same.

    ``stands``: ssh runs and has its port. ``taken``: the last ssh could not have the port again.
    """

    def __init__(self, command: "List[str]", to: str, guard: Guard) -> None:
        self.command, self.to, self.guard = command, to, guard
        self.port = 0
        self.error = b""
        self.stands = self.taken = False
        self.process: "Optional[asyncio.subprocess.Process]" = None
        self._hurry = asyncio.Event()
        self._tried = asyncio.get_running_loop().create_future()
        self.task = asyncio.ensure_future(self._keep())

    async def opened(self) -> int:
        """The port, as soon as ssh stands. Raises TunnelError when a try fails that began, or was under way, meanwhile."""
        if not self.stands:
            self._hurry.set()
            await asyncio.shield(self._tried)
        return self.port

    async def _keep(self) -> None:
        """Run ssh again and again; give up only when the first one never stood."""
        pauses = iter(PAUSES)
        while True:
            began = time.monotonic()
            await self._run_once()
            if not self._tried.done():
                self._tried.set_exception(TunnelError(self.error.decode("utf-8", "replace").strip()))
                self._tried.exception()  # nobody has to wait for it
            if not self.port:
                return
            if time.monotonic() - began > STEADY:
                pauses = iter(PAUSES)
            self._hurry.clear()
            self._tried = asyncio.get_running_loop().create_future()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), next(pauses, PAUSES[-1]))

    async def _run_once(self) -> None:
        spec = "127.0.0.1:%d" % self.port
        words = [word.replace("{listen}", spec).replace("{to}", self.to) for word in self.command]
        group = self.guard.group()
        self.error = b""
        try:
            self.process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
                **_in_group(group),
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.error = ("%s cannot be started: %s" % (words[0], getattr(error, "strerror", None) or error)).encode()
            return
        try:
            await self._read_errors(self.process)
            await self.process.wait()
        finally:
            self.stands = False
            self.taken = bool(_TAKEN.search(self.error))
            if self.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self.process.send_signal(signal.SIGTERM)

    async def _read_errors(self, process: "asyncio.subprocess.Process") -> None:
        """ssh announces the port that the host chose, and that it stands; all else that it says is kept for the error."""
        stream: "asyncio.StreamReader" = process.stderr  # type: ignore[assignment]
        rest = b""
        while True:
            data = await stream.read(4096)
            lines, newline, rest = (rest + data).rpartition(b"\n")
            allocated = _ALLOCATED.search(lines)
            if allocated and not self.port:
                self.port = int(allocated.group(1))
            if self.port and (allocated or _STANDS.search(lines)):
                self.stands = True
                if not self._tried.done():
                    self._tried.set_result(None)
            self.error = (self.error + _CHATTER.sub(b"", lines + newline + (b"" if data else rest)))[-MAX_TEXT:]
            rest = rest[-MAX_TEXT:]
            if not data:
                return

    async def close(self) -> None:
        """End ssh; the host drops its port with it."""
        self.task.cancel()
        if not self._tried.done():
            self._tried.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        if self.process is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.process.wait(), 2.0)


def _in_group(group: int) -> "Dict[str, Any]":
    """How a process is started in a process group; since Python 3.11 without a copy of this one's memory."""
    if sys.version_info >= (3, 11):
        return {"process_group": group}
    return {"preexec_fn": lambda: os.setpgid(0, group)}


class Tunnels:
    """All tunnels of a pool, and the socket where the keeper takes requests for them."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, SOCKET)
        self.open: "Dict[str, Tunnel]" = {}
        self.guard = Guard()
        self.server: "Optional[asyncio.AbstractServer]" = None

    async def listen(self) -> None:
        """Take requests from now on."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with in_folder(self.path) as name:
            self.server = await asyncio.start_unix_server(self._serve, name, limit=MAX_LINE)

    async def close(self) -> None:
        """End all tunnels and take no more requests."""
        if self.server is not None:
            self.server.close()
        await asyncio.gather(*(tunnel.close() for tunnel in self.open.values()), return_exceptions=True)
        self.open = {}
        self.guard.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    async def _serve(self, reader: "asyncio.StreamReader", writer: "asyncio.StreamWriter") -> None:
        try:
            request = json.loads((await reader.readline()).decode())
            answer = await self._answer(request)
        except (ValueError, KeyError, TypeError) as error:
            answer = {"error": "the request cannot be read: %r" % error}
        with contextlib.suppress(OSError):
            writer.write((json.dumps(answer) + "\n").encode())
            await writer.drain()
        writer.close()

    async def _answer(self, request: "Dict[str, Any]") -> "Dict[str, Any]":
        if "look" in request:
            return {"port": self.open[request["look"]].port if request["look"] in self.open else 0}
        if "close" in request:
            tunnel = self.open.pop(request["close"], None)
            if tunnel is not None:
                await tunnel.close()
            return {"closed": tunnel is not None}
        host, words, to = request["open"], [str(word) for word in request["command"]], str(request["to"])
        tunnel = self.open.get(host)
        if tunnel is not None and (tunnel.task.done() or (tunnel.command, tunnel.to) != (words, to)):
            await self.open.pop(host).close()
            tunnel = None
        if tunnel is None:
            tunnel = self.open[host] = Tunnel(words, to, self.guard)
        try:
            return {"port": await asyncio.wait_for(self._opened(host, tunnel), OPEN_LIMIT)}
        except asyncio.TimeoutError:
            return {"error": "Connection timed out: no tunnel after %g s" % OPEN_LIMIT}
        except TunnelError as error:
            return {"error": str(error)}

    async def _opened(self, host: str, tunnel: Tunnel) -> int:
        """The port of the tunnel, another one when its own is still held by what the host has left of a connection that broke."""
        try:
            return await tunnel.opened()
        except TunnelError:
            if not tunnel.taken or self.open.get(host) is not tunnel:
                raise
        await tunnel.close()
        tunnel = self.open[host] = Tunnel(tunnel.command, tunnel.to, self.guard)
        return await tunnel.opened()
