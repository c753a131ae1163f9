# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom jobs run as: the ssh user, whatever the play says, or the user whom the role's variable names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.station import Station
from tests.security.conftest import StartStation
from tests.testhosts import Host

BATCH = "batch"
PLAY = """\
- name: Start the coaster service
  hosts: localhost
  gather_facts: false
  roles: [coasters.pool.coaster_service]
  vars: {coaster_service_port: 0, coaster_service_worker_port: 0, coaster_service_engine: builtin}

- name: Start a worker on every host
  hosts: all
  gather_facts: false
  become: true
  roles: [coasters.pool.swift_worker]
  vars:
    swift_worker_service_port: "{{ hostvars.localhost.coaster_service_started.ports.worker }}"
"""


def add_user(host: Host) -> None:
    """A second user, whom the ssh user may become, and root too."""
    line = f"{BATCH}:x:2999:2999::/home/{BATCH}:/bin/sh"
    sudoers = f"{host.user} ALL=(ALL) NOPASSWD: ALL"
    host.run(f"echo {line} >>/etc/passwd && install -d -m 700 -o 2999 /home/{BATCH}", user="root")
    host.run(f"mkdir -p /etc/sudoers.d && echo '{sudoers}' >/etc/sudoers.d/test", user="root")


def workers(host: Host) -> set[str]:
    """The users whose processes keep a worker."""
    known = host.run("ps -eo user,args", user="root").splitlines()
    return {line.split()[0] for line in known if ".coasters/default/" in line and "ps -eo" not in line}


@pytest.mark.parametrize("user", ["", BATCH])
def test_whom_jobs_run_as(start_station: StartStation, tmp_path: Path, user: str) -> None:
    station: Station = start_station(1, "isolated")
    host = station.hosts[0]
    add_user(host)
    (tmp_path / "play.yml").write_text(PLAY)
    hosts = station.inventory([host], f"swift_worker_user={user}" if user else "")
    done = station.playbook("play.yml", "-i", hosts)
    try:
        assert done.returncode == 0, done.stdout
        assert workers(host) == {user or host.user}
        url = str(station.status()["url"])
        name = user or host.user
        assert station.submit(url, "-redirected", "/bin/sh", "-c", "id -un; echo $HOME")[:2] == (0, f"{name}\n/home/{name}\n\n")
    finally:
        done = station.playbook("coasters.pool.stop_pool", "-i", hosts)
    assert done.returncode == 0, done.stdout
    assert workers(host) == set()
    assert host.run(f"ls -A /home/{name}", user="root").split() == ([] if user else [".ssh"])
