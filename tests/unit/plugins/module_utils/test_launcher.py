# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and stopping a real service with its real keeper."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import launcher, state, statistics, swift, systemd
from ansible_collections.coasters.pool.plugins.module_utils.coaster import sockets
from tests import distribution
from tests.distribution import write_program
from tests.unit.plugins.module_utils.stand_in import USER, Systemd

BUILTIN: dict[str, Any] = {"engine": "builtin", "service_port": 0, "worker_port": 0, "listen": "127.0.0.1"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield tmp_path
    for pool in state.pools():
        launcher.stop(pool)
    assert processes(tmp_path) == []


def wanted(pool: str = "p", **settings: Any) -> launcher.Wanted:
    return launcher.Wanted(pool, **(BUILTIN | settings))


def processes(place: Path) -> list[str]:
    """Command lines that name the place, but for the guards of services that were left by their keepers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(place) in words and "read -r _" not in words and int(folder.name) != os.getpid():
            found.append(words)
    return found


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that this process holds."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held.getsockname()[1]
        held.getsockname()


def test_a_service_is_started_once() -> None:
    first = launcher.start(wanted())
    assert first["changed"]
    assert first["url"] == f"http://127.0.0.1:{first['ports']['service']}"
    assert first["worker_url"] == f"http://127.0.0.1:{first['ports']['worker']}"
    assert statistics.fetch(first["control_url"]).workers == []
    assert launcher.running("p") == {name: value for name, value in first.items() if name != "changed"}
    assert launcher.start(wanted(service_port=4050)) == first | {"changed": False}
    assert all(os.access(os.path.join(first["bin_dir"], name), os.X_OK) for name in ("coaster-service", "cog-job-submit"))


def test_the_folder_is_for_the_user_alone(home: Path) -> None:
    launcher.start(wanted())
    for path in (home / "coasters" / "p", home / "coasters" / "p" / "logs"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_without_waiting() -> None:
    begun = launcher.start(wanted(), wait=False)
    assert begun["changed"] and "url" not in begun
    again = launcher.start(wanted(), wait=False)
    answered = launcher.answer("p", 60)
    assert answered["url"].startswith("http://127.0.0.1:")
    assert again.get("keeper", answered["keeper"]) == answered["keeper"]


def test_started_by_many_at_once(home: Path) -> None:
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; from {launcher.__name__} import Wanted, start;"
        f"print(start(Wanted('p', **{BUILTIN!r}))['keeper'])"
    )

    def one(dummy: int) -> str:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(one, range(4)))) == 1
    assert sum("program.keeper" in words for words in processes(home)) == 1


def test_started_and_stopped_by_many_at_once(home: Path) -> None:
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; from {launcher.__name__} import LaunchError, Wanted, start, stop\n"
        f"for _ in range(4):\n  try: start(Wanted('p', **{BUILTIN!r}), wait=False); stop('p', keep_logs=_ % 2)\n  except LaunchError: pass"
    )
    several = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for dummy in range(4)]
    for process in several:
        assert process.communicate(timeout=120) == (None, "")
        assert process.returncode == 0
    launcher.stop("p")
    assert processes(home) == []
    assert os.listdir(home / "coasters") == []


def test_check_does_nothing(home: Path) -> None:
    assert launcher.start(wanted(), check=True) == {"name": "p", "engine": "builtin", "bin_dir": None, "changed": True}
    assert not launcher.stop("p", check=True)
    assert os.listdir(home) == []
    launcher.start(wanted())
    assert not launcher.start(wanted(), check=True)["changed"]
    assert launcher.stop("p", check=True)
    assert launcher.running("p")


def test_stop_leaves_nothing(home: Path) -> None:
    launcher.start(wanted())
    assert launcher.stop("p")
    assert processes(home) == []
    assert os.listdir(home / "coasters") == []
    assert not launcher.stop("p")
    assert launcher.running("p") is None


def test_stop_with_the_logs_kept(home: Path) -> None:
    launcher.start(wanted())
    assert launcher.stop("p", keep_logs=True)
    assert os.listdir(home / "coasters" / "p") == ["logs"]
    assert "the service answers at" in (home / "coasters" / "p" / "logs" / "keeper.log").read_text()
    assert not launcher.stop("p", keep_logs=True)
    assert launcher.stop("p")


def test_two_pools_side_by_side() -> None:
    first, second = (launcher.start(wanted(pool)) for pool in ("p", "q"))
    assert first["url"] != second["url"]
    launcher.stop("p")
    assert statistics.fetch(second["control_url"]).workers == []


@pytest.mark.parametrize("port", ["service_port", "worker_port"])
def test_a_busy_port_names_its_holder_and_leaves_it_alone(busy: int, port: str) -> None:
    with pytest.raises(launcher.LaunchError) as error:
        launcher.start(wanted(**{port: busy}))
    assert f"port {busy} " in str(error.value)
    assert f"(pid {os.getpid()})" in str(error.value)
    assert launcher.running("p") is None
    socket.create_connection(("127.0.0.1", busy)).close()


@pytest.mark.parametrize(
    ("log", "sentence", "kept"),
    [
        (["Switching log", "Error starting: busy", "\tat java.lang.Error"], "it ended: Error starting: busy", None),
        (["Traceback", "  in f", "ImportError: no f"], "it ended: ImportError: no f", None),
        (["Error: busy"], "it ended: Error: busy", []),
        (["a", "b"], "it ended", None),
        ([], "it ended", None),
    ],
)
def test_the_line_that_says_why(home: Path, log: list[str], sentence: str, kept: list[str] | None) -> None:
    (home / "coasters" / "p").mkdir(parents=True)
    state.write_json(str(home / "coasters" / "p" / "pool.json"), {"error": "it ended", "log": log})
    error = launcher.failure("p")
    assert (str(error), error.log if error else None) == (sentence, log if kept is None else kept)


def test_after_a_failed_start_another_one_succeeds(busy: int) -> None:
    with pytest.raises(launcher.LaunchError):
        launcher.start(wanted(service_port=busy))
    assert launcher.start(wanted())["changed"]


def test_a_killed_keeper_then_start(home: Path) -> None:
    first = launcher.start(wanted())
    os.kill(first["keeper"]["pid"], signal.SIGKILL)
    wait(lambda: launcher.running("p") is None)
    again = launcher.start(wanted())
    assert again["changed"] and again["keeper"] != first["keeper"]


def test_a_killed_keeper_then_stop(home: Path) -> None:
    os.kill(launcher.start(wanted())["keeper"]["pid"], signal.SIGKILL)
    assert launcher.stop("p")
    assert processes(home) == []


def test_stop_in_the_middle_of_a_start(home: Path) -> None:
    launcher.start(wanted(), wait=False)
    assert launcher.stop("p")
    assert processes(home) == []
    with pytest.raises(launcher.LaunchError, match="the coaster service of pool 'p' is not running: start it first"):
        launcher.answer("p", 60)


def test_a_service_that_is_killed_comes_back() -> None:
    first = launcher.start(wanted())
    os.kill(first["service"]["pid"], signal.SIGKILL)
    wait(lambda: (launcher.running("p") or {}).get("restarts") == 1)
    assert (launcher.running("p") or {})["url"] == first["url"]
    statistics.fetch(first["control_url"])


def test_a_keeper_that_hangs_is_ended_by_force(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "STOP_LIMIT", 0.1)
    os.kill(launcher.start(wanted())["keeper"]["pid"], signal.SIGSTOP)
    assert launcher.stop("p")
    assert processes(home) == []


def test_a_service_that_hangs_without_its_keeper_is_ended_by_force(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "GUARD_LIMIT", 0.0)
    known = launcher.start(wanted())
    os.kill(known["service"]["pid"], signal.SIGSTOP)
    os.kill(known["keeper"]["pid"], signal.SIGKILL)
    wait(lambda: not state.alive(known["keeper"]))
    assert launcher.stop("p")
    wait(lambda: not state.group_alive(known["service"]["pid"]))


def test_a_group_of_processes_that_only_has_the_services_number_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "GUARD_LIMIT", 0.0)
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as other:
        state.make_folder(state.folder("p"))
        state.write_json(os.path.join(state.folder("p"), "pool.json"), {"service": {"pid": other.pid, "started": "1"}})
        assert launcher.stop("p")
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("missing", ["lock", "folder"])
def test_a_folder_that_a_stop_removes_meanwhile(home: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Between the opening of the lock and the wait for it, or before: a new folder with a new lock is taken."""
    flock, waits = launcher.fcntl.flock, []

    def removed(lock: int, operation: int) -> None:
        flock(lock, operation)
        waits.append(lock)
        if len(waits) == 1:
            os.unlink(os.path.join(state.folder("p"), "lock"))
            if missing == "lock":
                (home / "coasters" / "p" / "lock").touch()

    monkeypatch.setattr(launcher.fcntl, "flock", removed)
    with launcher._locked(state.folder("p")):
        assert len(waits) == 2
    launcher.stop("p")


def test_a_process_that_does_not_end_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "STOP_LIMIT", 0.0)
    nobody = 2 ** 22 + 1
    state.make_folder(state.folder("p"))
    state.write_json(os.path.join(state.folder("p"), "keeper.pid"), {"pid": nobody, "started": "1"})
    with monkeypatch.context() as patch:
        patch.setattr(state, "alive", lambda process: True)
        with pytest.raises(launcher.LaunchError, match=f"process {nobody} does not end: end it by hand"):
            launcher.stop("p")


def test_a_keeper_under_systemd(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Systemd(home / "systemd", home / ".config" / "systemd" / "user", monkeypatch)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(systemd, "LINGER", str(manager.place / "linger"))
    monkeypatch.setattr(os, "getuid", lambda: USER.pw_uid)
    manager.answers("offline")
    with pytest.raises(launcher.LaunchError, match="systemd does not answer on this machine"):
        launcher.start(wanted(supervisor="systemd"))
    manager.answers("running")
    started = launcher.start(wanted(supervisor="systemd"))
    assert started["keeper"]["pid"] == int((manager.place / "pid").read_text())
    unit = home / ".config" / "systemd" / "user" / "coaster-service-p.service"
    assert f'Environment="XDG_STATE_HOME={home}"' in unit.read_text().splitlines()
    assert not launcher.start(wanted())["changed"]
    assert launcher.stop("p")
    assert not unit.exists()


def test_an_owner_takes_its_pool_along(home: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as owner:
        launcher.start(wanted(owner=owner.pid))
        owner.kill()
    wait(lambda: launcher.running("p") is None and not processes(home))


def test_a_name_that_is_no_folder() -> None:
    for call in (launcher.running, launcher.stop, lambda name: launcher.start(wanted(name))):
        with pytest.raises(state.StateError):
            call("../up")


class TestEngine:
    def furnish(self, place: Path, first_line: str) -> Path:
        for name in swift.PROGRAMS:
            (place / name).write_text(f"{first_line}\n")
            (place / name).chmod(0o755)
        return place

    def test_swift_in_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(self.furnish(tmp_path, "#!/usr/bin/perl")))
        found = launcher.Wanted("p")
        assert (found.engine, found.bin_dir) == ("swift", str(tmp_path))

    def test_our_own_programs_in_path_are_not_swift(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(self.furnish(tmp_path, "#!/usr/bin/python3")))
        assert launcher.Wanted("p").engine == "builtin"

    def test_nothing_in_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert launcher.Wanted("p").engine == "builtin"

    def test_a_bin_dir(self) -> None:
        assert launcher.Wanted("p", bin_dir="/opt/swift/bin").engine == "swift"
        assert launcher.Wanted("p", engine="builtin").engine == "builtin"

    def test_a_bin_dir_without_its_programs(self, tmp_path: Path) -> None:
        with pytest.raises(launcher.LaunchError, match="has no coaster-service: name the bin directory"):
            launcher.start(launcher.Wanted("p", bin_dir=str(tmp_path)))
        with pytest.raises(launcher.LaunchError, match="needs the bin directory"):
            launcher.start(launcher.Wanted("p", engine="swift"))
        assert state.pools() == []


class TestSwift:
    """The whole way of a Swift/K service, from a launcher whose Java refuses its option."""

    @pytest.fixture(autouse=True)
    def kit(self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> distribution.Distribution:
        made = distribution.made(tmp_path / "swift")
        monkeypatch.setenv("PATH", made.env(dict(os.environ))["PATH"])
        return made

    def wanted(self, bin_dir: Path, **settings: object) -> launcher.Wanted:
        return launcher.Wanted("p", bin_dir=str(bin_dir), service_port=0, worker_port=0, listen="127.0.0.1", **settings)  # type: ignore[arg-type]

    def test_the_launcher_alone_does_not_start(self, kit: distribution.Distribution) -> None:
        done = subprocess.run([kit.bin_dir / "coaster-service", "-nosec"], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stdout.endswith("Error: Could not create the Java Virtual Machine.\n")

    def test_it_starts_and_nothing_is_left(self, kit: distribution.Distribution) -> None:
        known = launcher.start(self.wanted(kit.bin_dir))
        try:
            assert known["engine"] == "swift"
            assert known["url"].startswith("http://127.0.0.1:")
            assert statistics.fetch(known["control_url"]).workers == []
            group = known["service"]["pid"]
            assert state.group_alive(group)
        finally:
            launcher.stop("p")
        assert not state.group_alive(group)
        assert not os.path.exists(state.folder("p"))

    def test_one_that_dies(self, kit: distribution.Distribution) -> None:
        write_program(kit.path[0] / "java", '#!/bin/sh\n[ "$1" != -version ] || exec echo \'java version "17"\'\necho one\necho "Error: two"\nexit 9\n')
        with pytest.raises(launcher.LaunchError) as error:
            launcher.start(self.wanted(kit.bin_dir))
        launcher.stop("p")
        assert str(error.value) == "the coaster service ended with status 9: Error: two"
        assert error.value.log == ["one", "Error: two"]

    def test_one_that_says_nothing(self, kit: distribution.Distribution, tmp_path: Path) -> None:
        write_program(
            kit.path[0] / "java",
            f'#!/bin/sh\n[ "$1" != -version ] || exec echo \'java version "17"\'\necho $$ >{tmp_path}/pid\necho waiting\nexec sleep 1000\n',
        )
        with pytest.raises(launcher.LaunchError) as error:
            launcher.start(self.wanted(kit.bin_dir, limit=1.0))
        launcher.stop("p")
        assert "did not answer within 1 s" in str(error.value)
        with contextlib.suppress(FileNotFoundError):  # a busy machine may not have come so far
            assert state.start_time(int((tmp_path / "pid").read_text())) is None

    def test_a_killed_keeper_then_start_on_the_same_ports(self, kit: distribution.Distribution) -> None:
        first = launcher.start(self.wanted(kit.bin_dir))
        os.kill(first["keeper"]["pid"], signal.SIGKILL)
        wait(lambda: launcher.running("p") is None)
        ports = {f"{name}_port": port for name, port in first["ports"].items() if name != "control"}
        again = launcher.start(launcher.Wanted("p", bin_dir=str(kit.bin_dir), listen="127.0.0.1", **ports))
        assert (again["url"], again["worker_url"]) == (first["url"], first["worker_url"])

    def test_a_busy_port(self, kit: distribution.Distribution, busy: int) -> None:
        with pytest.raises(launcher.LaunchError, match=f"port {busy} is taken by "):
            launcher.start(launcher.Wanted("p", bin_dir=str(kit.bin_dir), service_port=0, worker_port=busy, listen="127.0.0.1"))

    def test_an_answer_that_is_not_waited_for(self, kit: distribution.Distribution) -> None:
        write_program(kit.path[0] / "java", '#!/bin/sh\n[ "$1" != -version ] || exec echo \'java version "17"\'\nexec sleep 1000\n')
        launcher.start(self.wanted(kit.bin_dir), wait=False)
        with pytest.raises(launcher.LaunchError, match="the coaster service of pool 'p' did not answer within 0 s"):
            launcher.answer("p", 0)

    def test_no_java(self, kit: distribution.Distribution, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("JAVA_HOME", raising=False)
        for check in (True, False):
            with pytest.raises(launcher.LaunchError, match="there is no Java on this machine"):
                launcher.start(self.wanted(kit.bin_dir), check=check)
        assert state.pools() == []

    def test_a_check_tells_the_directory_of_the_worker(self, kit: distribution.Distribution) -> None:
        assert launcher.start(self.wanted(kit.bin_dir), check=True) == {
            "name": "p", "engine": "swift", "bin_dir": str(kit.bin_dir), "changed": True,
        }
        assert state.pools() == []

    def test_the_announced_address(self, kit: distribution.Distribution, monkeypatch: pytest.MonkeyPatch) -> None:
        def announced(**settings: object) -> str:
            return launcher.announced_address(self.wanted(kit.bin_dir, **settings))

        assert announced() == "127.0.0.1"
        assert announced(address="192.0.2.7") == "192.0.2.7"
        assert announced(address="no.such.host.invalid") == "no.such.host.invalid"
        for useless in ("127.0.1.1", "0.0.0.0"):
            assert announced(address=useless) not in ("127.0.1.1", "0.0.0.0")
        monkeypatch.setattr(launcher, "worker_addresses", lambda reach: ["127.0.0.1", "10.64.0.1"] if reach else ["127.0.0.1"])
        assert announced(reach=["10.64.0.2"]) == "10.64.0.1"
        assert announced(reach=["10.64.0.2"], address="192.0.2.7") == "192.0.2.7"


class TestAddresses:
    def test_loopback_alone(self) -> None:
        assert launcher.worker_addresses([]) == ["127.0.0.1"]

    @pytest.mark.parametrize("reach", ["127.0.0.1", "127.0.0.5", "localhost", "127.0.0.0/8", "::1"])
    def test_this_machine(self, reach: str) -> None:
        assert launcher.worker_addresses([reach]) == ["127.0.0.1"]

    @pytest.mark.parametrize("reach", ["no.such.host.invalid", "", "1.2.3/99", "a b", "x" * 300, "é"])
    def test_what_leads_nowhere(self, reach: str) -> None:
        assert launcher.worker_addresses([reach]) == ["127.0.0.1"]

    def test_the_address_that_leads_to_a_host(self) -> None:
        mine = sockets.outward_address()
        assert launcher.worker_addresses([mine or "127.0.0.1"] * 2) == (["127.0.0.1", mine] if mine else ["127.0.0.1"])

    def test_a_service_that_is_not_told_where_to_listen(self) -> None:
        assert launcher.start(wanted(listen=None))["url"].startswith("http://")

    def test_announced(self) -> None:
        assert launcher.announced_address(wanted(listen="127.0.0.1")) == "127.0.0.1"
        assert launcher.announced_address(wanted(address="10.1.2.3")) == "10.1.2.3"
        assert launcher.announced_address(wanted(listen="0.0.0.0")) not in ("0.0.0.0", "127.0.1.1")


def wait(condition: Callable[[], object]) -> None:
    import time

    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def test_clients_over_loopback_are_this_user_and_those_that_are_named() -> None:
    launcher.start(wanted())
    launcher.start(wanted("q", users=["nobody"]))
    for pool, users in (("p", str(os.getuid())), ("q", f"{os.getuid()},{pwd.getpwnam('nobody').pw_uid}")):
        settings = state.read_json(os.path.join(state.folder(pool), "keeper.json"))
        assert settings is not None
        assert settings["command"][settings["command"].index("-users") + 1] == users
    for name in ("no-such-user", "a\0b", "\udcff"):
        with pytest.raises(launcher.LaunchError, match="there is no user"):
            launcher.start(wanted("r", users=[name]))
    assert not os.path.exists(state.folder("r"))


class TestPorts:
    def test_free(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        launcher.check_ports({"service": port, "worker": 0})

    @pytest.mark.parametrize("address", ["127.0.0.1", ""])
    def test_taken(self, address: str) -> None:
        with socket.create_server((address, 0)) as held, pytest.raises(launcher.LaunchError) as error:
            launcher.check_ports({"service": 0, "worker": held.getsockname()[1]})
        assert f"is taken by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})" in str(error.value)
        assert "end that process or choose another port" in str(error.value)

    def test_the_same_twice(self) -> None:
        with pytest.raises(launcher.LaunchError, match="port 4050 is given twice: choose another port for clients or for workers"):
            launcher.check_ports({"service": 4050, "worker": 4050, "control": 0})

    @pytest.mark.parametrize("port", [-1, 65536])
    def test_none(self, port: int) -> None:
        with pytest.raises(launcher.LaunchError, match=f"port {port} cannot be used .*: choose another port"):
            launcher.check_ports({"service": port})

    def test_at_another_address(self, busy: int) -> None:
        launcher.check_ports({"service": busy}, "127.0.0.2")

    def test_a_check_says_it(self, busy: int) -> None:
        with pytest.raises(launcher.LaunchError, match=f"port {busy} is taken by "):
            launcher.start(wanted(worker_port=busy), check=True)

    def test_of_somebody_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(f"{launcher.__name__}.sockets.holder", lambda port: None)
        with socket.create_server(("127.0.0.1", 0)) as held, pytest.raises(launcher.LaunchError, match="is taken by another process: "):
            launcher.check_ports({"service": held.getsockname()[1]})
