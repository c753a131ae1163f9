# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the collection is in an installation: a wheel holds it at the place where Ansible looks, an editable one has a link to this checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLACE = Path("ansible_collections", "coasters", "pool")
CONTENT = ("CHANGELOG.md", "LICENSE", "README.md", "galaxy.yml", "meta", "playbooks", "plugins", "roles")


class Collection(BuildHookInterface):  # type: ignore[misc]
    """Files that a wheel includes by force would be copied by an editable install too, and the copies would win over the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling for ``version``: standard or editable."""
        if version == "standard":
            build_data["force_include"].update({name: str(PLACE / name) for name in CONTENT})
            return
        link = Path(self.root, "build", "collections", PLACE)
        if link.is_symlink() and link.readlink() == Path(self.root):
            return  # others may be using it at this moment
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(self.root, target_is_directory=True)
