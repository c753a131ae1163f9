# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What both kinds of test host have in common: the interface that tests use."""

from __future__ import annotations

import signal
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from .runs import Process, kill


class Unsupported(RuntimeError):
    """This kind of test host cannot do that; use isolated hosts."""


@dataclass(frozen=True)
class Options:
    """How a test host is made.

    ``python``, ``perl``: whether the host has that interpreter. ``home_size``: limit of /home, as tmpfs takes it (``"8m"``).
    ``shared``: a folder of the machine that the host has, for reading, as /mnt. These four need isolated hosts.
    ``max_startups``: sshd's MaxStartups. ``sshd``: further lines of sshd_config, which win over ours; ``"ForceCommand sleep 86400"``
    makes a host that lets you in and then hangs.
    """

    python: bool = True
    perl: bool = True
    home_size: str | None = None
    shared: Path | None = None
    max_startups: str = "1000"
    sshd: tuple[str, ...] = ()


class Host(ABC):
    """One test host. It runs from the start of its set; every fault can be undone by mend() or start()."""

    name: str
    """``h1``, ``h2`` …; also an alias in the set's ssh config."""
    address: str
    port: int
    user: str
    hostname: str
    """What ``hostname`` prints there."""
    folder: Path
    """Where the client keeps the host's files: ``log`` is sshd's log."""
    public_key: str
    """The host's key, ``"ssh-ed25519 AAAA…"``."""

    @property
    def target(self) -> str:
        """``user@address``; through the set's ssh also the port is right."""
        return f"{self.user}@{self.address}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.target}:{self.port}>"

    @abstractmethod
    def run(self, command: str, *, user: str | None = None, stdin: bytes = b"", check: bool = True, timeout: float = 60) -> str:
        """Run a shell command on the host without ssh, from the user's home; its output, standard error included.

        Raises CalledProcessError when it fails and ``check``, TimeoutExpired after ``timeout`` seconds.
        """

    @abstractmethod
    def processes(self) -> list[Process]:
        """All processes of this host alone, its sshd included."""

    @abstractmethod
    def start(self) -> None:
        """Boot: as at first, with the disk as it was left. Nothing happens when the host is up."""

    @abstractmethod
    def stop(self) -> None:
        """Shut down in order: processes get SIGTERM, then SIGKILL, and their connections are closed."""

    @abstractmethod
    def crash(self) -> None:
        """Power failure: every process is gone at once; an isolated host says no goodbye to its peers."""

    def freeze(self) -> None:
        """Stop every process (SIGSTOP): connections are still accepted by the kernel, but nobody answers."""
        # Twice, for what was forked meanwhile.
        self._kill(signal.SIGSTOP)
        self._kill(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo freeze()."""
        self._kill(signal.SIGCONT)

    def _kill(self, number: signal.Signals) -> int:
        """Send a signal to every process; how many there were."""
        return kill([process.pid for process in self.processes()], number)

    @abstractmethod
    def silence(self) -> None:
        """Drop every packet to and from the host: connecting times out."""

    @abstractmethod
    def refuse(self) -> None:
        """Refuse new ssh connections; those that are open stay."""

    @abstractmethod
    def mend(self) -> None:
        """Undo cut(), silence(), refuse(), drop_to_client() and impair()."""

    @abstractmethod
    def release(self) -> None:
        """Let go of what this program holds for the host, whose processes have ended."""

    def cut(self) -> None:
        """Pull out the network cable."""
        raise self._unsupported("cut()")

    def drop_to_client(self) -> None:
        """Drop what the host sends to the client except answers of its sshd: as a client behind NAT or a firewall."""
        raise self._unsupported("drop_to_client()")

    def impair(self, *, delay: float = 0, loss: float = 0) -> None:
        """Delay each packet by so many seconds and lose that share (0 to 1) of them, each way."""
        raise self._unsupported("impair()")

    def _unsupported(self, what: str) -> Unsupported:
        return Unsupported(f"{what} needs isolated test hosts")


def shell(argv: list[str], *, stdin: bytes, check: bool, timeout: float, env: dict[str, str], cwd: Path | None = None) -> str:
    """The run() of both kinds, once they know how to get onto the host."""
    done = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, env=env, cwd=cwd, check=False)
    output = done.stdout.decode(errors="replace")
    if check and done.returncode:
        raise subprocess.CalledProcessError(done.returncode, argv, output)
    return output
