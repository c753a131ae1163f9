# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark ran on: the machine and the versions of all that was compared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path


def describe(dask_python: Path | None, swift_bin_dir: Path | None) -> dict[str, str]:
    """Name to value, both for people."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)", info, re.MULTILINE)
    memory = re.search(r"^MemTotal: +(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    found = {
        "processor": f"{len(os.sched_getaffinity(0))} × {model[1] if model else platform.machine()}",
        "memory": f"{int(memory[1]) / 1048576:.0f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "ssh": _said(["ssh", "-V"]).split(",")[0],
        "ansible-core": importlib.metadata.version("ansible-core"),
        "ansible-runner": importlib.metadata.version("ansible-runner"),
    }
    if dask_python:
        found["Dask distributed"] = _said([str(dask_python), "-c", "import distributed; print(distributed.__version__)"])
        found["asyncssh"] = _said([str(dask_python), "-c", "import asyncssh; print(asyncssh.__version__)"])
    if swift_bin_dir:
        java = re.search(r'version "([^"]+)"', _said(["java", "-version"]))
        found["Swift/K"] = f"the distribution given, on Java {java[1] if java else 'unknown'}"
    return found


def _said(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip()
