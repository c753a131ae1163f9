# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of one of the collection's playbooks through ansible-runner."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .end import Ending

CANCEL_AFTER = 5.0
"""Seconds that ansible-playbook has to end after SIGINT before it is killed."""
FORKS_PER_CORE = 32
"""Hosts contacted at once for each core. With fewer, ansible-playbook looks without a pause for one that is done; with more, each waits
longer, until its exchange is given up."""
MAX_FORKS = 128
CONFIG = Path(__file__).with_name("ansible.cfg")
"""Ansible's configuration for those who have none."""


class Outcome(NamedTuple):
    """What a task of ours did on a host. ``kind`` is ok, failed or unreachable; ``result`` the module's result."""

    kind: str
    host: str
    action: str
    result: dict[str, Any]


KINDS = {"runner_on_ok": "ok", "runner_on_failed": "failed", "runner_on_unreachable": "unreachable"}


def ssh_options(accept_new: bool) -> str:
    """Nothing is ever asked, and host keys are checked; ``accept_new``: keys that are not known yet are taken."""
    return f"-o BatchMode=yes -o StrictHostKeyChecking={'accept-new' if accept_new else 'yes'}"


def environment(collections: Path, hosts: int, user: dict[str, str], connect_limit: int = 10) -> dict[str, str]:
    """Variables for ansible-playbook on top of the ``user``'s. ``connect_limit``: seconds until a host must answer."""
    collections_path = [str(collections)] + [user[name] for name in ("ANSIBLE_COLLECTIONS_PATH",) if user.get(name)]
    settings = {
        "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(collections_path),
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_TIMEOUT": str(connect_limit),
        "ANSIBLE_FORKS": user.get("ANSIBLE_FORKS", str(max(1, min(hosts, FORKS_PER_CORE * len(os.sched_getaffinity(0)), MAX_FORKS)))),
        "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml",
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "PATH": os.pathsep.join((os.path.dirname(sys.executable), user.get("PATH", os.defpath))),
    }
    if "ANSIBLE_CONFIG" not in user:
        settings.update(_config())
    return settings


def _config() -> dict[str, str]:
    """The variable that names the configuration where Ansible would not find it: its run has another current folder."""
    here = os.path.abspath("ansible.cfg")
    if os.path.isfile(here) and not _anybody_can_write(os.path.dirname(here)):
        return {"ANSIBLE_CONFIG": here}
    found = any(os.path.isfile(os.path.expanduser(path)) for path in ("~/.ansible.cfg", "/etc/ansible/ansible.cfg"))
    return {} if found else {"ANSIBLE_CONFIG": str(CONFIG)}


def _anybody_can_write(folder: str) -> bool:
    """Ansible, too, passes over an ansible.cfg in such a folder."""
    return bool(os.stat(folder).st_mode & stat.S_IWOTH)


def run(
    name: str, inventory: dict[str, Any], variables: dict[str, Any], collections: Path, ending: Ending | None,
    on_outcome: Callable[[Outcome], None], private: str, connect_limit: int = 10, check: bool = False,
) -> int | None:
    """Run the playbook ``coasters.pool.NAME``; returns ansible-playbook's exit status, None when a signal ended it.

    ``private``: an empty folder for the run. ``on_outcome`` hears of each task as it ends. A signal in ``ending``
    interrupts the run. ``connect_limit``: seconds until a host must answer. ``check``: change nothing.
    """
    if ending is not None and ending.came:
        return None
    import ansible_runner  # takes a third of a second, which bad input need not wait for

    pid = 0

    def handle(event: dict[str, Any]) -> bool:
        nonlocal pid
        if not pid and "pid" in event:
            pid = event["pid"]
            if ending is not None and ending.came:
                interrupt()
        kind = KINDS.get(event["event"])
        data = event.get("event_data", {})
        if kind is not None and isinstance(data.get("res"), dict):
            on_outcome(Outcome(kind, data["host"], data.get("resolved_action", ""), data["res"]))
        return False

    def interrupt() -> None:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)

    def cancelled() -> bool:
        """Whether the runner shall kill ansible-playbook: before its first event that does no harm."""
        return ending is not None and ending.came and (not pid or ending.seconds() > CANCEL_AFTER)

    if ending is not None:
        ending.on_signal = interrupt
    try:
        result = ansible_runner.run(
            private_data_dir=private, playbook=f"coasters.pool.{name}", inventory=inventory, extravars=variables,
            envvars=environment(collections, len(inventory["all"]["hosts"]), dict(os.environ), connect_limit),
            cmdline="--check" if check else None,
            settings={"pexpect_timeout": 1, "suppress_ansible_output": True}, quiet=True, event_handler=handle,
            cancel_callback=cancelled,
        )
    finally:
        if ending is not None:
            ending.on_signal = None
    status: int | None = result.rc
    return status
