# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An empty environment to install the project in."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600
"""Seconds after which a program is taken for hung."""


class Environment:
    """A virtual environment and a home folder below ``folder``, with nothing of the checkout in sight."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        venv.create(folder / "venv")
        self.variables = {"HOME": str(self.home), "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}

    def pip(self, *words: str | Path) -> None:
        """Install packages, by the pip and with the settings that the tests run with."""
        command = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "-qq", "--no-compile", *words]
        subprocess.run(command, check=True, timeout=LIMIT)

    def run(self, program: str, *words: str | Path, **variables: str) -> str:
        """Run a program of the environment in its home folder; returns its standard output. One that fails fails the test."""
        done = subprocess.run(
            [self.bin / program, *words], cwd=self.home, env=dict(self.variables, **variables), capture_output=True, text=True,
            timeout=LIMIT, check=False,
        )
        if done.returncode:
            pytest.fail(f"{program} {words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def start(self, program: str, *words: str | Path) -> subprocess.Popen[str]:
        """Start a program of the environment in its home folder; its standard output is a pipe."""
        return subprocess.Popen([self.bin / program, *words], cwd=self.home, env=self.variables, stdout=subprocess.PIPE, text=True)


def ours(*paths: str) -> set[str]:
    """The files at or below the paths that git tracks or would track."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    return {name for name in listed.stdout.split("\0") if (ROOT / name).is_file()}
