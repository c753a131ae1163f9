# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers and services under systemd, with a real one that serves the user of an isolated host."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.station import Station, wait
from tests.testhosts import Host

SYSTEMD = Path("/usr/lib/systemd/systemd")
BOOT = """\
mkdir -p /run/systemd/system /run/user/{uid} /var/lib/systemd/linger
chown {uid} /run/user/{uid}
chmod 700 /run/user/{uid}
touch /var/lib/systemd/linger/{user}
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/{group}/manager
echo $$ > /sys/fs/cgroup/{group}/manager/cgroup.procs
chown -R {uid} /sys/fs/cgroup/{group}
exec setsid setpriv --reuid={uid} --regid={uid} --clear-groups env -i HOME=/home/{user} USER={user} PATH=/usr/bin:/bin \\
  XDG_RUNTIME_DIR=/run/user/{uid} {systemd} --user < /dev/null > /tmp/systemd.log 2>&1 &
"""


class Account:
    """A host whose user has a systemd."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.group = f"coasters-test-{uuid.uuid4().hex}"
        self.uid = host.run("id -u").strip()

    def boot(self) -> None:
        words = {"uid": self.uid, "user": self.host.user, "group": self.group, "systemd": SYSTEMD}
        self.host.run(BOOT.format(**words), user="root")
        wait(lambda: self.control("is-system-running") in ("running", "degraded"), "systemd is not ready")

    def control(self, *words: str) -> str:
        return self.host.run(f"XDG_RUNTIME_DIR=/run/user/{self.uid} systemctl --user {' '.join(words)}", check=False).strip()


@pytest.fixture
def station(start_station: Any) -> Station:
    if not SYSTEMD.exists():
        pytest.skip("there is no systemd on this machine")
    station: Station = start_station(1, "isolated")
    return station


@pytest.fixture
def account(station: Station) -> Iterator[Account]:
    account = Account(station.hosts[0])
    account.boot()
    yield account
    account.host.crash()
    for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        for folder, dummy, dummy in os.walk(f"{mount}/{account.group}", topdown=False):
            subprocess.run(["rmdir", folder], check=False)


def play(station: Station, name: str, *words: str, **variables: Any) -> str:
    ports = {"coaster_service_port": 0, "coaster_service_worker_port": 0, "swift_worker_supervisor": "systemd"}
    settings = ["-i", station.inventory(station.hosts), "-e", json.dumps(ports | variables)]
    done = station.playbook(f"coasters.pool.{name}", *settings, *words)
    return done.stdout + done.stderr


def slots(station: Station) -> list[int]:
    return [worker["slots"] for worker in station.status()["workers"]]


def test_a_unit_of_the_user(station: Station, account: Account) -> None:
    try:
        assert play(station, "start_pool").count("changed=1") == 2
        assert account.control("is-active", "coasters-default") == "active"
        assert account.control("is-enabled", "coasters-default") == "enabled"
        url = station.status()["url"]
        assert station.submit(url, "-redirected", "/bin/echo", "works")[:2] == (0, "works\n\n")
        assert play(station, "start_pool").count("changed=0") == 2

        before = account.control("show", "-P", "MainPID", "coasters-default")
        play(station, "start_pool", swift_worker_slots=7, swift_worker_restart=True)
        assert account.control("show", "-P", "MainPID", "coasters-default") not in ("0", before)
        wait(lambda: slots(station) == [7])
    finally:
        stopped = play(station, "stop_pool")
    assert stopped.count("changed=1") == 2
    assert account.control("is-active", "coasters-default") == "inactive"
    assert account.host.run("ls -A .coasters .config/systemd/user/*coasters*", check=False).count("No such file") == 2


def test_a_pool_comes_back_after_a_boot(station: Station, account: Account) -> None:
    """A client with a worker of its own, both of them units."""
    host, units = account.host, ("coaster-service-default", "coasters-default")
    pool = ".local/state/coasters/default"
    settings = {"pool_client": host.address, "swift_worker_route": "direct", "coaster_service_supervisor": "systemd"}
    try:
        assert "changed=2" in play(station, "start_pool", **settings)
        assert [account.control(question, *units).split() for question in ("is-active", "is-enabled")] == [["active"] * 2, ["enabled"] * 2]
        assert "changed=0" in play(station, "start_pool", **settings)
        url = json.loads(host.run(f"cat {pool}/pool.json"))["url"]

        host.crash()
        host.start()
        account.boot()
        job = f"{pool}/bin/cog-job-submit -provider coaster-persistent -service-contact {url} -redirected /bin/echo works"
        wait(lambda: host.run(job, check=False) == "works\n\n\n")
    finally:
        stopped = play(station, "stop_pool", **settings)
    assert "changed=2" in stopped
    assert account.control("is-active", *units).split() == ["inactive"] * 2
    left = host.run(f"ls -A .coasters {pool} .config/systemd/user/*coaster*", check=False)
    assert left.count("No such file") == 3, left


def test_a_host_without_systemd(station: Station) -> None:
    try:
        assert "root run 'loginctl enable-linger worker' on this host" in " ".join(play(station, "start_pool").split())
        station.hosts[0].run("mkdir -p /var/lib/systemd/linger; touch /var/lib/systemd/linger/worker", user="root")
        assert "systemd does not answer on this host" in " ".join(play(station, "start_pool").split())
        assert station.hosts[0].run("ls -A") == ".ssh\n"
        service = {"pool_client": station.hosts[0].address, "swift_worker_route": "direct", "coaster_service_supervisor": "systemd"}
        assert "systemd does not answer on this machine" in " ".join(play(station, "start_pool", **service).split())
    finally:
        play(station, "stop_pool")
