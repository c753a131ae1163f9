# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and stopping a real service with its real keeper."""

from __future__ import annotations

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

from ansible_collections.coasters.pool.plugins.module_utils import launcher, state, statistics, swift

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


class TestAddresses:
    def test_loopback_alone(self) -> None:
        assert launcher.worker_addresses([]) == ["127.0.0.1"]

    @pytest.mark.parametrize("reach", ["127.0.0.1", "127.0.0.5", "localhost", "127.0.0.0/8", "::1"])
    def test_this_machine(self, reach: str) -> None:
        assert launcher.worker_addresses([reach]) == ["127.0.0.1"]

    @pytest.mark.parametrize("reach", ["no.such.host.invalid", "", "1.2.3/99", "a b", "x" * 300, "é"])
    def test_what_leads_nowhere(self, reach: str) -> None:
        assert launcher.worker_addresses([reach]) == ["127.0.0.1"]

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
