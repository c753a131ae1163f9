# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Admission: who may register as a worker, and who may speak as a client. Without lists everybody may, as in Swift/K."""

from __future__ import annotations

import ipaddress
import os
from typing import Collection, FrozenSet, Optional, Tuple

from .sockets import owner


class AdmissionError(ValueError):
    """A peer that is not let in; the text says why."""


class Admission:
    """``workers_file``: the block ids that may register, one a line, a name after it allowed (``BLOCKID [name]``); it is
    read again when it has changed. ``users``: the user ids whose processes may be clients over the loopback interface."""

    def __init__(self, workers_file: Optional[str] = None, users: Optional[Collection[int]] = None) -> None:
        self._workers_file, self._users = workers_file, users
        self._read: Optional[Tuple[int, int, int]] = None
        self._blocks: FrozenSet[str] = frozenset()

    def check_worker(self, block: str, address: str, live: Collection[str]) -> bool:
        """Whether the worker replaces those who are registered under its block id from the addresses ``live``: with a list,
        a block id is one worker. Raises AdmissionError when it must not register."""
        if self._workers_file is None:
            return False
        if block not in self._listed(self._workers_file):
            raise AdmissionError("its block id is not in this pool's list of workers")
        for other in live:
            if other != address:
                raise AdmissionError("its block id is in use by a worker from %s" % other)
        return bool(live)

    def check_client(self, remote: Tuple[str, int], local: Tuple[str, int]) -> None:
        """Raises AdmissionError when the client at ``remote`` must not speak to the service at ``local``."""
        if self._users is not None and _is_loopback(remote[0]):
            user = owner(remote, local)
            if user is None:
                raise AdmissionError("the user of its connection cannot be seen")
            if user not in self._users:
                raise AdmissionError("user %d may not use this service" % user)

    def _listed(self, path: str) -> FrozenSet[str]:
        try:
            found = os.stat(path)
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._read:
                with open(path, encoding="utf-8", errors="surrogateescape") as lines:
                    self._blocks = frozenset(line.split()[0] for line in lines if line.strip())
                self._read = stamp
        except OSError as error:
            raise AdmissionError("the list of workers cannot be read: %s" % error) from error
        return self._blocks


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
