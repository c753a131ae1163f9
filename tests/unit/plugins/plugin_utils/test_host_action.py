# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exchange through Ansible's connections, local and a real ssh, and how its failures are told."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

from ansible_collections.coasters.pool.plugins.plugin_utils import exchange, host_action
from ansible_collections.coasters.pool.plugins.plugin_utils.host_action import HostAction, HostFailure, bounded_memory
from tests.testhosts import Hosts
from tests.unit.plugins import tasks
from tests.unit.plugins.tasks import HOST, action, run

DROPPED = "kex_exchange_identification: Connection closed by remote host"
Work = Callable[[HostAction], dict[str, Any]]


def kind(work: Work) -> type[HostAction]:
    """An action plugin that does this."""

    class ActionModule(HostAction):
        SPEC = {"pool": {"type": "str", "default": "default"}}

        def work(self, wanted: dict[str, Any], host: str) -> dict[str, Any]:
            return {"host": host, **wanted, **work(self)}

    ActionModule.__module__ = f"{tasks.__name__}.swift_worker_info"
    return ActionModule


def status(plugin: HostAction) -> dict[str, Any]:
    values, log = plugin.exchange("status", "default", {"lines": "0"})
    return {"hostname": values["hostname"], "log": log}


def raising(error: Exception) -> Work:
    def work(plugin: HostAction) -> dict[str, Any]:
        raise error

    return work


def test_a_subclass_says_what_is_to_be_done() -> None:
    with pytest.raises(NotImplementedError):
        HostAction.work(action(kind(status), {}), {}, HOST)


def test_an_exchange_on_this_machine(state_home: Path) -> None:
    result = run(kind(status), {"pool": "mine"})
    assert (result["host"], result["pool"], result["log"]) == (HOST, "mine", [])


def test_an_exchange_by_ssh(state_home: Path, by_ssh: dict[str, Any], one_host: Hosts) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert run(kind(status), {}, **by_ssh)["hostname"] == one_host[0].hostname
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize(("variables", "own"), [
    ({}, False), ({"ansible_ssh_common_args": "-J jump1"}, True), ({"ansible_ssh_common_args": "-J jump1", "ansible_control_path": "x"}, False),
])
def test_hosts_behind_jump_hosts_have_connections_of_their_own(by_ssh: dict[str, Any], variables: dict[str, str], own: bool) -> None:
    plugin = action(kind(status), {}, **by_ssh | variables)
    before = plugin._connection.get_option("control_path")
    plugin._separate_connection()
    path = plugin._connection.get_option("control_path")
    assert path.startswith("%(directory)s/") if own else path == before


def test_what_the_host_says_it_cannot_do(state_home: Path, by_ssh: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def log(plugin: HostAction) -> dict[str, Any]:
        return dict(plugin.exchange("status", "default", {"lines": "5"})[0])

    result = run(kind(log), {})
    assert (result["failed"], result["cause"], result["msg"]) == (True, "log", "this pool has no logs on this host")
    answer = "coasters:error=it is full\ncoasters:end=status\n"
    monkeypatch.setattr(HostAction, "_execute", lambda *words: {"stdout": answer, "stderr": ""})
    assert run(kind(log), {})["cause"] == "host"


@pytest.mark.parametrize(("stderr", "end"), [("motd\n\x1b[31mno shell\n", "print no errors (it said: ?[31mno shell)"), ("\n", "print no errors")])
def test_no_whole_answer(monkeypatch: pytest.MonkeyPatch, stderr: str, end: str) -> None:
    monkeypatch.setattr(HostAction, "_execute", lambda *words: {"stdout": "Welcome!\n", "stderr": stderr})
    with pytest.raises(AnsibleActionFail) as failure:
        run(kind(status), {})
    assert str(failure.value.__cause__).startswith("its shell gave no whole answer: ") and str(failure.value.__cause__).endswith(end)


def test_a_command_that_ends_as_ssh_does_without_a_connection() -> None:
    with pytest.raises(AnsibleConnectionFailure, match="trouble"):
        action(kind(status), {})._execute("echo trouble >&2; exit 255", b"")


def test_a_bad_name_of_a_pool() -> None:
    with pytest.raises(AnsibleActionFail, match="'-' cannot be a pool's name"):
        run(kind(lambda plugin: dict(plugin.exchange("status", "-", {})[0])), {})


def test_a_host_that_is_not_reached(by_ssh: dict[str, Any], one_host: Hosts) -> None:
    one_host[0].stop()
    try:
        result = run(kind(status), {}, **by_ssh)
    finally:
        one_host[0].start()
    assert (result["unreachable"], result["cause"]) == (True, "refused")
    assert result["msg"].startswith("nothing listens at its ssh port")


@pytest.mark.parametrize(("variables", "sentence"), [
    ({"ansible_host": "-oProxyCommand=x"}, "the name of a host cannot start with '-'"),
    ({"ansible_ssh_args": "-o StrictHostKeyChecking=no -o StrictHostKeyChecking=yes"}, "its ssh options turn the check of its host key off"),
])
def test_an_ssh_that_would_not_do_what_it_looks_like(by_ssh: dict[str, Any], variables: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AnsibleActionFail, match=sentence):
        run(kind(status), {}, **by_ssh | variables)


def test_a_failure_has_its_cause() -> None:
    result = run(kind(raising(HostFailure("interpreter", "there is no Python"))), {})
    assert (result["failed"], result["cause"], result["msg"]) == (True, "interpreter", "there is no Python")


class TestConnected:
    def test_a_login_that_is_dropped_is_tried_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_action, "CROWD_PAUSE", 0.1)
        errors = [AnsibleConnectionFailure(DROPPED), AnsibleConnectionFailure("Data could not be sent to remote host \"x\".")]

        def attempt() -> str:
            if errors:
                raise errors.pop()
            return "in"

        assert HostAction.connected(attempt) == "in"

    @pytest.mark.parametrize(("said", "limit"), [("Permission denied (publickey).", 60.0), (DROPPED, -1.0)])
    def test_not_for_another_reason_and_not_for_ever(self, monkeypatch: pytest.MonkeyPatch, said: str, limit: float) -> None:
        monkeypatch.setattr(host_action, "CROWD_LIMIT", limit)
        tries = []

        def attempt() -> None:
            tries.append(1)
            raise AnsibleConnectionFailure(said)

        with pytest.raises(AnsibleConnectionFailure):
            HostAction.connected(attempt)
        assert len(tries) == 1


def test_an_answer_without_end() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(exchange.ExchangeError, match="its answer is endless, or far too long"), bounded_memory(1 << 20):
        bytearray(1 << 28)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_where_the_system_does_not_tell_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_action, "Path", lambda name: Path("/nowhere"))
    with bounded_memory(1):
        bytearray(1 << 28)
