# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host words: from ``user@node[01-40]:2222*8`` to Ansible's inventory."""

from __future__ import annotations

import ipaddress
import itertools
import math
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from .failure import USAGE, Failure

LOCAL = ("localhost", "127.0.0.1", "::1")
LIMIT = 10_000
"""Hosts at most."""
MAX_FILE = 1 << 20
"""Bytes at most of a file with hosts."""

_WORD = re.compile(
    r"""(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?
    (?: \[(?P<bracketed>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)\] | (?P<host>[]A-Za-z0-9_.,[-]+) | (?P<bare>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*) )
    (?:[:+](?P<port>[0-9]{1,5}))?
    (?:\*(?P<slots>[0-9]{1,4}))?\Z""",
    re.VERBOSE,
)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?\Z")
_MAX_NAME = 253
_BRACKETS = re.compile(r"\[([^][]*)\]")
_LAST_NUMBER = re.compile(r"(.*?)([0-9]{1,9})([^0-9]*)\Z")
_NUMBERS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?\Z")
_SSH_PORT = 22
_GROUPS = ("all", "ungrouped")
"""Names that every inventory of Ansible's has already."""


class Host(NamedTuple):
    """A machine of the pool. ``user`` is empty, ``port`` and ``slots`` are 0, when ssh, or the host itself, decides."""

    address: str
    user: str = ""
    port: int = 0
    slots: int = 0

    @property
    def is_local(self) -> bool:
        """Whether it is this machine, without ssh."""
        return self.address in LOCAL and not self.user and not self.port

    @property
    def name(self) -> str:
        """Its name in the pool, which depends on its own word alone, so that it stays when other hosts come and go.

        A port follows a ``+``: Ansible would cut ``host:port`` in two; a word may have it so, too. Names of this machine that mean ssh
        have the user in front: Ansible takes a host with one of the names in LOCAL for the client itself.
        """
        if self.port:
            return f"{self.address}+{self.port}"
        return f"{self.user}@{self.address}" if self.address in LOCAL and self.user else self.address

    def variables(self) -> dict[str, Any]:
        """Its variables in the inventory."""
        if self.is_local:
            known: dict[str, Any] = local_variables()
        else:
            known = {
                "ansible_host": self.address if self.name != self.address else "", "ansible_user": self.user, "ansible_port": self.port,
            }
        return {name: value for name, value in (known | {"swift_worker_slots": self.slots}).items() if value}


def local_variables() -> dict[str, Any]:
    """The inventory variables of this machine when it is reached without ssh."""
    return {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


def parse(words: Iterable[str]) -> list[Host]:
    """The hosts that the words name, in order.

    A word is data: one that could mean an option, a command or a template somewhere is refused. Raises Failure.
    """
    hosts: list[Host] = []
    sources: dict[tuple[str, int], str] = {}
    for word in words:
        for host in _expand(word, LIMIT - len(hosts)):
            machine = _machine(host)
            if machine in sources:
                both = " and ".join(map(_shown, dict.fromkeys((sources[machine], word))))
                raise Failure(USAGE, f"the host {host.name} is named twice, by {both}: name it once")
            sources[machine] = word
            hosts.append(host)
    return hosts


def from_file(path: str) -> list[str]:
    """The host words of a file: any number a line, ``#`` starts a comment; ``-`` is standard input. Raises Failure."""
    shown = "standard input" if path == "-" else path
    try:
        with open(0 if path == "-" else os.path.expanduser(path), "rb", closefd=path != "-") as file:
            data = file.read(MAX_FILE + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise Failure(USAGE, f"the hosts in {shown} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(USAGE, f"{shown} is no list of hosts: it is not text in UTF-8") from error
    if len(data) > MAX_FILE:
        raise Failure(USAGE, f"{shown} is no list of hosts: it is larger than {MAX_FILE} bytes")
    words: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        for word in line.partition("#")[0].split():
            try:
                _expand(word, LIMIT)
            except Failure as failure:
                raise Failure(USAGE, f"{shown}, line {number}: {failure}") from failure
            words.append(word)
    if not words:
        raise Failure(USAGE, f"{shown} names no host")
    return words


def folded(names: Iterable[str]) -> str:
    """The names in a line, those that differ only in their last number as one with brackets: ``node[01-03,07], h1``."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = _LAST_NUMBER.match(name) if _NAME.match(name) else None
        numbers = groups.setdefault(f"{match[1]}[]{match[3]}" if match else name, [])
        if match:
            numbers.append((int(match[2]), match[2]))
    return ", ".join(pattern.replace("[]", _ranges(sorted(numbers))) for pattern, numbers in groups.items())


def _ranges(numbers: list[tuple[int, str]]) -> str:
    """``[01-03,07]`` for numbers and how they are written; a number alone as it is."""
    runs: list[list[str]] = []
    for number, text in numbers:
        if runs and int(runs[-1][-1]) + 1 == number and text == str(number).zfill(len(runs[-1][0])):
            runs[-1].append(text)
        else:
            runs.append([text])
    parts = [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"[{','.join(parts)}]" if len(numbers) > 1 else "".join(parts)


def _expand(word: str, limit: int) -> list[Host]:
    """The hosts of one word, ``limit`` at most. Raises Failure."""
    match = _WORD.match(word)
    if match is None:
        raise _refused(word)
    if match["port"] and not 0 < int(match["port"]) < 65536:
        raise Failure(USAGE, f"{match['port']} in {_shown(word)} is not a port: give a number from 1 to 65535")
    if match["slots"] and int(match["slots"]) == 0:
        raise Failure(USAGE, f"{_shown(word)} has no slots: give a number from 1 to 9999")
    if match["host"]:
        addresses = _addresses(match["host"], word, limit)
    else:
        addresses = [match["bracketed"] or match["bare"]]
        if not _is_ipv6(addresses[0]):
            raise _refused(word)
    return [Host(address, match["user"] or "", int(match["port"] or 0), int(match["slots"] or 0)) for address in addresses]


def _addresses(pattern: str, word: str, limit: int) -> list[str]:
    """A name with ranges in brackets, written out; the last range counts fastest. Raises Failure."""
    pieces = _BRACKETS.split(pattern)
    literals, ranges = pieces[::2], [[_numbers(part, word) for part in text.split(",")] for text in pieces[1::2]]
    sample = "0".join(literals)
    if not _NAME.match(sample):
        raise _refused(word)
    if sample in _GROUPS:
        raise Failure(USAGE, f"{_shown(word)} is what Ansible calls a group of its own: give the host an alias in the ssh config")
    if math.prod(sum(len(numbers) for numbers, dummy in parts) for parts in ranges) > limit:
        raise Failure(USAGE, f"more than {LIMIT} hosts are named, with {_shown(word)}: name fewer")
    choices = [[str(number).zfill(width) for numbers, width in parts for number in numbers] for parts in ranges]
    addresses = ["".join(text + number for text, number in zip(literals, (*chosen, ""), strict=True)) for chosen in itertools.product(*choices)]
    if max(map(len, addresses)) > _MAX_NAME:
        raise Failure(USAGE, f"{_shown(word)} is longer than the {_MAX_NAME} characters that a name of a host can have")
    return addresses


def _numbers(text: str, word: str) -> tuple[range, int]:
    """``7``, ``1-40`` or ``01-40``: the numbers, and how many digits they are filled up to. Raises Failure."""
    match = _NUMBERS.match(text)
    if match is not None:
        first, last = match[1], match[2] or match[1]
        if int(first) <= int(last) and (len(first) == len(last) or len(first) < len(last) and last[0] != "0"):
            return range(int(first), int(last) + 1), len(first)
    raise Failure(USAGE, f"{_shown(text)} in {_shown(word)} is not a range of hosts: write [01-40] or [1-3,7]")


def _machine(host: Host) -> tuple[str, int]:
    """What two words must not share: the address, however it is written, and the port."""
    address = "localhost" if host.address in LOCAL else host.address.lower().rstrip(".")
    return str(ipaddress.IPv6Address(address)) if _is_ipv6(address) else address, host.port or _SSH_PORT


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _refused(word: str) -> Failure:
    return Failure(
        USAGE, f"{_shown(word)} is not a host: write user@host, user@host:port, node[01-40] or host*8, with letters, digits, '.', '-' and '_'",
    )


def _shown(word: str) -> str:
    return repr(word if len(word) <= 80 else word[:80] + "…")
