# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module coaster_service, as it runs on a client that is not the control node."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.coasters.pool.plugins.module_utils import service_state, state
from ansible_collections.coasters.pool.plugins.modules import coaster_service
from tests.unit.plugins.modules.arguments import documented, result


def test_started_and_stopped(state_home: Path) -> None:
    wanted = {"engine": "builtin", "service_port": 0, "worker_port": 0}
    started = result(coaster_service, wanted)
    try:
        assert started["changed"] and started["url"].startswith("http://127.0.0.1:") and "diff" not in started
        again = result(coaster_service, wanted, _ansible_diff=True)
        assert (again["changed"], again["diff"]) == (False, {"before": {"engine": "builtin"}, "after": {"engine": "builtin"}})
    finally:
        assert result(coaster_service, {"state": "stopped"})["changed"]


def test_a_failure(state_home: Path) -> None:
    failed = result(coaster_service, {"pool": "-"})
    assert failed["failed"] and "'-' cannot be a pool's name" in failed["msg"]


def test_check_mode(state_home: Path) -> None:
    assert result(coaster_service, {"engine": "builtin"}, _ansible_check_mode=True)["changed"]
    assert state.pools() == []


def test_what_is_documented_is_what_it_takes() -> None:
    assert documented(coaster_service) == service_state.ARGUMENTS
