# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program ``coaster-worker``: drop-in for Swift/K's ``worker.pl`` (coaster-protocol 6.3). Python 3.6 and later.

Exit status: 0 after the service's SHUTDOWN; 1 -h, or the service refused the worker; 255 usage error; 128 + N when ended
by signal N; else no service was there for the time limit: the errno of the last attempt (111 refused, 22 unresolvable).
"""

import contextlib
import os
import socket
import sys
import time

from .connection import AddressError, clock, parse_url
from .options import Option, UsageError, number, parse, usage
from .staging import native
from .worker import LOST_LIMIT, Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Sequence

USAGE_ERROR = 255

LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR")
SILENT = ("NONE", "OFF")

OPTIONS = [
    Option("l", "", "level", "what to log: %s, NONE or OFF (default $WORKER_LOGGING_LEVEL, else NONE)" % ", ".join(LEVELS)),
    Option("c", "", "slots", "how many jobs at once to announce (default: the service decides)"),
    Option("w", "", "seconds", "walltime to announce; no effect on passive services (default -1)"),
    Option("timelimit", "", "seconds", "how long to go on without a service, half of it before the first (default %d)" % LOST_LIMIT),
    Option("h", "help", "", "show this"),
]
LINE = "coaster-worker [options] URLS BLOCKID LOGDIR   (URLS: http://host:port,...; BLOCKID: the id, or @FILE to read it from)"


class Log:
    """The log file, ``YYYY/MM/DD HH:MM:SS.mmm LEVEL WORKERID message`` a line; levels below ``least`` are left out."""

    def __init__(self, path: str, least: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._wanted = frozenset(LEVELS[LEVELS.index(least):])

    def write(self, level: str, worker_id: str, words: str) -> None:
        """Add a line. A full disk is passed over: rather no log than no worker."""
        if level in self._wanted:
            now = clock()
            stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(now))
            line = "%s.%03d %-5s %s %s\n" % (stamp, now % 1 * 1000, level, worker_id or "-", words.replace("\n", " "))
            with contextlib.suppress(OSError):
                os.write(self._file, native(line))


def main(argv: "Optional[Sequence[str]]" = None) -> int:
    """Run a worker; the exit status."""
    try:
        values, words = parse(sys.argv[1:] if argv is None else argv, OPTIONS)
        if "h" in values:
            sys.stdout.write(usage(LINE, OPTIONS))
            return 1
        return _work(values, words)
    except (UsageError, AddressError) as error:
        sys.stderr.write("%s\n" % error)
        return USAGE_ERROR


def _work(values: "Dict[str, str]", words: "List[str]") -> int:
    for index, name in enumerate(("URI", "BLOCKID", "LOGDIR")):
        if len(words) <= index:
            raise UsageError("Not given: " + name)
    if len(words) > 3:
        raise UsageError("Too many arguments: %s" % words[3])
    level = values.get("l") or os.environ.get("WORKER_LOGGING_LEVEL") or "NONE"
    if level not in LEVELS + SILENT:
        raise UsageError("Invalid worker logging level requested: %s" % level)
    urls = [parse_url(url) for url in words[0].split(",") if url.strip()]
    if not urls:
        raise UsageError("Not given: URI")
    block, name = words[1], words[1]
    if block.startswith("@"):
        block, name = _read(block[1:]), socket.gethostname()
    slots = number(values, "c", 1, least=1) if "c" in values else None
    _keep_standard_files()
    worker = Worker(urls, block, slots, number(values, "w", -1, least=-1), number(values, "timelimit", int(LOST_LIMIT)), name)
    log = _open_log(level, words[2], "worker.log" if words[1].startswith("@") else "worker-%s.log" % block.replace("/", "_"))
    if log is not None:
        write = log.write
        worker.log = lambda level, words: write(level, worker.id, words)
    exit_code = worker.run()
    if worker.problem:
        sys.stderr.write(worker.problem + "\n")
    return exit_code


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            block = file.read().strip()
    except (OSError, ValueError) as error:
        raise UsageError("The block id cannot be read: %s" % error) from error
    if not block:
        raise UsageError("The block id cannot be read: %s is empty" % path)
    return block


def _open_log(level: str, folder: str, name: str) -> "Optional[Log]":
    if level in SILENT:
        return None
    path = os.path.join(folder, name)
    try:
        os.makedirs(folder, exist_ok=True)
        log = Log(path, level)
    except OSError as error:
        raise UsageError("The log file cannot be written: %s" % error) from error
    if level in LEVELS[:3]:
        sys.stdout.write("LOG: %s\n" % path)
        sys.stdout.flush()
    return log


def _keep_standard_files() -> None:
    """Occupy file descriptors 0 to 2, so that no other file gets these numbers, which the jobs' streams will have."""
    file = os.open(os.devnull, os.O_RDWR)
    while file <= 2:
        file = os.dup(file)
    os.close(file)
