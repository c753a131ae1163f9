# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every end of a pool leaves nothing, on no host and not on the client."""

from __future__ import annotations

import contextlib
import functools
import os
import pty
import re
import select
import signal
import time
from pathlib import Path

import pytest

from tests.integration.station import ANY_PORTS, LIMIT, Station, wait


def take_terminal() -> None:
    """Make standard input the terminal of a new session."""
    os.close(os.open(os.ttyname(0), os.O_RDWR))


def heeds(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


class TestEnd:
    JOB = "sleep 1000 & setsid sleep 1000 & nohup sleep 1000 & wait"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_leaves_nothing(self, station: Station, number: signal.Signals) -> None:
        with station.pool(*ANY_PORTS, *(host.target for host in station.hosts)) as running, contextlib.ExitStack() as stack:
            url = running.url()
            jobs = [stack.enter_context(station.job(url, "/bin/sh", "-c", self.JOB)) for dummy in station.hosts]
            wait(lambda: station.status()["jobs"]["active"] == len(jobs))
            assert len([line for line in station.there() if "sleep 1000" in line]) >= 3 * len(jobs)
            began = time.monotonic()
            assert running.end(number) == 128 + number
            assert [job.wait(60) for job in jobs] == [1] * len(jobs)
            assert station.left() == []
            print(f"nothing left {time.monotonic() - began:.1f} s after {number.name}")

    def test_killed_by_force(self, station: Station) -> None:
        """Nobody can stop the pool then, so it ends by itself; what lies on the hosts goes with the next stop."""
        with station.pool(*ANY_PORTS, *(host.target for host in station.hosts)) as running, station.job(running.url(), "/bin/sh", "-c", self.JOB) as job:
            wait(lambda: station.status()["jobs"]["active"] == 1)
            running.end(signal.SIGKILL)
            wait(lambda: not station.there() and not station.here())
            assert job.wait(60) == 1
        assert station.start_pool("--stop").returncode == 0

    def test_the_terminal_is_closed(self, station: Station) -> None:
        """Then SIGHUP comes, and nothing that is still said can be written."""
        screen, terminal = pty.openpty()
        with station.pool(*ANY_PORTS, station.hosts[0].target, stdin=terminal, stdout=terminal, stderr=terminal,
                          start_new_session=True, preexec_fn=take_terminal) as running:
            os.close(terminal)
            shown = ""
            while "Started coaster service" not in shown:
                assert select.select([screen], [], [], LIMIT)[0], shown
                shown += os.read(screen, 4096).decode()
            os.close(screen)
            assert running.process.wait(LIMIT) == 129
        assert station.left() == []

    def test_before_it_starts(self, station: Station, tmp_path: Path) -> None:
        """Ctrl-C while an inventory is read."""
        (tmp_path / "hosts").write_text(f"#!/bin/sh\ntouch {tmp_path}/read\nexec sleep 1000\n")
        (tmp_path / "hosts").chmod(0o755)
        with station.pool("-i", str(tmp_path / "hosts")) as running:
            wait((tmp_path / "read").exists)
            assert running.end() == 130
            assert running.errors.read_text() == ""
        assert station.left() == []

    def test_while_it_starts(self, station: Station) -> None:
        for seconds in (0.2, 1.0, 1.8):
            with station.pool(*ANY_PORTS, *(host.target for host in station.hosts)) as running:
                wait(functools.partial(heeds, running.process.pid, signal.SIGTERM))  # until then Python itself ends by a signal
                time.sleep(seconds)
                assert running.end() == 130
            assert station.left() == [], seconds
