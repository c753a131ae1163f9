# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts are on networks that the user trusts, and so may be reached without a tunnel."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from .exchange import ExchangeError


def networks(words: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The networks that words such as ``10.0.0.0/8`` name. Raises ExchangeError naming the first that is none."""
    found = []
    for word in words:
        try:
            found.append(ipaddress.ip_network(word))
        except ValueError as error:
            raise ExchangeError(f"{word!r} is not a network: write it as 10.0.0.0/8") from error
    return found


def trusted(host: str, trust: Iterable[str]) -> bool:
    """Whether every address of ``host`` is on a trusted network. A name that does not resolve is not trusted.

    Raises ExchangeError when ``trust`` names something that is no network.
    """
    known = networks(trust)
    if not known:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    addresses = {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}
    return all(any(address in network for network in known) for address in addresses)
