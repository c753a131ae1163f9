# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the coaster service URL at the end of a run, and writes it to a file when one is named."""

from __future__ import annotations

DOCUMENTATION = r"""
name: service_url
type: notification
short_description: Show the coaster service URL of a pool
version_added: 1.0.0
description:
  - Shows C(Started coaster service) with the URL at the end of a run that started a pool, and how to get C(cog-job-submit).
  - Writes it as JSON to a file when O(path) names one.
author:
  - The coasters.pool contributors (@coasters)
requirements:
  - enable in configuration
options:
  path:
    description:
      - File to write, replaced in one step and readable by its owner only. It holds an object with C(url), C(engine) and C(pool).
    type: path
    env:
      - name: COASTERS_SERVICE_URL_FILE
    ini:
      - section: callback_coasters_service_url
        key: path
"""

EXAMPLES = r"""
ansible.cfg: >
  # Enable the plugin
  [defaults]
  callbacks_enabled = coasters.pool.service_url

  [callback_coasters_service_url]
  path = ~/service.json
"""

import shlex
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.coasters.pool.plugins.module_utils import state

STARTS = frozenset(("coasters.pool.coaster_service", "coasters.pool.coaster_service_info"))


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Keeps the last URL that a module of ours returned."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "coasters.pool.service_url"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display: Any = None) -> None:
        super().__init__(display=display)
        self.pool: dict[str, str] | None = None
        self.bin_dir = ""

    def v2_runner_on_ok(self, result: Any) -> None:
        """Take the URL from the result of the module that started, found or stopped the service."""
        task = _public(result, "task")
        if getattr(task, "resolved_action", None) not in STARTS:
            return
        values = _public(result, "result")
        if values.get("url"):
            self.pool = {name: str(values.get(key, "")) for name, key in (("url", "url"), ("engine", "engine"), ("pool", "name"))}
            self.bin_dir = str(values.get("bin_dir") or "")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Show the URL and write the file."""
        del stats
        if self.pool is None:
            return
        self._display.display(f"Started coaster service: {self.pool['url']}")
        if self.bin_dir:
            self._display.display(f"For cog-job-submit: export PATH={shlex.quote(self.bin_dir)}:$PATH")
        path = self.get_option("path")
        if path:
            try:
                state.write_json(path, self.pool)
            except OSError as error:
                self._display.warning(f"the coaster service URL could not be written to {path}: {error.strerror}")


def _public(result: Any, name: str) -> Any:
    """A part of a result: a public name since ansible-core 2.19, an underscored one before."""
    return getattr(result, name) if hasattr(result, name) else getattr(result, "_" + name)
