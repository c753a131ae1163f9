# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units and what systemctl is told, by a stand-in; the real one runs in tests/integration/test_systemd.py."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import systemd
from tests.distribution import write_program
from tests.unit.plugins.module_utils.stand_in import USER, Systemd

RUNTIME = f"/run/user/{USER.pw_uid}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def manager(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    manager = Systemd(home / "systemd", home / ".config" / "systemd" / "user", monkeypatch)
    monkeypatch.setattr(systemd, "LINGER", str(manager.place / "linger"))
    yield manager
    with contextlib.suppress(FileNotFoundError):
        os.kill(int((manager.place / "pid").read_text()), signal.SIGKILL)


def unit() -> systemd.Unit:
    return systemd.Unit("one", USER.pw_uid)


def start(folder: Path, *words: str) -> int:
    return unit().start("100% one", list(words), {"PATH": 'a"b$c'}, str(folder), f"{folder}/log")


def test_where_units_are(home: Path) -> None:
    assert unit().path == f"{home}/.config/systemd/user/one.service"
    assert systemd.Unit("one", 0).path == "/etc/systemd/system/one.service"


def test_a_unit_is_written_and_started(home: Path, manager: Systemd) -> None:
    pid = start(home, "/bin/sh", "-c", 'echo "$0" > said; exec sleep 1000', "50% \\ $HOME")
    assert Path(f"/proc/{pid}").exists()
    lines = Path(unit().path).read_text().splitlines()
    assert "Description=100%% one" in lines
    assert 'ExecStart="/bin/sh" "-c" "echo \\"$$0\\" > said; exec sleep 1000" "50%% \\\\ $$HOME"' in lines
    assert 'Environment="PATH=a\\"b$c"' in lines
    assert f"StandardOutput=append:{home}/log" in lines
    assert "WantedBy=default.target" in lines
    assert manager.said() == [f"{RUNTIME} --user {words}" for words in (
        "daemon-reload", "enable --quiet --now one.service", "show --property=MainPID --value one.service")]

    unit().remove()
    assert not os.path.exists(unit().path)
    assert [line.split("--user ")[1] for line in manager.said()[-2:]] == ["disable --quiet --now one.service", "daemon-reload"]
    unit().remove()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not on this machine")
@pytest.mark.parametrize("uid", [0, USER.pw_uid])
def test_systemd_finds_no_fault_with_the_unit(home: Path, manager: Systemd, uid: int) -> None:
    made = systemd.Unit("one", uid)
    made.folder = str(home / ".config" / "systemd" / "user")
    made.start("100% one", ["/bin/sh", "-c", "exec sleep 1000", "50% \\ $HOME"], {"PATH": "/bin", "SSH_AUTH_SOCK": "/a b"}, str(home), f"{home}/log")
    words = ["systemd-analyze", "verify", "--man=no", *(["--user"] if uid else ["--system"]), made.path]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"XDG_RUNTIME_DIR": str(home)}, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "one.service" in line]) == (0, [])
    assert ("multi-user.target" in Path(made.path).read_text()) == (not uid)


def test_a_unit_that_does_not_start_is_forgotten(home: Path, manager: Systemd) -> None:
    (manager.place / "broken").write_text("Unit one.service has a bad setting.\n")
    with pytest.raises(systemd.SystemdError, match="^systemd does not start one.service: Unit one.service has a bad setting.$"):
        start(home, "/bin/true")
    assert not os.path.exists(unit().path)


def test_a_unit_that_cannot_be_written(home: Path, manager: Systemd) -> None:
    (home / ".config").touch()
    with pytest.raises(systemd.SystemdError, match=r"^the unit .*/one\.service cannot be written: Not a directory$"):
        start(home, "/bin/true")


@pytest.mark.parametrize("state", systemd.ANSWERS)
def test_a_systemd_that_answers(manager: Systemd, state: str) -> None:
    manager.answers(state)
    unit().check()


@pytest.mark.parametrize("state", ["offline", "stopping", "Failed to connect to bus: No medium found", ""])
def test_a_systemd_that_does_not_answer(manager: Systemd, state: str) -> None:
    manager.answers(state)
    with pytest.raises(systemd.SystemdError, match="^systemd does not answer on this machine: set coaster_service_supervisor to detached, or mend it$"):
        unit().check()


def test_no_systemd_at_all(manager: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(manager.place / "linger"))
    with pytest.raises(systemd.SystemdError, match="systemd does not answer on this machine"):
        unit().check()


@pytest.mark.parametrize("status", [0, 1])
def test_lingering_is_asked_for_where_it_is_not_on(manager: Systemd, status: int) -> None:
    (manager.place / "linger" / USER.pw_name).unlink()
    write_program(manager.place / "bin" / "loginctl", f"#!/bin/sh\n[ $* = enable-linger ]; exit {status}\n")
    sentence = f"let root run 'loginctl enable-linger {USER.pw_name}' on this machine"
    with pytest.raises(systemd.SystemdError, match=sentence) if status else contextlib.nullcontext():
        unit().check()


def test_root_needs_no_lingering(manager: Systemd) -> None:
    (manager.place / "linger" / USER.pw_name).unlink()
    systemd.Unit("one", 0).check()
    assert manager.said() == ["/run/user/0 is-system-running"]
