# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import processes
from ansible_collections.coasters.pool.plugins.module_utils.coaster.connection import clock, wait_for
from ansible_collections.coasters.pool.plugins.module_utils.coaster.processes import (
    Signals,
    kill_group,
    kill_marked,
    outcome,
    reap,
    reap_all,
    spawn,
)

from .workers import PATIENCE, gone

Environment = dict[bytes, bytes]


@pytest.fixture(params=["posix_spawn", "popen"])
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Start a program in tmp_path with its output in the file ``out`` there, in both ways that there are."""
    monkeypatch.setattr(processes, "_HAS_SPAWN", request.param == "posix_spawn")

    def start(*words: bytes, environment: Environment | None = None, directory: bytes = os.fsencode(tmp_path)) -> int:
        null = os.open(os.devnull, os.O_RDWR)
        out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            return spawn(words, dict(os.environb) if environment is None else environment, directory, null, out, out)
        finally:
            os.close(null)
            os.close(out)

    return start


def end(number: int) -> tuple[int, str]:
    return outcome(os.waitpid(number, 0)[1])


def test_words_environment_directory_and_streams_arrive(start: Callable[..., int], tmp_path: Path) -> None:
    home = os.getcwd()
    script = 'printf "%s|" "$@" "$A"; pwd; cat; echo error >&2'
    words = [b"a  b", b"", b"it's", b"x\\ny", b"n\nl", "é".encode(), b"\xff"]
    assert end(start(b"/bin/sh", b"-c", script.encode(), b"sh", *words, environment={b"A": b"\xfe=", b"PATH": b"/bin:/usr/bin"})) == (0, "")
    expected = b"|".join([*words, b"\xfe=", os.fsencode(tmp_path.resolve()) + b"\nerror\n"])
    assert (tmp_path / "out").read_bytes() == expected
    assert os.getcwd() == home


def test_a_name_is_looked_up_in_the_path_of_the_job(start: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "bin" / "tool").chmod(0o755)
    (tmp_path / "other" / "tool").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "tool").write_text("exit 8\n")
    path = b"%b/other:%b/plain:bin" % (os.fsencode(tmp_path), os.fsencode(tmp_path))
    assert end(start(b"tool", environment={b"PATH": path}))[0] == 7
    assert end(start(b"tool", environment={b"PATH": b""}, directory=os.fsencode(tmp_path / "bin")))[0] == 7
    assert end(start(b"true", environment={}))[0] == 0


def test_a_script_without_an_interpreter_line_is_run_by_the_shell(start: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "script").write_text("exit $1$2\n")
    (tmp_path / "script").chmod(0o755)
    assert end(start(b"./script", b"4", b"2"))[0] == 42


@pytest.mark.parametrize(
    ("word", "number"), [(b"/no/such", errno.ENOENT), (b"nosuchprogram", errno.ENOENT), (b"/etc/passwd", errno.EACCES), (b"/", errno.EACCES)]
)
def test_what_cannot_be_started_is_told(start: Callable[..., int], word: bytes, number: int) -> None:
    with pytest.raises(OSError) as caught:
        start(word)
    assert caught.value.errno == number
    assert caught.value.filename == word


def test_a_directory_that_cannot_be_entered_is_told(start: Callable[..., int]) -> None:
    home = os.getcwd()
    with pytest.raises(FileNotFoundError) as caught:
        start(b"/bin/true", directory=b"/no/such")
    assert caught.value.filename == b"/no/such"
    assert os.getcwd() == home


def test_outcomes(start: Callable[..., int]) -> None:
    assert end(start(b"/bin/true")) == (0, "")
    assert end(start(b"/bin/sh", b"-c", b"exit 255")) == (255, "Process completed with exit code 255")
    assert end(start(b"/bin/sh", b"-c", b"kill -9 $$")) == (137, "Process killed by signal 9")


def test_a_pipe_that_closes_kills_a_job_as_in_a_shell(start: Callable[..., int]) -> None:
    """Python ignores SIGPIPE; its children must not."""
    assert end(start(b"/bin/sh", b"-c", b"kill -PIPE $$"))[0] == 128 + signal.SIGPIPE


def test_the_group_is_killed_with_all_in_it(start: Callable[..., int], tmp_path: Path) -> None:
    number = start(b"/bin/sh", b"-c", b"sleep 600 & echo $!; wait")
    until = time.monotonic() + PATIENCE
    while not (tmp_path / "out").read_text().endswith("\n"):
        assert time.monotonic() < until
        time.sleep(0.01)
    kill_group(number)
    assert end(number)[0] == 137
    assert gone(int((tmp_path / "out").read_text()))
    kill_group(number)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_what_left_the_group_is_found_by_its_mark(tmp_path: Path) -> None:
    script = """
import os, time
if os.fork(): os._exit(0)
os.setsid()
leader = os.getpid()
if os.fork(): os._exit(0)
while os.getppid() == leader: time.sleep(0.01)
print(os.getpid(), flush=True)
time.sleep(600)"""
    mark = f"{os.getpid()}.1"  # which no other run of the tests has
    others = subprocess.Popen(["sleep", "600"], env={"TEST_MARK": f"{mark}2"})
    daemon = subprocess.Popen([sys.executable, "-c", script], env={"TEST_MARK": mark}, stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    number = int(daemon.stdout.readline())
    daemon.wait()
    assert kill_marked(f"TEST_MARK={mark}".encode()) == 1
    assert gone(number)
    assert others.poll() is None
    assert kill_marked(f"TEST_MARK={mark}".encode()) == 0
    others.kill()
    others.wait()
    daemon.stdout.close()


def test_without_proc_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_folder(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", no_such_folder)
    assert kill_marked(b"TEST_MARK=1") == 0


def test_children_that_ended_are_reaped(start: Callable[..., int]) -> None:
    quick, slow = start(b"/bin/sh", b"-c", b"exit 3"), start(b"/bin/sleep", b"600")
    ended: dict[int, int] = {}
    until = time.monotonic() + PATIENCE
    while quick not in ended and time.monotonic() < until:
        ended.update(reap())  # whatever child of this process has ended: other tests may have left some
    assert outcome(ended[quick])[0] == 3
    assert slow not in ended
    kill_group(slow)
    reap_all([slow])
    for number in (quick, slow):
        with pytest.raises(ChildProcessError):
            os.waitpid(number, 0)


def test_without_children_nothing_is_reaped() -> None:
    """In a process of its own, which has no children for certain."""
    code = "import sys; sys.path[:0] = sys.argv[1:]; from coaster.processes import reap; print(reap())"
    package = str(Path(processes.__file__).resolve().parent.parent)
    result = subprocess.run([sys.executable, "-c", code, package], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_what_does_not_end_is_waited_for_in_vain_only_so_long(start: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "REAP_LIMIT", 0.05)
    slow = start(b"/bin/sleep", b"600")
    reap_all([slow])
    os.kill(slow, 0)
    kill_group(slow)
    assert end(slow)[0] == 137


def test_signals_can_be_waited_for() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Signals(signal.SIGUSR1, signal.SIGUSR2) as signals:
        assert list(signals.take()) == []
        assert wait_for({signals}, set(), 0) == (set(), set())
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert wait_for({signals}, set(), clock() + PATIENCE) == ({signals}, set())
        assert sorted(signals.take()) == sorted((signal.SIGUSR1, signal.SIGUSR2))
        assert list(signals.take()) == []
    assert signal.getsignal(signal.SIGUSR1) == before
