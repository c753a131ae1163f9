# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ansible_collections.coasters.pool.plugins.module_utils.coaster import jobs
from ansible_collections.coasters.pool.plugins.module_utils.coaster.channel import ChannelError, encode_int, encode_long
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import (
    ACTIVE,
    CANCELED,
    COMPLETED,
    FAILED,
    Job,
    JobError,
    Stage,
    Status,
    check_submission,
    client_path,
    decompress,
    dispatch,
    encode,
    encode_status,
    encode_submission,
    escape,
    filled,
    parse,
    parse_stage,
    parse_status,
    parse_walltime,
    squeeze,
    staged_paths,
    unescape,
)

TEXT = some.text(some.characters(codec="utf-8"))
NAMES = some.text(some.characters(codec="utf-8", exclude_characters="="))
PATHS = some.text(some.characters(codec="utf-8", exclude_characters="\n"))
STAGES = some.lists(some.builds(Stage, PATHS, PATHS, some.integers(0, 15)), max_size=3)


@some.composite
def any_job(draw: some.DrawFn) -> Job:
    job = Job(draw(TEXT), draw(TEXT), draw(some.lists(TEXT, max_size=4)))
    for field in ("name", "directory", "stdin", "stdout", "stderr"):
        setattr(job, field, draw(some.none() | TEXT))
    job.batch, job.redirect = draw(some.booleans()), draw(some.booleans())
    job.environment = draw(some.lists(some.tuples(NAMES, TEXT), max_size=3))
    job.attributes = {name.lower(): value for name, value in draw(some.dictionaries(NAMES, TEXT, max_size=3)).items()}
    job.attributes = {name: value for name, value in job.attributes.items() if name == name.lower()}
    job.stage_in, job.stage_out = draw(STAGES), draw(STAGES)
    job.cleanup = draw(some.lists(TEXT, max_size=3))
    return job


# descriptions


@given(any_job())
def test_what_is_written_is_read(job: Job) -> None:
    assert parse(encode(job)) == job
    assert parse(decompress(encode_submission(job))) == job


@given(some.text())
def test_escaping_is_undone(value: str) -> None:
    assert "\n" not in escape(value)
    assert unescape(escape(value)) == value


def test_escapes_are_read_from_left_to_right() -> None:
    assert escape("a\\nb\nc\\") == "a\\\\nb\\nc\\\\"
    assert unescape("a\\\\nb\\nc\\\\") == "a\\nb\nc\\"
    assert unescape("\\t\\") == "\\t\\"


def test_the_order_that_positional_parsers_need() -> None:
    job = Job("cog-1", "/bin/sh", ["-c", ""])
    job.name, job.directory, job.batch, job.redirect = "n", "d", True, True
    job.stdin, job.stdout, job.stderr = "i", "o", "e"
    job.environment, job.attributes = [("A", "x=y")], {"maxwalltime": "1"}
    job.stage_in, job.stage_out, job.cleanup = [Stage("a", "b", 1)], [Stage("c", "d")], ["x"]
    assert encode(job).decode() == (
        "name=n\nidentity=cog-1\nexecutable=/bin/sh\ndirectory=d\nbatch=true\nstdin=i\nstdout=o\nstderr=e\nredirect=true\n"
        "arg=-c\narg=\nenv=A=x=y\nattr=maxwalltime=1\nstagein=a\\nb\\n1\nstageout=c\\nd\\n2\ncleanup=x\n"
    )


def test_bytes_that_are_not_text_survive() -> None:
    assert parse(b"arg=\xff\xc3\xa9\n").arguments == ["\udcffé"]
    assert encode(parse(b"identity=\nexecutable=\narg=\xff\xc3\xa9\n")) == b"identity=\nexecutable=\narg=\xff\xc3\xa9\n"


def test_keys_may_come_in_any_order_and_unknown_ones_are_passed_over() -> None:
    text = b"arg=1\nhat=x\nattr=MaxWallTime=5\nexecutable=e\n\nredirect=false\nidentity=task-4\nbatch=false\nconfigid=0\narg=2\nenv=A\n"
    job = parse(text)
    assert (job.identity, job.executable, job.arguments, job.redirect, job.batch) == ("task-4", "e", ["1", "2"], True, False)
    assert job.attributes == {"maxwalltime": "5"}
    assert job.environment == [("A", "")]


def test_a_line_without_a_value_is_refused() -> None:
    with pytest.raises(JobError, match="a line has no '='"):
        parse(b"identity=x-1\nnonsense\n")


def test_staging_entries() -> None:
    assert parse_stage("a\nb") == Stage("a", "b", jobs.IF_PRESENT)
    assert parse_stage("a\nb\n0") == Stage("a", "b", 0)
    for value in ("", "a", "a\nb\nc", "a\nb\n-1", "a\nb\n²", "a\nb\n1\nd", "a\nb\n" + "1" * 5000):
        with pytest.raises(JobError, match="a staging entry is not source, destination and mode"):
            parse_stage(value)


def test_things_are_equal_by_their_content() -> None:
    assert Stage("a", "b") == Stage("a", "b", 2)
    assert len({Stage("a", "b"), Stage("a", "b"), Stage("a", "b", 1)}) == 2
    assert Stage("a", "b") != "a"
    assert Job("x-1") != Job("x-2")
    assert Job("x-1") != "x-1"
    assert Status(5) != 5
    assert repr(Stage("a", "b")) == "Stage('a', 'b', 2)"
    assert "'x-1'" in repr(Job("x-1"))
    assert repr(Status(5, 3, "m")) == "Status(5, 3, 'm', 0, None, None)"


# compression


def test_a_plain_description_begins_with_configid() -> None:
    assert decompress(b"configid=0\nname=x\n") == b"configid=0\nname=x\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"name=x\n", "neither zlib-compressed nor plain"), (b"", "cut off"), (zlib.compress(b"name=x\n" * 99)[:-6], "cut off")],
)
def test_what_cannot_be_unpacked_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        decompress(data)


def test_a_description_has_its_limit() -> None:
    job = Job("cog-1", "a", ["x" * 1048000])
    assert parse(decompress(encode_submission(job))) == job
    with pytest.raises(JobError, match="is larger than the limit of 1048576"):
        encode_submission(Job("cog-1", "a", ["x" * 1048576]))


def test_a_description_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_DESCRIPTION", 1000)
    with pytest.raises(JobError, match="larger than 1000 bytes"):
        decompress(zlib.compress(bytes(100000)))


# what a client may submit


@pytest.mark.parametrize("identity", ["cog-1", "task-4", "a-b-12:3:4", "-1"])
def test_identities(identity: str) -> None:
    assert check_submission(Job(identity, "/bin/true")) == jobs.DEFAULT_WALLTIME


@pytest.mark.parametrize("identity", ["", "cog", "cog-", "cog-x", "1", "cog-1:", "c g-1", "cog-1\n"])
def test_identities_that_are_refused(identity: str) -> None:
    with pytest.raises(JobError, match="is missing or does not end in a number"):
        check_submission(Job(identity, "/bin/true"))


def test_a_job_without_an_executable_is_refused() -> None:
    with pytest.raises(JobError, match="no executable"):
        check_submission(Job("cog-1"))


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 600), ("10", 600), ("1:30", 5400), ("240:00:00", 864000), ("0:0:1", 1), (" 2 ", 120), ("0", 0)]
)
def test_walltimes(text: str | None, seconds: int) -> None:
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1:", "1:2:3:4", "-1", "1.5", "²", "1" * 5000])
def test_walltimes_that_are_refused(text: str) -> None:
    with pytest.raises(JobError, match="is not MM, HH:MM or HH:MM:SS"):
        parse_walltime(text)


# service to worker


def test_what_the_service_sends_on() -> None:
    text = (
        b"configid=0\nname=n\nidentity=cog-1\nexecutable=/bin/\xff\ndirectory=d\nbatch=false\nredirect=true\narg=file:x\narg=\n"
        b"env=A=1\nattr=MAXWALLTIME=1:0\nattr=foo=bar\nstagein=file://localhost//abs\\nthere\\n2\nstagein=file:x\\ny\\n1\n"
        b"cleanup=c\nstageout=out\\npinned:file://localhost/o\\n2\nstageout=sfs://h/x\\ncs://localhost/p\\n8\n"
        b"contact=http://h:1\nprovider=coaster-persistent\njm=x\n"
    )
    assert dispatch(text, "cog-1:17", 3600, "7") == (
        b"identity=cog-1:17\nexecutable=/bin/\xff\ndirectory=d\nredirect=true\narg=file:x\narg=\nenv=A=1\nattr=maxwalltime=3600\n"
        b"attr=foo=bar\nstagein=proxy://7//abs\\nthere\\n2\nstagein=proxy://7/x\\ny\\n1\ncleanup=c\n"
        b"stageout=out\\npinned:proxy://7/o\\n2\nstageout=sfs://h/x\\nfile://localhost/p\\n8\n"
    )


def test_a_walltime_that_is_not_known_is_sent_as_none() -> None:
    assert dispatch(b"attr=maxwalltime=x\n", "a-1", None, "1") == b"identity=a-1\nattr=maxwalltime=0\n"


@given(any_job())
def test_a_worker_reads_the_job_that_was_submitted(job: Job) -> None:
    """All but what stays with the service, for paths that are no URLs."""
    job.attributes.pop("maxwalltime", None)
    job.stage_in = [stage for stage in job.stage_in if ":" not in stage.source + stage.destination]
    job.stage_out = [stage for stage in job.stage_out if ":" not in stage.source + stage.destination]
    arrived = parse(dispatch(encode(job), "cog-1:\n1", None, "1"))
    job.identity, job.name, job.batch = "cog-1:\n1", None, False
    assert arrived == job


# paths


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file://localhost/a/./b", "a/b"),
        ("file://localhost//abs//x", "/abs/x"),
        ("file://localhost/../x", "../x"),
        ("proxy://7/x", "x"),
        ("pinned:proxy://7//x", "/x"),
        ("file:x", "x"),
        ("file:/abs", "/abs"),
        ("http://h/x", None),
        ("x", None),
    ],
)
def test_paths_of_the_client(url: str, path: str | None) -> None:
    assert client_path(url) == path


def test_squeezed_paths() -> None:
    assert [squeeze(path) for path in ("", "/", ".", "a//./b/", "/./a", "a/../b")] == ["", "/", "", "a/b", "/a", "a/../b"]


@pytest.mark.parametrize(("path", "fills", "others"), [
    ("out/a*.q", ["out/a.q", "out/a..q", "out/a b\nc.q"], ["out/a/b.q", "out/a.qq", "out/b.q", "a.q", "x/out/a.q", "out/../a.q"]),
    ("B?", ["B", "B1", "B12"], ["B/1", "b1"]),
    ("/d/*", ["/d/x", "/d/.x", "/d/..."], ["/d/..", "/d/x/y", "d/x", "/d/../x"]),
    ("d/*/x", ["d/a/x", "d/..a/x"], ["d/../x", "d/a/b/x"]),
    ("../*", ["../x"], ["../..", "x"]),
])
def test_destinations_that_a_worker_fills_in(path: str, fills: list[str], others: list[str]) -> None:
    for name in fills:
        assert filled(path).match(name), name
    for name in others:
        assert not filled(path).match(name), name


def test_staged_paths() -> None:
    stages = [Stage("file://localhost/a", "x"), Stage("sfs://h/b", "file:y"), Stage("file://localhost//c", "z")]
    assert staged_paths(stages, "source") == ["a", "/c"]
    assert staged_paths(stages, "destination") == ["y"]


# statuses


@pytest.mark.parametrize(
    ("status", "count"),
    [
        (Status(ACTIVE, 0, "workerid=b:000000", 7), 5),
        (Status(FAILED, 200, "é \udcff"), 5),
        (Status(COMPLETED, 0, "", 1795383600896, b"out\xff", b""), 7),
        (Status(CANCELED), 5),
    ],
)
def test_statuses_are_read_as_they_were_written(status: Status, count: int) -> None:
    args = encode_status("cog-1:17", status)
    assert len(args) == count
    assert parse_status(args) == ("cog-1:17", status)


def test_one_stream_alone_makes_the_other_empty() -> None:
    args = encode_status("cog-1", Status(FAILED, 1, "m", 0, None, b"err"))
    assert parse_status(args)[1] == Status(FAILED, 1, "m", 0, b"", b"err")


def test_details() -> None:
    """Six arguments, or eight with output; a Java object is never looked at (coaster-protocol 4.2)."""
    assert parse_status(encode_status("a-1", Status(FAILED), b"why"))[1] == Status(FAILED, 0, "why")
    assert parse_status(encode_status("a-1", Status(FAILED, 3, "m"), b"why"))[1] == Status(FAILED, 3, "m")
    assert parse_status(encode_status("a-1", Status(FAILED), b"\xac\xed\0\5junk"))[1] == Status(FAILED)
    assert parse_status(encode_status("a-1", Status(FAILED, 3), b""))[1] == Status(FAILED, 3)
    output = Status(FAILED, 3, "", 0, b"o", b"e")
    assert parse_status(encode_status("a-1", output, b"why"))[1] == Status(FAILED, 3, "why", 0, b"o", b"e")


def test_more_than_five_arguments_count_only_at_the_end() -> None:
    args = [b"a-1", encode_int(ACTIVE), encode_int(0), b"m", encode_long(0), b"x", b"y"]
    assert parse_status(args)[1] == Status(ACTIVE, 0, "m")


def test_statuses_that_cannot_be_read() -> None:
    with pytest.raises(JobError, match="a JOBSTATUS with 4 arguments"):
        parse_status([b""] * 4)
    with pytest.raises(ChannelError):
        parse_status([b"a-1", b"5", encode_int(0), b"", encode_long(0)])
