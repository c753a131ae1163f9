# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running set of test hosts."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, overload

from . import isolated, plain, runs
from .client import Client
from .host import Host, Options

KINDS = {"isolated": isolated.why_not, "plain": plain.why_not}


def why_not(kind: str) -> str | None:
    """Why this machine and user cannot have test hosts of that kind, in words, or None when they can."""
    return KINDS[kind]()


def start(hosts: int | Sequence[dict[str, Any]], kind: str | None = None, **options: Any) -> Hosts:
    """Start test hosts: so many, or one for each given set of options; ``options`` hold for all (fields of Options).

    ``kind`` is ``"isolated"``, ``"plain"``, or None for isolated where possible. Use the result in a ``with`` statement.
    Raises RuntimeError when that kind is not possible here or a host did not start.
    """
    wanted = [{}] * hosts if isinstance(hosts, int) else hosts
    if kind is None:
        kind = "plain" if why_not("isolated") else "isolated"
    reason = why_not(kind)
    if reason:
        raise RuntimeError(reason)
    common = Options(**options)
    return Hosts([replace(common, **own) for own in wanted], kind)


class Hosts(Sequence[Host]):
    """The hosts by index (the first, ``h1``, is ``[0]``) and what their client needs: see Client."""

    def __init__(self, options: Sequence[Options], kind: str) -> None:
        runs.sweep()
        self.kind = kind
        self._closed = False
        self.number = runs.claim()
        self._reaper = runs.Reaper()
        self._hosts: Sequence[Host] = []
        try:
            if kind == "isolated":
                self._isolated(options)
            else:
                self._plain(options)
            self.client.write(self._hosts)
        except BaseException:
            self.close()
            raise

    def _isolated(self, options: Sequence[Options]) -> None:
        folder = runs.folder(self.number)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", str(folder)], check=True)
        network = isolated.Network(self.number)
        self.client = Client(folder / "client", network.client)
        key = self.client.public_key
        self._hosts = hosts = [isolated.IsolatedHost(network, i, folder / f"h{i}", own, key) for i, own in enumerate(options, 1)]
        isolated.boot(network, hosts)

    def _plain(self, options: Sequence[Options]) -> None:
        folder = runs.folder(self.number)
        self.client = Client(folder / "client", plain.CLIENT)
        key = self.client.public_key
        self._hosts = hosts = [plain.PlainHost(self.number, i, folder / f"h{i}", own, key) for i, own in enumerate(options, 1)]
        for host in hosts:
            host.launch()
        for host in hosts:
            host.wait_listening()

    def env(self) -> dict[str, str]:
        """The environment for programs under test: see Client.env()."""
        return self.client.env()

    def ssh(self, host: Host, command: str = "true", *options: str, stdin: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command by the real ssh, as a program under test would; options are ssh's own. Raises TimeoutExpired."""
        argv = ["ssh", "-o", "BatchMode=yes", *options, host.target, command]
        return subprocess.run(argv, env=self.env(), input=stdin, capture_output=True, text=True, timeout=timeout, check=False)

    def close(self) -> None:
        """End and remove everything. May be called again."""
        if self._closed:
            return
        self._closed = True
        runs.remove(self.number)
        for host in self._hosts:
            host.release()
        self._reaper.dismiss()

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._hosts)

    @overload
    def __getitem__(self, index: int) -> Host:
        ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Host]:
        ...

    def __getitem__(self, index: int | slice) -> Host | Sequence[Host]:
        return self._hosts[index]
