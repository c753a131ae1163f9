# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The coaster_service module on this machine, without the start of another Python."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.coasters.pool.plugins.module_utils import launcher, service_state, state
from ansible_collections.coasters.pool.plugins.plugin_utils.client_action import ClientAction


class ActionModule(ClientAction):
    """Starts or stops the service."""

    ARGUMENTS = service_state.ARGUMENTS

    def work(self, wanted: dict[str, Any], check: bool) -> dict[str, Any]:
        """Start or stop."""
        return dict(service_state.ensure(wanted, check), worker_urls=[])

    def elsewhere(self, wanted: dict[str, Any], module: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Start or stop, and let swift_worker on this machine know the block ids and the URL for workers."""
        if wanted["state"] == "started" and not wanted["reach"]:
            raise AnsibleActionFail(
                "no tunnel leads to a coaster service that is not on the control node, or runs as another user there: say which hosts or networks "
                "may reach it by TCP, in coaster_service_reach (coasters.pool.start_pool: swift_worker_trust, or swift_worker_route=direct)"
            )
        result = module()
        if result.get("failed") or self._task.async_val:
            return result
        pool = wanted["pool"]
        if wanted["state"] == "stopped":
            if not self._task.check_mode and launcher.running(pool) is None:
                launcher.stop(pool)
            return result
        if not self._task.check_mode:
            listed = self._low_level_execute_command(f"cat {shlex.quote(result['folder'] + '/workers')}", sudoable=True)
            state.take_over_blocks(pool, listed["stdout"])
        port = (result.get("ports") or {}).get("worker") or wanted["worker_port"]
        return dict(result, worker_urls=[f"http://{self._address(wanted)}:{port}"])

    def _address(self, wanted: dict[str, Any]) -> str:
        """The address of the client for workers; ``@`` where it is the control node, which they know by their ssh connection."""
        if self._connection.transport == "local":
            return wanted["address"] or "@"
        address = wanted["address"] or str(self._connection.get_option("host"))
        return f"[{address}]" if ":" in address else address
