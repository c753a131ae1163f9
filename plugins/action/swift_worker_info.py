# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of the swift_worker_info module: one exchange that looks at the worker and reads the end of its logs."""

from __future__ import annotations

from typing import Any

from ansible_collections.coasters.pool.plugins.plugin_utils import exchange
from ansible_collections.coasters.pool.plugins.plugin_utils.host_action import HostAction


class ActionModule(HostAction):
    """Reads and changes nothing."""

    SPEC = {
        "pool": {"type": "str", "default": "default"},
        "lines": {"type": "int", "default": 0},
    }

    def work(self, wanted: dict[str, Any], host: str) -> dict[str, Any]:
        """What runs there, and the last lines of the logs."""
        del host
        values, log = self.exchange("status", wanted["pool"], {"lines": str(max(0, wanted["lines"]))})
        return {
            "changed": False,
            "hostname": values.get("hostname", ""),
            "running": bool(values.get("before")),
            **exchange.worker(values.get("before", "")),
            "log": log,
        }
