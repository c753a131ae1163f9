# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pool needs of Python. It imports nothing that could be missing and runs on Python 3.7 or later."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

MODULES = ("ansible", "ansible_runner", "jinja2", "rich", "yaml")
OLDEST = (3, 11)


def ensure(root: Path) -> None:
    """Return when this Python has what a pool needs; else go on with the Python of the checkout ``root``, when `make setup` made one.

    Ends the program with status 2 and a sentence when there is none.
    """
    missing = [name for name in MODULES if find_spec(name) is None]
    if sys.version_info >= OLDEST and not missing:
        return
    own = root / ".venv"
    if (own / "bin" / "python").is_file() and Path(sys.prefix) != own:
        os.execv(str(own / "bin" / "python"), [str(own / "bin" / "python"), *sys.argv])
    lacks = f"lacks {', '.join(missing)}" if missing else "is older than {}.{}".format(*OLDEST)
    print(f"start_pool.py: {sys.executable} {lacks}: run `make setup` in {root}, then the same command again", file=sys.stderr)
    sys.exit(2)
