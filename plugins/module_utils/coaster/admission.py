# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Admission: who may register as a worker, and who may speak as a client. Without lists everybody may, as in Swift/K.

A block id in the list of workers is a secret of the worker's host: it is shown nowhere, its name stands for it.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Collection, Tuple

from .sockets import owner, process

Connection = Tuple[Tuple[str, int], Tuple[str, int]]


class AdmissionError(ValueError):
    """A peer that is not let in; the text says why."""


class Admission:
    """``workers_file``: the block ids that may register, one a line, a name after it allowed (``BLOCKID [name]``); it is
    read again when it has changed. ``users``: the user ids whose processes may connect over the loopback interface, as
    clients or as workers (a tunnel's end is a process of the pool's own user)."""

    def __init__(self, workers_file: str | None = None, users: Collection[int] | None = None) -> None:
        self._workers_file, self._users = workers_file, users
        self._read: tuple[int, int, int] | None = None
        self._names: dict[str, str] = {}

    @property
    def listed(self) -> bool:
        """Whether there is a list of workers; a block id is one worker then."""
        return self._workers_file is not None

    def block_name(self, block_id: str) -> str:
        """The name to show for a block id: with a list the one given there, else the id itself. Raises AdmissionError
        when it must not register."""
        if self._workers_file is None:
            return block_id
        try:
            self._refresh(self._workers_file)
        except OSError as error:
            self._read = None
            raise AdmissionError("the list of workers cannot be read: %s" % error.strerror) from error
        name = self._names.get(block_id)
        if name is None:
            raise AdmissionError("its block id is not in this pool's list of workers")
        return name

    def may_stay(self, block_id: str) -> bool:
        """Whether a worker that registered under this block id still stands in the list; also when that cannot be read."""
        try:
            self.block_name(block_id)
        except AdmissionError:
            return self._read is None
        return True

    def check_user(self, remote: tuple[str, int], local: tuple[str, int]) -> None:
        """Raises AdmissionError when the peer at ``remote`` must not speak to the service at ``local``."""
        if self._users is not None and _is_loopback(remote[0]):
            user = owner(local=remote, remote=local)
            if user is None:
                raise AdmissionError("the user of its connection cannot be seen")
            if user not in self._users:
                raise AdmissionError("user %d may not use this service" % user)

    def _refresh(self, path: str) -> None:
        found = os.stat(path)
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp == self._read:
            return
        names: dict[str, str] = {}
        taken = set()
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                words = line.split()
                if not words:
                    continue
                name = words[1] if len(words) > 1 else "worker"
                if len(words) == 1 or name in taken:
                    from hashlib import sha256  # loads 4 MB, which most services need not

                    name += "-" + sha256(os.fsencode(words[0])).hexdigest()[:12]
                names[words[0]] = name
                taken.add(name)
        self._names, self._read = names, stamp


def same_origin(one: Connection, other: Connection) -> bool:
    """Whether two connections, each given by its remote and its local end, come from one address; over loopback, where all
    tunnels end, also from one process, as far as it can be seen."""
    if one[0][0] != other[0][0]:
        return False
    processes = {process(*ends) for ends in (one, other)} if _is_loopback(one[0][0]) else set()
    return len(processes - {None}) < 2


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
