# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host words: from ``user@host`` to Ansible's inventory. Pure."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from .failure import USAGE, Failure

_WORD = re.compile(r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)\Z")
LOCAL = ("localhost", "127.0.0.1", "::1")


class Host(NamedTuple):
    """A machine of the pool. ``user`` is empty when ssh decides."""

    name: str
    user: str

    def variables(self) -> dict[str, Any]:
        """Its variables in the inventory."""
        if self.name in LOCAL and not self.user:
            return {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        return {"ansible_user": self.user} if self.user else {}


def parse(words: Iterable[str]) -> list[Host]:
    """The hosts that the words name, in order.

    A word is data: one that could mean an option, a command or a template somewhere is refused. Raises Failure.
    """
    found: dict[str, Host] = {}
    for word in words:
        match = _WORD.match(word)
        if match is None or (":" in match["host"] and not _is_ipv6(match["host"])):
            raise Failure(USAGE, f"{word!r} is not a host: write user@host, with letters, digits, '.', '-' and '_'")
        host = Host(match["host"], match["user"] or "")
        if host.name.lower() in found:
            raise Failure(USAGE, f"the host {host.name} is named twice: name it once")
        found[host.name.lower()] = host
    return list(found.values())


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def inventory(hosts: Iterable[Host], variables: dict[str, Any]) -> dict[str, Any]:
    """Ansible's inventory of the hosts, with variables for all."""
    return {"all": {"hosts": {host.name: host.variables() for host in hosts}, "vars": variables}}
