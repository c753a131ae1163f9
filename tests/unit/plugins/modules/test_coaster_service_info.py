# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module coaster_service_info, as it runs on a client that is not the control node."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.coasters.pool.plugins.module_utils import launcher, pool_info
from ansible_collections.coasters.pool.plugins.modules import coaster_service_info
from tests.unit.plugins.modules.arguments import documented, result


def test_a_pool_and_none(state_home: Path) -> None:
    launcher.start(launcher.Wanted("mine", "builtin", service_port=0, worker_port=0, listen="127.0.0.1"))
    try:
        known = result(coaster_service_info, {"pool": "mine"})
    finally:
        launcher.stop("mine")
    assert (known["changed"], known["engine"], known["workers"]) == (False, "builtin", [])
    assert result(coaster_service_info, {"pool": "mine"})["msg"] == "the coaster service of pool 'mine' is not running: start it first"


def test_what_is_documented_is_what_it_takes() -> None:
    assert documented(coaster_service_info) == pool_info.ARGUMENTS
