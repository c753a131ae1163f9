# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of coaster_service: a service on this machine, and one on another, whose workers are started from here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.coasters.pool.plugins.action.coaster_service import ActionModule
from ansible_collections.coasters.pool.plugins.module_utils import launcher, state
from tests.testhosts import Hosts
from tests.unit.plugins.tasks import action, run

PORTS = {"engine": "builtin", "service_port": 0, "worker_port": 0}
STOP = {"state": "stopped"}


def test_on_this_machine(state_home: Path) -> None:
    started = run(ActionModule, PORTS)
    try:
        assert started["changed"] and started["worker_urls"] == []
        assert launcher.running("default")
    finally:
        assert run(ActionModule, STOP)["changed"]
    assert state.pools() == []


def test_no_tunnel_leads_to_another_machine(by_ssh: dict[str, Any]) -> None:
    with pytest.raises(AnsibleActionFail, match="no tunnel leads to a coaster service .* in coaster_service_reach"):
        run(ActionModule, PORTS, **by_ssh)


def test_on_another_machine(state_home: Path, by_ssh: dict[str, Any], one_host: Hosts) -> None:
    wanted = PORTS | {"reach": ["127.0.0.1"], "hosts": ["a", "b"]}
    checked = run(ActionModule, wanted | {"worker_port": 7}, check_mode=True, **by_ssh)
    assert (checked["changed"], checked["worker_urls"]) == (True, [f"http://{one_host[0].address}:7"])
    assert state.pools() == []
    started = run(ActionModule, wanted, **by_ssh)
    try:
        assert started["worker_urls"] == [f"http://{one_host[0].address}:{started['ports']['worker']}"]
        assert state.read_workers(f"{state.folder('default')}/workers") == state.read_workers(f"{started['folder']}/workers")
        assert run(ActionModule, STOP, check_mode=True, **by_ssh)["changed"]
        assert state.pools() == ["default"]
    finally:
        assert run(ActionModule, STOP, **by_ssh)["changed"]
    assert state.pools() == []


def test_a_pool_of_ones_own_of_the_same_name_stays(state_home: Path, by_ssh: dict[str, Any]) -> None:
    run(ActionModule, PORTS)
    try:
        assert not run(ActionModule, STOP, **by_ssh)["changed"]
        assert launcher.running("default")
    finally:
        run(ActionModule, STOP)


def test_what_another_machine_says_goes_on(state_home: Path, by_ssh: dict[str, Any]) -> None:
    failed = run(ActionModule, PORTS | {"pool": "-", "reach": ["127.0.0.1"]}, **by_ssh)
    assert failed["failed"] and "'-' cannot be a pool's name" in failed["msg"]
    later = run(ActionModule, PORTS | {"pool": "-", "reach": ["127.0.0.1"]}, **by_ssh, **{"async": 30, "poll": 0})
    assert later["started"] == 1


@pytest.mark.parametrize(("settings", "address", "expected"), [
    ({"become": "nobody"}, None, "@"),
    ({"become": "nobody"}, "head", "head"),
    ({"connection": "ssh", "ansible_host": "10.0.0.5"}, None, "10.0.0.5"),
    ({"connection": "ssh", "ansible_host": "10.0.0.5"}, "head", "head"),
    ({"connection": "ssh", "ansible_host": "fe80::5"}, None, "[fe80::5]"),
])
def test_the_address_for_workers(settings: dict[str, Any], address: str | None, expected: str) -> None:
    assert action(ActionModule, {}, **settings)._address({"address": address}) == expected
