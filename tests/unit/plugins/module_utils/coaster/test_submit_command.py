# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import re
import signal
import sys
from typing import Callable

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import jobs, submit_command
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import (
    ACTIVE,
    CANCELED,
    COMPLETED,
    FAILED,
    SUBMITTED,
    Job,
    Stage,
    Status,
)
from ansible_collections.coasters.pool.plugins.module_utils.coaster.options import UsageError, parse
from ansible_collections.coasters.pool.plugins.module_utils.coaster.submit_command import OPTIONS, build, main

from .services import Link, beside, listening, unused_port


def job_of(*argv: str) -> Job:
    return build(*parse(argv, OPTIONS))


def refused(capfd: pytest.CaptureFixture[str], *argv: str) -> str:
    """What the program says on standard error about a wrong command line."""
    assert main(argv) == 1
    out, err = capfd.readouterr()
    assert out == ""
    return err


def take_job(link: Link) -> Job:
    link.answer(link.expect("CONFIGSERVICE"), b"0")
    request = link.expect("SUBMITJOB")
    link.answer(request, b"cog-1:1")
    return jobs.parse(jobs.decompress(request.args[0]))


def submit(argv: list[str], *statuses: Status, seen: Callable[[Job], None] = lambda job: None) -> int:
    """Run the program against a service that reports these statuses."""
    with listening() as listener:

        def script() -> None:
            link = listener.accept()
            job = take_job(link)
            seen(job)
            for status in statuses:
                link.call("JOBSTATUS", *jobs.encode_status(job.identity, status))
            link.answer(link.expect("SHUTDOWN"))

        url = "http://127.0.0.1:%d" % listener.port
        return beside(script, lambda: main(["-service-contact", url, *argv]), listener.close)


# the job of a command line


def test_the_simplest_job() -> None:
    job = job_of("/bin/echo", "-n", "x")
    assert re.fullmatch("cog-[0-9]{13}", job.identity)
    expected = Job(job.identity, "/bin/echo", ["-n", "x"])
    expected.name = "myTask"
    assert job == expected
    assert jobs.check_submission(job) == 600


def test_every_option() -> None:
    job = job_of(
        "-name", "n", "-provider", "coaster-persistent", "-directory", "d", "-batch", "-redirected", "-stdout", "o", "-stdin", "i",
        "-environment", "A=1,B=x=y=z,C=", "-attributes", "maxWallTime=240:00:00,Foo=bar", "-cleanup", "a: b :", "-job-manager", "x:y",
        "-stagein", "in -> there : /abs/./in -> /abs/there", "-stageout", "out <- ./there:/abs/out<-/abs/there", "-verbose", "run", "arg",
    )
    assert (job.name, job.directory, job.batch, job.redirect, job.stdout, job.stderr, job.stdin) == ("n", "d", True, True, "o", None, "i")
    assert job.environment == [("A", "1"), ("B", "x=y=z"), ("C", "")]
    assert job.attributes == {"maxwalltime": "240:00:00", "foo": "bar"}
    assert job.cleanup == ["a", "b"]
    assert job.stage_in == [Stage("file://localhost/in", "there"), Stage("file://localhost//abs/./in", "/abs/there")]
    assert job.stage_out == [Stage("./there", "file://localhost/out"), Stage("/abs/there", "file://localhost//abs/out")]
    assert (job.executable, job.arguments) == ("run", ["arg"])


def test_aliases() -> None:
    assert job_of("-n", "n", "-p", "coaster-persistent", "-d", "d", "-b", "-r", "-env", "A=1", "-a", "a=b", "-jm", "x", "-v", "run").name == "n"


def test_both_streams_to_files_are_not_redirected() -> None:
    assert job_of("-redirected", "-stdout", "o", "-stderr", "e", "run").redirect is False


def test_jetstream() -> None:
    """The command line of its CloudSwiftBackend (coaster-protocol 5.7)."""
    stage_in = " : ".join("cloud_scripts/./%s -> /tmp/pworks/%s" % (name, name) for name in ("t.cloud_download.sh", "t.cloud_upload.sh", "t.sh"))
    stage_out = " : ".join("%s <- ./%s" % (name, name) for name in (".t.hostname", "t.remote.out", "t.remote.err"))
    job = job_of(
        "-provider", "coaster-persistent", "-attributes", "maxWallTime=240:00:00", "-service-contact", "http://h:1",
        "-stagein", stage_in, "-stageout", stage_out, "-directory", "/tmp/pworks", "/bin/bash", "-c", "mkdir -p /tmp/pworks;cd /tmp/pworks",
    )
    assert job.stage_in[2] == Stage("file://localhost/cloud_scripts/./t.sh", "/tmp/pworks/t.sh")
    assert job.stage_out[0] == Stage("./.t.hostname", "file://localhost/.t.hostname")
    assert jobs.check_submission(job) == 864000


def test_words_are_bytes_whatever_the_locale() -> None:
    words = ["a  b", "", "it's", "x\\ny", "n\nl", "é", "\udcff", "\udcc3\udca9"]
    seen: list[Job] = []
    assert submit(["-d", "é\udcff", "run", *words], Status(COMPLETED), seen=seen.append) == 0
    assert seen[0].arguments == [*words[:-1], "é"]
    assert seen[0].directory == "é\udcff"


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["-provider", "GT2", "run"], "The provider GT2 is not supported by this engine"),
        (["-specification", "x", "run"], "-specification is not supported"),
        ([], "No executable given"),
        (["-env", "A", "run"], "-environment: 'A' is not name=value"),
        (["-env", "A=1,=2", "run"], "-environment: '=2' is not name=value"),
        (["-env", "A=1,", "run"], "-environment: '' is not name=value"),
        (["-attributes", "x", "run"], "-attributes: 'x' is not name=value"),
        (["-attributes", "maxwalltime=soon", "run"], "-attributes: maxwalltime 'soon' is not MM, HH:MM or HH:MM:SS"),
        (["-stagein", "a", "run"], "-stagein: 'a' is not HERE -> THERE"),
        (["-stagein", "a ->", "run"], "-stagein: 'a ->' is not HERE -> THERE"),
        (["-stagein", "-> a", "run"], "needs a value"),
        (["-stagein", "a -> b -> c", "run"], "-stagein: 'a -> b -> c' is not HERE -> THERE"),
        (["-stageout", "a -> b", "run"], "-stageout: 'a -> b' is not HERE <- THERE"),
        (["-bogus", "run"], "Unknown option: -bogus"),
    ],
)
def test_wrong_command_lines(capfd: pytest.CaptureFixture[str], argv: list[str], reason: str) -> None:
    said = refused(capfd, *argv)
    assert reason in said
    assert said.count("\n") == 1


def test_empty_lists_are_no_lists() -> None:
    job = job_of("-stagein", " ", "-stageout", "", "-env", "", "-a", " ", "-cleanup", "", "run")
    assert (job.stage_in, job.stage_out, job.environment, job.attributes, job.cleanup) == ([], [], [], {}, [])


def test_build_raises_usage_errors() -> None:
    with pytest.raises(UsageError):
        job_of("-env", "A", "run")


# the service


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["run"], "No service given"),
        (["-s", "ftp://h:1", "run"], "Scheme not supported: ftp"),
        (["-s", "https://h:1", "run"], "GSI security"),
        (["-s", "http://h:x", "run"], "x is not a port"),
        (["-s", "http://no-such-host.invalid:1", "run"], "Could not submit job: no-such-host.invalid cannot be resolved"),
    ],
)
def test_services_that_cannot_be_used(capfd: pytest.CaptureFixture[str], argv: list[str], reason: str) -> None:
    assert reason in refused(capfd, *argv)


def test_nobody_listens(capfd: pytest.CaptureFixture[str]) -> None:
    port = unused_port()
    assert refused(capfd, "-s", "http://127.0.0.1:%d" % port, "run") == (
        "Could not submit job: 127.0.0.1:%d: Connection refused\n" % port
    )


def test_a_service_that_refuses_the_job(capfd: pytest.CaptureFixture[str]) -> None:
    with listening() as listener:

        def script() -> None:
            link = listener.accept()
            link.channel.fail(link.expect("CONFIGSERVICE").tag, "not you")
            link.send()
            link.answer(link.expect("SHUTDOWN"))

        assert beside(script, lambda: main(["-s", "http://127.0.0.1:%d" % listener.port, "run"]), listener.close) == 1
    assert capfd.readouterr().err == "Could not submit job: the service refused it: not you\n"


def test_a_job_that_is_too_large_for_any_service(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["-s", "http://127.0.0.1:%d" % unused_port(), "run", "x" * 1048576]) == 1
    assert capfd.readouterr().err.endswith(" bytes is larger than the limit of 1048576\n")


def test_a_service_that_is_lost_while_the_job_runs(capfd: pytest.CaptureFixture[str]) -> None:
    with listening() as listener:

        def script() -> None:
            link = listener.accept()
            take_job(link)
            link.call("VERSION")
            link.close()

        assert beside(script, lambda: main(["-s", "http://127.0.0.1:%d" % listener.port, "run"]), listener.close) == 1
    assert capfd.readouterr().err == "Lost the service, and with it the job: the service closed the connection\n"


def test_an_interrupted_wait(capfd: pytest.CaptureFixture[str]) -> None:
    with listening() as listener:

        def script() -> None:
            link = listener.accept()
            take_job(link)
            os.kill(os.getpid(), signal.SIGTERM)
            link.answer(link.expect("SHUTDOWN"))

        assert beside(script, lambda: main(["-s", "http://127.0.0.1:%d" % listener.port, "run"]), listener.close) == 143
    assert capfd.readouterr().err == "Interrupted, the job is cancelled\n"


# output


def test_success_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert submit(["run"], Status(ACTIVE), Status(COMPLETED)) == 0
    assert capfd.readouterr() == ("", "")


def test_redirected_output_is_printed_with_a_newline_each(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert submit(["-redirected", "run"], Status(COMPLETED, stdout=b"out\n\xff", stderr=b"")) == 0
    assert capfdbinary.readouterr() == (b"out\n\xff\n", b"\n")


def test_a_failure_is_told_with_its_output(capfd: pytest.CaptureFixture[str]) -> None:
    assert submit(["-r", "run"], Status(FAILED, 3, "Process completed with exit code 3", 0, b"out", b"err")) == 3
    assert capfd.readouterr() == ("out\n", "Job failed: Process completed with exit code 3\nerr\n")


def test_a_failure_without_a_reason(capfd: pytest.CaptureFixture[str]) -> None:
    assert submit(["run"], Status(FAILED, 512)) == 1
    assert capfd.readouterr().err == "Job failed: no reason was given (code 512)\n"


@pytest.mark.parametrize(("message", "said"), [("", "Job canceled\n"), ("by hand", "Job canceled: by hand\n")])
def test_a_cancelled_job(capfd: pytest.CaptureFixture[str], message: str, said: str) -> None:
    assert submit(["run"], Status(CANCELED, 0, message)) == 1
    assert capfd.readouterr().err == said


def test_verbose(capfd: pytest.CaptureFixture[str]) -> None:
    assert submit(["-verbose", "run"], Status(SUBMITTED), Status(9999), Status(COMPLETED)) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(maxsplit=6)[6] for line in lines] == ["Submitted", "Status 9999", "Completed"]
    assert re.fullmatch(r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \S+ \d{4} Submitted", lines[0])


@pytest.mark.parametrize("word", ["-help", "-h"])
def test_help(capfd: pytest.CaptureFixture[str], word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cog-job-submit", word])
    assert main() == 0
    out, err = capfd.readouterr()
    assert err == ""
    for option in OPTIONS:
        assert "  -" + option.name in out


def test_a_reader_that_is_gone_does_not_matter() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream:
        submit_command._write(stream, "text")
