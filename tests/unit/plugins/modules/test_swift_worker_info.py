# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module swift_worker_info is its documentation; its work is the action's, whose test compares the two."""

from __future__ import annotations

from ansible_collections.coasters.pool.plugins.modules import swift_worker_info
from tests.unit.plugins.modules.arguments import documented


def test_the_documentation_has_options() -> None:
    assert documented(swift_worker_info)["pool"] == {"type": "str", "default": "default"}
