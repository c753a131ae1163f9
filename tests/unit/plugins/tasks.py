# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that are run as Ansible runs them, with its own connections, but in this process."""

from __future__ import annotations

from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins import loader as plugins
from ansible.template import Templar

HOST = "node07"


def action(kind: type[Any], arguments: dict[str, Any], connection: str = "local", become: str = "", **settings: Any) -> Any:
    """An action plugin for a task with these arguments. ``settings``: keywords of the task, or variables of the host named ansible_…"""
    variables = {name: settings.pop(name) for name in list(settings) if name.startswith("ansible_")}
    name = f"coasters.pool.{kind.__module__.rpartition('.')[2]}"
    loader = DataLoader()
    task = Task.load({name: arguments, "environment": [], **settings}, loader=loader)
    context = PlayContext()
    made = plugins.connection_loader.get(connection, context)
    made.set_options(var_options={"inventory_hostname": HOST, **variables})
    if become:
        plugin = plugins.become_loader.get("sudo")
        plugin.set_options(direct={"become_user": become})
        made.set_become_plugin(plugin)
    return kind(task=task, connection=made, play_context=context, loader=loader, templar=Templar(loader), shared_loader_obj=plugins)


def run(kind: type[Any], arguments: dict[str, Any], *words: Any, host: str = HOST, **settings: Any) -> dict[str, Any]:
    """The result of the task on the host of that name."""
    variables = {"inventory_hostname": host, "ansible_python_interpreter": "/usr/bin/python3"}
    result: dict[str, Any] = action(kind, arguments, *words, **settings).run(task_vars=variables)
    return result
