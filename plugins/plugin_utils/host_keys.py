# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether ssh's command line keeps the check of host keys that was asked for. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .exchange import ExchangeError

_OPTION = re.compile(r"(?:-o)?\s*StrictHostKeyChecking[\s=]+\"?(\w+)", re.IGNORECASE)
_OFF = {"no", "off"}


def check(words: Iterable[str]) -> None:
    """Of an option that ssh is given twice it takes the first. Raises ExchangeError when that turns off what a later one asks for.

    ``start_pool.py`` always asks for the check, behind what the inventory and ansible.cfg say.
    """
    values = [match[1].lower() for match in map(_OPTION.match, words) if match]
    if values and values[0] in _OFF and not _OFF.issuperset(values):
        raise ExchangeError(
            "its ssh options turn the check of its host key off: take StrictHostKeyChecking and host_key_checking out of the inventory and "
            "ansible.cfg; --accept-new-host-keys takes keys that are not known yet"
        )
