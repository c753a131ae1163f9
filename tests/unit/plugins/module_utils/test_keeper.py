# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keeper as a process of its own, with small programs that announce themselves as a coaster service does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import keeper, state

LIMIT = 60.0
SERVICE = """\
#!/bin/sh
# A service: says with which words it was started, announces itself, and lives until it is told to end.
echo "$$ $GLOBUS_HOSTNAME $*" >>started
while [ $# -gt 0 ]; do
  case $1 in -port) port=$2 ;; -localport) workers=$2 ;; -controlPort) control=$2 ;; esac
  shift
done
[ "$port" != 0 ] || port=40001
[ "$workers" != 0 ] || workers=40002
[ "$control" != 0 ] || control=40003
echo "Switching log to: somewhere"
echo "Settings server URL: http://localhost:$control"
echo "Started coaster service: http://127.0.0.1:$port"
echo "Worker connection URL: http://127.0.0.1:$workers"
"""


CONTROL = """\
#!{python}
# A service whose control port does with each connection what the last line says.
import socket, struct, sys, time
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
control = socket.create_server(("127.0.0.1", int(words["-controlPort"])))
open("started", "a").write("%d x\\n" % __import__("os").getpid())
print("Settings server URL: http://localhost:%d" % control.getsockname()[1])
print("Started coaster service: http://127.0.0.1:40001\\nWorker connection URL: http://127.0.0.1:40002", flush=True)
"""
ANSWERS = """\
while True:
    connection, peer = control.accept()
    open("asked", "a").write("x")
    {answer}
    connection.close()
"""


class Pool:
    """A pool's folder, and the keeper that runs in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: dict[str, Any] = {
            "name": "p", "engine": "builtin", "bin_dir": "/bin", "command": [str(path / "service"), "-nosec"],
            "environment": {"GLOBUS_HOSTNAME": "1.2.3.4"}, "owner": None, "ports": {"service": 0, "worker": 4051, "control": 0}, "limit": LIMIT,
        }
        self.constants: dict[str, Any] = {}
        """Of the keeper, where they are not its own."""
        self.process: subprocess.Popen[str] | None = None

    def service(self, rest: str, head: str = SERVICE) -> None:
        """Make the service's program: the announcement, and what it does then."""
        program = self.path / "service"
        program.write_text(head + rest)
        program.chmod(0o755)

    def start(self, **settings: Any) -> None:
        state.write_json(str(self.path / "keeper.json"), self.settings | settings)
        self.begin()

    def begin(self) -> None:
        words = ["-m", keeper.__name__, str(self.path)]
        if self.constants:
            program = f"import sys; from {keeper.__name__} import *; vars(sys.modules[main.__module__]).update({self.constants!r}); sys.exit(main(sys.argv[1]))"
            words = ["-c", program, str(self.path)]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)

    def known(self) -> dict[str, Any]:
        return state.read_json(str(self.path / "pool.json")) or {}

    def started(self) -> list[list[str]]:
        """The words of each start of the service: process id, announced host name, arguments."""
        with contextlib.suppress(FileNotFoundError):
            return [line.split() for line in (self.path / "started").read_text().splitlines()]
        return []

    def alive(self, count: int = 1) -> bool:
        """Whether the service has been started so often, and lives as pool.json says."""
        return len(self.started()) == count and state.alive(self.known().get("service")) and self.known()["restarts"] == count - 1

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send the keeper a signal; its exit status and output."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        assert self.process is not None
        output, dummy = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, output

    def processes(self) -> list[int]:
        """What runs in the pool's folder."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(folder / "cwd") == str(self.path) and state.start_time(int(folder.name)):
                    found.append(int(folder.name))
        return found


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    pool = Pool(tmp_path)
    yield pool
    if pool.process is not None and pool.process.returncode is None:
        pool.end()
    for pid in pool.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def test_pool_json(pool: Pool) -> None:
    pool.service("exec sleep 1000")
    pool.start()
    wait(pool.alive)
    known = pool.known()
    assert {name: known[name] for name in ("name", "engine", "bin_dir", "url", "worker_url", "control_url", "ports", "restarts")} == {
        "name": "p", "engine": "builtin", "bin_dir": "/bin", "url": "http://127.0.0.1:40001", "worker_url": "http://127.0.0.1:4051",
        "control_url": "http://localhost:40003", "ports": {"service": 40001, "worker": 4051, "control": 40003}, "restarts": 0,
    }
    assert abs(known["since"] - time.time()) < LIMIT
    assert state.alive(known["keeper"])
    assert pool.process is not None
    assert known["keeper"]["pid"] == pool.process.pid
    pid, address, *words = pool.started()[0]
    assert (int(pid), address) == (known["service"]["pid"], "1.2.3.4")
    assert words == ["-nosec", "-port", "0", "-localport", "4051", "-controlPort", "0"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all(pool: Pool, number: signal.Signals) -> None:
    pool.service("exec sleep 1000")
    pool.start()
    wait(pool.alive)
    assert pool.end(number)[0] == 0
    assert pool.processes() == []


def test_what_the_service_started_ends_with_it(pool: Pool) -> None:
    """Swift/K's launcher is a shell that does not pass signals on to its Java."""
    pool.service("sleep 1000 & sleep 1000; exit 0")
    pool.start()
    wait(pool.alive)
    wait(lambda: len(pool.processes()) >= 4)
    assert pool.end()[0] == 0
    assert pool.processes() == []


def test_a_service_that_does_not_end_is_killed(pool: Pool) -> None:
    pool.service("trap '' TERM; while :; do sleep 1; done")
    pool.start()
    wait(pool.alive)
    assert pool.end()[0] == 0
    assert pool.processes() == []


def test_a_dead_service_comes_back_on_the_same_ports(pool: Pool) -> None:
    pool.service("exec sleep 1000")
    pool.start()
    wait(pool.alive)
    first = pool.known()
    for count in (2, 3):
        os.kill(pool.known()["service"]["pid"], signal.SIGKILL)
        wait(lambda count=count: pool.alive(count))
    again = pool.known()
    assert {name: again[name] for name in ("url", "worker_url", "control_url", "since", "keeper")} == {
        name: first[name] for name in ("url", "worker_url", "control_url", "since", "keeper")
    }
    assert pool.started()[2][2:] == ["-nosec", "-port", "40001", "-localport", "4051", "-controlPort", "40003"]
    status, output = pool.end()
    assert status == 0
    assert output.count("the service ended (status -9); starting it again") == 2


def test_a_service_that_once_answered_is_tried_again_even_when_it_fails(pool: Pool) -> None:
    pool.service("exec sleep 1000", SERVICE.replace("while", "[ -e failed ] && { rm failed; echo Error: still busy; exit 2; }\nwhile", 1))
    pool.start()
    wait(pool.alive)
    (pool.path / "failed").touch()
    os.kill(pool.known()["service"]["pid"], signal.SIGKILL)
    wait(lambda: len(pool.started()) == 3 and state.alive(pool.known()["service"]))
    assert not (pool.path / "failed").exists()


def test_a_service_that_cannot_start(pool: Pool) -> None:
    pool.service('echo "Switching log"; echo "Error starting coaster service: Address already in use" >&2; exit 2', "#!/bin/sh\n")
    pool.start()
    assert pool.ended()[0] == 1
    assert pool.known() == {
        "name": "p", "engine": "builtin", "error": "the coaster service ended with status 2",
        "log": ["Switching log", "Error starting coaster service: Address already in use"],
    }


def test_a_service_that_says_nothing(pool: Pool) -> None:
    pool.service("exec sleep 1000", "#!/bin/sh\n")
    pool.start(limit=0.3)
    assert pool.ended()[0] == 1
    assert pool.known()["error"] == "the coaster service did not answer within 0.3 s"
    assert pool.processes() == []


def test_a_service_that_is_not_there(pool: Pool) -> None:
    pool.start()
    assert pool.ended()[0] == 1
    assert pool.known()["error"] == "the coaster service ended with status 127"
    assert "not found" in pool.known()["log"][-1]


def test_only_the_last_lines_are_kept(pool: Pool) -> None:
    pool.service("for number in $(seq 100); do echo line $number; done; exit 1", "#!/bin/sh\n")
    pool.start()
    assert pool.ended()[0] == 1
    assert pool.known()["log"] == [f"line {number}" for number in range(81, 101)]


def test_a_service_may_write_much(pool: Pool) -> None:
    """It is never blocked by a full pipe, not even by a line longer than any buffer."""
    pool.service('head -c 300000 /dev/zero | tr "\\\\0" x; echo; seq 100000; echo done >written; exec sleep 1000')
    pool.start()
    wait((pool.path / "written").exists)
    assert pool.alive()


def test_a_service_that_was_steady_is_started_again_without_delay(pool: Pool) -> None:
    pool.constants = {"STEADY": 0.0, "PAUSES": (0.01, 1000.0)}
    pool.service("exec sleep 1000")
    pool.start()
    wait(pool.alive)
    for count in (2, 3, 4):
        os.kill(pool.known()["service"]["pid"], signal.SIGKILL)
        wait(lambda count=count: pool.alive(count))


def test_a_signal_between_two_starts(pool: Pool) -> None:
    pool.constants = {"PAUSES": (1000.0,)}
    pool.service("exec sleep 1000")
    pool.start()
    wait(pool.alive)
    os.kill(pool.known()["service"]["pid"], signal.SIGKILL)
    assert pool.process is not None
    assert pool.process.stdout is not None
    while "starting it again" not in pool.process.stdout.readline():
        pass
    assert pool.end()[0] == 0


def test_a_signal_before_the_service_answers(pool: Pool) -> None:
    pool.service("exec sleep 1000", "#!/bin/sh\necho $$ x >>started\n")
    pool.start()
    wait(pool.started)
    assert pool.end()[0] == 0
    assert pool.known() == {}
    assert pool.processes() == []


@pytest.mark.parametrize(
    "answer", ["connection.sendall(b'HTTP/1.0 404 Not Found')", "", "connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))"]
)
def test_a_service_that_answers_at_its_control_port_goes_on(pool: Pool, answer: str) -> None:
    """Whatever it says: also when it only closes or resets the connection."""
    pool.constants = {"ASK_EVERY": 0.01}
    pool.service(ANSWERS.format(answer=answer), CONTROL.format(python=sys.executable))
    pool.start()
    wait(pool.alive)
    wait(lambda: (pool.path / "asked").exists() and (pool.path / "asked").stat().st_size > 2 * keeper.MISSES)
    assert pool.alive()


@pytest.mark.parametrize("does", ["time.sleep(1000)", "control.close(); time.sleep(1000)"])
def test_a_service_that_hangs_is_ended_and_started_again(pool: Pool, does: str) -> None:
    pool.constants = {"ASK_EVERY": 0.01, "ASK_LIMIT": 0.1}
    pool.service(does, CONTROL.format(python=sys.executable))
    pool.start()
    wait(lambda: len(pool.started()) == 2)
    assert state.start_time(int(pool.started()[0][0])) is None
    status, output = pool.end()
    assert (status, "the service gives no answer at its control port; ending it by force" in output) == (0, True)


def test_a_wait_that_swallows_its_cancellation_is_cancelled_again() -> None:
    """As asyncio.wait_for() does before Python 3.12, when what it waits for is done at that moment."""
    cancelled = []

    async def stubborn() -> None:
        for number in range(2):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                cancelled.append(number)

    asyncio.run(keeper.Keeper.first(asyncio.sleep(0.01), stubborn()))
    assert cancelled == [0, 1]


def test_a_killed_keeper_takes_the_service_along(pool: Pool) -> None:
    pool.service("sleep 1000; exit 0")
    pool.start()
    wait(pool.alive)
    assert pool.end(signal.SIGKILL)[0] == -signal.SIGKILL
    wait(lambda: pool.processes() == [])


def test_the_pool_ends_with_its_owner(pool: Pool) -> None:
    pool.service("exec sleep 1000")
    with subprocess.Popen(["sleep", "1000"]) as owner:
        pool.start(owner={"pid": owner.pid, "started": state.start_time(owner.pid)})
        wait(pool.alive)
        owner.kill()
    assert pool.ended()[0] == 0
    assert pool.processes() == []


def test_an_owner_that_is_gone_already(pool: Pool) -> None:
    pool.service("exec sleep 1000")
    pool.start(owner={"pid": os.getpid(), "started": "1"})
    assert pool.ended()[0] == 0
    assert pool.processes() == []


def test_it_may_have_a_file_for_each_tunnel(pool: Pool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pool.service("exec sleep 1000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        pool.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait(pool.alive)
    assert resource.prlimit(pool.known()["keeper"]["pid"], resource.RLIMIT_NOFILE) == (min(hard, keeper.MAX_FILES), hard)


def test_nothing_to_keep(pool: Pool) -> None:
    pool.begin()
    assert pool.ended() == (1, f"there is no keeper.json in {pool.path}\n")
