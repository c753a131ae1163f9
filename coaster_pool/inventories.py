# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible inventories of the user's, of any kind, as plain tables: what they say of each host at the moment when they are read.

Ansible itself reads them, all sources in one run, so that groups, group_vars, plugins and vaults mean what they always mean. The table
is complete: a pool that was started with it can be stopped when the inventory has changed or is gone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from . import hosts
from .failure import USAGE, Failure

TIME_LIMIT = 120.0
"""Seconds that Ansible and its inventory plugins may take."""
MAX_DETAILS = 12
_SETTINGS = {
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True",
    "ANSIBLE_INVENTORY_EXPORT": "False",
    "ANSIBLE_HOST_PATTERN_MISMATCH": "ignore",
    "ANSIBLE_NOCOLOR": "True",
}
_PREFIXES = ("ansible_", "swift_worker_")
_KEY_FILES = ("ansible_ssh_private_key_file", "ansible_private_key_file")
_BAD_NAME = re.compile(r"-|.*[\s{}[\]]|[^:]*:[0-9]+\Z|ungrouped\Z|all\Z", re.DOTALL)
"""Names that are an option of ssh, a template, or that Ansible reads in another way when it meets them again."""


def load(sources: Sequence[str], limit: str = "") -> dict[str, dict[str, Any]]:
    """Host name to variables, of the inventories that ``ansible-playbook -i`` would take: files, folders, ``host1,host2``.

    ``limit`` is a pattern of Ansible's (``workers:!node03``) for the hosts that are meant, when not all are. Only variables for
    connections and workers stay, and those that these refer to; a vault's stay encrypted. Templates are for Ansible to resolve; one
    that refers to other hosts finds those of the pool, and no groups. Raises Failure.
    """
    named = " and ".join(sources)
    options = [f"--inventory={source if ',' in source else os.path.expanduser(source)}" for source in sources]
    options += [f"--limit={limit}"] if limit else []
    output = _run([sys.executable, "-m", "ansible.cli.inventory", "--list", *options], named)
    try:
        read = json.loads(output)
        known = read.pop("_meta")["hostvars"]
        names = list(dict.fromkeys(name for group in read.values() for name in group.get("hosts", ())))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise Failure(USAGE, f"the inventory {named} cannot be read: ansible-inventory answers with something else than JSON") from error
    if not names:
        raise Failure(USAGE, f"the inventory {named} names no host" + (f" that is meant by {limit}" if limit else ""))
    if len(names) > hosts.LIMIT:
        raise Failure(USAGE, f"the inventory {named} names more than {hosts.LIMIT} hosts")
    place = os.path.abspath(os.path.expanduser(sources[0]))
    magic = {"inventory_file": place, "inventory_dir": place if os.path.isdir(place) else os.path.dirname(place)}
    return dict(_host(name, _needed({**magic, **known.get(name, {})})) for name in names)


def merge(found: dict[str, dict[str, Any]], words: Iterable[hosts.Host]) -> dict[str, dict[str, Any]]:
    """Host name to variables of both: what a host word says goes before what the inventory says of the same host."""
    return {**found, **{host.name: {**found.get(host.name, {}), **host.variables()} for host in words}}


def _host(name: str, variables: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A host as it can stand in an inventory of ours. Raises Failure."""
    if _BAD_NAME.match(name) or not name.isprintable() or str(variables.get("ansible_host", "")).startswith("-"):
        raise Failure(USAGE, f"{name!r} of the inventory cannot be a host of a pool: give it another name, and its address in ansible_host")
    for key in _KEY_FILES:
        path = variables.get(key)
        if isinstance(path, str) and not path.startswith(("/", "~", "{")):
            variables[key] = os.path.abspath(path)
    if name not in hosts.LOCAL:
        return name, variables
    ways = ("ansible_connection", "ansible_host", "ansible_user", "ansible_port")
    if variables.get("ansible_connection") == "local" or not any(way in variables for way in ways):
        return name, {**hosts.local_variables(), **variables}
    return f"{name}+ssh", {"ansible_host": name, **variables}


def _needed(variables: dict[str, Any]) -> dict[str, Any]:
    """The variables for connections and workers, and all that their templates may mean."""
    needed: set[str] = set()
    names = [name for name in variables if name.startswith(_PREFIXES)]
    while names:
        name = names.pop()
        if name in variables and name not in needed:
            needed.add(name)
            text = json.dumps(variables[name])
            names += re.findall(r"\w+", text) if "{" in text else []
    return {name: value for name, value in variables.items() if name in needed}


def _run(command: list[str], named: str) -> str:
    """What the command says on standard output. Raises Failure."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        env={**os.environ, **_SETTINGS}, start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired as error:
        raise Failure(USAGE, f"the inventory {named} cannot be read: Ansible took more than {TIME_LIMIT:g} s") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        lines = ["".join(letter if letter.isprintable() else "?" for letter in line) for line in errors.splitlines() if line.strip()]
        raise Failure(USAGE, f"the inventory {named} cannot be read: see what Ansible says above", lines[:MAX_DETAILS])
    return output
