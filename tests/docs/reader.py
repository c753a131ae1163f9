# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody who follows a page: in a checkout, with the hosts that the pages speak of, and one terminal for what goes on running."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.conftest import ROOT, collections_root
from tests.testhosts import Hosts

LIMIT = 240.0
"""Seconds after which a command is taken for hung."""
NAMES = ("1.0.0.{}", "node0{}", "node0{}.example.org")
"""How the pages name the hosts 1, 2 …"""
USER = "user"
STAND_INS = {
    # Reads its configuration and submits one job as its backend cloud_swift does.
    "jetstream": """
        url=$(sed -n 's/^ *serviceurl: //p' ~/.config/jetstream/config.yaml)
        exec cog-job-submit -provider coaster-persistent -service-contact "$url" -redirected /bin/echo "jetstream $*"
    """,
    # Makes a file where it is asked to put an image from the internet.
    "apptainer": 'echo "$1 $3" > "$2"',
}
"""What the pages call and these tests do not have: its name, and a shell script in its place."""
_STARTS = re.compile(r"(?:^| )start[-_]pool(?:\.py)? (?!.*--(?:stop|status|remove|logs|check|help|version)\b)", re.MULTILINE)
_RETURNS = re.compile(r" --detach | -- ")
_READY = ("Started coaster service: ", "Coaster service ")


class Reader:
    """``home`` is theirs, ``folder`` the checkout they are in: links to the tree of the project, beside which they put files."""

    def __init__(self, hosts: Hosts, place: Path) -> None:
        self.home = hosts.client.home
        self.folder = place / "pool"
        self.folder.mkdir()
        for path in ROOT.iterdir():
            (self.folder / path.name).symlink_to(path)
        self._settings = place / "settings"
        self._output = place / "output"
        self._terminal: subprocess.Popen[bytes] | None = None
        kept = {name: value for name, value in hosts.env().items() if not name.startswith(("ANSIBLE_", "XDG_", "COASTER", "MAKE", "MFLAGS"))}
        self._env = kept | {
            "PATH": f"{hosts.client.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}", "ANSIBLE_COLLECTIONS_PATH": str(collections_root()),
            "COLUMNS": "100", "LC_ALL": "C.UTF-8",
        }
        _name_hosts(hosts)
        for name, script in STAND_INS.items():
            program = hosts.client.bin / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Ends what runs; the hosts end with the test."""
        self.interrupt()
        self.run("start-pool --stop --quiet")

    def write(self, name: str, text: str) -> None:
        """Make the file that the page shows; ``~`` is the reader's home."""
        path = self.home / name[2:] if name.startswith("~/") else self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def run(self, commands: str) -> str:
        """Type commands and return what they show. A pool that stays in the terminal is left there until the next one is started.

        What the commands export stays for later ones. One that fails is an AssertionError.
        """
        starts = _STARTS.search(commands)
        stays = starts and not _RETURNS.search(commands)
        if starts:
            self.interrupt()
        script = f"[ ! -f {self._settings} ] || . {self._settings}\nset -e\n{commands}\n{'' if stays else f'export -p > {self._settings}'}"
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", script], cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            shown = self._watch(process, bool(stays))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
        assert stays or process.returncode == 0, f"{commands}\nends with {process.returncode}:\n{shown}"
        if stays:
            self._terminal = process
        return shown

    def state(self) -> dict[str, Any]:
        """What the pool says of itself."""
        known: dict[str, Any] = json.loads(self.run("start-pool --status --json"))
        return known

    def _watch(self, process: subprocess.Popen[bytes], stays: bool) -> str:
        until = time.monotonic() + LIMIT
        while True:
            ended = process.poll() is not None
            shown = self._output.read_text()
            if ended and not stays or stays and any(word in shown for word in _READY) and shown.endswith("\n"):
                return shown
            assert not ended and time.monotonic() < until, shown
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Ctrl-C in the terminal where a pool stays."""
        if self._terminal is not None:
            os.killpg(self._terminal.pid, signal.SIGINT)
            assert self._terminal.wait(LIMIT) == 128 + signal.SIGINT
            self._terminal = None


def _name_hosts(hosts: Hosts) -> None:
    """Give the hosts the names of the pages in the client's ssh config, and their user an account."""
    lines = []
    for number, host in enumerate(hosts, 1):
        lines += [f"Host {' '.join(name.format(number) for name in NAMES)}", f"  HostName {host.address}", f"  Port {host.port}", f"  User {USER}"]
        home = f"/home/{USER}"
        host.run(f"useradd --create-home --password '*' {USER} && cp -r /home/{host.user}/.ssh {home} && chown -R {USER}: {home}/.ssh", user="root")
    config = hosts.client.ssh_config
    config.write_text("\n".join(lines) + "\n" + config.read_text())


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """A network of this thread's own and of what it starts, where every port is free. Needs root."""
    system = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as before:
        if system.unshare(0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            if system.setns(before.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
