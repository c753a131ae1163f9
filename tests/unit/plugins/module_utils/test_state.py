# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of a pool on the client."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import state


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_where_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state.folder("default") == str(home / ".local" / "state" / "coasters" / "default")
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert state.folder("default") == "/elsewhere/coasters/default"


@pytest.mark.parametrize("name", ["default", "a", "9", "My_pool-2.1", "x" * 63])
def test_a_name(name: str) -> None:
    assert state.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "/etc", "-x", ".hidden", "_x", "x" * 64, "a b", "a\n", "pöol", "a\0", "$(id)"])
def test_no_name(name: str) -> None:
    with pytest.raises(state.StateError) as error:
        state.folder(name)
    assert repr(name) in str(error.value)


def test_a_folder_is_for_its_user_alone(home: Path) -> None:
    path = home / "a" / "b"
    state.make_folder(str(path))
    state.make_folder(str(path))
    assert mode(path) == 0o700
    path.chmod(0o755)
    state.make_folder(str(path))
    assert mode(path) == 0o700


def test_a_folder_that_cannot_be_made(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(state.StateError, match=r"file/pool cannot be made \(Not a directory\): free it or set XDG_STATE_HOME"):
        state.make_folder(str(home / "file" / "pool"))


def test_a_file_is_replaced_in_one_step(home: Path) -> None:
    path = home / "file"
    state.write(str(path), b"old")
    with path.open("rb") as reader:
        state.write(str(path), b"new", mode=0o640)
        assert reader.read() == b"old"
    assert (path.read_bytes(), mode(path)) == (b"new", 0o640)
    state.write(str(path), b"newer")
    assert mode(path) == 0o600
    assert os.listdir(home) == ["file"]


def test_a_write_that_fails_leaves_nothing(home: Path) -> None:
    (home / "folder").mkdir()
    with pytest.raises(OSError):
        state.write(str(home / "folder"), b"data")
    assert os.listdir(home) == ["folder"]


def test_json(home: Path) -> None:
    path = str(home / "value.json")
    assert state.read_json(path) is None
    state.write_json(path, {"b": [1, "ü"], "a": None})
    assert state.read_json(path) == {"a": None, "b": [1, "ü"]}
    assert Path(path).read_text().startswith('{\n "a": null')


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"7", b"\xff\xfe{}", b'{"a":1}x'])
def test_json_of_something_else(home: Path, text: bytes) -> None:
    (home / "x").write_bytes(text)
    assert state.read_json(str(home / "x")) is None


class TestBlockIds:
    def test_a_host_keeps_its_id(self) -> None:
        first = state.block_ids("p", ["a", "b"])
        again = state.block_ids("p", ["c", "b"])
        assert again["b"] == first["b"]
        assert state.block_ids("p", ["a", "b", "c"]) == {**first, **again}
        assert len({*first.values(), *again.values()}) == 3

    def test_an_id_is_128_random_bits(self) -> None:
        for block in state.block_ids("p", ["a", "b"]).values():
            assert len(bytes.fromhex(block)) == 16

    def test_they_are_secret(self) -> None:
        state.block_ids("p", ["a"])
        folder = Path(state.folder("p"))
        assert (mode(folder), mode(folder / "workers")) == (0o700, 0o600)

    def test_the_file_is_what_the_service_reads(self) -> None:
        known = state.block_ids("p", ["a", "b"])
        path = os.path.join(state.folder("p"), "workers")
        assert Path(path).read_text() == f"{known['a']} a\n{known['b']} b\n"
        assert state.read_workers(path) == known
        before = os.stat(path).st_mtime_ns
        state.block_ids("p", ["b"])
        assert os.stat(path).st_mtime_ns == before

    def test_pools_have_their_own(self) -> None:
        assert state.block_ids("p", ["a"]) != state.block_ids("q", ["a"])
        assert state.pools() == ["p", "q"]

    def test_all_hosts_at_once(self) -> None:
        hosts = [f"h{number}" for number in range(40)]
        program = f"import sys; sys.path[:0] = {sys.path!r}; from {state.__name__} import block_ids; print(block_ids('p', [sys.argv[1]]))"

        def one(host: str) -> str:
            return subprocess.run([sys.executable, "-ISc", program, host], capture_output=True, text=True, check=True).stdout

        with ThreadPoolExecutor(8) as threads:
            shown = list(threads.map(one, hosts))
        assert shown == [f"{state.block_ids('p', [host])}\n" for host in hosts]
        assert len(state.read_workers(os.path.join(state.folder("p"), "workers"))) == len(hosts)

    def test_lines_that_name_no_host_are_passed_over(self, home: Path) -> None:
        (home / "workers").write_text("\nonly-an-id\nid  name of a host \n")
        assert state.read_workers(str(home / "workers")) == {"name of a host": "id"}


def test_no_pools() -> None:
    assert state.pools() == []


class TestProcesses:
    def test_this_one(self) -> None:
        assert state.alive(state.this_process())

    def test_one_that_ends(self) -> None:
        with subprocess.Popen(["sleep", "60"]) as process:
            known = {"pid": process.pid, "started": state.start_time(process.pid)}
            assert state.alive(known)
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert not state.alive(known), "a zombie does not run"
        assert not state.alive(known)
        assert state.start_time(process.pid) is None

    def test_a_later_process_with_the_same_id(self) -> None:
        assert not state.alive({"pid": os.getpid(), "started": "1"})

    def test_a_group(self) -> None:
        with subprocess.Popen(["sh", "-c", "sleep 60 & kill -9 $$"], start_new_session=True) as leader:
            leader.wait(60)
            assert state.group_alive(leader.pid)
            os.killpg(leader.pid, 9)
            until = time.monotonic() + 60
            while state.group_alive(leader.pid):
                assert time.monotonic() < until

    def test_a_group_of_zombies(self) -> None:
        with subprocess.Popen(["true"], start_new_session=True) as leader:
            os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
            assert not state.group_alive(leader.pid)

    @pytest.mark.parametrize("value", [None, 7, {}, {"pid": "1"}, {"pid": None}, {"started": "1"}])
    def test_what_is_no_process(self, value: object) -> None:
        assert not state.alive(value)

    def test_a_name_with_blanks_and_brackets(self, home: Path) -> None:
        program = home / "a) Z (b"
        program.symlink_to("/bin/sleep")
        with subprocess.Popen([program, "60"]) as process:
            assert (state.start_time(process.pid) or "").isdigit()
            process.kill()


def test_private_folders(home: Path) -> None:
    with state.private_folder() as one, state.private_folder() as two:
        assert one != two
        assert [stat.S_IMODE(os.stat(path).st_mode) for path in (one, os.path.dirname(one))] == [0o700] * 2
        state.sweep()
        assert os.path.isdir(one) and os.path.isdir(two)
        assert state.pools() == []
    assert os.listdir(state.root()) == []


def test_private_folders_of_killed_processes_are_swept(home: Path) -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        base = Path(state.root(), state.RUNS)
        base.mkdir(parents=True)
        (base / f"{process.pid}.{state.start_time(process.pid)}.x").mkdir()
        (base / "nonsense").mkdir()
        state.sweep()
        assert len(list(base.iterdir())) == 1
        process.kill()
    state.sweep()
    assert not base.exists()


def test_block_ids_of_a_client_elsewhere(home: Path) -> None:
    state.take_over_blocks("p", "a banner\n\nid1 host 1\nid2 host2\n")
    assert state.block_ids("p", ["host 1", "host2"]) == {"host 1": "id1", "host2": "id2"}
    path = Path(state.folder("p"), "workers")
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)


def test_hosts_that_leave_a_pool(home: Path) -> None:
    known = state.block_ids("p", ["a", "b", "c"])
    state.forget_blocks("p", ["b", "nobody"])
    assert state.read_workers(f"{state.folder('p')}/workers") == {"a": known["a"], "c": known["c"]}


def vanishing(monkeypatch: pytest.MonkeyPatch, path: str, times: int) -> "list[str]":
    """Let the folder vanish after it was made, as when somebody else removes it since it is empty; what was made so far."""
    make, made = os.makedirs, []

    def make_and_lose(folder: str, *words: object, **more: object) -> None:
        make(folder, *words, **more)
        if folder == path:
            made.append(folder)
            if len(made) <= times:
                os.rmdir(folder)

    monkeypatch.setattr(os, "makedirs", make_and_lose)
    return made


def test_a_folder_that_is_just_removed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = vanishing(monkeypatch, state.folder("p"), 2)
    state.make_folder(state.folder("p"))
    assert os.path.isdir(state.folder("p"))
    assert len(made) == 3


def test_a_private_folder_whose_base_is_just_removed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = vanishing(monkeypatch, os.path.join(state.root(), state.RUNS), 2)
    with state.private_folder() as folder:
        assert os.path.isdir(folder)
    assert len(made) == 3


def test_a_folder_that_is_removed_each_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = vanishing(monkeypatch, os.path.join(state.root(), state.RUNS), state.TRIES + 1)
    with pytest.raises(state.StateError, match="/.runs cannot be made .No such file or directory."):
        state.private_folder().__enter__()
    assert len(made) == state.TRIES


class TestWhatIsGone:
    @pytest.fixture
    def no_proc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*words: object) -> None:
            raise FileNotFoundError

        monkeypatch.setattr(state, "open", refuse, raising=False)
        monkeypatch.setattr(os, "listdir", refuse)
        monkeypatch.setattr(os.path, "exists", lambda path: False)

    @pytest.fixture
    def gone(self) -> int:
        process = subprocess.Popen(["true"], start_new_session=True)
        process.wait()
        return process.pid

    def test_a_group_whose_processes_end_while_they_are_looked_at(self, monkeypatch: pytest.MonkeyPatch, gone: int) -> None:
        monkeypatch.setattr(os, "listdir", lambda path: [str(gone)])
        assert not state.group_alive(gone)

    def test_where_there_is_no_proc(self, no_proc: None, gone: int) -> None:
        assert (state.start_time(os.getpid()), state.start_time(gone)) == ("", None)
        assert state.group_alive(os.getpgrp()) and not state.group_alive(gone)

    def test_a_process_of_another_user_lives_where_there_is_no_proc(self, no_proc: None, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbidden(pid: int, number: int) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "kill", forbidden)
        monkeypatch.setattr(os, "killpg", forbidden)
        assert state.start_time(1) == "" and state.group_alive(1)
