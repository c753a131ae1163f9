# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program coaster-service, as a process and in its parts."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import logging
import os
import re
import resource
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import service_command as module
from ansible_collections.coasters.pool.plugins.module_utils.coaster import sockets
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import FAILED, Job
from ansible_collections.coasters.pool.plugins.module_utils.coaster.service_command import Configuration, UsageError, announced_host, main
from tests.unit.plugins.module_utils.coaster.peers import PATIENCE, ClientPeer, Refused, WorkerPeer

MODULE = "ansible_collections.coasters.pool.plugins.module_utils.coaster.service_command"
MODES = ["-nosec", "-passive"]


class Program:
    """A coaster-service process; ``lines`` are those of its standard output so far."""

    def __init__(self, *args: str, cwd: Path, **environment: str) -> None:
        path = str(Path(sys.modules[MODULE].__file__ or "").parents[6])
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE, *args], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": path, **environment})
        self.lines: list[str] = []

    def until(self, start: str) -> str:
        """The rest of the next line that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return self.lines[-1][len(start):]
        raise AssertionError(self.lines)

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Exit status and the rest of both outputs, after a signal if one is given."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts coaster-service in an empty folder, and ends it after the test."""
    started: list[Program] = []

    def begin(*args: str, **environment: str) -> Program:
        started.append(Program(*args, cwd=tmp_path, **environment))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


# start and end


def test_the_lines_of_a_start_and_an_end(program: Callable[..., Program], tmp_path: Path) -> None:
    service = program(*MODES, "-port", "0", "-controlPort", "0", "-logdir", "logs/deep", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.2")
    worker_url = service.until("Worker connection URL: ")
    log = re.fullmatch(r"Switching log to: (logs/deep/cps-\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.log)", service.lines[0])
    assert log
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}[+-]\d{4} WARN  CoasterPersistentService Switching log to: " + re.escape(log[1]),
        service.lines[1])
    control = re.fullmatch(r"Settings server URL: (http://localhost:\d+)", service.lines[2])
    assert control
    url = service.lines[3].removeprefix("Started coaster service: ")
    assert len(service.lines) == 5
    assert (address(url)[0], address(worker_url)[0]) == ("127.0.0.1", "127.0.0.2")
    with urllib.request.urlopen(control[1] + "/wmInfo", timeout=PATIENCE) as answer:
        assert json.load(answer)["coaster"]["url"] == url
    with ClientPeer(address(url)) as client, WorkerPeer(address(worker_url)) as worker:
        client.configure()
        worker.register()
        client.submit(Job("cog-1", "/bin/true", ["secret"]))
        worker.take()
        started = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        end = client.end("cog-1")
        assert (end.code, end.message) == (FAILED, "Shutting down worker")
        worker.expect("SHUTDOWN")
        assert service.end() == (143, "Shutting down service...\n", "")
        assert time.monotonic() - started < 20
    path = tmp_path / log[1]
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}[+-]\d{4} INFO  CoasterService registered worker w1:000000 on node1", text, re.M)
    assert "secret" not in text


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_exit_status_after_a_signal(program: Callable[..., Program], number: int, status: int) -> None:
    service = program(*MODES, "-p", "0", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.1")
    service.until("Worker connection URL: ")
    assert service.lines[0].startswith("Switching log to: cps-")
    assert service.end(number) == (status, "Shutting down service...\n", "")


def test_port_files(program: Callable[..., Program], tmp_path: Path) -> None:
    service = program(*MODES, "-S", "port", "-W", "local", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.1")
    service.until("Started coaster service: ")
    ports = [(tmp_path / name).read_text() for name in ("port", "local")]
    service.until("Worker connection URL: ")
    assert [str(address(line)[1]) for line in service.lines[-2:]] == ports
    assert all(port.isdigit() for port in ports)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("cps-")) == ["local", "port"]


def test_it_goes_on_when_nobody_reads_its_output(program: Callable[..., Program]) -> None:
    service = program(*MODES, "-port", "0", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.1")
    url = service.until("Started coaster service: ")
    service.until("Worker connection URL: ")
    assert service.process.stdout is not None
    service.process.stdout.close()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENCE) == 143
    assert url


def test_a_port_in_use(program: Callable[..., Program]) -> None:
    with sockets.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        holder = re.escape(sockets.holder(port) or "")
        for option, other in (("-port", "-listen"), ("-localport", "-workerlisten"), ("-controlPort", "-listen")):
            ports = [] if option == "-port" else ["-port", "0"]
            status, out, err = program(*MODES, *ports, option, str(port), other, "127.0.0.1").end()
            assert (status, err) == (2, "")
            assert re.fullmatch(
                "Error starting coaster service: Address already in use: port %d is held by %s; end it, or choose another port"
                % (port, holder), out.splitlines()[-1])
            assert "Started coaster service" not in out


def test_the_port_range(program: Callable[..., Program]) -> None:
    with sockets.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        high = port + 40
        ports = {"GLOBUS_TCP_PORT_RANGE": "%d,%d" % (port, high)}
        service = program(*MODES, "-port", "0", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.1", **ports)
        chosen = [address(service.until(start))[1] for start in ("Started coaster service: ", "Worker connection URL: ")]
        assert port < chosen[0] < chosen[1] <= high


def test_a_port_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(_address: str | None, _port: int) -> socket.socket:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(sockets, "listen", taken)
    with pytest.raises(module.StartError, match="port 1 is held by a process that this user cannot see; end it, or choose"):
        module._listen(None, 1)


@pytest.mark.parametrize(("text", "message"), [("5", "two numbers, low,high, not '5'"), ("9,5", "two ports, low,high, not '9,5'"), ("a,b", "numbers")])
def test_port_ranges_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.setenv("GLOBUS_TCP_PORT_RANGE", text)
    with pytest.raises(module.StartError, match=message):
        module._listen("127.0.0.1", 0)


def test_a_port_range_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with sockets.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("GLOBUS_TCP_PORT_RANGE", "%d,%d" % (port, port))
        with pytest.raises(module.StartError, match="no port from %d to %d" % (port, port)):
            module._listen("127.0.0.1", 0)


def test_several_addresses_for_workers(program: Callable[..., Program]) -> None:
    service = program(*MODES, "-port", "0", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.1,127.0.0.3")
    host, port = address(service.until("Worker connection URL: "))
    assert host == "127.0.0.1"
    for other in (host, "127.0.0.3"):
        with WorkerPeer((other, port)) as worker:
            worker.register()
    with pytest.raises(ConnectionRefusedError):
        WorkerPeer(("127.0.0.4", port))


def test_all_interfaces_unless_told(program: Callable[..., Program]) -> None:
    service = program(*MODES, "-port", "0", GLOBUS_HOSTNAME="127.0.0.1")
    url, worker_url = service.until("Started coaster service: "), service.until("Worker connection URL: ")
    for peer, (host, port) in ((ClientPeer, address(url)), (WorkerPeer, address(worker_url))):
        assert host == "127.0.0.1"
        with peer(("127.0.0.9", port)) as other:
            assert other.call("VERSION") == [b"0.4"]


def test_only_listed_workers_and_users(program: Callable[..., Program], tmp_path: Path) -> None:
    (tmp_path / "workers").write_text("secret node1\n")
    users = "root,%d" % (os.getuid() + 1) if os.getuid() else "%d" % 12345
    service = program(*MODES, "-port", "0", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.1", "-workers", "workers", "-users", users)
    url, worker_url = service.until("Started coaster service: "), service.until("Worker connection URL: ")
    with ClientPeer(address(url)) as client, pytest.raises(Refused, match="user %d may not" % os.getuid()):
        client.configure()
    with WorkerPeer(address(worker_url)) as worker, pytest.raises(Refused, match="user %d may not" % os.getuid()):
        worker.register("secret")
    service = program(
        *MODES, "-port", "0", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.1", "-workers", "workers", "-users", str(os.getuid()))
    url, worker_url = service.until("Started coaster service: "), service.until("Worker connection URL: ")
    with ClientPeer(address(url)) as client:
        client.configure()
    with WorkerPeer(address(worker_url)) as worker:
        worker.register("secret")
    with WorkerPeer(address(worker_url)) as worker, pytest.raises(Refused, match="not in this pool's list"):
        worker.register("other")


def test_the_screen(program: Callable[..., Program]) -> None:
    service = program(*MODES, "-port", "0", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.1", "-stats")
    worker_url = service.until("Worker connection URL: ")
    assert service.process.stdout is not None
    with WorkerPeer(address(worker_url)) as worker:
        worker.socket.sendall(b"nonsense that is no frame")
        assert worker.closed()
    text = ""
    while "dropped" not in text:
        text += service.process.stdout.readline()
    assert text.startswith("\x1b[?25l\x1b[2J\x1b[0;0f")
    assert "WARN  CoasterService dropped worker not reg" in text
    assert "Coaster Service" in text
    status, out, _err = service.end(signal.SIGTERM)
    assert status == 143
    assert "\x1b[?25h" in out
    assert out.endswith("Shutting down service...\n")


def test_a_terminal_that_takes_nothing_holds_up_nobody(program: Callable[..., Program]) -> None:
    service = program(*MODES, "-port", "0", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.1", "-stats")
    assert service.process.stdout is not None
    fcntl.fcntl(service.process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # less than one picture
    url = service.until("Started coaster service: ")
    with ClientPeer(address(url)) as client:
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            assert client.call("VERSION") == [b"0.4"]
            time.sleep(0.1)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENCE) == 143


# in this process


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs main() in an empty folder; a signal comes as soon as it is announced."""
    monkeypatch.chdir(tmp_path)
    handlers, level = logging.root.handlers[:], logging.root.level

    def call(*args: str) -> tuple[int, str, str]:
        status = main(list(args))
        return (status, *capfd.readouterr())

    yield call
    logging.basicConfig(level=level, handlers=handlers, force=True)
    logging.raiseExceptions = True


@pytest.fixture
def ended_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM as soon as the service is announced, twice."""
    real = module.say

    def say(line: str, end: str = "\n") -> None:
        real(line, end)
        if line.startswith("Worker connection URL"):
            for _times in range(2):
                asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(module, "say", say)


Run = Callable[..., tuple[int, str, str]]


@pytest.mark.usefixtures("ended_soon")
@pytest.mark.parametrize("more", [[], ["-stats"], ["-controlPort", "0", "-portfile", "p"]])
def test_a_whole_run(run: Run, tmp_path: Path, more: list[str]) -> None:
    ports = [] if "-portfile" in more else ["-port", "0"]
    status, out, err = run(*MODES, *ports, *more, "-local", "-workerlisten", "127.0.0.1,127.0.0.2")
    assert (status, err) == (143, "")
    assert "Started coaster service: http://" in out
    assert ("\x1b[?25l" in out) == ("-stats" in more)
    assert (tmp_path / "p").exists() == ("-portfile" in more)


def test_a_log_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, out, _err = run(*MODES, "-logdir", "file")
    assert status == 2
    assert re.search(r"the log file file/cps-\S+ cannot be written: File exists", out)


def test_a_port_file_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, out, _err = run(*MODES, "-listen", "127.0.0.1", "-portfile", "file/below")
    assert status == 2
    assert "the port file file/below cannot be written: Not a directory" in out


def test_an_address_that_is_not_here(run: Run) -> None:
    status, out, _err = run(*MODES, "-listen", "192.0.2.77", "-port", "0")
    assert status == 2
    assert "192.0.2.77 port 0: Cannot assign requested address" in out


def test_a_start_that_fails(run: Run) -> None:
    with sockets.listen("127.0.0.1", 0) as listening:
        status, out, _err = run(*MODES, "-listen", "127.0.0.1", "-port", str(listening.getsockname()[1]))
    assert status == 2
    assert "Error starting coaster service: Address already in use" in out


def test_help(run: Run) -> None:
    for option in ("-help", "-h"):
        status, out, err = run(option)
        assert (status, err) == (0, "")
        assert "coaster-service <options>" in out
        assert "-localportfile | -W file" in out


@pytest.mark.parametrize(("args", "message"), [
    (["-nonsense"], "Unknown option: -nonsense"),
    (["-port"], "-port needs a value"),
    (["-port", "-nosec"], "-port needs a value"),
    (["-port", "x"], "-port must be a number"),
    (["-port", "65536"], "from 0 to 65535"),
    (["-controlPort", "-2"], "from 0 to 65535"),
    (["-resubmit", "-1"], "from 0 to"),
    (["-nosec", "word"], "Unexpected argument: word"),
    (["-port", "1", "-portfile", "f"], "-portfile and -port are mutually exclusive"),
    (["-localport", "1", "-W", "f"], "-localportfile and -localport are mutually exclusive"),
    (["-local", "-listen", "a"], "-local and -listen are mutually exclusive"),
    (["-users", "no-such-user-here"], "unknown user: 'no-such-user-here'"),
])
def test_usage_errors(run: Run, args: list[str], message: str) -> None:
    status, out, err = run(*args)
    assert status == 1
    assert message in err
    assert err.count("\n") == 1
    assert out.startswith("Usage:")


@pytest.mark.parametrize(("args", "message"), [
    ([], "Error loading credential: "), (["-passive"], "start it with -nosec"), (["-nosec"], "start it with -passive"),
    (["-nosec", "-shared", "f"], "start it with -passive"), (["-nosec", "-passive", "-shared", "f"], "cannot specify both -shared and -passive"),
    (["-passive", "-proxy", "f"], "Error loading credential: "),
])
def test_modes_that_do_not_exist_here(run: Run, args: list[str], message: str) -> None:
    status, out, err = run(*args)
    assert (status, out) == (3, "")
    assert message in err


def test_the_command_line_of_the_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["coaster-service", "-help"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("Usage:")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_as_a_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["coaster-service", "-help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(MODULE, run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage:")


def test_users_by_name_and_number() -> None:
    assert Configuration(["-users", "root,12"]).users == [0, 12]
    assert Configuration([]).users is None
    with pytest.raises(UsageError):
        Configuration(["-users", ""])


def test_a_message_is_one_line_without_control_characters() -> None:
    formatter = module.LogFormatter()
    record = logging.LogRecord("CoasterService", logging.CRITICAL, "", 0, "bad \x1b[2J \x9b %s", ("word",), None)
    assert formatter.format(record).endswith(" FATAL CoasterService bad ?[2J ? word")


def test_a_terminal_behind_misses_pictures() -> None:
    painter = module.Painter()
    for _times in range(5):
        painter.paint("picture")
    assert painter._pictures.qsize() == 2


def test_pictures_until_the_last(capfd: pytest.CaptureFixture[str]) -> None:
    painter = module.Painter()
    painter.start()
    painter.paint("one ")
    painter.finish("two\u00e9\udc80")
    painter.join(PATIENCE)
    assert capfd.readouterr().out == "one two\u00e9?"


def test_nobody_reads_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        module.say("hello")
        module.say("and goodbye")
        monkeypatch.undo()


# addresses


def resolver(known: dict[str, str]) -> Callable[[str], str]:
    def resolve(name: str) -> str:
        if name in known:
            return known[name]
        raise OSError("unknown name")
    return resolve


@pytest.mark.parametrize(("wanted", "known", "outward", "expected"), [
    ("given", {"given": "192.0.2.5", "me": "192.0.2.1"}, None, "192.0.2.5"),
    ("given", {"given": "127.0.0.1", "me": "192.0.2.1"}, None, "127.0.0.1"),
    ("nowhere", {"me": "192.0.2.1"}, None, "192.0.2.1"),
    (None, {"me": "192.0.2.1"}, "192.0.2.9", "192.0.2.1"),
    (None, {"me": "127.0.1.1"}, "192.0.2.9", "192.0.2.9"),
    (None, {"me": "127.0.1.1"}, None, "127.0.0.1"),
    (None, {}, "192.0.2.9", "192.0.2.9"),
    (None, {}, None, "127.0.0.1"),
])
def test_the_announced_address(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, known: dict[str, str], outward: str | None, expected: str,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "me")
    monkeypatch.setattr(sockets, "ipv4_address", resolver(known))
    monkeypatch.setattr(sockets, "outward_address", lambda: outward)
    assert announced_host({"GLOBUS_HOSTNAME": wanted} if wanted else {}) == expected


def test_urls() -> None:
    for where, expected in (("127.0.0.1", "http://127.0.0.1:%d"), ("::1", "http://[::1]:%d"), ("0.0.0.0", "http://HOST:%d"), (None, "http://HOST:%d")):
        with sockets.listen(where, 0) as listening:
            assert module._url(listening, "HOST") == expected % listening.getsockname()[1]


@pytest.mark.parametrize("given", ["0.0.0.0", "::"])
def test_all_interfaces_of_one_family(given: str) -> None:
    with module._listen(given, 0) as listening:
        assert listening.getsockname()[0] == given


def test_the_address_of_the_local_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "me")
    monkeypatch.setattr(sockets, "ipv4_address", resolver({"me": "192.0.2.1"}))
    assert module._local_address() == "192.0.2.1"
    monkeypatch.setattr(sockets, "ipv4_address", resolver({}))
    with pytest.raises(module.StartError, match="the host name me has no address"):
        module._local_address()


@pytest.mark.parametrize(("soft", "hard", "set_to", "result"), [
    (1024, 4096, 4096, 4096), (1024, 10 ** 6, 16704, 16704), (10 ** 5, 10 ** 6, None, 16704),
    (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 16704), (1024, resource.RLIM_INFINITY, 16704, 16704), (512, 512, None, 512),
])
def test_as_many_open_files_as_may_be(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, set_to: int | None, result: int) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: calls.append(limits))
    assert module._open_files() == result
    assert calls == ([(set_to, hard)] if set_to else [])


@pytest.mark.parametrize(("files", "connections"), [(16704, 16384), (10 ** 6, 16384), (1024, 704), (640, 320), (100, 50)])
def test_refused_peers_and_the_log_have_files_beside_the_connections(files: int, connections: int) -> None:
    assert module._connections(files) == connections
