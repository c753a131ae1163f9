# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import zlib

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import jobs, submission
from ansible_collections.coasters.pool.plugins.module_utils.coaster.frames import MAX_PAYLOAD
from ansible_collections.coasters.pool.plugins.module_utils.coaster.jobs import Job, JobError, Stage
from ansible_collections.coasters.pool.plugins.module_utils.coaster.submission import accept


def accepted(job: Job) -> submission.Submission:
    return accept(jobs.encode_submission(job), 7)


def a_job(**fields: object) -> Job:
    job = Job("cog-1", "/bin/true")
    for name, value in fields.items():
        setattr(job, name, value)
    return job


def test_a_plain_job() -> None:
    found = accepted(a_job(arguments=["a b", "", "c\\n\n"], attributes={"maxwalltime": "01:30"}))
    assert (found.identity, found.walltime, found.executable) == ("cog-1", 5400, "/bin/true")
    assert found.for_worker("cog-1:5") == (
        b"identity=cog-1:5\nexecutable=/bin/true\narg=a b\narg=\narg=c\\\\n\\n\nattr=maxwalltime=5400\n")
    assert not found.may_read("x")
    assert not found.may_write("x")


def test_identities_are_escaped_like_any_value() -> None:
    found = accepted(Job("c\\g\u00e9-1", "/bin/true"))
    assert jobs.parse(found.for_worker(found.identity + ":5")).identity == "c\\g\u00e9-1:5"


def test_an_uncompressed_description() -> None:
    assert accept(b"configid=0\nidentity=cog-1\nexecutable=a\n", 7).walltime == jobs.DEFAULT_WALLTIME


@pytest.mark.parametrize(("fields", "message"), [
    ({"batch": True}, "batch jobs run on the service host"),
    ({"attributes": {"count": "4"}}, r"jobs on several slots \(count=4\) are not supported"),
    ({"identity": "x" * 1024 + "-1"}, "longer than 1024"),
    ({"identity": "cog"}, "identity"),
    ({"executable": ""}, "executable"),
    ({"attributes": {"maxwalltime": "soon"}}, "maxwalltime"),
    ({"stage_in": [Stage("cs://localhost/etc/passwd", "x")]}, "stage in of 'cs://localhost/etc/passwd': this service gives no access"),
    ({"stage_in": [Stage("plain", "x")]}, "stage in of 'plain'"),
    ({"stage_in": [Stage("a/b:c", "x")]}, "stage in of 'a/b:c'"),
    ({"stage_out": [Stage("x", "pinned:plain")]}, "stage out of 'pinned:plain'"),
    ({"stage_out": [Stage("x*", "plain*")]}, r"stage out of 'plain\*'"),
])
def test_what_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(JobError, match=message):
        accepted(a_job(**fields))


def test_a_description_must_fit_into_a_frame_for_the_worker() -> None:
    assert accepted(a_job(arguments=["x" * (MAX_PAYLOAD - 10000)]))
    with pytest.raises(JobError, match="too large: the limit is"):
        accepted(a_job(arguments=["x" * (MAX_PAYLOAD - 3000)]))


def test_count_one_is_an_ordinary_job() -> None:
    assert accepted(a_job(attributes={"count": "1"}))


@pytest.mark.parametrize(("url", "path"), [
    ("file://localhost/a/./b//c", "a/b/c"), ("file://localhost//abs/x", "/abs/x"), ("file:short", "short"),
    ("pinned:file://localhost/p", "p"),
])
def test_the_files_of_a_job_and_no_others(url: str, path: str) -> None:
    found = accepted(a_job(stage_in=[Stage(url, "x")], stage_out=[Stage("y", url + ".out")]))
    assert found.may_read(path)
    assert found.may_write(path + ".out")
    for other in ("", ".", "/" + path, path + "/", path + "x", "../" + path, path + ".out"):
        assert not found.may_read(other)
    assert not found.may_write(path)


def test_the_worker_asks_for_the_name_that_it_was_given() -> None:
    found = accepted(a_job(stage_in=[Stage("file://localhost/a/./b", "x"), Stage("file:c", "y"), Stage("file://else/d", "z")]))
    told = jobs.parse(found.for_worker("cog-1:1")).stage_in
    assert [stage.source for stage in told] == ["proxy://7/a/./b", "proxy://7/c", "proxy://7///else/d"]
    for stage in told:
        path = jobs.client_path(stage.source)
        assert path is not None
        assert found.may_read(path)


def test_files_that_do_not_pass_through_the_service() -> None:
    found = accepted(a_job(stage_in=[Stage("sfs://localhost/x", "x")], stage_out=[Stage("y", "sfs://localhost/y")]))
    assert not found.may_read("x")
    assert not found.may_write("y")


def test_wildcards_in_stage_outs() -> None:
    found = accepted(a_job(stage_out=[
        Stage("out/a*.q", "file://localhost//d.d/out_*.z"), Stage("b?", "file://localhost/B?*"), Stage("c*", "file://localhost/one"),
        Stage("d*/e", "file://localhost/star*"),
    ]))
    for path in ("/d.d/out_1.z", "/d.d/out_.z", "B12", "one", "star*"):
        assert found.may_write(path), path
    for path in ("/d.d/out_1/2.z", "/dxd/out_1.z", "/d.d/out_1.zz", "x/d.d/out_1.z", "B/x", "onetwo", "starry"):
        assert not found.may_write(path), path


def test_a_compressed_bomb_is_refused() -> None:
    with pytest.raises(JobError, match="larger than"):
        accept(zlib.compress(bytes(jobs.MAX_DESCRIPTION + 1)), 7)
