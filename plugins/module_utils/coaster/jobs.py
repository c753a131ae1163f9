# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Job descriptions and job statuses in both spellings: client to service, service to worker (coaster-protocol 4.3, 4.4).

Text travels as UTF-8; bytes that are not UTF-8 survive as surrogate escapes. Pure, Python 3.6 and later.
"""

import zlib

from .channel import decode_int, decode_long, encode_int, encode_long

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Optional, Pattern, Sequence, Tuple

# Status codes (coaster-protocol 4.4).
SUBMITTED = 1
ACTIVE = 2
FAILED = 5
CANCELED = 6
COMPLETED = 7
SUBMITTING = 8
STAGE_IN = 16
STAGE_OUT = 17

NAMES = {
    SUBMITTED: "Submitted", ACTIVE: "Active", FAILED: "Failed", CANCELED: "Canceled", COMPLETED: "Completed",
    SUBMITTING: "Submitting", STAGE_IN: "Stagein", STAGE_OUT: "Stageout",
}
TERMINAL = frozenset((FAILED, CANCELED, COMPLETED))

# Error codes in place of an exit code; 1 to 255 are exit codes of the job's process.
CANNOT_EXECUTE = 253
FORK_FAILED = 512
WALLTIME_EXCEEDED = 513
STAGE_OUT_FAILED = 515
STAGE_OUT_TIMEOUT = 516
STAGE_IN_FAILED = 520
STAGE_IN_TIMEOUT = 521
WRITE_FAILED = 522
COPY_FAILED = 524
STAGE_IN_START_FAILED = 525
STAGE_OUT_READ_FAILED = 528

# Conditions of a staging entry, a bit set (coaster-protocol 5.5); 0 means always.
ALWAYS = 1
IF_PRESENT = 2
ON_ERROR = 4
ON_SUCCESS = 8

DEFAULT_WALLTIME = 600
"""Seconds that a job without a maxwalltime attribute may take (coaster-protocol 1.4)."""
MAX_WALLTIME = 360 * 86400 - 60
"""Longest walltime in seconds; a longer one fails at once (coaster-protocol 1.4)."""

MAX_DESCRIPTION = 1048576
"""Largest description in bytes after decompression: a worker gets it in one frame."""

_DIGITS = "0123456789"
_NOT_FOR_WORKERS = frozenset((b"configid", b"name", b"identity", b"batch", b"contact", b"provider", b"jm"))


class JobError(ValueError):
    """A job description that cannot be accepted; the text says why."""


class Stage:
    """One file to carry: ``source`` and ``destination`` are URLs or paths, ``mode`` a bit set of conditions."""

    __slots__ = ("source", "destination", "mode")

    def __init__(self, source: str, destination: str, mode: int = IF_PRESENT) -> None:
        self.source, self.destination, self.mode = source, destination, mode

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return "Stage(%r, %r, %r)" % self._key()

    def _key(self) -> "Tuple[str, str, int]":
        return (self.source, self.destination, self.mode)


class Job:
    """What is to be run, where, with which files: the fields of coaster-protocol 4.3.2, absent ones empty or None."""

    def __init__(self, identity: str = "", executable: str = "", arguments: "Sequence[str]" = ()) -> None:
        self.identity = identity
        self.executable = executable
        self.arguments: "List[str]" = list(arguments)
        self.name: "Optional[str]" = None
        self.directory: "Optional[str]" = None
        self.batch = False
        self.stdin: "Optional[str]" = None
        self.stdout: "Optional[str]" = None
        self.stderr: "Optional[str]" = None
        self.redirect = False
        self.environment: "List[Tuple[str, str]]" = []
        self.attributes: "Dict[str, str]" = {}
        self.stage_in: "List[Stage]" = []
        self.stage_out: "List[Stage]" = []
        self.cleanup: "List[str]" = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return "Job(%r)" % (vars(self),)


def encode(job: "Job") -> bytes:
    """The description as lines, in the order that positional parsers need (coaster-protocol 4.3.2).

    The same order serves both directions: worker.pl takes any as long as ``directory`` stands before the staging.
    """
    lines: "List[str]" = []

    def add(key: str, value: str) -> None:
        lines.append("%s=%s\n" % (key, escape(value)))

    for key in ("name", "identity", "executable", "directory"):
        value = getattr(job, key)
        if value is not None:
            add(key, value)
    if job.batch:
        add("batch", "true")
    for key in ("stdin", "stdout", "stderr"):
        value = getattr(job, key)
        if value is not None:
            add(key, value)
    if job.redirect:
        add("redirect", "true")
    for argument in job.arguments:
        add("arg", argument)
    for name, value in job.environment:
        add("env", "%s=%s" % (name, value))
    for name, value in job.attributes.items():
        add("attr", "%s=%s" % (name, value))
    for key, stages in (("stagein", job.stage_in), ("stageout", job.stage_out)):
        for stage in stages:
            add(key, "%s\n%s\n%d" % (stage.source, stage.destination, stage.mode))
    for path in job.cleanup:
        add("cleanup", path)
    return "".join(lines).encode("utf-8", "surrogateescape")


def encode_submission(job: "Job") -> bytes:
    """The description as clients send it: zlib-compressed, ending with the constant keys of the Java client.

    Raises JobError when it is larger than services take.
    """
    text = encode(job) + b"provider=coaster-persistent\n"
    if len(text) > MAX_DESCRIPTION:
        raise JobError("the job description of %d bytes is larger than the limit of %d" % (len(text), MAX_DESCRIPTION))
    return zlib.compress(text, 1)


def decompress(data: bytes) -> bytes:
    """The text of a client's description, which is plain if and only if it begins with ``configid``.

    Raises JobError when it is neither plain nor zlib, or larger than MAX_DESCRIPTION when unpacked.
    """
    if data.startswith(b"configid"):
        return data
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MAX_DESCRIPTION)
    except zlib.error as error:
        raise JobError("Could not deserialize job description: it is neither zlib-compressed nor plain") from error
    if unpacker.unconsumed_tail:
        raise JobError("Could not deserialize job description: it is larger than %d bytes" % MAX_DESCRIPTION)
    if not unpacker.eof:
        raise JobError("Could not deserialize job description: it is cut off")
    return text


def parse(text: bytes) -> "Job":
    """The job in a plain description of either spelling. Keys may come in any order; unknown ones are passed over.

    Raises JobError on a line without ``=``, or on a staging entry that is not source, destination and mode.
    """
    job = Job()
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        if not line:
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise JobError("Could not deserialize job description: a line has no '='")
        if "\\" in value:
            value = unescape(value)
        if key == "arg":
            job.arguments.append(value)
        elif key in ("identity", "executable", "directory", "name", "stdin", "stdout", "stderr"):
            setattr(job, key, value)
        elif key == "redirect":
            job.redirect = True
        elif key == "attr":
            name, _equals, value = value.partition("=")
            job.attributes[name.lower()] = value
        elif key == "env":
            name, _equals, value = value.partition("=")
            job.environment.append((name, value))
        elif key == "stagein":
            job.stage_in.append(parse_stage(value))
        elif key == "stageout":
            job.stage_out.append(parse_stage(value))
        elif key == "cleanup":
            job.cleanup.append(value)
        elif key == "batch":
            job.batch = value == "true"
    return job


def parse_stage(value: str) -> "Stage":
    """The staging entry in an unescaped value ``source⏎destination[⏎mode]``; a missing mode means IF_PRESENT."""
    fields = value.split("\n")
    if len(fields) == 2:
        return Stage(fields[0], fields[1])
    if len(fields) != 3 or not _is_number(fields[2]):
        raise JobError("Could not deserialize job description: a staging entry is not source, destination and mode")
    return Stage(fields[0], fields[1], int(fields[2]))


def check_submission(job: "Job") -> int:
    """The walltime in seconds of a job that a client may submit. Raises JobError with what is wrong."""
    if not job.identity or not _is_identity(job.identity):
        raise JobError("Could not deserialize job description: the identity %r is missing or does not end in a number" % job.identity)
    if not job.executable:
        raise JobError("Could not deserialize job description: no executable")
    return parse_walltime(job.attributes.get("maxwalltime"))


def parse_walltime(text: "Optional[str]") -> int:
    """Seconds from ``MM`` (minutes), ``HH:MM`` or ``HH:MM:SS``; None gives DEFAULT_WALLTIME. Raises JobError."""
    if text is None:
        return DEFAULT_WALLTIME
    parts = text.strip().split(":")
    if len(parts) > 3 or not all(_is_number(part) for part in parts):
        raise JobError("Could not deserialize job description: maxwalltime %r is not MM, HH:MM or HH:MM:SS" % text)
    numbers = [int(part) for part in parts]
    if len(numbers) == 1:
        return numbers[0] * 60
    return numbers[0] * 3600 + numbers[1] * 60 + (numbers[2] if len(numbers) == 3 else 0)


def dispatch(text: bytes, identity: str, walltime: "Optional[int]", proxy: str) -> bytes:
    """A client's plain description as the service sends it to a worker: identity_line() and then dispatch_body()."""
    return identity_line(identity) + dispatch_body(text, walltime, proxy)


def identity_line(identity: str) -> bytes:
    """The line that names the job, first in what a worker gets."""
    return b"identity=" + escape(identity).encode("utf-8", "surrogateescape") + b"\n"


def dispatch_body(text: bytes, walltime: "Optional[int]", proxy: str) -> bytes:
    """A client's plain description as the service sends it to a worker, without the identity (coaster-protocol 4.3.3).

    Lines pass through byte for byte, except: the walltime (in seconds, None when the client gave none), and file URLs,
    which become ``proxy://PROXY/…`` (5.2).
    """
    lines: "List[bytes]" = []
    staged: "List[bytes]" = []
    for line in text.split(b"\n"):
        key, _equals, value = line.partition(b"=")
        if not line or key in _NOT_FOR_WORKERS:
            continue
        if key == b"attr" and value[:12].lower() == b"maxwalltime=":
            lines.append(b"attr=maxwalltime=%d" % (walltime or 0))
        elif key in (b"stagein", b"stageout"):
            fields = [_proxied(field, proxy.encode("ascii")) for field in value.split(b"\\n")]
            staged.append(key + b"=" + b"\\n".join(fields))
        elif key == b"cleanup":
            staged.append(line)
        else:
            lines.append(line)
    lines.extend(staged)
    lines.append(b"")
    return b"\n".join(lines)


def _proxied(field: bytes, proxy: bytes) -> bytes:
    pinned = b"pinned:" if field.startswith(b"pinned:") else b""
    url = field[len(pinned):]
    if url.startswith(b"file://localhost/"):
        return pinned + b"proxy://" + proxy + b"/" + url[17:]
    if url.startswith(b"file:"):
        return pinned + b"proxy://" + proxy + b"/" + url[5:]
    if url.startswith(b"cs://localhost/"):
        return pinned + b"file://localhost/" + url[15:]
    return field


def escape(value: str) -> str:
    """A value as it stands in a description: backslash doubled, newline as backslash and n."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def unescape(value: str) -> str:
    """The inverse of escape(), from left to right; a backslash before anything else is kept."""
    return "\\".join(part.replace("\\n", "\n") for part in value.split("\\\\"))


def _is_number(text: str) -> bool:
    return 0 < len(text) < 10 and not text.strip(_DIGITS)


def _is_identity(text: str) -> bool:
    """One word that ends in a number, or in numbers with colons between them, after a dash."""
    _head, dash, numbers = text.rpartition("-")
    return bool(dash) and text.split() == [text] and all(part and not part.strip(_DIGITS) for part in numbers.split(":"))


class Status:
    """One step of a job: ``code``, ``exit_code`` (exit or error code, 0 if none), ``message``, ``time`` (ms since the
    epoch, 0 unknown), and for redirected jobs that ended ``stdout`` and ``stderr`` (bytes, else None)."""

    __slots__ = ("code", "exit_code", "message", "time", "stdout", "stderr")

    def __init__(
        self, code: int, exit_code: int = 0, message: str = "", time: int = 0,
        stdout: "Optional[bytes]" = None, stderr: "Optional[bytes]" = None
    ) -> None:
        self.code, self.exit_code, self.message, self.time = code, exit_code, message, time
        self.stdout, self.stderr = stdout, stderr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Status) and self._key() == other._key()

    def __repr__(self) -> str:
        return "Status(%r, %r, %r, %r, %r, %r)" % self._key()

    def _key(self) -> "Tuple[int, int, str, int, Optional[bytes], Optional[bytes]]":
        return (self.code, self.exit_code, self.message, self.time, self.stdout, self.stderr)


def encode_status(identity: str, status: "Status", detail: "Optional[bytes]" = None) -> "List[bytes]":
    """The arguments of JOBSTATUS: 5, or 7 with output; ``detail`` (used towards services) makes it 6 or 8."""
    args = [
        identity.encode("utf-8", "surrogateescape"), encode_int(status.code), encode_int(status.exit_code),
        status.message.encode("utf-8", "surrogateescape"), encode_long(status.time),
    ]
    if status.stdout is not None or status.stderr is not None:
        args += [status.stdout or b"", status.stderr or b""]
    if detail is not None:
        args.append(detail)
    return args


def parse_status(args: "Sequence[bytes]") -> "Tuple[str, Status]":
    """The identity and the status in the arguments of JOBSTATUS, 5 to 8 of them; a detail is only used as the message
    when there is none, and never when it is a Java object. Raises ChannelError or JobError when they do not fit."""
    if len(args) < 5:
        raise JobError("a JOBSTATUS with %d arguments" % len(args))
    status = Status(decode_int(args[1]), decode_int(args[2]), args[3].decode("utf-8", "surrogateescape"), decode_long(args[4]))
    if status.code in TERMINAL:
        if len(args) >= 7:
            status.stdout, status.stderr = args[5], args[6]
        detail = args[5] if len(args) == 6 else args[7] if len(args) >= 8 else b""
        if detail and not detail.startswith(b"\xac\xed") and not status.message:
            status.message = detail.decode("utf-8", "surrogateescape")
    return args[0].decode("utf-8", "surrogateescape"), status


def staged_paths(stages: "Iterable[Stage]", remote: str) -> "List[str]":
    """The client's paths in staging entries; ``remote`` is the attribute that holds them ("source" or "destination")."""
    paths = (client_path(getattr(stage, remote)) for stage in stages)
    return [path for path in paths if path is not None]


def client_path(url: str) -> "Optional[str]":
    """The path that a ``file:`` or ``proxy:`` URL names on the client, None for other URLs (coaster-protocol 5.1, 5.2).

    ``scheme://host/PATH``: a PATH with one more leading slash is absolute, otherwise relative. ``/./`` and doubled
    slashes are squeezed out, as the Java service does when it names a file to a client.
    """
    if url.startswith("pinned:"):
        url = url[7:]
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in ("file", "proxy"):
        return None
    if rest.startswith("//"):
        _host, _slash, rest = rest[2:].partition("/")
    return squeeze(rest)


def filled(path: str) -> "Pattern[str]":
    """What a stage-out's destination may be once a worker has filled in its wildcards (coaster-protocol 5.5).

    A worker names files in the folders that the destination names: what it fills in has no slash, and makes no step ``..``.
    """
    import re  # which a worker's start has no time for

    steps = []
    for step in path.split("/"):
        parts = ["[^/]*" if part in ("*", "?") else re.escape(part) for part in re.split("([*?])", step)]
        steps.append((r"(?!\.\.(?:/|\Z))" if len(parts) > 1 else "") + "".join(parts))
    return re.compile("/".join(steps) + r"\Z", re.S)


def squeeze(path: str) -> str:
    """The path without ``.`` steps and doubled slashes; ``..`` stays, because it may cross a link."""
    steps = [step for step in path.split("/") if step not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(steps)
