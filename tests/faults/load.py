# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A load of numbered jobs, and the ledgers in which the hosts note what ran there.

Each job notes its start in the ledger of its host, sleeps, writes a file that says its number again and again, notes its
end, and has the file staged out. So what the clients were told can be compared with what was done.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.testhosts import Host

FOLDER = "/srv/jobs"
"""Of a host: holds its ledger; everybody may write there."""
SHORT, LONG = 0.7, 6.0
"""Seconds that jobs sleep."""
LONG_EVERY, BIG_EVERY, STAGED_EVERY = 15, 5, 3
"""Every so many jobs one is long, has a big file, or has a file staged in."""
BIG = 20000
"""Lines of a big file."""
IN_FLIGHT = 12
"""Jobs that have not ended, at most."""
PAUSE = 0.07
"""Seconds between two submissions at the beginning."""
EAGER = 250
"""Jobs after which fewer are submitted, IN_FLIGHT at once: a few at a time would never come to a worker that is new, as the
service prefers slots that have done jobs."""
BURST_PAUSE = 12.0
"""Seconds between two such bursts."""

_SCRIPT = """\
echo start $0 >> {folder}/ledger
sleep $1
if [ -f in.$0 ]; then cat in.$0 > file.$0; fi
yes $0 | head -n $2 >> file.$0 || exit 9
[ $(wc -l < file.$0) -ge $2 ] || exit 9
echo end $0 >> {folder}/ledger
""".format(folder=FOLDER)
_REASON = re.compile(r"Job failed: (?!no reason was given).+|Job canceled|Could not submit job: .+|Lost the service, and with it the job: .+")


def ledger(host: Host) -> list[list[str]]:
    """What ran on a host, in order: ["start" or "end", number] each; also of a host that is down."""
    path = host.folder / "upper" / FOLDER[1:] / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split() for line in lines]


def open_ledger(host: Host) -> None:
    host.run(f"mkdir -m 1777 {FOLDER}", user="root")


@dataclass
class Job:
    """``code`` is None until its cog-job-submit has ended; ``killed``: by us."""

    number: int
    process: subprocess.Popen[bytes]
    lines: int
    staged: bool
    code: int | None = None
    errors: str = ""
    killed: bool = False

    @property
    def content(self) -> bytes:
        return b"%d\n" % self.number * (self.lines + self.staged)


@dataclass
class Outcome:
    """How many ``jobs`` there were and what became of them; ``reasons`` has how often each reason of a failure was given."""

    jobs: int = 0
    completed: int = 0
    failed: int = 0
    lost: list[int] = field(default_factory=list)
    unreported: list[int] = field(default_factory=list)
    twice: list[int] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


class Load(threading.Thread):
    """Submits jobs from start() on until finish() is called, with ``submit`` (a cog-job-submit) to the service at ``url``.

    ``in_flight``: jobs that have not ended, at most; ``seconds``: what most of them sleep.
    """

    def __init__(
        self, submit: Path, url: str, folder: Path, environment: dict[str, str], in_flight: int = IN_FLIGHT, seconds: float = SHORT
    ) -> None:
        super().__init__(daemon=True)
        self.submit, self.url, self.folder, self.environment = submit, url, folder, environment
        self.in_flight, self.seconds = in_flight, seconds
        self.jobs: dict[int, Job] = {}
        self.enough = threading.Event()
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        numbers = itertools.count(1)
        due = time.monotonic()
        while True:
            running = self._reap()
            if self.enough.is_set() and not running:
                return
            if not self.enough.is_set() and running < self.in_flight and time.monotonic() >= due:
                number = next(numbers)
                self.jobs = {**self.jobs, number: self._begin(number)}
                due = time.monotonic() + (PAUSE if number < EAGER else 0.0 if number % self.in_flight else BURST_PAUSE)
            time.sleep(0.02)

    def _reap(self) -> int:
        running = 0
        for job in self.jobs.values():
            if job.code is None:
                code = job.process.poll()
                if code is None:
                    running += 1
                else:
                    job.errors = (self.folder / f"errors.{job.number}").read_text(errors="replace")
                    job.code = code
        return running

    def _begin(self, number: int) -> Job:
        lines = BIG if number % BIG_EVERY == 0 else 1
        seconds = LONG if number % LONG_EVERY == 1 else self.seconds
        staged = number % STAGED_EVERY == 0
        words = ["-stageout", f"{self.files}/{number} <- file.{number}", "-cleanup", f"file.{number}:in.{number}"]
        if staged:
            (self.folder / f"in.{number}").write_text(f"{number}\n")
            words += ["-stagein", f"{self.folder}/in.{number} -> in.{number}"]
        with (self.folder / f"errors.{number}").open("wb") as errors:
            process = subprocess.Popen(
                [str(self.submit), "-s", self.url, *words, "/bin/sh", "-c", _SCRIPT, str(number), str(seconds), str(lines)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=self.environment,
            )
        return Job(number, process, lines, staged)

    def running(self) -> list[Job]:
        """Jobs whose clients wait."""
        return [job for job in self.jobs.values() if job.code is None]

    def kill(self, count: int) -> list[int]:
        """Kill the clients of so many jobs, the longest ones first; their numbers."""
        chosen = sorted(self.running(), key=lambda job: (job.number % LONG_EVERY != 1, job.number))[:count]
        for job in chosen:
            job.killed = True
            job.process.kill()
        return [job.number for job in chosen]

    def finish(self, limit: float) -> None:
        """Submit nothing more, and wait until every job has ended, at most ``limit`` seconds; then their clients are killed."""
        self.enough.set()
        self.join(limit)
        for job in self.running():
            job.process.kill()
            job.process.wait()

    def outcome(self, hosts: Iterable[Host]) -> Outcome:
        """What became of the jobs, once finish() has returned: what their clients said against files and ledgers."""
        starts = Counter[int]()
        ends = Counter[int]()
        for host in hosts:
            for what, number in ledger(host):
                (starts if what == "start" else ends)[int(number)] += 1
        found = Outcome(len(self.jobs))
        for job in self.jobs.values():
            path = self.files / str(job.number)
            whole = path.exists() and path.read_bytes() == job.content
            reason = "its client was killed" if job.killed else next(iter(_REASON.findall(job.errors)), "")
            if starts[job.number] > 1:
                found.twice.append(job.number)
            if job.code == 0:
                if whole and ends[job.number]:
                    found.completed += 1
                else:
                    found.lost.append(job.number)
            elif job.code is not None and reason:
                found.failed += 1
                found.reasons[_general(reason)] += 1
            else:
                found.unreported.append(job.number)
        return found


def _general(reason: str) -> str:
    """The reason without what differs from job to job."""
    return re.sub(r"[0-9a-f]{32}|\d+", "N", re.sub(r"\(worker \S+ on \S+\)", "", re.sub(r"/\S*", "PATH", reason)))
