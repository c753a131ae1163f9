# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A submission: what the service keeps of a job description that it accepted (coaster-protocol 4.3.2, 4.3.3, 5.2). Pure.

It knows which of the client's files a worker may read and write for this job: those in the staging lists and no others.
"""

from __future__ import annotations

import re
from typing import Iterable, Pattern

from .frames import MAX_PAYLOAD
from .jobs import JobError, Stage, check_submission, decompress, dispatch_body, filled, identity_line, parse, squeeze

MAX_IDENTITY = 1024
"""Longest identity in characters that a client may give to a job."""

_NOBODY: frozenset[str] = frozenset()
_WILDCARD = re.compile(r"[*?]")


class Submission:
    """``identity`` is the client's, ``walltime`` in seconds, ``body`` the lines for a worker after its identity line."""

    __slots__ = ("identity", "walltime", "body", "reads", "writes", "patterns")

    def __init__(
        self, identity: str, walltime: int, body: bytes,
        reads: frozenset[str] = _NOBODY, writes: frozenset[str] = _NOBODY, patterns: tuple[Pattern[str], ...] = (),
    ) -> None:
        self.identity, self.walltime, self.body = identity, walltime, body
        self.reads, self.writes, self.patterns = reads, writes, patterns

    @property
    def executable(self) -> str:
        """The program that the job runs."""
        return parse(self.body).executable

    def for_worker(self, identity: str) -> bytes:
        """The argument of the worker's SUBMITJOB; ``identity`` is the service-side one."""
        return identity_line(identity) + self.body

    def may_read(self, path: str) -> bool:
        """Whether the job stages in this path (as jobs.client_path gives it) of the client."""
        return path in self.reads

    def may_write(self, path: str) -> bool:
        """Whether the job stages out to this path of the client."""
        return path in self.writes or any(pattern.match(path) for pattern in self.patterns)


def accept(argument: bytes, channel_id: int) -> Submission:
    """The submission in the argument of a client's SUBMITJOB. Raises JobError with what cannot be accepted."""
    text = decompress(argument)
    job = parse(text)
    walltime = check_submission(job)
    if len(job.identity) > MAX_IDENTITY:
        raise JobError("Could not deserialize job description: the identity is longer than %d characters" % MAX_IDENTITY)
    if job.batch:
        raise JobError("batch jobs run on the service host, which this service does not allow: submit without batch")
    count = job.attributes.get("count", "1").strip()
    if count != "1":
        raise JobError("jobs on several slots (count=%s) are not supported by this service: submit with count=1" % count)
    body = dispatch_body(text, walltime, str(channel_id))
    if len(body) > MAX_PAYLOAD - 4 * MAX_IDENTITY:
        raise JobError("the job description of %d bytes is too large: the limit is %d" % (len(body), MAX_PAYLOAD - 4 * MAX_IDENTITY))
    if not job.stage_in and not job.stage_out:
        return Submission(job.identity, walltime, body)
    reads = frozenset(_client_paths("stage in", (stage.source for stage in job.stage_in)))
    plain, wild = _split_wild(job.stage_out)
    writes = frozenset(_client_paths("stage out", plain))
    patterns = tuple(filled(path) for path in _client_paths("stage out", wild))
    return Submission(job.identity, walltime, body, reads, writes, patterns)


def _split_wild(stages: Iterable[Stage]) -> tuple[list[str], list[str]]:
    """The destinations of stage-outs, without and with wildcards to be filled in by the worker (coaster-protocol 5.5)."""
    plain: list[str] = []
    wild: list[str] = []
    for stage in stages:
        source_is_wild = _WILDCARD.search(stage.source.rpartition("/")[2])
        (wild if source_is_wild and _WILDCARD.search(stage.destination) else plain).append(stage.destination)
    return plain, wild


def _client_paths(what: str, urls: Iterable[str]) -> Iterable[str]:
    for url in urls:
        bare = url[7:] if url.startswith("pinned:") else url
        scheme, colon, _rest = bare.partition(":")
        if not colon or "/" in scheme or scheme == "cs":
            raise JobError("%s of %r: this service gives no access to files of its own host; name a file:// URL" % (what, url))
        if bare.startswith("file://localhost/"):
            yield squeeze(bare[17:])
        elif scheme == "file":
            yield squeeze(bare[5:])
