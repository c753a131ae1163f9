# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import run
from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import encode_long
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import (
    ACTIVE,
    CANCELED,
    COMPLETED,
    FAILED,
    STAGE_IN,
    STAGE_OUT,
    Status,
)

from .workers import Job, Service, Stage, appears, gone, shell, work

HERE = "proxy://1/"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def end_of(job: Job) -> Status:
    """How a job without staging ends."""
    ends: list[Status] = []
    work(lambda service: ends.append(service.run(job)))
    return ends[0]


# process


def test_a_job_completes() -> None:
    def script(service: Service) -> None:
        service.submit(Job("cog-1:1", "true"))
        assert list(service.statuses()) == [Status(ACTIVE, message="workerid=b1:000000"), Status(COMPLETED)]

    work(script)


def test_every_exit_code_is_told() -> None:
    def script(service: Service) -> None:
        for code in range(1, 256):
            job = shell("exit %d" % code)
            job.redirect = code % 2 == 0
            output = b"" if job.redirect else None
            assert service.run(job) == Status(FAILED, code, "Process completed with exit code %d" % code, 0, output, output)

    work(script)


def test_death_by_a_signal_is_a_failure() -> None:
    assert end_of(shell("kill -9 $$")) == Status(FAILED, 137, "Process killed by signal 9")


def test_what_cannot_be_executed_is_told() -> None:
    assert end_of(Job("cog-1:1", "/no/such")) == Status(FAILED, 253, "Could not execute /no/such: No such file or directory")
    assert end_of(Job("cog-1:1", "a\0b")).code == FAILED
    assert "embedded null byte" in end_of(Job("cog-1:1", "/bin/true", ["a\0b"])).message


def test_a_fork_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_options: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "posix_spawn", full)
    assert end_of(shell("true")) == Status(FAILED, 512, "Could not execute /bin/sh: Resource temporarily unavailable")


def test_a_directory_that_is_not_there_fails_the_job(tmp_path: Path) -> None:
    job = shell("touch here")
    job.directory = "/no/such"
    assert end_of(job) == Status(FAILED, 253, "Could not change to directory /no/such: No such file or directory")
    (tmp_path / "file").touch()
    job.directory = "file"
    assert end_of(job) == Status(FAILED, 253, "Could not change to directory %s/file: Not a directory" % tmp_path)
    assert not (tmp_path / "here").exists()


def test_the_job_runs_in_its_directory_with_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    job = shell("pwd; cat; echo e >&2")
    job.directory, job.stdin, job.stdout, job.stderr = "folder", "/etc/passwd", "out", str(tmp_path / "err")
    assert end_of(job).code == COMPLETED
    assert (tmp_path / "folder" / "out").read_text() == "%s/folder\n" % tmp_path.resolve()
    assert (tmp_path / "err").read_text() == "e\n"


def test_both_streams_may_go_to_one_file(tmp_path: Path) -> None:
    job = shell("echo one; echo two >&2; echo three")
    job.stdout = job.stderr = "both"
    (tmp_path / "both").write_text("much older text that is longer than the new one")
    assert end_of(job).code == COMPLETED
    assert (tmp_path / "both").read_text() == "one\ntwo\nthree\n"


def test_streams_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("none/out", "No such file or directory"), ("pipe", "No such device or address")):
        job = shell("true")
        job.stdout = name
        assert end_of(job) == Status(FAILED, 253, "Could not write %s/%s (%s)" % (tmp_path, name, reason))


def test_arguments_arrive_byte_for_byte(tmp_path: Path) -> None:
    words = ["a  b", "", "it's", "x\\ny", "n\nl", "\\", "é€", "\udcff", '"$HOME`*;', "a=b"]
    job = Job("cog-1:1", "printf", ["%s\\0", *words])
    job.stdout = "out"
    assert end_of(job).code == COMPLETED
    assert (tmp_path / "out").read_bytes().split(b"\0")[:-1] == [word.encode("utf-8", "surrogateescape") for word in words]


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTER", "o")
    job = shell('printf "%s|" "$OUTER" "$A" "$B" "$C" "$D" "$SWIFT_JOB_SLOT"; echo "$SWIFT_WORKER_PID"; env > env')
    job.environment = [("A", "1"), ("B", "x${A}$OUTER."), ("C", "$NONE-${NONE}-$"), ("D", "\udcff=é$")]
    job.stdout = "out"
    assert end_of(job).code == COMPLETED
    assert (tmp_path / "out").read_bytes() == b"o|1|x1o.|--$|\xff=\xc3\xa9$|0|%d\n" % os.getpid()
    marks = dict(line.split("=", 1) for line in (tmp_path / "env").read_bytes().decode("latin-1").splitlines())
    assert marks["COASTERS_JOB"].startswith(marks["COASTERS_WORKER"] + ".")


def test_jobs_at_once_have_slots_of_their_own_and_give_them_back(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        for number in (1, 2):
            service.submit(shell("echo $SWIFT_JOB_SLOT > slot%d; while [ ! -e go ]; do sleep 0.01; done" % number, "cog-%d" % number))
        slots = {appears(tmp_path / ("slot%d" % number)) for number in (1, 2)}
        (tmp_path / "go").touch()
        ends = 0
        while ends < 2:
            ends += service.status()[1].code == COMPLETED
        service.run(shell("echo $SWIFT_JOB_SLOT > slot3"))
        assert slots == {"0\n", "1\n"}
        assert appears(tmp_path / "slot3") in slots

    work(script)


def test_attributes_that_this_worker_does_not_have_are_refused() -> None:
    job = shell("true")
    job.attributes = {"docker.image": "x"}
    assert end_of(job) == Status(FAILED, 253, "The attribute docker.image is not supported by this worker")


# redirected output


def test_redirected_output_comes_with_the_end(tmp_path: Path) -> None:
    job = shell("echo out; echo err >&2; exit 3")
    job.redirect = True
    assert end_of(job) == Status(FAILED, 3, "Process completed with exit code 3", 0, b"out\n", b"err\n")
    assert list(tmp_path.iterdir()) == []


def test_output_over_the_limit_is_cut_off() -> None:
    job = shell("head -c 2048 /dev/zero; head -c 2049 /dev/zero >&2")
    job.redirect = True
    end = end_of(job)
    assert end.stdout == bytes(2048)
    assert end.stderr == bytes(2048) + b"\n<output truncated>"


def test_a_named_file_of_a_redirected_job_is_written_and_read(tmp_path: Path) -> None:
    job = shell("echo out; echo err >&2")
    job.redirect, job.stdout = True, "out"
    end = end_of(job)
    assert (end.stdout, end.stderr) == (b"out\n", b"err\n")
    assert (tmp_path / "out").read_text() == "out\n"


def test_output_into_a_pipe_cannot_be_read_back(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR)
    job = shell("echo out")
    job.redirect, job.stdout = True, "pipe"
    assert end_of(job).stdout == b""
    assert os.read(reader, 100) == b"out\n"
    os.close(reader)


def test_no_place_for_the_output_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/no/such")
    job = shell("true")
    job.redirect = True
    end = end_of(job)
    assert (end.code, end.exit_code) == (FAILED, 253)
    assert end.message.startswith("Could not keep the output: /no/such/")


# the end of a job before its time


def test_walltime(tmp_path: Path) -> None:
    """The job is ended with all its processes, also those that left its group, and the worker and its other jobs go on."""

    def script(service: Service) -> None:
        service.submit(shell("while [ ! -e go ]; do sleep 0.01; done", "cog-2"))
        service.reaches(ACTIVE)
        job = shell("sleep 600 & echo $! > child; setsid sh -c 'echo $$ > other; sleep 600' & echo out; echo $$ > first; wait")
        job.attributes, job.redirect = {"maxwalltime": "1"}, True
        assert service.run(job) == Status(FAILED, 513, "Walltime exceeded", 0, b"out\n", b"")
        assert all(gone(int((tmp_path / name).read_text())) for name in ("first", "child", "other"))
        (tmp_path / "go").touch()
        assert service.end("cog-2").code == COMPLETED

    work(script)


def test_a_walltime_that_is_no_number_is_the_default(tmp_path: Path) -> None:
    job = shell("true")
    job.attributes = {"maxwalltime": "soon"}
    assert end_of(job).code == COMPLETED


def test_cancel(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("echo out; sleep 600 & echo $! > child; echo $$ > first; wait")
        job.redirect, job.stage_out, job.cleanup = True, [Stage("first", HERE + "first", 1)], ["child"]
        service.submit(job)
        service.reaches(ACTIVE)
        appears(tmp_path / "first")
        tags = [service.link.channel.request("CANCELJOB", (b"cog-1:1",)) for dummy in range(2)]
        service.link.send()
        assert service.end() == Status(CANCELED)
        assert [service.answered(tag) for tag in tags] == ["OK", "OK"]
        assert all(gone(int((tmp_path / name).read_text())) for name in ("first", "child"))
        assert service.run(shell("echo $SWIFT_JOB_SLOT > slot")).code == COMPLETED
        assert (tmp_path / "slot").read_text() == "0\n"

    work(script)


def test_children_do_not_outlive_their_job(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        assert service.run(shell("sleep 600 & echo $! > child")).code == COMPLETED
        assert gone(int((tmp_path / "child").read_text()))

    work(script)


def test_a_process_that_does_not_die_is_reported_nevertheless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run, "KILL_LIMIT", 0.1)
    monkeypatch.setattr(run, "kill_group", lambda group: None)
    monkeypatch.setattr(run, "kill_marked", lambda mark: 0)

    def script(service: Service) -> None:
        job = shell("echo $$ > first; while [ ! -e go ]; do sleep 0.01; done")
        job.attributes = {"maxwalltime": "0"}
        assert service.run(job).exit_code == 513
        (tmp_path / "go").touch()

    work(script)


# stage in


def test_stage_in(tmp_path: Path) -> None:
    """One file after another, parents are made, the job's directory is one of them, and the job finds all of it."""
    data = os.urandom(300000)

    def script(service: Service) -> None:
        job = shell("cat a sub/empty > out")
        job.directory = "job"
        job.stage_in = [Stage(HERE + "a", "a"), Stage(HERE + "e", "sub/empty"), Stage("pinned:" + HERE + "b", str(tmp_path / "abs" / "b"))]
        service.submit(job)
        assert service.status()[1] == Status(STAGE_IN, message="workerid=b1:000000")
        for source, where, content in (
            ("proxy://1/a", "job/a", data), ("proxy://1/e", "job/sub/empty", b""), ("pinned:proxy://1/b", "abs/b", b"b")
        ):
            request = service.give(content)
            assert request.args == [source.encode(), os.fsencode(tmp_path / where)]
        assert service.end().code == COMPLETED

    work(script)
    assert (tmp_path / "job" / "out").read_bytes() == data
    assert (tmp_path / "abs" / "b").read_bytes() == b"b"


def test_a_file_that_the_service_brings_itself(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("true")
        job.stage_in = [Stage("gsiftp://h/a", "a")]
        service.submit(job)
        request = service.link.expect("GET")
        service.link.channel.signal(request.tag, b"QUEUED", to_replier=False)
        service.link.channel.reply_part(request.tag, encode_long(-1), False)
        service.link.channel.reply_part(request.tag, b"OK", True)
        service.link.send()
        assert service.end().code == COMPLETED

    work(script)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_in_that_the_service_refuses_fails_the_job(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("touch ran")
        job.redirect = True
        job.stage_in = [Stage(HERE + "a", "a"), Stage(HERE + "b", "b")]
        service.submit(job)
        request = service.link.expect("GET")
        service.link.channel.reply_part(request.tag, encode_long(5), False)
        service.link.channel.reply_part(request.tag, b"12", False)
        service.link.channel.fail(request.tag, "/x/a (No such file or directory)")
        service.link.send()
        assert list(service.statuses()) == [
            Status(STAGE_IN, message="workerid=b1:000000"),
            Status(FAILED, 520, "Error staging in file: /x/a (No such file or directory)"),
        ]

    work(script)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pieces", "destination", "code", "reason"),
    [
        ([encode_long(3), b"12"], "a", 522, "File size mismatch. Expected 3 bytes, got 2"),
        ([b"12"], "a", 520, "proxy://1/a came without its length"),
        ([encode_long(2), b"12"], "file/a", 522, "{}/file/a (Not a directory)"),
        ([encode_long(2), b"12"], "a\0b", 524, ""),
    ],
)
def test_a_stage_in_that_cannot_be_written_fails_the_job(
    tmp_path: Path, pieces: list[bytes], destination: str, code: int, reason: str
) -> None:
    (tmp_path / "file").touch()

    def script(service: Service) -> None:
        job = shell("touch ran")
        job.stage_in = [Stage(HERE + "a", destination)]
        service.submit(job)
        request = service.link.expect("GET")
        for index, piece in enumerate(pieces):
            service.link.channel.reply_part(request.tag, piece, index == len(pieces) - 1)
        service.link.send()
        end = service.end()
        assert (end.code, end.exit_code) == (FAILED, code)
        assert end.message.endswith(reason.format(tmp_path))
        assert service.run(shell("true", "cog-2")).code == COMPLETED

    work(script)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_stage_in_that_is_cancelled_stops_the_sender(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("touch ran")
        job.stage_in = [Stage(HERE + "a", "a")]
        service.submit(job)
        request = service.link.expect("GET")
        service.link.channel.reply_part(request.tag, encode_long(5), False)
        service.link.channel.reply_part(request.tag, b"12", False)
        tag = service.command("CANCELJOB", b"cog-1:1")
        assert service.end() == Status(CANCELED)
        assert service.answered(tag) == "OK"
        assert service.link.signal() == (request.tag, b"ABORT")
        service.link.channel.reply_part(request.tag, b"345", True)
        service.link.send()
        assert service.run(shell("true", "cog-2")).code == COMPLETED

    work(script)
    assert list(tmp_path.iterdir()) == []


# the shared file system


def test_files_of_the_shared_file_system_are_copied_by_the_worker(tmp_path: Path) -> None:
    data = os.urandom(200000)
    (tmp_path / "source").write_bytes(data)

    def script(service: Service) -> None:
        job = shell("cat in rel > out")
        job.directory = "job"
        job.stage_in = [Stage("sfs://host/%s/source" % tmp_path, "in"), Stage("sfs:../source", "rel")]
        job.stage_out = [
            Stage("out", "sfs://host/%s/out" % tmp_path), Stage("none", "sfs:none"), Stage("out", HERE + "out"),
            Stage("in", "sfs:../in"), Stage("/no/such", "sfs:x", 1),
        ]
        service.submit(job)
        end = service.link.expect("PUT")
        content = b""
        final = False
        while not final:
            piece, final = service.link.data(end.tag)
            content += piece
        service.link.answer(end)
        assert content == data * 2
        assert service.end() == Status(FAILED, 528, "Stage out failed: /no/such (No such file or directory)")

    work(script)
    assert (tmp_path / "out").read_bytes() == data * 2
    assert (tmp_path / "in").read_bytes() == data


def test_a_shared_file_that_is_not_there_fails_the_job(tmp_path: Path) -> None:
    job = shell("touch ran")
    job.stage_in = [Stage("sfs://host/none", "in")]
    assert end_of(job) == Status(FAILED, 522, "Error staging in file: %s/none (No such file or directory)" % tmp_path)


def test_a_shared_file_that_cannot_be_written_fails_the_job(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job = shell("touch ran")
    job.stage_in = [Stage("sfs://host/file", "file/x")]
    assert end_of(job) == Status(FAILED, 522, "Error staging in file: %s/file/x (Not a directory)" % tmp_path)


# stage out


def test_stage_out(tmp_path: Path) -> None:
    data = os.urandom(1000000)
    (tmp_path / "big").write_bytes(data)

    def script(service: Service) -> None:
        job = shell("echo small > small; touch empty a1.q a2.q; echo 22 > a2.q")
        job.stage_out = [
            Stage("big", HERE + "big"), Stage("./small", HERE + "/abs/small"), Stage("empty", HERE + "empty"),
            Stage("none", HERE + "none", 2), Stage("none", HERE + "always", 1), Stage("a*.q", HERE + "o_*.z"), Stage("z*", HERE + "*"),
        ]
        service.submit(job)
        service.reaches(STAGE_OUT)
        assert [service.take() for dummy in range(7)] == [
            (HERE + "big", len(data), data), (HERE + "/abs/small", 6, b"small\n"), (HERE + "empty", 0, b""), (HERE + "none", -1, b""),
            (HERE + "always", 0, b""), (HERE + "o_1.z", 0, b""), (HERE + "o_2.z", 3, b"22\n"),
        ]
        assert service.end().code == COMPLETED

    work(script)


def test_modes_of_a_job_that_failed(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("touch out; exit 4")
        job.stage_out = [Stage("out", HERE + "error", 4), Stage("out", HERE + "success", 8)]
        service.submit(job)
        service.reaches(STAGE_OUT)
        assert [service.take()[:2] for dummy in range(2)] == [(HERE + "error", 0), (HERE + "success", -1)]
        assert service.end() == Status(FAILED, 4, "Process completed with exit code 4")

    work(script)


def test_the_end_waits_until_all_files_are_taken(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("echo 1 > out")
        job.stage_out = [Stage("out", HERE + "1"), Stage("out", HERE + "2")]
        service.submit(job)
        puts = [service.link.expect("PUT"), service.link.expect("PUT")]
        service.link.call("RESOURCEUPDATE")
        assert not any(event.name == "JOBSTATUS" and event.args[1][0] == COMPLETED for event in service.link.events if hasattr(event, "name"))
        for put in puts:
            service.link.answer(put)
        assert service.end().code == COMPLETED

    work(script)


def test_files_after_one_that_is_refused_are_sent_and_the_first_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    def script(service: Service) -> None:
        job = shell("echo 1 > out; exit 3")
        job.stage_out = [Stage("out", HERE + "1"), Stage("out", HERE + "2"), Stage("folder", HERE + "3"), Stage("out", HERE + "4")]
        service.submit(job)
        for reason in ("disk full", "no", None):
            put = service.link.expect("PUT")
            if reason is None:
                service.link.answer(put)
            else:
                service.link.channel.fail(put.tag, reason)
                service.link.send()
        end = service.end()
        assert end.exit_code == 3
        assert end.message in (
            "Process completed with exit code 3; Stage out failed: %s/out: disk full" % tmp_path,
            "Process completed with exit code 3; Stage out failed: %s/folder (Is not a regular file)" % tmp_path,
        )

    work(script)


def test_a_refused_stage_out_fails_a_job_that_succeeded(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("echo 1 > out")
        job.stage_out = [Stage("out", HERE + "1")]
        service.submit(job)
        service.link.channel.fail(service.link.expect("PUT").tag, "disk full")
        service.link.send()
        assert service.end() == Status(FAILED, 515, "Stage out failed: %s/out: disk full" % tmp_path)

    work(script)


def test_a_stage_out_is_refused_in_the_middle(tmp_path: Path) -> None:
    """The rest of the file is not sent; other files are."""
    (tmp_path / "big").write_bytes(bytes(50000000))

    def script(service: Service) -> None:
        job = shell("echo 1 > out")
        job.stage_out = [Stage("big", HERE + "1"), Stage("out", HERE + "2")]
        service.submit(job)
        put = service.link.expect("PUT")
        service.link.channel.signal(put.tag, b"STOP", to_replier=False)
        service.link.channel.fail(put.tag, "disk full")
        service.link.send()
        service.reaches(STAGE_OUT)
        assert service.take() == (HERE + "2", 2, b"1\n")
        assert service.end() == Status(FAILED, 515, "Stage out failed: %s/big: disk full" % tmp_path)

    work(script)


def test_a_file_that_shrinks_while_it_is_sent_fails_the_job(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(50000000))

    def script(service: Service) -> None:
        job = shell("true")
        job.stage_out = [Stage("big", HERE + "1"), Stage("big", HERE + "2")]
        service.submit(job)
        service.link.expect("PUT")
        os.truncate(tmp_path / "big", 5)
        assert service.take() == (HERE + "2", 5, bytes(5))
        assert service.end() == Status(FAILED, 528, "Stage out failed: %s/big (Became shorter while it was sent)" % tmp_path)

    work(script)


def test_a_stage_out_that_is_cancelled_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(50000000))

    def script(service: Service) -> None:
        job = shell("true")
        job.stage_out = [Stage("big", HERE + "1")]
        service.submit(job)
        put = service.link.expect("PUT")
        service.link.channel.signal(put.tag, b"STOP", to_replier=False)
        tag = service.command("CANCELJOB", b"cog-1:1")
        assert service.end() == Status(CANCELED)
        assert service.answered(tag) == "OK"
        assert service.run(shell("true", "cog-2")).code == COMPLETED

    work(script)


# cleanup


def test_cleanup_after_success(tmp_path: Path) -> None:
    (tmp_path / "job" / "sub").mkdir(parents=True)
    for name in ("job/sub/file", "job/keep", "outside"):
        (tmp_path / name).touch()
    job = shell("true")
    job.directory, job.cleanup = "job", ["sub", "", str(tmp_path / "outside"), "none"]
    assert end_of(job).code == COMPLETED
    assert sorted(entry.name for entry in (tmp_path / "job").iterdir()) == ["keep"]
    assert not (tmp_path / "outside").exists()


def test_no_cleanup_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    job = shell("exit 1")
    job.cleanup = ["sub"]
    assert end_of(job).exit_code == 1
    assert (tmp_path / "sub").exists()


def test_a_cleanup_that_takes_too_long_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _replace_rm(tmp_path, monkeypatch)
    job = shell("true")
    job.cleanup = ["x"]
    assert end_of(job).code == COMPLETED


def _replace_rm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing takes for ever, and has no time."""
    monkeypatch.setattr(run, "CLEANUP_LIMIT", 0.0)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rm").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "bin" / "rm").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", "%s:%s" % (tmp_path / "bin", os.environ["PATH"]))


# the connection is lost


def test_a_stage_in_that_is_cut_off_fails_the_job(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("touch ran")
        job.stage_in = [Stage(HERE + "a", "a")]
        service.submit(job)
        service.link.expect("GET")
        service.lose()
        assert service.register("cog-1:1")["running"] == "cog-1:1"
        assert service.end() == Status(FAILED, 520, "Error staging in file: the connection to the service was lost")

    work(script)
    assert list(tmp_path.iterdir()) == []


def test_a_connection_lost_between_two_stage_ins_fails_the_job(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as big:
        big.truncate(50000000)

    def script(service: Service) -> None:
        job = shell("touch ran")
        job.stage_in = [Stage("sfs:big", "copy"), Stage(HERE + "a", "a")]
        service.submit(job)
        service.lose()
        registration, _options = service.registration()
        until = time.monotonic() + 30
        while not (tmp_path / "copy").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.1)
        service.link.answer(registration, b"000001", b"cog-1:1")
        assert service.end() == Status(FAILED, 520, "Error staging in file: the connection to the service was lost")

    work(script)
    assert not (tmp_path / "ran").exists()


def test_a_stage_out_that_is_cut_off_fails_the_job(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("echo 1 > out")
        job.stage_out = [Stage("out", HERE + "a")]
        service.submit(job)
        service.link.expect("PUT")
        service.lose()
        service.register("cog-1:1")
        assert service.end() == Status(FAILED, 515, "Stage out failed: the connection to the service was lost")

    work(script)


def test_a_job_that_ends_without_a_service_stages_out_to_the_next(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        job = shell("while [ ! -e go ]; do sleep 0.01; done; echo 1 > out; echo done > done")
        job.stage_out = [Stage("out", HERE + "a")]
        service.submit(job)
        service.reaches(ACTIVE)
        service.lose()
        registration, _options = service.registration()
        (tmp_path / "go").touch()
        appears(tmp_path / "done")
        time.sleep(0.1)
        service.link.answer(registration, b"000001", b"cog-1:1")
        assert service.take() == (HERE + "a", 2, b"1\n")
        assert service.end() == Status(COMPLETED)

    work(script)


# errands


def test_errands_for_jobs_on_several_workers(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        where = os.fsencode(tmp_path)
        tag = service.command("STAGEIN", b"proxy://1/a\\n%b/in/a\\n1\nproxy://1/b\\n%b/in/b\\n1\n" % (where, where))
        service.give(b"aa")
        service.give(b"b")
        assert service.answered(tag) == "OK"
        tag = service.command("STAGEOUT", b"%b/in/a\\nproxy://1/a\\n1\n" % where)
        assert service.take() == ("proxy://1/a", 2, b"aa")
        assert service.answered(tag) == "OK"
        tag = service.command("CLEANUP", b"%b/in/a\n" % where)
        assert service.answered(tag) == "OK"

    work(script)
    assert [entry.name for entry in (tmp_path / "in").iterdir()] == ["b"]


def test_a_cleanup_errand_that_takes_too_long_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _replace_rm(tmp_path, monkeypatch)
    work(lambda service: _answered_ok(service, service.command("CLEANUP", b"x\n")))


def _answered_ok(service: Service, tag: int) -> None:
    assert service.answered(tag) == "OK"


def test_a_task_alone_does_nothing() -> None:
    with pytest.raises(NotImplementedError):
        run.Task(None, None, b"")  # type: ignore[arg-type]


def test_errands_that_cannot_be_done_are_answered(tmp_path: Path) -> None:
    def script(service: Service) -> None:
        tag = service.command("STAGEIN", b"proxy://1/a\\n/tmp/x\\n1\n")
        service.link.channel.fail(service.link.expect("GET").tag, "no")
        service.link.send()
        assert service.answered(tag) == "Error staging in file: no"
        tag = service.command("STAGEOUT", b"/no\\nproxy://1/a\\n1\n")
        service.link.channel.fail(service.link.expect("PUT").tag, "no")
        service.link.send()
        assert service.answered(tag) == "Stage out failed: /no: no"
        assert "staging entry" in service.answered(service.command("STAGEIN", b"one\n"))

    work(script)
