# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins of the modules that work on the client share: where the client is this machine, no module is sent to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.plugins.action.normal import ActionModule as ModuleAction


class ClientAction(ModuleAction):  # type: ignore[misc]
    """A subclass has ARGUMENTS (the module's) and work()."""

    ARGUMENTS: Mapping[str, Any] = {}
    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result. Another machine, user or environment, or a task in the background, needs the module itself."""
        dummy, wanted = self.validate_argument_spec(argument_spec=dict(self.ARGUMENTS))
        if not self.here:
            return self.elsewhere(wanted, lambda: self._module(task_vars))
        if self._task.async_val or self._has_environment():
            return self._module(task_vars)
        result = self.work(wanted, bool(self._task.check_mode))
        if not self._task.diff:
            result.pop("diff", None)
        return result

    @property
    def here(self) -> bool:
        """Whether the client is this machine and user."""
        return self._connection.transport == "local" and not self._connection.become

    def _module(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        known: dict[str, Any] = super().run(None, task_vars)
        return known

    def work(self, wanted: dict[str, Any], check: bool) -> dict[str, Any]:
        """What is to be done with the validated arguments, only in words with ``check``; the module's result."""
        raise NotImplementedError

    def elsewhere(self, wanted: dict[str, Any], module: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of the module that runs on another machine or as another user."""
        del wanted
        return module()

    def _has_environment(self) -> bool:
        environment: dict[str, Any] = {}
        self._compute_environment_string(environment)
        return bool(environment)
