# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the collection is: installed by the wheel, or this checkout, which then needs a tree that Ansible can search."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent
_INSIDE = Path("ansible_collections", "coasters", "pool")


def root(scratch: Path) -> Path:
    """The folder for Ansible's collections path; for a flat checkout a link to it is made below ``scratch``."""
    installed = _HERE / _INSIDE
    if (installed / "playbooks").is_dir():
        return _HERE
    if _HERE.parts[-3:] == _INSIDE.parts:
        return _HERE.parents[2]
    link = scratch / "collections" / _INSIDE
    if not link.is_symlink():
        link.parent.mkdir(parents=True)
        link.symlink_to(_HERE, target_is_directory=True)
    return scratch / "collections"


def importable(scratch: Path) -> Path:
    """root(), put on Python's path so that ``ansible_collections.coasters.pool`` can be imported."""
    path = root(scratch)
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
    return path
