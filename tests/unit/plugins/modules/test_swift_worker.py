# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module swift_worker is its documentation; its work is the action's."""

from __future__ import annotations

from ansible_collections.coasters.pool.plugins.action.swift_worker import ActionModule
from ansible_collections.coasters.pool.plugins.modules import swift_worker
from tests.unit.plugins.modules.arguments import documented, public


def test_what_is_documented_is_what_the_action_takes() -> None:
    assert documented(swift_worker) == public(ActionModule.SPEC)
