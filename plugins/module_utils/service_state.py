# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of the coaster_service module: the service of a pool on this machine is there, or is not."""

import os

from . import launcher, state, swift

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

ARGUMENTS: "Dict[str, Dict[str, Any]]" = {
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "pool": {"type": "str", "default": "default"},
    "engine": {"type": "str", "choices": ["auto", "builtin", "swift"], "default": "auto"},
    "bin_dir": {"type": "path"},
    "service_port": {"type": "int", "default": 4050},
    "worker_port": {"type": "int", "default": 4051},
    "listen": {"type": "str", "default": "127.0.0.1"},
    "reach": {"type": "list", "elements": "str", "default": []},
    "allow_users": {"type": "list", "elements": "str", "default": []},
    "address": {"type": "str"},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "owner": {"type": "int"},
    "wait": {"type": "bool", "default": True},
    "limit": {"type": "float", "default": 30},
    "supervisor": {"type": "str", "choices": ["detached", "systemd"], "default": "detached"},
    "keep_logs": {"type": "bool", "default": False},
}
"""Of the module, as Ansible validates them."""


def ensure(wanted: "Dict[str, Any]", check: bool) -> "Dict[str, Any]":
    """The module's result; with ``check`` nothing is done. A failure has ``failed`` and ``msg``, and ``log`` when the service said something."""
    try:
        return _ensure(wanted, check)
    except launcher.LaunchError as error:
        return {"failed": True, "msg": str(error), "log": error.log}
    except state.StateError as error:
        return {"failed": True, "msg": str(error)}


def _ensure(wanted: "Dict[str, Any]", check: bool) -> "Dict[str, Any]":
    pool = wanted["pool"]
    known = launcher.running(pool)
    if wanted["state"] == "stopped":
        changed = launcher.stop(pool, wanted["keep_logs"], check)
        return {"changed": changed, "diff": {"before": _shown(known), "after": {}}}
    if not check:
        state.block_ids(pool, wanted["hosts"])
    result = launcher.start(
        launcher.Wanted(
            pool, wanted["engine"], wanted["bin_dir"], wanted["service_port"], wanted["worker_port"], 0, wanted["listen"],
            wanted["reach"], wanted["address"], wanted["owner"], wanted["limit"], wanted["allow_users"], wanted["supervisor"],
        ),
        wanted["wait"], check,
    )
    settings = state.read_json(os.path.join(state.folder(pool), "keeper.json")) or {}
    if result["engine"] == "swift":
        result["open_ports"] = swift.open_ports(result.get("ports") or settings.get("ports") or {})
        result["warnings"] = [result["open_ports"]]
    diff = {"before": _shown(known), "after": _shown(result)}
    return dict({"bin_dir": settings.get("bin_dir"), "folder": state.folder(pool), "diff": diff}, **result)


def _shown(known: "Optional[Dict[str, Any]]") -> "Dict[str, Any]":
    """What ``--diff`` shows of a service; a check cannot know its ports."""
    return {"engine": known["engine"]} if known else {}
