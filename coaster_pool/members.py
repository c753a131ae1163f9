# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts that a pool was asked to have, with their variables, kept beside the rest of its state on the client.

So ``--stop``, ``--status``, ``--remove`` and ``--logs`` know them, in any shell and also when the starter was killed.
"""

from __future__ import annotations

import os
from typing import Any

FILE = "members.json"


def load(pool: str) -> dict[str, dict[str, Any]]:
    """Host name to variables; empty when the pool has none. Raises state.StateError on a bad pool name."""
    from ansible_collections.coasters.pool.plugins.module_utils import state

    known = state.read_json(os.path.join(state.folder(pool), FILE)) or {}
    return {str(name): dict(variables) for name, variables in known.items() if isinstance(variables, dict)}


def save(pool: str, members: dict[str, dict[str, Any]]) -> None:
    """Replace what is kept. Raises state.StateError when that is not possible."""
    from ansible_collections.coasters.pool.plugins.module_utils import state

    folder = state.folder(pool)
    state.make_folder(folder)
    state.write_json(os.path.join(folder, FILE), members)
