# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenSSH server of a test host: where it is, its configuration, whether it listens."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from .host import Options

START_LIMIT = 60.0
"""Seconds until a host must listen."""


@cache
def program() -> str | None:
    """Path of sshd, which is often not in a user's PATH."""
    return shutil.which("sshd", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin:/sbin")


@cache
def _version() -> tuple[int, int]:
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def config(options: Options, *, host_key: Path, own: list[str]) -> str:
    """Text of sshd_config. The first value of a keyword counts, so the options' own lines come first."""
    lines = [
        *options.sshd,
        *own,
        f"HostKey {host_key}",
        f"MaxStartups {options.max_startups}",
        "AuthenticationMethods publickey",
        "UsePAM no",
        "PidFile none",
        "PrintMotd no",
        "AcceptEnv LANG LC_*",
    ]
    if _version() >= (9, 8):
        lines.append("PerSourcePenalties no")
    return "\n".join(lines) + "\n"


def listens(log: Path) -> bool:
    """Whether the sshd that writes this log listens."""
    return b"Server listening on" in log.read_bytes()
