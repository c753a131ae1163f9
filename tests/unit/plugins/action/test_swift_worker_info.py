# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of swift_worker_info, on hosts with a worker and without one."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.coasters.pool.plugins.action.swift_worker import ActionModule as Worker
from ansible_collections.coasters.pool.plugins.action.swift_worker_info import ActionModule
from ansible_collections.coasters.pool.plugins.modules import swift_worker_info as module
from tests.unit.plugins.modules.arguments import documented, public
from tests.unit.plugins.tasks import run


def test_a_worker_and_none(state_home: Path) -> None:
    started = run(Worker, {"urls": ["http://127.0.0.1:9"], "slots": 3})
    try:
        known = run(ActionModule, {"lines": 5})
    finally:
        run(Worker, {"state": "stopped"})
    what = {"changed": False, "hostname": started["hostname"]}
    assert known | {"log": []} == what | {"running": True, "engine": "builtin", "slots": 3, "urls": ["http://127.0.0.1:9"], "log": []}
    assert len(known["log"]) <= 5
    assert run(ActionModule, {"lines": -1}) == what | {"running": False, "log": []}


def test_what_is_documented_is_what_it_takes() -> None:
    assert documented(module) == public(ActionModule.SPEC)
