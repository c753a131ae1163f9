# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built artifacts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .environment import LIMIT, ROOT


@pytest.fixture(scope="package")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, timeout=LIMIT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="package")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tarball")
    program = Path(sys.executable).parent / "ansible-galaxy"
    subprocess.run([program, "collection", "build", "--output-path", folder, ROOT], check=True, timeout=LIMIT)
    return next(folder.glob("*.tar.gz"))
