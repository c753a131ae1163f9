# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of the swift_worker module: one exchange with the host's shell, no Python and no file transfer of Ansible's."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure

from ansible_collections.coasters.pool.plugins.module_utils import state, tunnel_requests
from ansible_collections.coasters.pool.plugins.module_utils.coaster import bundle
from ansible_collections.coasters.pool.plugins.plugin_utils import exchange, routes
from ansible_collections.coasters.pool.plugins.plugin_utils.host_action import HostAction, HostFailure

_PROGRAM: bytes = bundle.worker_archive()
"""The built-in engine's worker, made here because Ansible loads this file once and then forks for every host."""
_VERSION = exchange.version(bundle.worker_sources())
"""Of that worker, whichever Python has packed it."""

CALL_BACK_LIMIT = 5.0
"""Seconds in which a worker with a direct route must reach the service, before anything is changed on its host."""


class ActionModule(HostAction):
    """Installs, checks, launches or ends the worker of one host."""

    SPEC = {
        "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
        "pool": {"type": "str", "default": "default"},
        "engine": {"type": "str", "choices": ["builtin", "swift"], "default": "builtin"},
        "bin_dir": {"type": "path"},
        "urls": {"type": "list", "elements": "str", "default": []},
        "port": {"type": "int", "default": 4051},
        "route": {"type": "str", "choices": ["auto", "direct", "tunnel"], "default": "auto"},
        "trust": {"type": "list", "elements": "str", "default": []},
        "slots": {"type": "int"},
        "block": {"type": "str", "no_log": True},
        "interpreter": {"type": "str"},
        "time_limit": {"type": "int", "default": 60},
        "restart": {"type": "bool", "default": False},
        "supervisor": {"type": "str", "choices": ["detached", "systemd"], "default": "detached"},
        "keep_logs": {"type": "bool", "default": False},
    }

    def work(self, wanted: dict[str, Any], host: str) -> dict[str, Any]:
        """Start or stop."""
        if wanted["state"] == "stopped":
            settings = {"keep_logs": _yes(wanted["keep_logs"]), "dry": _yes(self._task.check_mode)}
            values, dummy = self.exchange("stop", wanted["pool"], settings)
            if not self._task.check_mode:
                self._disconnect(wanted["pool"], host)
            changed = values.get("changed") == "yes"
            return {"changed": changed, **self._difference(changed, values.get("before", ""), {})}
        try:
            return self._start(wanted, host)
        except (HostFailure, AnsibleConnectionFailure) as error:
            reason = None if wanted["urls"] or self._task.check_mode else _failure(wanted["pool"])
            if reason is None:
                raise
            raise HostFailure("service", str(reason)) from error

    def _start(self, wanted: dict[str, Any], host: str) -> dict[str, Any]:
        verb = "check" if self._task.check_mode else "start"
        program = self._program(wanted)
        route = self._route(wanted)
        settings = self._settings(wanted, host, route, self._urls(wanted, host, route), program)
        result: dict[str, Any] = {}
        try:
            values = self._ask(verb, wanted["pool"], settings, program)
        except HostFailure as failure:
            if failure.cause != "callback":
                raise
            if wanted["urls"]:
                raise HostFailure(failure.cause, f"{failure}: open that port to it") from failure
            if wanted["route"] != "auto":
                raise HostFailure(failure.cause, f"{failure}: open that port to it, or use the route 'tunnel'") from failure
            route = "tunnel"
            result["fallback"] = f"it goes through a tunnel, because {failure}"
            result["warnings"] = [f"{host}: {result['fallback']}"]
            settings["call_back_limit"] = ""
            settings["urls"] = exchange.check_urls(self._urls(wanted, host, route))
            values = self._ask(verb, wanted["pool"], settings, program)
        changed = values.get("changed") == "yes"
        slots, urls = exchange.number(values.get("slots")), values.get("urls", "").split(",")
        return dict(
            result,
            changed=changed,
            route=route,
            hostname=values.get("hostname", ""),
            slots=slots,
            pid=exchange.number(values.get("running")),
            interpreter=values.get("interpreter", ""),
            urls=urls,
            pending=values.get("pending", "").split(),
            **self._difference(changed, values.get("before", ""), {"engine": wanted["engine"], "slots": slots, "urls": urls}),
        )

    def _ask(self, verb: str, pool: str, settings: dict[str, str], program: bytes) -> dict[str, str]:
        """The host's answer to a start or a check. What runs there under another block id is left of an earlier pool and replaced,
        unless the id is one of this pool: then the machine has two names, and HostFailure is raised."""
        values, dummy = self.exchange(verb, pool, settings, program)
        if "other" in values:
            names = {block: name for name, block in state.read_workers(f"{state.folder(pool)}/workers").items()}
            if values["other"] in names:
                raise HostFailure("twice", f"this machine has a worker of the pool already, as {names[values['other']]}: name it once")
            settings["replace"] = "yes"
            values, dummy = self.exchange(verb, pool, settings, program)
        return values

    def _difference(self, changed: bool, before: str, after: dict[str, Any]) -> dict[str, Any]:
        """What ``--diff`` shows: the worker of the host before and after."""
        if not self._task.diff:
            return {}
        had = exchange.worker(before)
        return {"diff": {"before": had, "after": after if changed else had}}

    def _disconnect(self, pool: str, host: str) -> None:
        """End what connects this machine with the host: the pool's tunnel, and ssh's own connection that waits for more to do."""
        if self._connection.transport == "ssh":
            with contextlib.suppress(tunnel_requests.TunnelError):
                tunnel_requests.ask(state.folder(pool), {"close": host}, limit=5)
            with contextlib.suppress(AnsibleConnectionFailure):
                self._connection.reset()

    def _route(self, wanted: dict[str, Any]) -> str:
        """How the worker reaches the service: direct, tunnel, or local without any network. Raises ExchangeError."""
        if self._connection.transport == "local":
            return "local"
        if wanted["urls"]:
            return "direct"
        if wanted["route"] == "auto":
            return "direct" if routes.trusted(self._connection.get_option("host"), wanted["trust"]) else "tunnel"
        return str(wanted["route"])

    def _urls(self, wanted: dict[str, Any], host: str, route: str) -> list[str]:
        """The worker URLs for the route; opens the tunnel when there has to be one. Raises AnsibleConnectionFailure."""
        if wanted["urls"]:
            return list(wanted["urls"])
        port = wanted["port"]
        if route == "tunnel" and self._task.check_mode:
            with contextlib.suppress(tunnel_requests.TunnelError):
                port = tunnel_requests.ask(state.folder(wanted["pool"]), {"look": host}, limit=5)["port"] or port
        elif route == "tunnel":
            request = {
                "open": host,
                "command": tunnel_requests.command(self.ssh_words, self._connection.get_option("host")),
                "to": f"127.0.0.1:{port}",
            }
            port = self.connected(lambda: _port(wanted["pool"], request))
        return [f"http://{'@' if route == 'direct' else '127.0.0.1'}:{port}"]

    def _program(self, wanted: dict[str, Any]) -> bytes:
        """The worker's program. Raises ExchangeError."""
        if wanted["engine"] == "builtin":
            return _PROGRAM
        script = Path(wanted["bin_dir"] or "") / "worker.pl"
        if not script.is_file():
            raise exchange.ExchangeError(f"there is no {script}: name the bin directory of a Swift/K distribution")
        return script.read_bytes()

    def _block(self, pool: str, host: str) -> str:
        """The host's block id; a check makes none. Raises StateError."""
        if self._task.check_mode:
            return str(state.read_workers(f"{state.folder(pool)}/workers").get(host, ""))
        return str(state.block_ids(pool, [host])[host])

    def _settings(self, wanted: dict[str, Any], host: str, route: str, urls: list[str], program: bytes) -> dict[str, str]:
        """The settings of a start. Raises ExchangeError or StateError."""
        if wanted["slots"] is not None and wanted["slots"] < 1:
            raise exchange.ExchangeError(f"{wanted['slots']} slots are too few: a worker needs at least 1")
        known = self._block(wanted["pool"], host) if wanted["engine"] == "builtin" else host
        return {
            "engine": wanted["engine"],
            "urls": exchange.check_urls(urls),
            "block": wanted["block"] or known,
            "slots": str(wanted["slots"] or ""),
            "interpreter": wanted["interpreter"] or "",
            "time_limit": str(wanted["time_limit"]),
            "restart": _yes(wanted["restart"]),
            "version": _VERSION if wanted["engine"] == "builtin" else exchange.version(program),
            "started_by": "systemd" if wanted["supervisor"] == "systemd" else "",
            "call_back_limit": f"{CALL_BACK_LIMIT:g}" if route == "direct" else "",
        }


def _failure(pool: str) -> Exception | None:
    """Why the pool has no service."""
    from ansible_collections.coasters.pool.plugins.module_utils import launcher  # Ansible compiles it anew in each run

    reason: Exception | None = launcher.failure(pool)
    return reason


def _port(pool: str, request: dict[str, Any]) -> int:
    """The port of a tunnel that the pool's keeper opens. Raises AnsibleConnectionFailure."""
    try:
        return int(tunnel_requests.ask(state.folder(pool), request)["port"])
    except tunnel_requests.TunnelError as error:
        raise AnsibleConnectionFailure(str(error)) from error


def _yes(value: bool) -> str:
    return "yes" if value else ""
