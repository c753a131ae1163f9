# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that stand in for those of systemd, where the real ones (see tests/integration/test_systemd.py) would be the machine's own."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tests.distribution import write_program

USER = pwd.getpwnam("nobody")
"""Somebody who is not root, whatever user runs the tests."""

SYSTEMCTL = """\
#!/bin/sh
echo "$XDG_RUNTIME_DIR $*" >> {place}/said
unit={units}/$(eval echo "\\${{$#}}")
case $* in
  *is-system-running) cat {place}/state ;;
  *daemon-reload) ;;
  *enable*)
    [ ! -e {place}/broken ] || {{ cat {place}/broken >&2; exit 1; }}
    cd "$(sed -n 's/^WorkingDirectory=//p' "$unit")"
    eval "exec setsid $(sed -n 's/^ExecStart=//p' "$unit")" < /dev/null > /dev/null 2>&1 &
    echo $! > {place}/pid ;;
  *disable*) [ ! -e {place}/pid ] || kill "$(cat {place}/pid)" ; rm -f {place}/pid ;;
  *show*) cat {place}/pid ;;
esac
"""
"""Starts the command of a unit when it is enabled, and ends it when it is disabled."""


class Systemd:
    """A user's systemd that keeps one unit; ``units`` is where its file is looked for."""

    def __init__(self, place: Path, units: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        for folder in (place / "bin", place / "linger"):
            folder.mkdir(parents=True)
        write_program(place / "bin" / "systemctl", SYSTEMCTL.format(place=place, units=units))
        self.answers("running")
        (place / "linger" / USER.pw_name).touch()
        monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)

    def answers(self, text: str) -> None:
        """Say this of its own state from now on."""
        (self.place / "state").write_text(f"{text}\n")

    def said(self) -> list[str]:
        """Where it was looked for, and the words, of each call."""
        return (self.place / "said").read_text().splitlines()
