# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose key is not known, or has changed, gets nothing, whatever else the user's files say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.station import ANY_PORTS, Station
from tests.testhosts import Hosts, start

OFF = "-o StrictHostKeyChecking=no"
WAYS: dict[str, dict[str, Any]] = {
    "a variable of the environment": {"env": {"ANSIBLE_HOST_KEY_CHECKING": "False"}},
    "ansible.cfg": {"config": "[defaults]\nhost_key_checking = False\n"},
    "ssh options in ansible.cfg": {"config": f"[ssh_connection]\nssh_args = {OFF}\n"},
    "ssh options in the environment": {"env": {"ANSIBLE_SSH_COMMON_ARGS": OFF}},
    "the inventory": {"variables": [
        {"ansible_host_key_checking": False}, {"ansible_ssh_common_args": OFF}, {"ansible_ssh_args": OFF, "ansible_ssh_extra_args": OFF},
    ]},
    "ssh's own file": {"ssh_config": "StrictHostKeyChecking no\n"},
}
"""``variables``: each are those of one host; else there is one host."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with start(3) as hosts:
        yield hosts


@pytest.fixture
def station(hosts: Hosts, tmp_path: Path) -> Iterator[Station]:
    station = Station(hosts, tmp_path)
    kept = hosts.client.ssh_config.read_text()
    yield station
    hosts.client.ssh_config.write_text(kept)
    hosts.client.know(hosts)
    assert station.start_pool("--stop").returncode == 0


@pytest.mark.parametrize("way", WAYS)
def test_no_file_of_the_users_turns_the_check_off(station: Station, way: str) -> None:
    settings = WAYS[way]
    station.hosts.client.know([])
    (station.place / "ansible.cfg").write_text(settings.get("config", ""))
    station.hosts.client.ssh_config.write_text(settings.get("ssh_config", "") + station.hosts.client.ssh_config.read_text())
    hosts = {
        host.name: {"ansible_host": host.address, "ansible_user": host.user, "ansible_port": host.port, **variables}
        for host, variables in zip(station.hosts, settings.get("variables", [{}]), strict=False)
    }
    (station.place / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    done = station.start_pool("--detach", *ANY_PORTS, "-i", "hosts.json", env=station.env | settings.get("env", {}))
    assert done.returncode == 4, done.stderr
    reasons = [line.partition(": failed: ")[2] for line in done.stderr.splitlines() if ": failed: " in line]
    assert reasons, done.stderr
    assert all("its host key is not known" in reason or "turn the check of its host key off" in reason for reason in reasons), done.stderr
    assert "sh -c" not in "".join(station.there()) and station.hosts.client.known_hosts.read_text() == ""


def test_a_new_key_is_taken_once(station: Station) -> None:
    """With the option for it; and no key that differs from the one which was taken."""
    known, host = station.hosts.client.known_hosts, station.hosts[0]
    known.write_text("")
    done = station.start_pool("--detach", "--accept-new-host-keys", *ANY_PORTS, host.target)
    assert done.returncode == 0, done.stderr
    assert host.public_key in known.read_text()
    assert station.start_pool("--stop").returncode == 0
    known.write_text(known.read_text().replace(host.public_key, station.hosts.client.public_key.rsplit(" ", 1)[0]))
    before = known.read_text()
    done = station.start_pool("--detach", "--accept-new-host-keys", *ANY_PORTS, host.target)
    assert done.returncode == 4 and "its host key has changed" in done.stderr, done.stderr
    assert known.read_text() == before
