# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tasks on the client are done by this process, and which need the module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.action.coaster_service_info import ActionModule as Info
from ansible_collections.coasters.pool.plugins.plugin_utils.client_action import ClientAction
from tests.unit.plugins.tasks import action, run


class Shown(Info):
    """As coaster_service_info, but says where it was done and what differs."""

    def work(self, wanted: dict[str, Any], check: bool) -> dict[str, Any]:
        return {"done": "here", "check": check, "pool": wanted["pool"], "diff": {"before": "", "after": ""}}

    def elsewhere(self, wanted: dict[str, Any], module: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return dict(super().elsewhere(wanted, module), done="elsewhere")


Shown.__module__ = Info.__module__
NO_POOL = "the coaster service of pool 'mine' is not running: start it first"


def test_here(state_home: Path) -> None:
    assert run(Shown, {"pool": "mine"}) == {"done": "here", "check": False, "pool": "mine"}


def test_in_check_mode_with_diff(state_home: Path) -> None:
    assert run(Shown, {}, check_mode=True, diff=True) == {"done": "here", "check": True, "pool": "default", "diff": {"before": "", "after": ""}}


def test_on_another_machine(state_home: Path, by_ssh: dict[str, Any]) -> None:
    result = run(Shown, {"pool": "mine"}, **by_ssh)
    assert (result["done"], result["failed"], result["msg"]) == ("elsewhere", True, NO_POOL)


def test_as_another_user() -> None:
    assert not action(Shown, {}, become="nobody").here


@pytest.mark.parametrize("settings", [{"environment": {"NAME": "value"}}, {"async": 30, "poll": 0}])
def test_what_needs_a_process_of_its_own_is_done_by_the_module(state_home: Path, settings: dict[str, Any]) -> None:
    result = run(Shown, {"pool": "mine"}, **settings)
    assert "done" not in result
    assert result.get("msg") == NO_POOL or result["started"] == 1


def test_a_subclass_says_what_is_to_be_done() -> None:
    with pytest.raises(NotImplementedError):
        ClientAction.work(action(Shown, {}), {}, False)
