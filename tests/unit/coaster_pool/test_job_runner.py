# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command after ``--``, as a real process."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from coaster_pool import job_runner
from coaster_pool.end import Ending
from coaster_pool.failure import USAGE, Failure

INFO: dict[str, Any] = {"url": "http://127.0.0.1:4050", "bin_dir": "/pool/bin", "workers": [{"slots": 8}, {"slots": 4}]}


def run(*command: str) -> int:
    with Ending() as ending:
        return job_runner.run(list(command), dict(os.environ), ending)


def signal_when_there(path: Path, number: signal.Signals) -> None:
    """Send this process the signal as soon as the file is there."""

    def wait() -> None:
        while not path.exists():
            pass
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, daemon=True).start()


def test_the_environment() -> None:
    assert job_runner.environment(INFO, {"PATH": "/usr/bin", "A": "b"}) == {
        "A": "b", "PATH": "/pool/bin:/usr/bin", "COASTER_SERVICE_URL": "http://127.0.0.1:4050", "COASTER_WORKERS": "2", "COASTER_CPUS_PER_WORKER": "4",
    }
    assert job_runner.environment(INFO, {})["PATH"] == f"/pool/bin:{os.defpath}"


@pytest.mark.parametrize("status", [0, 1, 77, 255])
def test_its_exit_status(status: int) -> None:
    assert run("/bin/sh", "-c", f"exit {status}") == status


def test_it_takes_its_time() -> None:
    assert run("/bin/sh", "-c", "sleep 1.2; exit 3") == 3


def test_a_signal_that_ends_it() -> None:
    assert run("/bin/sh", "-c", "kill -USR1 $$") == 128 + signal.SIGUSR1


def test_a_command_that_is_none() -> None:
    with pytest.raises(Failure, match="/no/such/command cannot be run: No such file or directory") as failure:
        run("/no/such/command")
    assert failure.value.status == USAGE


def test_the_end_of_the_pool_is_passed_on(tmp_path: Path) -> None:
    signal_when_there(tmp_path / "up", signal.SIGHUP)
    assert run("/bin/sh", "-c", f"trap 'exit 9' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done") == 9


def test_a_signal_that_came_before_the_command_was_known(tmp_path: Path) -> None:
    with Ending() as ending:
        os.kill(os.getpid(), signal.SIGHUP)
        assert job_runner.run(["/bin/sleep", "1000"], dict(os.environ), ending) == 128 + signal.SIGTERM


def test_one_that_does_not_hear_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runner, "KILL_AFTER", 0.2)
    signal_when_there(tmp_path / "up", signal.SIGTERM)
    assert run("/bin/sh", "-c", f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 0.05; done") == 128 + signal.SIGKILL
