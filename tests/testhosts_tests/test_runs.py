# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs whose program ends without removing them, and the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import testhosts
from tests.testhosts import runs

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "tests.testhosts"]
KINDS = ["isolated", "plain"]


@contextmanager
def stay_up(kind: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``python -m tests.testhosts up 2`` once its hosts are up, and the number of its run."""
    if reason := testhosts.why_not(kind):
        pytest.skip(reason)
    command = [*COMMAND, "up", "2", "--kind", kind]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        shown = ""
        while "Ctrl-C" not in shown:
            line = process.stdout.readline()
            assert line, process.communicate()
            shown += line
        try:
            yield process, int(shown.partition(f"PATH={runs.BASE}/")[2].partition("/")[0])
        finally:
            process.kill()


def gone(number: int, process: subprocess.Popen[str]) -> bool:
    """Whether the program's run is removed; somebody else may have the number by now."""
    owner = runs.owner(number)
    if owner:
        return owner.split()[0] != str(process.pid)
    return not runs.folder(number).exists() and not runs.bridge_exists(number)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_ends_in_order(kind: str, number: signal.Signals) -> None:
    with stay_up(kind) as (process, run):
        assert not gone(run, process)
        process.send_signal(number)
        assert process.wait(60) == 0
        assert gone(run, process)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_program_is_cleaned_up_after(kind: str) -> None:
    with stay_up(kind) as (process, run):
        recorded = [who for file in runs.folder(run).glob("*/pids") for who in file.read_text().splitlines()]
        assert len(recorded) >= 2 and all(map(runs.alive, recorded))
        process.kill()
        assert runs.wait_until(lambda: gone(run, process), 60)
        assert not any(map(runs.alive, recorded))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_on_the_client_is_ended(kind: str) -> None:
    if reason := testhosts.why_not(kind):
        pytest.skip(reason)
    with testhosts.start(1, kind) as hosts:
        left = subprocess.Popen(["sleep", "600"], env=hosts.env(), start_new_session=True)
        mine = subprocess.Popen(["sleep", "600"], start_new_session=True)
    assert left.wait(60) == -signal.SIGKILL
    assert mine.poll() is None
    mine.kill()
    mine.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_sweep_removes_dead_runs_alone(kind: str) -> None:
    with stay_up(kind) as (living, other):
        for dummy in range(5):
            with stay_up(kind) as (process, run):
                reaper = next(found for found in runs.processes() if found.ppid == process.pid and " reap " in found.args)
                os.kill(reaper.pid, signal.SIGKILL)
                process.kill()
                process.wait(60)
                swept = subprocess.run([*COMMAND, "sweep"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
                if swept.startswith("swept "):
                    assert gone(run, process)
                    break
            # Whoever starts hosts beside this test sweeps first, and was quicker: once more.
        assert swept.startswith("swept ")
        assert not gone(other, living)
        assert living.poll() is None


def test_identity_tells_a_reused_process_id() -> None:
    mine = runs.identity(os.getpid())
    assert runs.alive(mine)
    assert not runs.alive(f"{os.getpid()} 1")
    assert not runs.alive("")


def test_bad_count_and_kind() -> None:
    for arguments in (["up", "many"], ["up", "2", "--kind", "odd"], []):
        assert subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, check=False).returncode == 2
