# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles and playbooks in the estates of others: check mode, diff, strategies, become, a client elsewhere, several pools."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.integration.station import Station
from tests.testhosts import Host

Play = Callable[..., "Results"]
PORTS = {"coaster_service_port": 0, "coaster_service_worker_port": 0}


class Results:
    """What ansible-playbook said. ``changed``: host name to its number of changed tasks."""

    def __init__(self, code: int, output: str) -> None:
        self.code, self.output = code, output
        lines = output.partition("PLAY RECAP")[2].splitlines()
        self.changed = {line.split()[0]: int(re.findall(r"changed=(\d+)", line)[0]) for line in lines if " : ok=" in line}

    def ok(self) -> Results:
        assert self.code == 0, self.output
        return self

    @property
    def words(self) -> str:
        return " ".join(self.output.split())


@pytest.fixture
def play(station: Station) -> Iterator[Play]:
    """Runs a playbook of ours, by name, or plays, as a list. The inventory: ``head`` and, in the groups ``a`` and ``b``, two hosts each.

    After the test all pools that were named, and not stopped, are.
    """

    def entry(host: Host) -> dict[str, Any]:
        return {"ansible_host": host.address, "ansible_port": host.port}

    head, *hosts = station.hosts[:5]
    groups = {"a": {"a1": entry(hosts[0]), "a2": entry(hosts[1])}, "b": {"b1": entry(hosts[2]), "b2": entry(hosts[3])}}
    children = {name: {"hosts": members} for name, members in {"client": {"head": entry(head)}, **groups}.items()}
    common = {"ansible_user": head.user, "ansible_python_interpreter": "/usr/bin/python3"}
    (station.place / "inventory.yml").write_text(yaml.safe_dump({"all": {"vars": common, "children": children}}))
    cleanups: dict[str, dict[str, Any]] = {}

    def run(what: str | list[dict[str, Any]], *words: str, env: dict[str, str] | None = None, **variables: Any) -> Results:
        if isinstance(what, str):
            name = f"coasters.pool.{what}"
            cleanups[variables.get("coaster_service_pool", "default")] = variables
        else:
            path = station.place / "play.yml"
            path.write_text(yaml.safe_dump(what, sort_keys=False))
            name = str(path)
        settings = ["-i", str(station.place / "inventory.yml"), "-f", "8", "-e", json.dumps(PORTS | variables)]
        done = station.playbook(name, *settings, *words, env=station.env | {"ANSIBLE_LOCALHOST_WARNING": "False"} | (env or {}))
        if what == "stop_pool" and "--check" not in words and done.returncode == 0:
            del cleanups[variables.get("coaster_service_pool", "default")]
        return Results(done.returncode, done.stdout + done.stderr)

    yield run
    for variables in list(cleanups.values()):
        run("stop_pool", **variables).ok()
    head.run("rm -rf .ansible .local")  # of Ansible's modules, where the client is elsewhere


def include(role: str, entry_point: str = "main", **variables: Any) -> dict[str, Any]:
    """A task."""
    words = {"name": f"coasters.pool.{role}", "tasks_from": entry_point}
    return {"ansible.builtin.include_role": words, "vars": {f"{role}_{name}": value for name, value in variables.items()}}


def test_check_mode_and_diff_are_truthful(station: Station, play: Play) -> None:
    started = {"localhost": 1, "a1": 1, "a2": 1}
    bare = play("start_pool", "--check", "--diff", pool_hosts="a").ok()
    assert bare.changed == started
    assert '+ "engine": "builtin",' in bare.words
    station.wait_until_nothing_is_left()

    real = play("start_pool", "--diff", pool_hosts="a").ok()
    assert real.changed == started
    assert re.sub(r"127.0.0.1:\d+", "", bare.words).count("+ ") == re.sub(r"127.0.0.1:\d+", "", real.words).count("+ ")

    running = play("start_pool", "--check", "--diff", pool_hosts="a").ok()
    assert running.changed == dict.fromkeys(started, 0)
    assert "+++ after" not in running.output

    more = {"pool_hosts": "a1", "swift_worker_slots": 7, "swift_worker_restart": True}
    other = play("start_pool", "--check", "--diff", **more).ok()
    assert other.changed == {"localhost": 0, "a1": 1}
    assert '+ "slots": 7,' in other.words
    assert play("start_pool", "--diff", **more).ok().changed == {"localhost": 0, "a1": 1}
    assert {worker["name"]: worker["slots"] for worker in station.status()["workers"]}["a1"] == 7

    stop = play("stop_pool", "--check", "--diff", pool_hosts="a").ok()
    assert stop.changed == started
    assert '- "slots": 7,' in stop.words
    assert len(station.status()["workers"]) == 2


def test_two_pools_in_one_playbook_with_the_strategy_free(station: Station, play: Play) -> None:
    def each(playbook: str) -> list[dict[str, Any]]:
        names = ("coaster_service_pool", "swift_worker_pool", "pool_hosts")
        return [{"ansible.builtin.import_playbook": f"coasters.pool.{playbook}", "vars": dict.fromkeys(names, pool)} for pool in ("a", "b")]

    free = {"ANSIBLE_STRATEGY": "ansible.builtin.free"}
    try:
        play(each("start_pool"), env=free).ok()
        for pool in ("a", "b"):
            known = station.status(pool)
            assert {worker["name"] for worker in known["workers"]} == {f"{pool}1", f"{pool}2"}
            assert station.submit(known["url"], "-redirected", "/bin/echo", pool, pool=pool)[:2] == (0, f"{pool}\n\n")
        assert set(play(each("start_pool"), env=free).ok().changed.values()) == {0}
    finally:
        assert set(play(each("stop_pool"), env=free).ok().changed.values()) == {1, 2}


def test_each_entry_point_in_plays_of_ones_own_with_serial(station: Station, play: Play) -> None:
    client: dict[str, Any] = {"hosts": "localhost", "gather_facts": False}
    workers: dict[str, Any] = {"hosts": "a:b", "serial": 3, "gather_facts": False}
    port = "{{ hostvars.localhost.coaster_service_started.ports.worker }}"
    assertion = {"ansible.builtin.assert": {"that": ["swift_worker_status.running == wanted", "wanted is false or swift_worker_status.slots == 3"]}}
    start = [
        client | {"tasks": [include("coaster_service")]},
        workers | {"tasks": [include("swift_worker", slots=3, service_port=port)]},
        client | {"tasks": [include("coaster_service", "ready", expected=["a1", "a2", "b1", "b2"], min_workers=4), include("coaster_service", "status")]},
        workers | {"tasks": [include("swift_worker", "status"), assertion, include("swift_worker", "logs")], "vars": {"wanted": True}},
    ]
    stop = [workers | {"tasks": [include("swift_worker", "stop")]}, client | {"tasks": [include("coaster_service", "stop")]}]
    try:
        first = play(start).ok()
        assert first.changed == dict.fromkeys(("localhost", "a1", "a2", "b1", "b2"), 1)
        assert '"slots": 3' in first.output
        assert set(play(start).ok().changed.values()) == {0}
    finally:
        play(stop).ok()
    gone = play([workers | {"tasks": [include("swift_worker", "status"), assertion], "vars": {"wanted": False}}]).ok()
    assert set(gone.changed.values()) == {0}


def allow_sudo(host: Host) -> None:
    host.run(f"echo '{host.user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/test", user="root")


def test_workers_of_another_user(station: Station, play: Play) -> None:
    """The service stays the user's, whatever the plays become; a worker of root finds the way to it through a tunnel and directly."""
    if station.hosts.kind != "isolated":
        pytest.skip("sudo on a host needs isolated test hosts")
    for host in station.hosts[1:3]:
        allow_sudo(host)
    for route in ("tunnel", "direct"):
        settings = {"pool_hosts": "a", "swift_worker_route": route, "swift_worker_user": "root"}
        play("start_pool", "--become", **settings).ok()
        known = station.status()
        assert station.submit(known["url"], "-redirected", "/usr/bin/id", "-un")[:2] == (0, "root\n\n")
        assert set(play("start_pool", "--become", **settings).ok().changed.values()) == {0}
        stopped = play("stop_pool", "--become", **settings).ok()
        assert set(stopped.changed.values()) == {1}
        assert station.hosts[1].run("ls -A /root/.coasters", user="root", check=False).endswith("No such file or directory\n")


def test_a_client_that_is_not_the_control_node(station: Station, play: Play) -> None:
    """As AWX has it: the control node is another one in each run, and the URL goes on as an artifact."""
    head = station.hosts[0]
    settings = {"pool_client": "head", "pool_hosts": "a"}
    refused = play("start_pool", **settings)
    assert refused.code != 0
    assert "say which hosts or networks may reach it by TCP, in coaster_service_reach" in refused.words

    settings["swift_worker_route"] = "direct"

    def elsewhere(number: int) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(station.place / f"state{number}"), "ANSIBLE_SHOW_CUSTOM_STATS": "True"}

    first = play("start_pool", env=elsewhere(1), **settings).ok()
    assert first.changed == {"head": 1, "a1": 1, "a2": 1}
    url = re.search(r'"coaster_service_url": "(http://127.0.0.1:\d+)"', first.output)
    assert url, first.output
    pool = ".local/state/coasters/default"
    assert head.run(f"{pool}/bin/cog-job-submit -provider coaster-persistent -service-contact {url[1]} -redirected /bin/echo works") == "works\n\n\n"
    assert play("start_pool", "--check", env=elsewhere(2), **settings).ok().changed == {"head": 0, "a1": 0, "a2": 0}
    assert play("start_pool", env=elsewhere(3), **settings).ok().changed == {"head": 0, "a1": 0, "a2": 0}
    assert f'"url": "{url[1]}"' in play("pool_status", env=elsewhere(4), **settings).ok().output
    assert play("stop_pool", env=elsewhere(1), **settings).ok().changed == {"head": 1, "a1": 1, "a2": 1}
    assert not list(station.place.glob("state[124]/coasters/*"))
