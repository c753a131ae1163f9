# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tunnels through real ssh to hosts that are sshd processes of this machine; small programs stand for an ssh that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import state, tunnel_requests, tunnels
from tests.conftest import collections_root
from tests.testhosts import Hosts, start

LIMIT = 60.0
ALLOCATES = "#!/bin/sh\necho 'Allocated port 4711 for remote forward to x' >&2\n"


def wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


class Keeping(threading.Thread):
    """What the keeper does for tunnels, with ``path`` as the pool's folder."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.listens = threading.Event()
        self.made: Future[tunnels.Tunnels] = Future()

    def run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        kept = tunnels.Tunnels(str(self.path))
        await kept.listen()
        self.made.set_result(kept)
        await self.over.wait()
        await kept.close()

    def __enter__(self) -> Keeping:
        self.start()
        self.tunnels = self.made.result(LIMIT)
        return self

    def __exit__(self, *dummy: object) -> None:
        self.loop.call_soon_threadsafe(self.over.set)
        self.join()

    def ask(self, **request: Any) -> dict[str, Any]:
        return tunnel_requests.ask(str(self.path), request)

    def pid(self, host: str) -> int:
        process = self.tunnels.open[host].process
        assert process is not None
        return process.pid


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    state.write_json(str(tmp_path / "keeper.pid"), state.this_process())
    with Keeping(tmp_path) as keeping:
        yield keeping
    assert not (tmp_path / tunnel_requests.SOCKET).exists()


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with start(1, "plain") as hosts:
        yield hosts


@pytest.fixture
def service() -> Iterator[int]:
    """The port of a service that greets."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, dummy = listening.accept()
                    with connection:
                        connection.sendall(b"welcome")

        threading.Thread(target=greet, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def program(path: Path, text: str) -> list[str]:
    path.write_text(text)
    path.chmod(0o755)
    return [str(path)]


def greeted(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
        return connection.recv(100) == b"welcome"
    return False


def words(hosts: Hosts, *options: str) -> list[str]:
    return tunnel_requests.command([str(hosts.client.bin / "ssh"), "-o", f"ControlPath={hosts.client.folder}/%C", *options], hosts[0].target)


class TestThroughSsh:
    def test_it_leads_to_the_service_until_it_is_closed(self, keeping: Keeping, hosts: Hosts, service: int) -> None:
        request = {"open": "h", "command": words(hosts), "to": f"127.0.0.1:{service}"}
        assert keeping.ask(look="h") == {"port": 0}
        port = keeping.ask(**request)["port"]
        assert greeted(port)
        assert keeping.ask(**request) == {"port": port}
        assert keeping.ask(look="h") == {"port": port}
        assert hosts.ssh(hosts[0], "echo hello", "-o", f"ControlPath={hosts.client.folder}/%C", "-o", "IdentityFile=none").stdout == "hello\n"
        assert keeping.ask(close="h") == {"closed": True}
        assert not greeted(port)
        assert keeping.ask(close="h") == {"closed": False}

    def test_it_comes_back_with_its_port(self, keeping: Keeping, hosts: Hosts, service: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tunnels, "STEADY", 0.0)
        request = {"open": "h", "command": words(hosts), "to": f"127.0.0.1:{service}"}
        port = keeping.ask(**request)["port"]
        for dummy in range(2):
            os.kill(keeping.pid("h"), signal.SIGKILL)
            wait(lambda: not keeping.tunnels.open["h"].stands)
            assert keeping.ask(**request) == {"port": port}
            assert greeted(port)

    def test_it_leads_elsewhere_when_that_is_asked_for(self, keeping: Keeping, hosts: Hosts, service: int) -> None:
        keeping.ask(open="h", command=words(hosts), to="127.0.0.1:1")
        assert greeted(keeping.ask(open="h", command=words(hosts), to=f"127.0.0.1:{service}")["port"])
        assert len(keeping.tunnels.open) == 1

    def test_another_port_when_its_own_is_taken(self, keeping: Keeping, hosts: Hosts, service: int, tmp_path: Path) -> None:
        hold = tmp_path / "hold"
        ssh, *options = words(hosts)
        slow = program(tmp_path / "ssh", f'#!/bin/sh\nwhile [ -e {hold} ]; do sleep 0.02; done\nexec {ssh} "$@"\n')
        request = {"open": "h", "command": slow + options, "to": f"127.0.0.1:{service}"}
        port = keeping.ask(**request)["port"]
        hold.touch()
        os.kill(keeping.pid("h"), signal.SIGKILL)
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

            def stolen() -> bool:
                with contextlib.suppress(OSError):
                    thief.bind(("127.0.0.1", port))
                    return True
                return False

            wait(stolen)
            thief.listen()
            hold.unlink()
            wait(lambda: keeping.tunnels.open["h"].taken)
            other = keeping.ask(**request)["port"]
        assert other != port and greeted(other)

    def test_a_host_that_refuses(self, keeping: Keeping, hosts: Hosts) -> None:
        """What ssh said, without its chatter."""
        with pytest.raises(tunnel_requests.TunnelError, match=r"(?s)\A(?!.*debug1).*Permission denied"):
            keeping.ask(open="h", command=words(hosts, "-o", "PubkeyAuthentication=no"), to="127.0.0.1:1")


class TestPrograms:
    """That are no ssh."""

    def test_one_that_cannot_be_started(self, keeping: Keeping) -> None:
        with pytest.raises(tunnel_requests.TunnelError, match="/nowhere/ssh cannot be started: No such file"):
            keeping.ask(open="h", command=["/nowhere/ssh"], to="127.0.0.1:1")

    def test_one_that_says_nothing(self, keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tunnels, "OPEN_LIMIT", 0.1)
        with pytest.raises(tunnel_requests.TunnelError, match=r"Connection timed out: no tunnel after 0\.1 s"):
            keeping.ask(open="h", command=["sleep", "1000"], to="127.0.0.1:1")

    def test_one_that_says_more_later(self, keeping: Keeping, tmp_path: Path) -> None:
        """As ssh does at its level DEBUG1."""
        ssh = program(tmp_path / "ssh", ALLOCATES + "sleep 0.2\necho 'debug1: remote forward success' >&2\necho end >&2\nexec sleep 1000\n")
        assert keeping.ask(open="h", command=ssh, to="127.0.0.1:1") == {"port": 4711}
        wait(lambda: keeping.tunnels.open["h"].error.endswith(b"end\n"))
        assert keeping.tunnels.open["h"].error == b"Allocated port 4711 for remote forward to x\nend\n"

    def test_one_that_does_not_end(self, keeping: Keeping, tmp_path: Path) -> None:
        """It ends with the guard."""
        keeping.ask(open="h", command=program(tmp_path / "ssh", ALLOCATES + "trap '' TERM\nwhile :; do sleep 1; done\n"), to="127.0.0.1:1")
        pid = keeping.pid("h")
        keeping.ask(close="h")
        keeping.tunnels.guard.close()
        wait(lambda: not os.path.exists(f"/proc/{pid}"))

    def test_one_that_broke_for_good(self, keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who asks for its tunnel hears of the try that was made then."""
        monkeypatch.setattr(tunnels, "PAUSES", (1000.0,))
        ssh = program(tmp_path / "ssh", f"#!/bin/sh\n[ ! -e {tmp_path}/over ] || exit 1\ntouch {tmp_path}/over\n" + ALLOCATES)
        assert keeping.ask(open="h", command=ssh, to="127.0.0.1:1") == {"port": 4711}
        wait(lambda: not keeping.tunnels.open["h"].stands)
        with pytest.raises(tunnel_requests.TunnelError):
            keeping.ask(open="h", command=ssh, to="127.0.0.1:1")


class TestTheKeepersSocket:
    @pytest.mark.parametrize("line", [b"\n", b"x\n", b"[]\n", b"{}\n", b'{"open": "h"}\n', b"\xff\n", b"x" * (tunnel_requests.MAX_LINE + 100)])
    def test_a_request_that_cannot_be_read(self, keeping: Keeping, line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(keeping.path)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(tunnel_requests.SOCKET)
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(line)
            with contextlib.suppress(ConnectionResetError):
                assert "cannot be read" in json.loads(connection.recv(10000))["error"]

    def test_none_to_close(self, tmp_path: Path) -> None:
        asyncio.run(tunnels.Tunnels(str(tmp_path)).close())

    def test_a_path_that_is_too_long_for_a_socket(self, tmp_path: Path) -> None:
        folder = tmp_path / ("x" * 120)
        folder.mkdir()
        with Keeping(folder) as keeping:
            assert keeping.ask(close="h") == {"closed": False}

    def test_what_a_killed_keeper_left(self, tmp_path: Path) -> None:
        (tmp_path / tunnel_requests.SOCKET).touch()
        with Keeping(tmp_path) as keeping:
            assert keeping.ask(close="h") == {"closed": False}


class TestGuard:
    def test_it_is_made_anew(self) -> None:
        guard = tunnels.Guard()
        guard.close()
        first = guard.group()
        assert guard.group() == first
        os.kill(first, signal.SIGKILL)
        wait(lambda: guard.process is not None and guard.process.poll() is not None)
        second = guard.group()
        assert second != first and os.getpgid(second) == second
        guard.close()

    def test_it_ends_the_group_when_its_maker_is_killed(self, tmp_path: Path) -> None:
        script = (
            "import os, subprocess, time\n"
            "from ansible_collections.coasters.pool.plugins.module_utils import tunnels\n"
            "guard = tunnels.Guard()\n"
            "group = guard.group()\n"
            "child = subprocess.Popen(['sh', '-c', 'trap \"\" TERM; while :; do sleep 1; done'], preexec_fn=lambda: os.setpgid(0, group))\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(1000)\n"
        )
        env = dict(os.environ, PYTHONPATH=str(collections_root()))
        with subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True) as maker:
            assert maker.stdout is not None
            child = int(maker.stdout.readline())
            maker.kill()
        wait(lambda: state.start_time(child) is None)

    @pytest.mark.parametrize("version", [(3, 10), (3, 11)])
    def test_a_process_in_its_group(self, version: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        if version > sys.version_info:
            pytest.skip(f"this is Python {sys.version}")
        guard = tunnels.Guard()
        group = guard.group()
        monkeypatch.setattr(tunnels, "sys", SimpleNamespace(version_info=version))
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, **tunnels._in_group(group)) as child:
            assert os.getpgid(child.pid) == group
        guard.close()
