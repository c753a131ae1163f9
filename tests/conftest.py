# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes ``ansible_collections.coasters.pool`` importable from a flat checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ansible.utils.collection_loader import AnsibleCollectionConfig
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
from hypothesis import HealthCheck, settings

# No test has a limit in seconds that a slow machine can break.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Programs run as users run them: what is left in a buffer at their end is written then.
os.environ.pop("PYTHONUNBUFFERED", None)

ROOT = Path(__file__).resolve().parent.parent


def collections_root() -> Path:
    """The folder that holds ``ansible_collections/coasters/pool``: a tree with a link to this checkout, made when needed."""
    if ROOT.parts[-3:] == ("ansible_collections", "coasters", "pool"):
        return ROOT.parents[2]
    link = ROOT / "build" / "collections" / "ansible_collections" / "coasters" / "pool"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(ROOT, target_is_directory=True)
    return ROOT / "build" / "collections"


# As Ansible imports them, so that its plugins know each other by name; ansible-test has done so already.
if AnsibleCollectionConfig.collection_finder is None:
    _AnsibleCollectionFinder(paths=[str(collections_root())])._install()
sys.path.insert(0, str(ROOT))

pytest_plugins = ["tests.testhosts.fixtures"]
