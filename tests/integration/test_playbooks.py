# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks and roles by ansible-playbook alone, without start_pool.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.station import Station, wait

PORTS = "coaster_service_port=0 coaster_service_worker_port=0"
CALLBACK = {"ANSIBLE_CALLBACKS_ENABLED": "coasters.pool.service_url"}


@pytest.fixture
def station(station: Station) -> Iterator[Station]:
    """What the test has left running is stopped by the playbook for that."""
    yield station
    for host in station.hosts:
        host.mend()
    pools = station.state / "coasters"
    for pool in os.listdir(pools) if pools.exists() else ():
        extra = f"coaster_service_pool={pool} swift_worker_pool={pool}"
        done = station.playbook("coasters.pool.stop_pool", "-i", station.inventory(station.hosts[:3]), "-e", extra)
        assert done.returncode == 0, done.stdout


def recap(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, int]]:
    """Host name to the counts of the play's end."""
    lines = done.stdout.partition("PLAY RECAP")[2].splitlines()[1:]
    found = {line.split()[0]: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)} for line in lines if " : ok=" in line}
    assert found, done.stdout + done.stderr
    return found


def url(done: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"^Started coaster service: (http://\S+)$", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return found[1]


def runs_jobs(station: Station, service: str) -> bool:
    return station.submit(service, "-redirected", "/bin/echo", "works") == (0, "works\n\n", "\n")


def names(station: Station) -> set[str]:
    return {worker["name"] for worker in station.status()["workers"]}


def test_a_plain_list_of_hosts(station: Station) -> None:
    hosts = station.hosts[:3]
    inventory = station.inventory(hosts)
    path = station.place / "service.json"
    environment = station.env | CALLBACK | {"COASTERS_SERVICE_URL_FILE": str(path)}
    done = station.playbook("coasters.pool.start_pool", "-i", inventory, "-e", PORTS, env=environment)
    assert done.returncode == 0, done.stdout
    service = url(done)
    assert json.loads(path.read_text()) == {"url": service, "engine": "builtin", "pool": "default"}
    assert names(station) == {host.address for host in hosts}
    assert runs_jobs(station, service)

    before = station.there()
    again = station.playbook("coasters.pool.start_pool", "-i", inventory, "-e", PORTS, env=environment)
    assert (again.returncode, url(again)) == (0, service)
    assert [host["changed"] for host in recap(again).values()] == [0, 0, 0, 0], again.stdout
    assert station.there() == before

    status = station.playbook("coasters.pool.pool_status", "-i", inventory)
    assert status.returncode == 0
    assert service in status.stdout

    first = station.playbook("coasters.pool.stop_pool", "-i", inventory)
    assert {name: host["changed"] for name, host in recap(first).items()} == dict.fromkeys([*(host.address for host in hosts), "localhost"], 1)
    assert station.left() == []
    second = station.playbook("coasters.pool.stop_pool", "-i", inventory)
    assert {host["changed"] for host in recap(second).values()} == {0}


def test_from_a_checkout(station: Station) -> None:
    """Its own ansible.cfg leads to the collection and shows the URL."""
    environment = {name: value for name, value in station.env.items() if name != "ANSIBLE_COLLECTIONS_PATH"}
    inventory = station.inventory(station.hosts[:2])
    done = station.playbook("playbooks/start_pool.yml", "-i", inventory, "-e", PORTS, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs_jobs(station, url(done))
    assert names(station) == {host.address for host in station.hosts[:2]}
    done = station.playbook("playbooks/stop_pool.yml", "-i", inventory, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert station.left() == []


JOIN = """\
- hosts: all
  gather_facts: false
  roles:
    - role: coasters.pool.swift_worker
      swift_worker_service_url: "{url}"
      swift_worker_slots: 3
"""


def test_a_worker_joins_a_service_that_runs_already(station: Station, tmp_path: Path) -> None:
    """With nothing but its URL, in a play of one's own."""
    ports = tmp_path / "ports"
    listen = ["-listen", "127.0.0.1", "-workerlisten", station.hosts.client.address]
    command = [str(ROOT / "bin" / "coaster-service"), "-nosec", "-passive", "-portfile", f"{ports}.s", "-localportfile", f"{ports}.w", *listen]
    with subprocess.Popen(command, env=station.env, cwd=tmp_path, stdout=subprocess.DEVNULL) as service:
        wait(lambda: Path(f"{ports}.s").exists() and Path(f"{ports}.w").exists())
        play = tmp_path / "join.yml"
        play.write_text(JOIN.format(url=f"http://@:{Path(f'{ports}.w').read_text()}"))
        done = station.playbook(str(play), "-i", station.inventory(station.hosts[:2]))
        assert done.returncode == 0, done.stdout
        assert [host["changed"] for host in recap(done).values()] == [1, 1]
        submit = [str(ROOT / "bin" / "cog-job-submit"), "-provider", "coaster-persistent", "-service-contact",
                  f"http://127.0.0.1:{Path(f'{ports}.s').read_text()}", "-redirected"]
        shown = {station.run(*submit, "/bin/sh", "-c", "hostname; sleep 0.2").stdout.split()[0] for dummy in range(2)}
        assert shown <= {host.hostname for host in station.hosts[:2]}
        again = station.playbook(str(play), "-i", station.inventory(station.hosts[:2]))
        assert [host["changed"] for host in recap(again).values()] == [0, 0]
        service.terminate()
        service.wait(60)
    wait(lambda: station.there() == [])


OWN = """\
- hosts: localhost
  gather_facts: false
  roles:
    - role: coasters.pool.coaster_service
      coaster_service_pool: mine
      coaster_service_port: 0
      coaster_service_worker_port: 0
      coaster_service_reach: "{{ groups['all'] }}"
- hosts: all
  gather_facts: false
  roles:
    - role: coasters.pool.swift_worker
      swift_worker_pool: mine
      swift_worker_route: direct
      swift_worker_service_port: "{{ (hostvars.localhost.coaster_service_started.ports | default({})).worker | default(4051) }}"
"""
OWN_STOP = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: coasters.pool.swift_worker, tasks_from: stop}
      vars: {swift_worker_pool: mine}
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: coasters.pool.coaster_service, tasks_from: stop}
      vars: {coaster_service_pool: mine}
"""


def test_the_roles_in_plays_of_ones_own(station: Station, tmp_path: Path) -> None:
    start, stop = tmp_path / "own.yml", tmp_path / "own_stop.yml"
    start.write_text(OWN)
    stop.write_text(OWN_STOP)
    inventory = station.inventory(station.hosts[:2])

    checked = station.playbook(str(start), "--check", "-i", inventory)
    assert checked.returncode == 0, checked.stdout
    assert {host["changed"] for host in recap(checked).values()} == {1}
    station.wait_until_nothing_is_left()

    done = station.playbook(str(start), "-i", inventory)
    assert done.returncode == 0, done.stdout
    wait(lambda: len(station.status("mine")["workers"]) == 2)
    assert [line for line in station.here() if "/ssh " in line and " -R " in line] == []
    assert station.submit(station.status("mine")["url"], "-redirected", "/bin/echo", "works", pool="mine")[:2] == (0, "works\n\n")

    checked = station.playbook(str(stop), "--check", "-i", inventory)
    assert {host["changed"] for host in recap(checked).values()} == {1}
    assert len(station.status("mine")["workers"]) == 2
    assert station.playbook(str(stop), "-i", inventory).returncode == 0
    assert station.left() == []


def test_some_hosts_fail(station: Station) -> None:
    station.hosts[1].refuse()
    done = station.playbook("coasters.pool.start_pool", "-i", station.inventory(station.hosts[:3]), "-e", PORTS, env=station.env | CALLBACK)
    assert done.returncode == 4, done.stdout
    assert "nothing listens at its ssh port: check the port and that sshd runs there" in done.stdout
    assert names(station) == {station.hosts[0].address, station.hosts[2].address}
    assert runs_jobs(station, url(done))
    station.hosts[1].mend()


def test_the_logs_stay_when_asked(station: Station) -> None:
    inventory = station.inventory(station.hosts[:1])
    assert station.playbook("coasters.pool.start_pool", "-i", inventory, "-e", PORTS).returncode == 0
    keep = "coaster_service_keep_logs=true swift_worker_keep_logs=true"
    assert station.playbook("coasters.pool.stop_pool", "-i", inventory, "-e", keep).returncode == 0
    assert station.there() + station.here() == []
    assert station.hosts[0].run("ls .coasters/default").split() == ["logs"]
    assert (station.state / "coasters" / "default" / "logs" / "keeper.log").is_file()
