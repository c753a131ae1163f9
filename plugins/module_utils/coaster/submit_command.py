# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program ``cog-job-submit``: drop-in for Swift/K's by options and output (coaster-protocol 6.4). Python 3.6 and later.

Exit status: 0 the job completed (or help); the job's own exit code when it failed with one, else 1, as for every error;
128 + N when ended by signal N (130 SIGINT, 143 SIGTERM), upon which the job is cancelled.
"""

import os
import sys
import time

from . import jobs
from .client import Client, Interrupted, Refused, exit_code
from .connection import AddressError, Lost, parse_url
from .jobs import CANCELED, COMPLETED, Job, Stage
from .options import Option, UsageError, parse, usage
from .staging import native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Sequence, Tuple

    from .jobs import Status

DEFAULT_PORT = 1984
PROVIDER = "coaster-persistent"

OPTIONS = [
    Option("service-contact", "s", "url", "the coaster service, http://host[:port] (default port %d)" % DEFAULT_PORT),
    Option("provider", "p", "name", "must be %s (the default)" % PROVIDER),
    Option("name", "n", "name", "name of the task (default myTask)"),
    Option("directory", "d", "path", "working directory on the worker"),
    Option("environment", "env", "list", "name=value[,name=value]"),
    Option("attributes", "a", "list", "name=value[,name=value], such as maxWallTime=01:30:00"),
    Option("redirected", "r", "", "write the job's output to this program's (2 KiB of each stream)"),
    Option("stdout", "", "file", "file on the worker for the job's standard output"),
    Option("stderr", "", "file", "file on the worker for the job's standard error"),
    Option("stdin", "", "file", "accepted; jobs read nothing"),
    Option("stagein", "", "list", '"here -> there : here -> there": files to bring to the worker'),
    Option("stageout", "", "list", '"here <- there : here <- there": files to bring back'),
    Option("cleanup", "", "paths", "path:path, to be removed on the worker after success"),
    Option("batch", "b", "", "run on the service host; few services allow that"),
    Option("job-manager", "jm", "name", "accepted; has no effect on passive services"),
    Option("specification", "spec", "text", "not supported by this engine"),
    Option("verbose", "v", "", "print every status of the job"),
    Option("help", "h", "", "show this"),
]
LINE = "cog-job-submit <options> executable <arguments>"


def main(argv: "Optional[Sequence[str]]" = None) -> int:
    """Submit a job and wait for it; the exit status."""
    try:
        values, words = parse(sys.argv[1:] if argv is None else argv, OPTIONS)
        if "help" in values:
            _write(sys.stdout, usage(LINE, OPTIONS))
            return 0
        job = build(values, words)
        host, port = _service(values)
    except (UsageError, AddressError) as error:
        _write(sys.stderr, "%s\n" % error)
        return 1
    try:
        client = Client(job, _say if "verbose" in values else _ignore)
    except jobs.JobError as error:
        _write(sys.stderr, "Could not submit job: %s\n" % error)
        return 1
    try:
        status = client.run(host, port)
    except Lost as lost:
        what = "Lost the service, and with it the job" if client.submitted else "Could not submit job"
        _write(sys.stderr, "%s: %s\n" % (what, lost))
        return 1
    except Refused as refused:
        _write(sys.stderr, "Could not submit job: the service refused it: %s\n" % refused)
        return 1
    except Interrupted as interrupted:
        _write(sys.stderr, "Interrupted, the job is cancelled\n")
        return 128 + interrupted.number
    return _report(status)


def build(values: "Dict[str, str]", words: "List[str]") -> Job:
    """The job that the command line describes. Raises UsageError."""
    if values.get("provider", PROVIDER) != PROVIDER:
        raise UsageError("The provider %s is not supported by this engine: only %s is" % (values["provider"], PROVIDER))
    if "specification" in values:
        raise UsageError("-specification is not supported by this engine")
    if not words:
        raise UsageError("No executable given: " + LINE)
    # The words as the bytes that they were, whatever the locale.
    words = [os.fsencode(word).decode("utf-8", "surrogateescape") for word in words]
    values = {name: os.fsencode(value).decode("utf-8", "surrogateescape") for name, value in values.items()}
    job = Job("cog-%d" % int(time.time() * 1000), words[0], words[1:])
    job.name = values.get("name", "myTask")
    job.directory = values.get("directory")
    job.batch = "batch" in values
    job.stdin, job.stdout, job.stderr = values.get("stdin"), values.get("stdout"), values.get("stderr")
    job.redirect = "redirected" in values and not (job.stdout and job.stderr)
    job.environment = _pairs("environment", values)
    job.attributes = {name.lower(): value for name, value in _pairs("attributes", values)}
    job.stage_in = [Stage("file://localhost/" + here, there) for here, there in _stages("stagein", "->", values)]
    job.stage_out = [Stage(there, "file://localhost/" + here) for here, there in _stages("stageout", "<-", values)]
    job.cleanup = [path.strip() for path in values.get("cleanup", "").split(":") if path.strip()]
    if "maxwalltime" in job.attributes:
        try:
            jobs.parse_walltime(job.attributes["maxwalltime"])
        except jobs.JobError as error:
            raise UsageError("-attributes: %s" % str(error).rpartition(": ")[2]) from error
    return job


def _service(values: "Dict[str, str]") -> "Tuple[str, int]":
    if not values.get("service-contact"):
        raise UsageError("No service given: -service-contact http://HOST:PORT")
    return parse_url(values["service-contact"], DEFAULT_PORT)


def _pairs(option: str, values: "Dict[str, str]") -> "List[Tuple[str, str]]":
    pairs: "List[Tuple[str, str]]" = []
    for item in values.get(option, "").split(","):
        name, equals, value = item.partition("=")
        if not item.strip() and not pairs:
            continue
        if not equals or not name.strip():
            raise UsageError("-%s: %r is not name=value" % (option, item))
        pairs.append((name.strip(), value))
    return pairs


def _stages(option: str, arrow: str, values: "Dict[str, str]") -> "List[Tuple[str, str]]":
    stages: "List[Tuple[str, str]]" = []
    for item in values.get(option, "").split(":"):
        if not item.strip():
            continue
        here, found, there = (part.strip() for part in item.partition(arrow))
        if not found or not here or not there or arrow in there:
            raise UsageError("-%s: %r is not HERE %s THERE" % (option, item.strip(), arrow))
        stages.append((here, there))
    return stages


def _ignore(status: "Status") -> None:
    """Nobody wants to know."""


def _say(status: "Status") -> None:
    name = jobs.NAMES.get(status.code, "Status %d" % status.code)
    _write(sys.stdout, "%s %s\n" % (time.strftime("%a %b %d %H:%M:%S %Z %Y"), name))


def _report(status: "Status") -> int:
    """Say how the job ended; the exit status."""
    if status.code == CANCELED:
        _write(sys.stderr, "Job canceled%s\n" % (": " + status.message if status.message else ""))
    elif status.code != COMPLETED:
        _write(sys.stderr, "Job failed: %s\n" % (status.message or "no reason was given (code %d)" % status.exit_code))
    if status.stdout is not None:
        _write(sys.stdout, status.stdout, "\n")
    if status.stderr is not None:
        _write(sys.stderr, status.stderr, "\n")
    return exit_code(status)


def _write(stream: "Any", *parts: "Any") -> None:
    """Write text and bytes at once; a reader that is gone does not matter."""
    data = b"".join(part if isinstance(part, bytes) else native(part) for part in parts)
    try:
        stream.flush()
        while data:
            data = data[os.write(stream.fileno(), data):]
    except OSError:
        pass
