# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers and services under systemd, with a real one: the system's of an isolated host, or one that serves a user there."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

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
SSH_PORT = 2222
FURNISH = f"""\
rm -rf /etc/systemd/system/*.wants /usr/lib/systemd/system/*.wants /usr/lib/systemd/system-generators
mkdir -p /etc/systemd/system/multi-user.target.wants
printf '[Service]\\nExecStart=/usr/sbin/sshd -D -p {SSH_PORT} -f /etc/ssh/sshd_config\\n' > /etc/systemd/system/test-sshd.service
ln -s ../test-sshd.service /etc/systemd/system/multi-user.target.wants
"""
"""Nothing of the machine's own is started by the host's systemd, but an sshd whose logins are among its processes."""
BOOT_SYSTEM = """\
mkdir -p /run/systemd
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/{group}
echo $$ > /sys/fs/cgroup/{group}/cgroup.procs
setsid unshare --pid --fork --mount --cgroup --mount-proc --propagation private sh -c '
umount /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
exec env -i container=test PATH=/usr/bin:/bin:/usr/sbin:/sbin {systemd} --system --unit=multi-user.target' < /dev/null > /tmp/systemd.log 2>&1 &
echo $!
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


class Machine:
    """A host whose first process, but for those that the tests see, is a systemd."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.group = f"coasters-test-{uuid.uuid4().hex}"
        host.run(FURNISH, user="root")
        host.run(f"echo '{host.user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/test", user="root")

    def boot(self) -> None:
        self.outer = self.host.run(BOOT_SYSTEM.format(group=self.group, systemd=SYSTEMD), user="root").strip()
        wait(lambda: self.control("is-active", "test-sshd", "multi-user.target").split() == ["active"] * 2, "systemd is not ready")

    def control(self, *words: str) -> str:
        return self.inside(f"systemctl {' '.join(words)}")

    def inside(self, command: str) -> str:
        """What root's command prints among the processes of the systemd."""
        enter = f"nsenter --target $(cat /proc/{self.outer}/task/{self.outer}/children) --pid --mount --cgroup"
        return self.host.run(f"{enter} sh -c {shlex.quote(command)}", user="root", check=False).strip()


Booted = TypeVar("Booted", Account, Machine)


@pytest.fixture
def station(start_station: Any) -> Station:
    if not SYSTEMD.exists():
        pytest.skip("there is no systemd on this machine")
    station: Station = start_station(1, "isolated")
    return station


@contextlib.contextmanager
def booted(what: Booted) -> Iterator[Booted]:
    try:
        what.boot()
        yield what
    finally:
        what.host.crash()
        for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            for folder, dummy, dummy in os.walk(f"{mount}/{what.group}", topdown=False):
                subprocess.run(["rmdir", folder], check=False)


@pytest.fixture
def account(station: Station) -> Iterator[Account]:
    with booted(Account(station.hosts[0])) as account:
        yield account


@pytest.fixture
def machine(station: Station) -> Iterator[Machine]:
    with booted(Machine(station.hosts[0])) as machine:
        yield machine


def play(station: Station, name: str, *words: str, **variables: Any) -> str:
    ports = {"coaster_service_port": 0, "coaster_service_worker_port": 0, "swift_worker_supervisor": "systemd"}
    inventory = station.inventory(station.hosts, variables.pop("inventory", ""))
    settings = ["-i", inventory, "-e", json.dumps(ports | variables)]
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


def test_a_unit_of_the_system(station: Station, machine: Machine) -> None:
    """Root's worker, whom the ssh user becomes."""
    settings = {
        "swift_worker_user": "root",
        "inventory": f"ansible_port={SSH_PORT} ansible_ssh_common_args='-o HostKeyAlias={machine.host.address}'",
    }
    try:
        started = play(station, "start_pool", **settings)
        assert started.count("changed=1") == 2, started
        assert machine.control("is-active", "coasters-default") == "active"
        assert machine.control("is-enabled", "coasters-default") == "enabled"
        url = station.status()["url"]
        assert station.submit(url, "-redirected", "/bin/sh", "-c", "id -un; echo $HOME")[:2] == (0, "root\n/root\n\n")
        assert play(station, "start_pool", **settings).count("changed=0") == 2

        machine.host.crash()
        machine.host.start()
        machine.boot()
        wait(lambda: machine.control("is-active", "coasters-default") == "active")
    finally:
        stopped = play(station, "stop_pool", **settings)
    assert stopped.count("changed=1") == 2, stopped
    assert machine.control("is-active", "coasters-default") == "inactive"
    assert machine.inside("ls -A /root/.coasters /etc/systemd/system/coasters-default.service").count("No such file") == 2


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
