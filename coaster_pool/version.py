# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one version number: the collection's ``galaxy.yml``, beside this package or in the installed collection."""

from __future__ import annotations

import re
from pathlib import Path


def _read() -> str:
    here = Path(__file__).resolve().parent.parent
    for path in (here / "galaxy.yml", here / "ansible_collections" / "coasters" / "pool" / "galaxy.yml"):
        if path.is_file():
            match = re.search(r"^version: *(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
            return match[1] if match else "unknown"
    return "unknown"


VERSION = _read()
