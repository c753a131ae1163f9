# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of swift_worker: workers on this machine and, through tunnels and without, on a host with a real ssh."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.coasters.pool.plugins.action import swift_worker
from ansible_collections.coasters.pool.plugins.action.swift_worker import ActionModule
from ansible_collections.coasters.pool.plugins.module_utils import launcher, state
from ansible_collections.coasters.pool.plugins.modules import swift_worker as module
from tests import distribution
from tests.testhosts import Hosts
from tests.unit.plugins.modules.arguments import documented, public
from tests.unit.plugins.tasks import HOST, run

NOWHERE = "http://nowhere.invalid:1"
URL = "http://127.0.0.1:9"
STOP = {"state": "stopped"}


@pytest.fixture
def port(state_home: Path, by_ssh: dict[str, Any]) -> Iterator[int]:
    """The worker port of a service of this machine."""
    started = launcher.start(launcher.Wanted("default", "builtin", service_port=0, worker_port=0, listen="127.0.0.1"))
    yield started["ports"]["worker"]
    launcher.stop("default")


@pytest.fixture
def closed() -> Iterator[int]:
    """A port where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(autouse=True)
def no_worker(state_home: Path, by_ssh: dict[str, Any]) -> Iterator[None]:
    """After the test no worker is left on this machine or the host."""
    yield
    run(ActionModule, STOP)
    run(ActionModule, STOP, **by_ssh)


def test_a_worker_on_this_machine() -> None:
    checked = run(ActionModule, {"slots": 3}, check_mode=True, diff=True)
    assert (checked["changed"], checked["route"], checked["slots"], checked["urls"]) == (True, "local", 3, ["http://127.0.0.1:4051"])
    assert checked["diff"] == {"before": {}, "after": {"engine": "builtin", "slots": 3, "urls": ["http://127.0.0.1:4051"]}}
    assert state.pools() == []
    started = run(ActionModule, {"slots": 3})
    assert started["changed"] and started["pid"] and "diff" not in started
    more = run(ActionModule, {"slots": 4}, diff=True)
    assert (more["changed"], more["slots"], more["pending"]) == (False, 3, ["slots"])
    assert more["diff"]["before"] == more["diff"]["after"]
    assert run(ActionModule, {"slots": 4, "restart": True})["slots"] == 4
    assert run(ActionModule, STOP, check_mode=True)["changed"]
    assert run(ActionModule, STOP, diff=True)["diff"] == {"before": {"engine": "builtin", "slots": 4, "urls": checked["urls"]}, "after": {}}
    assert not run(ActionModule, STOP)["changed"]


def test_a_machine_with_two_names() -> None:
    first = run(ActionModule, {"urls": [URL]})
    second = run(ActionModule, {"urls": [URL]}, host="node08")
    assert (second["cause"], second["msg"]) == ("twice", f"this machine has a worker of the pool already, as {HOST}: name it once")
    shutil.rmtree(state.folder("default"))  # the pool has ended, and left its worker
    third = run(ActionModule, {"urls": [URL]}, host="node08")
    assert third["changed"] and third["pid"] != first["pid"]


def test_a_worker_through_a_tunnel(port: int, by_ssh: dict[str, Any], one_host: Hosts) -> None:
    checked = run(ActionModule, {"port": port}, check_mode=True, **by_ssh)
    assert (checked["route"], checked["urls"]) == ("tunnel", [f"http://127.0.0.1:{port}"])
    started = run(ActionModule, {"port": port}, **by_ssh)
    assert (started["changed"], started["route"], started["hostname"]) == (True, "tunnel", one_host[0].hostname)
    assert started["urls"] != checked["urls"]
    again = run(ActionModule, {"port": port}, check_mode=True, **by_ssh)
    assert (again["changed"], again["urls"]) == (False, started["urls"])
    assert list(state.read_workers(f"{state.folder('default')}/workers")) == [HOST]
    assert run(ActionModule, STOP, **by_ssh)["changed"]


def test_a_worker_of_a_trusted_network(port: int, by_ssh: dict[str, Any]) -> None:
    started = run(ActionModule, {"port": port, "trust": ["127.0.0.0/8"]}, **by_ssh)
    assert (started["route"], started["urls"]) == ("direct", [f"http://127.0.0.1:{port}"])


def test_a_trusted_host_that_cannot_reach_the_client(port: int, closed: int, by_ssh: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tunnel leads to where nothing listens, either: that is for the wait for the workers to tell."""
    monkeypatch.setattr(swift_worker, "CALL_BACK_LIMIT", 0.1)
    started = run(ActionModule, {"port": closed, "trust": ["127.0.0.0/8"]}, **by_ssh)
    assert started["route"] == "tunnel"
    [warning] = started["warnings"]
    assert warning.startswith(f"{HOST}: it goes through a tunnel, because it cannot reach the coaster service (127.0.0.1:{closed}: ")


@pytest.mark.parametrize(("wanted", "end"), [
    ({"route": "direct"}, ": open that port to it, or use the route 'tunnel'"),
    ({"urls": [NOWHERE]}, ": open that port to it"),
])
def test_a_direct_route_that_does_not_lead_there(
    port: int, closed: int, by_ssh: dict[str, Any], monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], end: str
) -> None:
    monkeypatch.setattr(swift_worker, "CALL_BACK_LIMIT", 0.1)
    failed = run(ActionModule, {"port": closed} | wanted, **by_ssh)
    assert (failed["failed"], failed["cause"]) == (True, "callback")
    assert failed["msg"].startswith("it cannot reach the coaster service (") and failed["msg"].endswith(f"){end}")


def test_a_tunnel_needs_the_keeper(by_ssh: dict[str, Any]) -> None:
    failed = run(ActionModule, {}, **by_ssh)
    assert (failed["cause"], failed["msg"]) == ("service", "the coaster service of pool 'default' is not running: start it first")


@pytest.mark.parametrize("wanted", [{}, {"urls": [URL]}])
def test_what_the_host_lacks_is_said_while_there_is_a_service(port: int, wanted: dict[str, Any]) -> None:
    failed = run(ActionModule, {"interpreter": "/nowhere/python3"} | wanted)
    assert failed["cause"] == "interpreter"


def test_swift(state_home: Path, tmp_path: Path) -> None:
    made = distribution.made(tmp_path)
    started = run(ActionModule, {"engine": "swift", "bin_dir": str(made.bin_dir), "urls": [URL], "block": "mine", "supervisor": "detached"})
    assert started["changed"] and started["interpreter"].endswith("perl")
    with pytest.raises(AnsibleActionFail, match=f"there is no {tmp_path}/worker.pl: name the bin directory of a Swift/K distribution"):
        run(ActionModule, {"engine": "swift", "bin_dir": str(tmp_path)})


@pytest.mark.parametrize(("wanted", "sentence"), [
    ({"slots": 0}, "0 slots are too few: a worker needs at least 1"),
    ({"urls": ["nowhere"]}, "'nowhere' is not a worker URL: write it as http://ADDRESS:PORT"),
])
def test_bad_settings(wanted: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AnsibleActionFail, match=sentence):
        run(ActionModule, wanted)


def test_what_is_documented_is_what_it_takes() -> None:
    assert documented(module) == public(ActionModule.SPEC)
