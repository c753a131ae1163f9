# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh clone: its first command does all the set-up and ends with the output of a real job."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .environment import LIMIT, ROOT


def test_the_demo_runs_in_a_clone(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True, timeout=LIMIT)
    home = tmp_path / "home"
    home.mkdir()
    variables = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    settings = Path.home() / ".config" / "pip" / "pip.conf"
    if settings.is_file():
        variables.setdefault("PIP_CONFIG_FILE", str(settings))
    variables.update(HOME=str(home), PATH="/usr/local/bin:/usr/bin:/bin")
    done = subprocess.run(["make", "demo"], cwd=tmp_path / "clone", env=variables, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hello from a job on" in done.stdout
    assert not list((home / ".coasters").glob("*"))
