# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings pip into a virtual environment, as the script that ansible-test downloads does, but from Python's own copy and the package index."""

from __future__ import annotations

import ensurepip
import os
import runpy
import sys

if __name__ == "__main__":
    before = dict(os.environ)
    ensurepip.bootstrap()
    # ensurepip tells pip to read no settings; the index may be named there.
    os.environ.clear()
    os.environ.update(before)
    words = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
    sys.argv = ["pip", "install", *words]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
