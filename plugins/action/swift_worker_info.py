# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of the swift_worker_info module: one exchange that reads the end of the worker's logs."""

from __future__ import annotations

from typing import Any

from ansible_collections.coasters.pool.plugins.plugin_utils.host_action import HostAction


class ActionModule(HostAction):
    """Reads and changes nothing."""

    SPEC = {
        "pool": {"type": "str", "default": "default"},
        "lines": {"type": "int", "default": 20},
    }

    def work(self, wanted: dict[str, Any], host: str) -> dict[str, Any]:
        """The last lines of the logs."""
        del host
        dummy, log = self.exchange("log", wanted["pool"], {"lines": str(max(1, wanted["lines"]))})
        return {"changed": False, "log": log}
