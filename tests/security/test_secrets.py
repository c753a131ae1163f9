# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Block ids, and the environment and arguments of jobs, are where they have to be and nowhere else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.station import ANY_PORTS, Station, wait
from tests.security.conftest import StartStation

SECRET = "storage-key-7d1f0c9a"


@pytest.fixture
def station(start_station: StartStation) -> Iterator[Station]:
    station = start_station(2)
    yield station
    assert station.start_pool("--stop").returncode == 0
    station.wait_until_nothing_is_left()


def contents(folder: Path) -> dict[Path, bytes]:
    """All files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


class Watch(threading.Thread):
    """Collects the command lines and environments of all processes on this machine, those of isolated hosts among them."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.environments: set[bytes] = set()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            for name in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError):
                    self.seen.add(Path("/proc", name, "cmdline").read_bytes())
                    self.environments.add(Path("/proc", name, "environ").read_bytes())


def test_where_they_are(station: Station, tmp_path: Path) -> None:
    watch = Watch()
    watch.start()
    stats = tmp_path / "callback"
    env = {"COASTERS_SERVICE_URL_FILE": str(stats), "ANSIBLE_LOG_PATH": str(tmp_path / "ansible.log"), "ANSIBLE_DEBUG": "0"}
    words = ("--json", "--detach", *ANY_PORTS, *(host.target for host in station.hosts))
    done = station.start_pool(*words, env=station.env | env)
    assert done.returncode == 0, done.stderr
    url = json.loads(done.stdout)["url"]
    folder = station.state / "coasters" / "default"
    ids = [line.split()[0].encode() for line in (folder / "workers").read_text().splitlines()]
    assert len(ids) == len({*ids}) == 2 and all(len(bytes.fromhex(block.decode())) == 16 for block in ids)
    job = station.submit(url, "-environment", f"KEY={SECRET}", "-redirected", "/bin/sh", "-c", "echo ${#KEY}")
    assert job[:2] == (0, f"{len(SECRET)}\n\n"), job
    watch.over.set()
    watch.join()

    ours = [words for words in watch.seen if b"cog-job-submit" not in words]
    assert len(ours) > 10
    assert not [words for words in ours for secret in (*ids, SECRET.encode()) if secret in words]
    assert not [words for words in watch.environments for block in ids if block in words]
    for path, data in contents(station.state).items():
        assert path == folder / "workers" or not any(block in data for block in ids), path
        assert SECRET.encode() not in data, path
    for path in (stats, tmp_path / "ansible.log"):
        assert not path.exists() or not any(block in path.read_bytes() for block in ids), path
    status = station.start_pool("--status", "--json")
    assert not [block for block in ids if block.decode() in done.stdout + done.stderr + status.stdout + status.stderr]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and stat.S_IMODE((folder / "workers").stat().st_mode) == 0o600
    for host in station.hosts:
        assert host.run("stat -c %a ~/.coasters ~/.coasters/default ~/.coasters/default/block").split() == ["700", "700", "600"]
        found = host.run(f"grep -rlE '{ids[0].decode()}|{ids[1].decode()}|{SECRET}' ~/.coasters", check=False).split()
        assert found == [f"/home/{host.user}/.coasters/default/block"]


@pytest.mark.parametrize("seconds", [1.0, 2.0, 4.0])
def test_a_killed_run_leaves_no_private_folder(station: Station, seconds: float) -> None:
    """The keeper removes it when it stands, else the next run."""
    runs = station.state / "coasters" / ".runs"
    with station.pool(*ANY_PORTS, *(host.target for host in station.hosts)) as running:
        wait(runs.exists)
        threading.Event().wait(seconds - 1)
        running.end(signal.SIGKILL)
    keeper = (station.state / "coasters" / "default" / "keeper.pid").exists()
    if keeper:
        wait(lambda: not runs.exists(), "the keeper leaves the folder")
    assert station.start_pool("--stop").returncode == 0
    assert not runs.exists()
