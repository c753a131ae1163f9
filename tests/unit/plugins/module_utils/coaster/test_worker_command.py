# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import worker_command
from ansible_collections.coasters.pool.plugins.module_utils.coaster.worker_command import Log, main

from .services import beside, listening, unused_port
from .workers import Service, shell


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKER_LOGGING_LEVEL", raising=False)


def serve(*argv: str) -> tuple[int, dict[str, str], str]:
    """Run the program against a service that shuts it down after one job: exit status, registered options, block id.

    ``URL`` in the words stands for the service's.
    """
    seen: list[tuple[dict[str, str], str]] = []
    with listening() as listener:

        def script() -> None:
            service = Service(listener)
            request, options = service.registration()
            service.link.answer(request, b"000003")
            seen.append((options, request.args[0].decode()))
            service.run(shell("true"))
            service.shut_down()

        words = [word.replace("URL", "http://127.0.0.1:%d" % listener.port) for word in argv]
        status = beside(script, lambda: main(words), listener.close)
    return status, *seen[0]


def test_as_worker_pl_is_started() -> None:
    assert serve("URL", "w1", "NOLOGGING") == (0, {"maxwalltime": "-1"}, "w1")
    assert serve("-c", "4", "-w", "3600", "URL", "w1", ".") == (0, {"maxwalltime": "3600", "concurrency": "4"}, "w1")
    assert serve("-w", "-1", "-timelimit", "5", "http://127.0.0.1:%d,URL" % unused_port(), "w1", ".")[0] == 0
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ([], "Not given: URI"),
        (["http://h:1"], "Not given: BLOCKID"),
        (["http://h:1", "b"], "Not given: LOGDIR"),
        ([",", "b", "."], "Not given: URI"),
        (["http://h:1", "b", ".", "x"], "Too many arguments: x"),
        (["http://h", "b", "."], "http://h has no port"),
        (["http://h:1,gsi://h:2", "b", "."], "Scheme not supported: gsi"),
        (["-z", "http://h:1", "b", "."], "Unknown option: -z"),
        (["-l", "LOUD", "http://h:1", "b", "."], "Invalid worker logging level requested: LOUD"),
        (["-c", "0", "http://h:1", "b", "."], "The value of -c must be from 1"),
        (["-c", "x", "http://h:1", "b", "."], "The value of -c must be a number"),
        (["-timelimit", "-1", "http://h:1", "b", "."], "The value of -timelimit must be from 0"),
        (["http://h:1", "@none", "."], "The block id cannot be read: [Errno 2] No such file or directory: 'none'"),
        (["http://h:1", "@empty", "."], "The block id cannot be read: empty is empty"),
        (["http://h:1", "@binary", "."], "The block id cannot be read: 'utf-8'"),
        (["-l", "INFO", "http://h:1", "b", "empty/x"], "The log file cannot be written: "),
    ],
)
def test_wrong_command_lines(capsys: pytest.CaptureFixture[str], argv: list[str], reason: str) -> None:
    Path("empty").touch()
    Path("binary").write_bytes(b"\xff")
    assert main(argv) == 255
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(reason)
    assert err.count("\n") == 1


@pytest.mark.parametrize("word", ["-h", "-help"])
def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setattr(sys, "argv", ["coaster-worker", word])
    assert main() == 1
    out = capsys.readouterr().out
    assert "URLS BLOCKID LOGDIR" in out
    assert out.isascii()


def test_no_service(capsys: pytest.CaptureFixture[str]) -> None:
    port = unused_port()
    assert main(["-timelimit", "0", "http://127.0.0.1:%d" % port, "b", "."]) == errno.ECONNREFUSED
    assert capsys.readouterr().err == "Failed to connect: 127.0.0.1:%d: Connection refused\n" % port


def test_a_signal(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as listener:

        def script() -> None:
            service = Service(listener)
            service.register()
            os.kill(os.getpid(), signal.SIGTERM)
            assert service.link.closed()

        assert beside(script, lambda: main(["http://127.0.0.1:%d" % listener.port, "b", "."]), listener.close) == 143
    assert capsys.readouterr() == ("", "")


def test_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve("-l", "INFO", "URL", "a/b", "new/logs")[0] == 0
    assert capsys.readouterr().out == "LOG: new/logs/worker-a_b.log\n"
    lines = Path("new/logs/worker-a_b.log").read_text().splitlines()
    assert all(re.match(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{3} INFO  000003 \S", line) for line in lines)
    assert [line[37:] for line in lines] == ["registered as 000003", "job cog-1:1 starts", "job cog-1:1: Completed", "stopping"]


def test_the_level_may_come_from_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_LOGGING_LEVEL", "WARN")
    assert main(["-timelimit", "0", "http://127.0.0.1:%d" % unused_port(), "b", "logs"]) == errno.ECONNREFUSED
    assert capsys.readouterr().out == ""
    assert re.search(r" ERROR - Failed to connect: .*: Connection refused\n\Z", Path("logs/worker-b.log").read_text())


def test_a_block_id_from_a_file_is_not_told() -> None:
    Path("id").write_text("0123456789abcdef\n")
    assert serve("-l", "TRACE", "URL", "@id", ".") == (0, {"maxwalltime": "-1"}, "0123456789abcdef")
    assert "0123456789abcdef" not in Path("worker.log").read_text()


def test_the_name_in_status_messages_is_the_host_when_the_block_id_is_secret() -> None:
    Path("id").write_text("secret")
    with listening() as listener:

        def script() -> None:
            service = Service(listener)
            service.register()
            service.submit(shell("true"))
            assert service.status()[1].message == "workerid=%s:000000" % socket.gethostname()
            service.end()
            service.shut_down()

        assert beside(script, lambda: main(["http://127.0.0.1:%d" % listener.port, "@id", "."]), listener.close) == 0


def test_a_full_disk_stops_the_log_and_not_the_worker(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    Log("log", "DEBUG").write("INFO", "", "line")


def test_levels(tmp_path: Path) -> None:
    log = Log("log", "WARN")
    for level in worker_command.LEVELS:
        log.write(level, "000001", "two\nlines \udcff")
    assert [line[24:] for line in Path("log").read_bytes().splitlines()] == [
        b"WARN  000001 two lines \xff", b"ERROR 000001 two lines \xff"
    ]


def test_the_numbers_of_the_standard_streams_are_occupied() -> None:
    saved = os.dup(0)
    os.close(0)
    try:
        worker_command._keep_standard_files()
        file = os.open(os.devnull, os.O_RDONLY)
        os.close(file)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
    assert file > 2
