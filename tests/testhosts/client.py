# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's side of a set of test hosts: its key, the host keys it knows, and an ssh that uses them.

OpenSSH takes the home folder from the user database and not from ``HOME``, so programs under test are led to our files by
a folder ``bin`` at the front of PATH: its ``ssh``, ``scp`` and ``sftp`` run the real ones with ``-F``. The user's own
~/.ssh is neither read nor written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from .host import Host


class Client:
    """Files below ``folder`` (made here): ``ssh_config``, ``known_hosts``, ``identity`` and its ``.pub``, ``bin``, ``home``."""

    def __init__(self, folder: Path, address: str) -> None:
        self.address = address
        self.folder = folder
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.ssh_config = folder / "ssh_config"
        self.known_hosts = folder / "known_hosts"
        self.identity = folder / "identity"
        for made in (self.home, self.bin):
            made.mkdir(parents=True)
        make_key(self.identity)
        for program in ("ssh", "scp", "sftp"):
            wrapper = self.bin / program
            wrapper.write_text(f'#!/bin/sh\nexec {shutil.which(program)} -F {self.ssh_config} "$@"\n')
            wrapper.chmod(0o755)

    @property
    def public_key(self) -> str:
        return self.identity.with_suffix(".pub").read_text().strip()

    def write(self, hosts: Sequence[Host]) -> None:
        """Write ssh_config and known_hosts for these hosts."""
        lines = []
        for host in hosts:
            lines += [f"Host {host.name} {host.address}", f"  HostName {host.address}", f"  Port {host.port}", f"  User {host.user}"]
        lines += [
            "Host *",
            f"  IdentityFile {self.identity}",
            "  IdentitiesOnly yes",
            f"  UserKnownHostsFile {self.known_hosts}",
            "  GlobalKnownHostsFile /dev/null",
        ]
        self.ssh_config.write_text("\n".join(lines) + "\n")
        self.know(hosts)

    def know(self, hosts: Iterable[Host]) -> None:
        """Write known_hosts anew, so that exactly these hosts are known."""
        lines = [f"{_key_name(host)} {host.public_key}\n" for host in hosts]
        self.known_hosts.write_text("".join(lines))

    def env(self) -> dict[str, str]:
        """The environment for programs under test: ours with the wrappers in PATH, an empty HOME and no ssh agent."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
        return kept | {"PATH": f"{self.bin}:{os.environ.get('PATH', os.defpath)}", "HOME": str(self.home)}


def make_key(path: Path) -> None:
    """Make an ed25519 key without a passphrase at ``path`` and ``path.pub``."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)], check=True)


def _key_name(host: Host) -> str:
    return host.address if host.port == 22 else f"[{host.address}]:{host.port}"
