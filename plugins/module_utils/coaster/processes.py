# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of jobs: each starts in a group of its own, and nothing of it stays behind. Python 3.6 and later.

Paths, words and environments are bytes, so that they arrive as they were sent whatever the worker's locale.
"""

import contextlib
import errno
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Type

    Environment = Dict[bytes, bytes]

REAP_LIMIT = 5.0
"""Seconds that killed processes have to be gone."""

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY)
_HAS_SPAWN = hasattr(os, "posix_spawn")


def spawn(words: "Sequence[bytes]", environment: "Environment", directory: bytes, stdin: int, stdout: int, stderr: int) -> int:
    """Start a program in a new process group and return its process id.

    A name without a slash is looked up in the environment's PATH; a script without ``#!`` is run by /bin/sh, as execvp
    does. The three file descriptors are the caller's and may be any. Raises OSError when the directory cannot be entered
    or the program not started; then ``filename`` is the directory or the program.
    """
    home = os.open(".", _FOLDER)  # not its name: it may have been removed
    try:
        os.chdir(directory)
        program = _find(words[0], environment.get(b"PATH", os.defpath.encode()))
        start = _posix_spawn if _HAS_SPAWN else _popen
        try:
            return start(program, words, environment, stdin, stdout, stderr)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise OSError(error.errno, error.strerror, words[0]) from error
            return start(b"/bin/sh", [b"/bin/sh", program] + list(words[1:]), environment, stdin, stdout, stderr)
    finally:
        os.fchdir(home)
        os.close(home)


def _find(name: bytes, path: bytes) -> bytes:
    if b"/" in name:
        return name
    for folder in path.split(b":"):
        candidate = os.path.join(folder or b".", name)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _posix_spawn(
    program: bytes, words: "Sequence[bytes]", environment: "Environment", stdin: int, stdout: int, stderr: int
) -> int:
    actions: "List[Any]" = [(os.POSIX_SPAWN_DUP2, old, new) for new, old in enumerate((stdin, stdout, stderr)) if old != new]
    return os.posix_spawn(  # pylint: disable=ansible-bad-function  # runs in the worker, outside Ansible
        program, list(words), environment, file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=(signal.SIGPIPE, signal.SIGXFSZ)
    )


def _popen(program: bytes, words: "Sequence[bytes]", environment: "Environment", stdin: int, stdout: int, stderr: int) -> int:
    import subprocess  # costs as much as all else that a worker loads

    process = subprocess.Popen(  # pylint: disable=ansible-bad-function  # as above
        words, executable=program, env=environment, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
    )
    process.returncode = 0  # it is reaped elsewhere
    return process.pid


def outcome(status: int) -> "Tuple[int, str]":
    """Exit code and message in a wait status: ``(0, "")`` only for exit code 0; death by signal is 128 + its number."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return 128 + number, "Process killed by signal %d" % number
    code = os.WEXITSTATUS(status)
    return code, "Process completed with exit code %d" % code if code else ""


def kill_group(group: int) -> None:
    """Kill all that is left of a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left, or only what has another user's rights
        os.killpg(group, signal.SIGKILL)


def kill_marked(mark: bytes) -> int:
    """Kill every process that has ``mark`` (``NAME=value``) in the environment that it was started with, until a look at all
    finds no new one; how many there were. Finds what left its group; needs Linux's /proc, else nothing is found."""
    found: "Dict[int, None]" = {}
    entry = mark + b"\0"
    while True:
        new = [number for number in _processes() if number not in found and entry in _environment(number)]
        if not new:
            return len(found)
        for number in new:
            found[number] = None
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)


def _processes() -> "Iterator[int]":
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdigit() and int(name) != os.getpid():
            yield int(name)


def _environment(number: int) -> bytes:
    try:
        with open("/proc/%d/environ" % number, "rb") as file:
            return file.read()
    except OSError:
        return b""


def reap() -> "List[Tuple[int, int]]":
    """Process id and wait status of every child that has ended and was not yet waited for."""
    ended: "List[Tuple[int, int]]" = []
    while True:
        try:
            number, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not number:
            return ended
        ended.append((number, status))


def reap_all(children: "Iterable[int]") -> None:
    """Wait up to REAP_LIMIT seconds for killed children."""
    left = set(children)
    until = time.monotonic() + REAP_LIMIT
    while left and time.monotonic() < until:
        left.difference_update(number for number, _status in reap())
        if left:
            time.sleep(0.002)


class Signals:
    """Signals as something that can be waited for, within a ``with`` block in the main thread."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self._old: "Dict[int, Any]" = {}
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)

    def __enter__(self) -> "Signals":
        for number in self._numbers:
            self._old[number] = signal.signal(number, _ignore)
            signal.siginterrupt(number, False)
        self._old_wakeup = signal.set_wakeup_fd(self._writing)
        return self

    def __exit__(
        self, kind: "Optional[Type[BaseException]]", error: "Optional[BaseException]", trace: "Optional[TracebackType]"
    ) -> None:
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        os.close(self._reading)
        os.close(self._writing)

    def fileno(self) -> int:
        return self._reading

    def take(self) -> "Sequence[int]":
        """The numbers of the signals that have come since the last time, as bytes."""
        try:
            return os.read(self._reading, 65536)
        except BlockingIOError:
            return b""


def _ignore(number: int, frame: "Any") -> None:
    """A handler of our own, so that the signal wakes the loop."""
