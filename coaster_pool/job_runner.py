# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the user's command on a pool: the words after ``--``."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from .end import Ending
from .failure import USAGE, Failure

KILL_AFTER = 10.0
"""Seconds that the command has to end after it was sent the signal that ends the pool."""


def environment(info: dict[str, Any], user: dict[str, str]) -> dict[str, str]:
    """The ``user``'s variables and what a program needs to use the pool (coaster_service_info's result)."""
    slots = [worker["slots"] for worker in info["workers"]]
    return {
        **user,
        "COASTER_SERVICE_URL": info["url"],
        "COASTER_WORKERS": str(len(slots)),
        "COASTER_CPUS_PER_WORKER": str(min(slots)),
        "PATH": os.pathsep.join((info["bin_dir"], user.get("PATH", os.defpath))),
    }


def run(command: list[str], variables: dict[str, str], ending: Ending) -> int:
    """The command's exit status (128 and the signal's number if one ended it). Raises Failure if it cannot be started."""
    try:
        process = subprocess.Popen(command, env=variables)
    except OSError as error:
        raise Failure(USAGE, f"{command[0]} cannot be run: {error.strerror}") from error
    ending.on_signal = lambda: process.send_signal(signal.SIGTERM)
    if ending.came:  # a moment ago, while nobody was told
        process.send_signal(signal.SIGTERM)
    try:
        while True:
            try:
                status = process.wait(KILL_AFTER if ending.came else 1.0)
                return status if status >= 0 else 128 - status
            except subprocess.TimeoutExpired:
                if ending.came and ending.seconds() > KILL_AFTER:
                    process.kill()
    finally:
        ending.on_signal = None
