# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts that a command line asks for: its words and its files, as one table."""

from __future__ import annotations

import argparse
from typing import Any

from . import hosts, inventories


def members(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Host name to the variables of the inventory. Raises Failure on a word, or a file, that cannot be used."""
    words = list(options.fqdns)
    for path in options.hosts_file:
        words += hosts.from_file(path)
    found = inventories.load(options.inventory) if options.inventory else {}
    return inventories.merge(found, hosts.parse(words))
