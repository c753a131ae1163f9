# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exchange with a worker host, as text: what is sent to its shell, and what its answer means. Pure.

The scripts beside this file run on the host: ``host/exchange.sh`` once, ``host/supervisor.sh`` while the pool lives.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.coasters.pool.plugins.module_utils.text import printable

PREFIX = "coasters:"
LOG_PREFIX = "coasters>"

_HERE = Path(__file__).parent / "host"
_URL = re.compile(r"(?:https?|tcps?)://(?:@|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]):[0-9]{1,5}\Z")


class ExchangeError(ValueError):
    """A setting that cannot be sent to a host, or an answer that cannot be trusted; the text says what to do."""


def command(verb: str, pool: str) -> str:
    """The shell command of the exchange: ``verb`` is start, check, stop or status."""
    script = (_HERE / "exchange.sh").read_text(encoding="utf-8")
    return " ".join(("sh -c", shlex.quote(script), "coasters", shlex.quote(verb), shlex.quote(pool)))


def supervisor() -> bytes:
    """The program that keeps the worker running on the host."""
    return (_HERE / "supervisor.sh").read_bytes()


def version(program: bytes) -> str:
    """What tells a worker's program and its supervisor from others, such as those of a host that has one already."""
    return hashlib.sha256(supervisor() + program).hexdigest()


def standard_input(settings: Mapping[str, str], program: bytes = b"") -> bytes:
    """What the exchange reads: settings, the supervisor, the worker's program. Secrets travel here, never as words.

    Raises ExchangeError on a setting with a line break or a NUL.
    """
    keeper = supervisor() if program else b""
    end = b"end\n" if program else b""
    lines = dict(settings, supervisor_size=str(len(keeper)), program_size=str(len(program)))
    for name, value in lines.items():
        if re.search(r"[\n\r\0]", value):
            raise ExchangeError(f"the setting {name} must be one line")
    text = "".join(f"{name}={value}\n" for name, value in lines.items() if value) + "\n"
    return text.encode("utf-8") + keeper + program + end


def check_urls(urls: list[str]) -> str:
    """URLs for a worker as one word. ``@`` as the host stands for the client's address as the worker host sees it.

    Raises ExchangeError naming the first that is no URL.
    """
    for url in urls:
        if not _URL.match(url):
            raise ExchangeError(f"{url!r} is not a worker URL: write it as http://ADDRESS:PORT")
    return ",".join(urls)


def answer(output: str, verb: str) -> dict[str, str]:
    """The values in a host's answer; what else the host printed (banners) is passed over.

    The host is not trusted: its values are made printable(). Raises
    ExchangeError when the answer is not whole.
    """
    values: dict[str, str] = {}
    for line in output.splitlines():
        if line.startswith(PREFIX):
            name, dummy, value = line[len(PREFIX):].partition("=")
            values[printable(name)] = printable(value)
    if values.get("end") != verb:
        raise ExchangeError("its shell gave no whole answer: check that `ssh HOST true` works and its login files print no errors")
    return values


def log_lines(output: str) -> list[str]:
    """The lines of the log in a host's answer, made printable()."""
    return [printable(line[len(LOG_PREFIX):]) for line in output.splitlines() if line.startswith(LOG_PREFIX)]


def number(text: str | None) -> int | None:
    """A number that a host gave, None when it is none of a sane length."""
    return int(text) if text and text.isdigit() and text.isascii() and len(text) < 10 else None


def worker(words: str) -> dict[str, Any]:
    """The worker that a host has: ``engine``, ``slots`` and ``urls``, from ``ENGINE SLOTS URL,URL…``; empty when it has none."""
    engine, dummy, rest = words.partition(" ")
    slots, dummy, urls = rest.partition(" ")
    return {"engine": engine, "slots": number(slots), "urls": urls.split(",")} if words else {}
