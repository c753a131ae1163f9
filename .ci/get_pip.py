# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings pip into a virtual environment, as the script that ansible-test downloads does, but from the package index.

What installs it is Python's own copy of pip, right from its wheel: to install that copy first, as ensurepip would, takes longer.
"""

from __future__ import annotations

import ensurepip
import runpy
import sys
import sysconfig
from pathlib import Path

if __name__ == "__main__":
    # Debian keeps the wheel elsewhere.
    folder = Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or Path(ensurepip.__file__).with_name("_bundled"))
    sys.path.insert(0, str(next(folder.glob("pip-*.whl"))))
    words = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
    sys.argv = ["pip", "install", *words]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
