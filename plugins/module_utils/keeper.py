# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keeper: the one process of a pool on the client that keeps the coaster service running, and the tunnels to its hosts.

It reads ``keeper.json`` in the pool's folder, starts the service's program, waits for the lines that announce its
addresses and writes them to ``pool.json``. A service that dies is started again on the same ports. It ends the
service and itself on SIGTERM, or when the process that owns the pool is gone.

    keeper.json: command (list of str), environment (dict), engine, name, owner ({pid, started} or null),
                 ports ({service, worker, control}; 0 is any), limit (seconds until the service must answer)
    pool.json:   name, engine, url, worker_url, control_url, service and keeper ({pid, started}), since (epoch seconds),
                 restarts, ports; or error (a sentence) and log (the last lines), when the service did not start
"""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time

from . import state, tunnels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

ANNOUNCEMENTS = {
    "Settings server URL: ": "control_url",
    "Started coaster service: ": "url",
    "Worker connection URL: ": "worker_url",
}
"""Lines of the service's standard output (coaster-protocol 6.1) and what is kept of them."""

STOP_LIMIT = {"builtin": 5.0, "swift": 2.0}
"""Seconds that a service of that engine has to end after SIGTERM. Swift/K sends its workers home within half a second, but
waits without end for workers that are dead already (coaster-protocol 7.2)."""
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before each new start of a service that died; the last one goes on."""
ASK_EVERY = 5.0
"""Seconds between two questions to the control port of the service, to see whether it hangs."""
ASK_LIMIT = 5.0
"""Seconds that an answer may take."""
MISSES = 3
"""Answers that may be missing in a row; then the service is ended by force and started again: after 30 to 35 s, before the
workers give up."""
STEADY = 60.0
"""Seconds that a service has to run until the pauses begin anew."""
LOG_LINES = 20
MAX_FILES = 16384
"""Open files that the keeper may have when the system lets it: a tunnel takes one, and a pool has 10,000 hosts at most."""

LEASH = """\
exec 3<&0 </dev/null
{ read -r _; trap '' TERM; kill -TERM 0; for _ in 1 2 3 4 5; do sleep 1; kill -0 $$ || break; done; kill -KILL 0; } <&3 >/dev/null 2>&1 &
exec 3<&-
exec "$0" "$@"
"""
"""Runs the service with a guard in its process group that ends the group when standard input does: so a keeper that is
killed takes its service along, also where the service is a grandchild, as Swift/K's Java is."""


class Keeper:
    """Keeps the service of the pool whose folder is ``path``."""

    def __init__(self, path: str, settings: "Dict[str, Any]") -> None:
        self.path = path
        self.settings = settings
        self.process: "asyncio.subprocess.Process"
        self.leash: "Optional[int]" = None
        self.announced: "Dict[str, str]" = {}
        self.lines: "List[str]" = []
        self.restarts = 0
        self.ending = asyncio.Event()
        self.tunnels = tunnels.Tunnels(path)

    async def run(self) -> int:
        """Start the service and keep it until the pool ends. Returns 0, or 1 when the service never answered."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.ending.set)
        owner = asyncio.ensure_future(self.watch_owner())
        await self.tunnels.listen()
        try:
            return await self.keep()
        finally:
            owner.cancel()
            await self.stop_service()
            await self.tunnels.close()
            state.sweep()

    async def watch_owner(self) -> None:
        """End the pool when its owner is gone."""
        owner = self.settings.get("owner")
        while owner and state.alive(owner):
            await asyncio.sleep(0.5)
        if owner:
            self.ending.set()

    async def keep(self) -> int:
        """The life of the service, from the first start to the end of the pool."""
        pause = iter(PAUSES)
        while True:
            started = time.monotonic()
            answered = await self.start_service()
            if not answered and not self.restarts:
                if not self.ending.is_set():
                    self.report_failure()
                    return 1
                return 0
            if answered:
                self.report()
                await self.first(self.ending.wait(), self.read_output(), self.watch_answers())
            if self.ending.is_set():
                return 0
            self.log("the service ended (status %s); starting it again" % self.process.returncode)
            await self.stop_service()
            self.restarts += 1
            if time.monotonic() - started > STEADY:
                pause = iter(PAUSES)
            await self.first(self.ending.wait(), asyncio.sleep(next(pause, PAUSES[-1])))
            if self.ending.is_set():
                return 0

    async def start_service(self) -> bool:
        """Start the service's program; whether it announced all its addresses within the limit."""
        self.announced = {}
        self.lines = []
        ports = self.settings["ports"]
        command = self.settings["command"] + [
            "-port", str(ports["service"]), "-localport", str(ports["worker"]), "-controlPort", str(ports["control"]),
        ]
        end, leash = os.pipe()
        self.process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", LEASH, *command, env=dict(os.environ, **self.settings["environment"]), cwd=self.path,
            start_new_session=True, stdin=end, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        os.close(end)
        self.leash = leash
        limit = asyncio.sleep(self.settings["limit"])
        await self.first(self.ending.wait(), self.read_announcements(), limit)
        return len(self.announced) == len(ANNOUNCEMENTS)

    async def read_announcements(self) -> None:
        """Read lines until the service has announced everything, or ended."""
        while len(self.announced) < len(ANNOUNCEMENTS):
            line = await self.read_line()
            if line is None:
                return
            for prefix, name in ANNOUNCEMENTS.items():
                if line.startswith(prefix):
                    self.announced[name] = line[len(prefix):].strip()

    async def read_output(self) -> None:
        """Read until the service ends, so that it never blocks on its output."""
        while await self.read_line() is not None:
            pass

    async def read_line(self) -> "Optional[str]":
        try:
            data = await self.process.stdout.readline()  # type: ignore[union-attr]
        except ValueError:
            return ""
        if not data:
            await self.process.wait()
            return None
        line = data.decode("utf-8", "replace").rstrip("\n")
        self.lines = self.lines[-LOG_LINES:] + [line]
        return line

    async def watch_answers(self) -> None:
        """Ask the service again and again; return when it hangs and was killed."""
        missed = 0
        while missed < MISSES:
            await asyncio.sleep(ASK_EVERY)
            missed = 0 if await self.answers() else missed + 1
        self.log("the service gives no answer at its control port; ending it by force")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def answers(self) -> bool:
        """Whether the service does something with a connection to its control port, if only close it."""
        try:
            opened = asyncio.open_connection("127.0.0.1", self.settings["ports"]["control"])
            reader, writer = await asyncio.wait_for(opened, ASK_LIMIT)
            with contextlib.closing(writer):
                writer.write(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
                await asyncio.wait_for(reader.read(1), ASK_LIMIT)
        except (asyncio.TimeoutError, ConnectionRefusedError):
            return False
        except OSError:
            pass
        return True

    async def stop_service(self) -> None:
        """End the service with all that it started: SIGTERM, and SIGKILL after STOP_LIMIT.

        A launcher may end before the program that it started; all have ended when nobody holds their output any more.
        """
        if self.leash is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.read_output(), STOP_LIMIT[self.settings["engine"]])
        os.close(self.leash)
        self.leash = None

    def report(self) -> None:
        """Write pool.json, and keep the ports for the next start, also by another keeper."""
        ports = {name: int(self.announced[url].rsplit(":", 1)[1].strip("/")) for name, url in (
            ("service", "url"), ("worker", "worker_url"), ("control", "control_url"))}
        self.settings["ports"] = ports
        state.write_json(os.path.join(self.path, "keeper.json"), self.settings)
        known = state.read_json(os.path.join(self.path, "pool.json")) if self.restarts else None
        pool = {
            "name": self.settings["name"],
            "engine": self.settings["engine"],
            "bin_dir": self.settings["bin_dir"],
            "ports": ports,
            "restarts": self.restarts,
            "since": known["since"] if known and "since" in known else time.time(),
            "keeper": state.this_process(),
            "service": {"pid": self.process.pid, "started": state.start_time(self.process.pid)},
        }
        pool.update(self.announced)
        state.write_json(os.path.join(self.path, "pool.json"), pool)
        self.log("the service answers at %(url)s" % self.announced)

    def report_failure(self) -> None:
        """Write why there is no service."""
        code = self.process.returncode
        what = "ended with status %s" % code if code is not None else "did not answer within %g s" % self.settings["limit"]
        state.write_json(os.path.join(self.path, "pool.json"), {
            "name": self.settings["name"],
            "engine": self.settings["engine"],
            "error": "the coaster service %s" % what,
            "log": self.lines[-LOG_LINES:],
        })

    def log(self, text: str) -> None:
        """A line in the keeper's log."""
        sys.stdout.write("%s %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"), text))
        sys.stdout.flush()

    @staticmethod
    async def first(*waits: "Any") -> None:
        """Wait until one of the awaitables is done and drop the others."""
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        left = set(tasks)
        while left:  # before Python 3.12 a wait_for() that is just done swallows the cancellation
            for task in left:
                task.cancel()
            left = (await asyncio.wait(left, timeout=0.1))[1]
        await asyncio.gather(*tasks, return_exceptions=True)


def main(path: str) -> int:
    """Keep the pool whose folder is ``path``; returns the exit status."""
    settings = state.read_json(os.path.join(path, "keeper.json"))
    if settings is None:
        sys.stderr.write("there is no keeper.json in %s\n" % path)
        return 1
    state.write_json(os.path.join(path, "keeper.pid"), state.this_process())  # systemd has other ones after a boot
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MAX_FILES)), hard))
    return asyncio.run(Keeper(path, settings).run())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
