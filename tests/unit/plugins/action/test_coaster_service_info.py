# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of coaster_service_info on this machine."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.coasters.pool.plugins.action.coaster_service_info import ActionModule
from ansible_collections.coasters.pool.plugins.module_utils import launcher
from tests.unit.plugins.tasks import run


def test_a_pool_and_none(state_home: Path) -> None:
    launcher.start(launcher.Wanted("mine", "builtin", service_port=0, worker_port=0, listen="127.0.0.1"))
    try:
        known = run(ActionModule, {"pool": "mine"})
    finally:
        launcher.stop("mine")
    assert (known["changed"], known["engine"], known["workers"], known["missing"]) == (False, "builtin", [], [])
    gone = run(ActionModule, {"pool": "mine"})
    assert (gone["failed"], gone["msg"]) == (True, "the coaster service of pool 'mine' is not running: start it first")
