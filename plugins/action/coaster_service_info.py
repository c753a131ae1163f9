# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The coaster_service_info module on this machine, without the start of another Python."""

from __future__ import annotations

from typing import Any

from ansible_collections.coasters.pool.plugins.module_utils import pool_info
from ansible_collections.coasters.pool.plugins.plugin_utils.client_action import ClientAction


class ActionModule(ClientAction):
    """Asks and changes nothing."""

    ARGUMENTS = pool_info.ARGUMENTS

    def work(self, wanted: dict[str, Any], check: bool) -> dict[str, Any]:
        """Ask, and wait for workers."""
        return pool_info.tell(wanted, check)
