# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool of the wrapper, on this machine: real playbooks, keepers, services and workers."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.coasters.pool.plugins.module_utils import launcher, state
from coaster_pool import command_line, members, wanted
from coaster_pool.end import Ending
from coaster_pool.failure import NO_SERVICE, NO_WORKERS, USAGE, Failure
from coaster_pool.playbook import Outcome
from coaster_pool.pool import READY_LIMIT, WORKER, Pool, _reason
from coaster_pool.progress import Progress

REFUSES = "nobody@127.0.0.1:1"
"""Nothing listens there."""
LIMIT = 60.0


class Terminal:
    """What start_pool.py has for its pool: ``said`` is all that was shown so far."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        self.stream = io.StringIO()

    @property
    def said(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def pool(self, *words: str) -> Pool:
        options = command_line.parse(["--port", "0", "--worker-port", "0", "--connect-limit", "2", *words])
        return Pool(options, Progress(self.stream), self.ending)

    def start(self, *words: str) -> Pool:
        """As the command line does."""
        pool = self.pool(*words)
        pool.start(wanted.members(pool.options))
        return pool


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A user with nothing yet; afterwards nothing is left of a pool."""
    for name in ("HOME", "XDG_STATE_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    with Ending() as ending:
        terminal = Terminal(ending)
        yield terminal
        with terminal.pool("--stop") as pool:
            pool.stop()
    assert list((tmp_path / "XDG_STATE_HOME").rglob("*")) in ([], [tmp_path / "XDG_STATE_HOME" / "coasters"])
    assert list((tmp_path / "HOME").glob(".coasters*")) == []


def wait(condition: Any) -> None:
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def children(name: str) -> list[int]:
    """Children of this process whose command line has the name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and name in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return found


def failed(kind: int, sentence: str, action: Any) -> None:
    with pytest.raises(Failure, match=sentence) as failure:
        action()
    assert failure.value.status == kind


class TestLife:
    def test_from_the_start_to_the_end(self, terminal: Terminal) -> None:
        first = terminal.start("localhost*2")
        assert first.url.startswith("http://127.0.0.1:")
        assert terminal.said == ["localhost: worker started, 2 slots"]
        known = first.status() or {}
        assert ([worker["name"] for worker in known["workers"]], known["members"]) == (["localhost"], ["localhost"])
        self.again(terminal, first.url)
        self.other_wishes(terminal)
        self.a_worker_that_says_nothing(terminal)
        self.logs_and_checks(terminal)
        self.a_host_that_leaves(terminal, first.url)
        assert first.check()
        with first:
            terminal.pool("--stop").stop()
            first.watch()
        assert terminal.said[-2:] == ["stopping the pool", "the pool was stopped"]
        assert first.status() is None

    def again(self, terminal: Terminal, url: str) -> None:
        with terminal.start("localhost") as again:
            assert again.url == url
        assert terminal.said[-2:] == [
            "pool 'default' runs already with a worker on every host: nothing to do", "the pool stays with whoever started it",
        ]

    def other_wishes(self, terminal: Terminal) -> None:
        """Another number of slots, version or engine: said, and done only when asked."""
        pool = terminal.pool("--min-workers", "2", "localhost")
        failed(NO_WORKERS, "only 1 of the 2 workers that are needed", lambda: pool.start(wanted.members(pool.options)))
        terminal.start("localhost*3")
        assert "localhost: runs with 2 slots, not 3; --restart ends its jobs and changes it" in terminal.said
        pool = terminal.start("--restart", "localhost*1")
        assert "localhost: worker started, 1 slot" in terminal.said
        assert [worker["slots"] for worker in pool.info["workers"]] == [1]
        source = Path(pool.info["bin_dir"], "coaster", "frames.py")
        content = source.read_bytes()
        source.write_bytes(content + b"#\n")
        terminal.start("localhost")
        source.write_bytes(content)
        said = "the pool runs another version of the engine: --restart renews its workers, a stop and a new start all of it"
        assert terminal.said.count(said) == 1
        pool = terminal.pool("localhost")
        pool.options.swift_bin_dir = "/swift/bin"
        pool.start({})
        assert "the pool runs the builtin engine: stop it, then start it with the other" in terminal.said

    def a_worker_that_says_nothing(self, terminal: Terminal) -> None:
        """Its host is not taken for one that has its worker."""
        home = Path(os.environ["HOME"], ".coasters", "default")
        pid = int((home / "worker.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            terminal.start("localhost")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert terminal.said[-2] == "localhost: has its worker, 1 slot"

    def logs_and_checks(self, terminal: Terminal) -> None:
        terminal.pool("--check", "localhost").check_start({"localhost": {}})
        assert terminal.said[-1] == "localhost: has its worker"
        more = wanted.members(command_line.parse(["localhost*5"]))
        terminal.pool("--check", "localhost").check_start(more)
        assert terminal.said[-2:] == ["localhost: runs with 1 slot, not 5; --restart ends its jobs and changes it", "localhost: has its worker"]
        terminal.pool("--check", "--restart", "localhost").check_start(more)
        assert terminal.said[-1] == "localhost: would end its worker and start one with 5 slots"
        pool = terminal.pool("--logs", "localhost")
        pool.logs({"localhost": {}})
        failed(USAGE, "node01 is no host of pool 'default': it has localhost", lambda: pool.logs({"node01": {}}))

    def a_host_that_leaves(self, terminal: Terminal, url: str) -> None:
        """The first time its job goes on until it is told to end, the second time it has none."""
        pool = terminal.pool("--remove", "localhost")
        known = pool.status() or {}
        job = subprocess.Popen([os.path.join(known["bin_dir"], "cog-job-submit"), "-s", url, "/bin/sleep", "1000"], stderr=subprocess.DEVNULL)
        wait(lambda: (pool.status() or {})["jobs"]["active"] == 1)
        pool.remove({"localhost": {}}, 0.3)
        assert job.wait(LIMIT) != 0
        assert terminal.said[-1] == "jobs still run there after 0.3 s: ending them"
        failed(USAGE, "localhost is no host of pool 'default': it has none", lambda: pool.remove({"localhost": {}}))
        terminal.start("localhost")
        count = len(terminal.said)
        pool.remove({"localhost": {}})
        assert terminal.said[count:] == []


class TestHosts:
    def test_one_of_two(self, terminal: Terminal) -> None:
        with terminal.start("--detach", "localhost", REFUSES) as pool:
            reason = "nothing listens at its ssh port: check the port and that sshd runs there"
            assert pool.failed == {"127.0.0.1+1": reason}
            assert f"127.0.0.1+1: failed: {reason}" in terminal.said
        assert pool.status() is not None
        pool = terminal.pool("--require-all", "localhost", REFUSES)
        failed(NO_WORKERS, "only 1 of the 2 workers that are needed could be started", lambda: pool.start(wanted.members(pool.options)))
        assert members.load("default")["localhost"]["ansible_connection"] == "local"
        pool = terminal.pool("--logs", "localhost")
        pool.logs({"localhost": {}, "127.0.0.1+1": {}})
        assert "localhost: its log is empty" in terminal.said
        pool.check_start(wanted.members(command_line.parse([REFUSES])))
        assert terminal.said.count(f"127.0.0.1+1: failed: {reason}") == 4
        pool.stop(keep_logs=True)
        assert f"127.0.0.1+1: not stopped: {reason}" not in terminal.said  # that it cannot be reached was said
        logs = Path(os.environ["HOME"], ".coasters", "default")
        assert [path.name for path in logs.iterdir()] == ["logs"]
        shutil.rmtree(logs.parent)

    def test_all_of_them_are_needed(self, terminal: Terminal) -> None:
        with terminal.pool("--require-all", "localhost", REFUSES) as pool:
            failed(NO_WORKERS, "only 1 of the 2 workers that are needed could be started", lambda: pool.start(wanted.members(pool.options)))
        assert pool.status() is None

    def test_none(self, terminal: Terminal) -> None:
        with terminal.pool(REFUSES) as pool:
            failed(NO_WORKERS, "no worker could be started", lambda: pool.start(wanted.members(pool.options)))

    def test_check_where_there_is_nothing(self, terminal: Terminal) -> None:
        terminal.pool("--check", "localhost*3").check_start(wanted.members(command_line.parse(["localhost*3"])))
        assert terminal.said == ["would start a coaster service (builtin engine) at port 0", "localhost: would start a worker with 3 slots"]

    def test_check_where_it_cannot_be(self, terminal: Terminal) -> None:
        with socket.create_server(("127.0.0.1", 0)) as holder:
            pool = terminal.pool("--check", f"--port={holder.getsockname()[1]}", "localhost")
            failed(NO_SERVICE, "port .* is taken by .*: end that process or choose another port", lambda: pool.check_start(wanted.members(pool.options)))

    def test_a_host_of_an_inventory_by_its_name_alone(self, terminal: Terminal) -> None:
        """What is known of a host that has its worker stays known when less is said of it."""
        bee = {"bee": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "swift_worker_slots": 2}}
        pool = terminal.pool("bee")
        pool.start(bee)
        terminal.start("--restart", "bee*1")
        assert terminal.said[-2:] == ["bee: worker started, 1 slot", "the pool stays with whoever started it"]
        terminal.pool("--stop").stop()
        assert terminal.said[-1] == "stopping the pool"

    def test_a_host_of_a_play(self, terminal: Terminal) -> None:
        """It is no member, which only the wrapper writes down."""
        pool = terminal.start("localhost*2")
        local = members.load("default")
        members.save("default", {})
        assert pool.workers["localhost"]["slots"] == 2
        failed(USAGE, "node01 is no host of pool 'default': it has localhost", lambda: pool.logs({"node01": {}}))
        pool.logs(local)
        assert terminal.said[-1] == "localhost: its log is empty"
        terminal.pool("--stop").stop()
        assert terminal.said[-1].startswith("localhost: not stopped: a play started it, and coasters.pool.stop_pool with the same inventory stops it; a worker")
        members.save("default", local)

    def test_a_worker_that_does_not_register(self, terminal: Terminal) -> None:
        """The state after such a run; to wait for it takes as long as the limit for the service."""
        launcher.start(launcher.Wanted("default", service_port=0, worker_port=0))
        pool = terminal.pool("--min-workers", "2", "node01", "node02")
        pool.info = {"missing": ["node01", "node02", "node03"], "workers": [{"name": "node04"}]}
        pool.workers = {name: {"urls": ["http://10.0.0.1:4051"]} for name in ("node01", "node02")}
        pool.failed = {"node03": "its name does not resolve"}
        failed(NO_WORKERS, "only 1 of the 2 workers", lambda: pool._check_start({"node01": {}, "node02": {}, "node03": {}}))
        assert terminal.said == [
            "node03: failed: its name does not resolve",
            "node[01-02]: failed: its worker did not register with the coaster service: check that the host can reach http://10.0.0.1:4051",
        ]


class TestService:
    def test_a_port_that_is_held(self, terminal: Terminal) -> None:
        with socket.create_server(("127.0.0.1", 0)) as holder, terminal.pool(f"--port={holder.getsockname()[1]}", "localhost") as pool:
            failed(NO_SERVICE, "port .* is held by", lambda: pool.start(wanted.members(pool.options)))

    def test_a_bin_dir_that_cannot_be_used(self, terminal: Terminal, tmp_path: Path) -> None:
        with terminal.pool("localhost") as pool:
            pool.options.swift_bin_dir = str(tmp_path / "none")
            failed(NO_SERVICE, "none", lambda: pool.start(wanted.members(pool.options)))

    def test_a_keeper_that_is_killed(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("coaster_pool.pool.STOPPED_WITHIN", 0.3)
        with terminal.start("localhost") as pool:
            keeper = state.read_json(os.path.join(state.folder("default"), "keeper.pid")) or {}
            os.kill(keeper["pid"], signal.SIGKILL)
            wait(lambda: not state.alive(keeper))
            failed(NO_SERVICE, "the coaster service has ended: see its log, and start the pool again", pool.watch)

    def test_one_that_is_silent(self, terminal: Terminal) -> None:
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        state.make_folder(state.folder("default"))
        state.write_json(os.path.join(state.folder("default"), "pool.json"), {"keeper": state.this_process(), "control_url": url})
        pool = terminal.pool("--status")
        failed(NO_SERVICE, "the coaster service does not answer", pool.status)
        failed(NO_SERVICE, "the coaster service does not answer", lambda: pool._living({"workers": [], "control_url": url}))
        os.unlink(os.path.join(state.folder("default"), "pool.json"))

    def test_a_name_that_is_none(self, terminal: Terminal) -> None:
        failed(USAGE, "cannot be a pool's name", lambda: terminal.pool("--name=../up", "localhost"))

    def test_a_state_folder_that_cannot_be_made(self, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        pool = terminal.pool("localhost")
        with monkeypatch.context() as there:
            there.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
            failed(NO_SERVICE, "cannot be made", lambda: pool.start({"localhost": {}}))

    def test_a_private_folder_that_cannot_be_made(self, terminal: Terminal) -> None:
        state.make_folder(state.root())
        with terminal.pool("localhost") as pool:
            Path(state.root(), state.RUNS).touch()
            failed(NO_SERVICE, "/.runs cannot be made", lambda: pool.start(wanted.members(pool.options)))
            os.unlink(Path(state.root(), state.RUNS))

    def test_a_host_that_fails_for_want_of_a_service(self, terminal: Terminal) -> None:
        """The service is to blame, which is said of it, not of each host."""
        pool = terminal.pool("localhost")
        pool._heard_at_start(Outcome("failed", "node01", WORKER, {"cause": "service", "msg": "there is none"}))
        assert (terminal.said, pool.failed) == ([], {})

    def test_what_swift_leaves_open_is_said(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        """And its workers are told the engine, its folder and the port; a distribution runs in the tests of whole pools."""
        pool = terminal.pool("--worker-port", "4051", "localhost")
        begun = {"engine": "swift", "bin_dir": "/swift/bin", "changed": True, "open_ports": "port 4050 is open"}
        monkeypatch.setattr(pool._service_state, "ensure", lambda wanted, check: begun)
        assert pool._begin_service(["localhost"]) == {
            "swift_worker_engine": "swift", "swift_worker_bin_dir": "/swift/bin", "swift_worker_service_url": [], "swift_worker_service_port": 4051,
        }
        assert terminal.said == ["port 4050 is open"]

    def test_one_that_ends_before_its_workers_come(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        with terminal.pool("localhost") as pool:
            begin = pool._begin_service

            def begin_and_end(hosts: Any) -> Any:
                variables = begin(hosts)
                keeper = state.read_json(os.path.join(state.folder("default"), "keeper.pid")) or {}
                os.kill(keeper["pid"], signal.SIGKILL)
                wait(lambda: not state.alive(keeper))
                return variables

            monkeypatch.setattr(pool, "_begin_service", begin_and_end)
            failed(NO_SERVICE, "the coaster service of pool 'default' is not running", lambda: pool.start(wanted.members(pool.options)))

    def test_it_has_as_long_as_in_the_role(self) -> None:
        defaults = Path(__file__).resolve().parents[3] / "roles" / "coaster_service" / "defaults" / "main.yml"
        assert yaml.safe_load(defaults.read_text())["coaster_service_ready_limit"] == READY_LIMIT


class TestEnds:
    def test_an_ansible_that_ends_before_a_host_has_answered(self, terminal: Terminal) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            host = f"127.0.0.1+{mute.getsockname()[1]}"
            pool = terminal.pool("--connect-limit", "60", f"nobody@127.0.0.1:{mute.getsockname()[1]}")

            def kill_ansible() -> None:
                connection, dummy = mute.accept()
                mute.close()  # the stop need not wait for it
                os.kill(min(children("ansible-playbook")), signal.SIGKILL)
                connection.close()

            killer = threading.Thread(target=kill_ansible)
            killer.start()
            with pool:
                failed(NO_WORKERS, "no worker could be started", lambda: pool.start(wanted.members(pool.options)))
            killer.join()
        reason = "ansible-playbook ended before it was done with this host: run the same command again"
        assert terminal.said == [f"{host}: failed: {reason}", "stopping the pool"]

    def test_a_signal_while_it_starts(self, terminal: Terminal) -> None:
        with terminal.pool("localhost") as pool:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
            failed(128 + signal.SIGTERM, "interrupted while the pool was starting", lambda: pool.start(wanted.members(pool.options)))
        assert pool.status() is None

    def test_a_signal_while_it_runs(self, terminal: Terminal) -> None:
        launcher.start(launcher.Wanted("default", service_port=0, worker_port=0))
        pool = terminal.pool("localhost")
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        pool.watch()
        assert pool.check()

    def test_a_stop_that_fails_is_said(self, terminal: Terminal) -> None:
        pool = terminal.pool("--stop")
        for node in ("node01", "node02"):
            pool._heard_at_stop(Outcome("failed", node, WORKER, {"msg": "its disk is full"}))
        pool._say_unstopped()
        assert terminal.said == ["node[01-02]: not stopped: its disk is full; a worker there ends by itself, and what is in ~/.coasters/default stays"]

    def test_a_service_that_does_not_end(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing can be made that does not end by force; so only what is said of it is looked at."""

        def stop(pool: str, keep_logs: bool = False, check: bool = False) -> bool:
            if check:
                return True
            raise launcher.LaunchError("process 7 does not end: end it by hand")

        monkeypatch.setattr(launcher, "stop", stop)
        failed(NO_SERVICE, "process 7 does not end: end it by hand", terminal.pool("--stop").stop)
        monkeypatch.undo()


@pytest.mark.parametrize(("result", "reason"), [
    ({"msg": "it is full"}, "it is full"),
    ({}, "failed"),
    (
        {"msg": "Task failed: Timed out after 60 second(s).", "timedout": {"period": 60}},
        "it gave no whole answer in 60 s: check that `ssh HOST true` ends, and the load of the machine",
    ),
    ({"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": "there is no \x1b[31mfile"}]}, "there is no ?[31mfile"),
    ({"msg": "One or more items failed", "results": [{"msg": "fine"}, {"exception": "(unavailable)", "msg": "there is no file"}]}, "there is no file"),
    ({"msg": "One or more items failed", "results": [{"msg": "fine"}]}, "One or more items failed"),
])
def test_why_a_host_failed(result: dict[str, Any], reason: str) -> None:
    assert _reason(result) == reason
