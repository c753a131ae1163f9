# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fenced blocks of a page, and what each is. Pure.

==========  =====================================================================================================
``sh``      commands for the reader to run
``yaml``    a file, when the line before it ends with a word such as "with", its name and a colon; else what a program shows
``ini``     the same
no word     what the commands before it show; ``…`` stands for what is left out
``text``    a drawing
==========  =====================================================================================================
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

_FENCED = re.compile(r"(?P<before>[^\n]*\n\n?)(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)\n?(?P=indent)```$", re.DOTALL | re.MULTILINE)
_NAMED = re.compile(r"(?:such as|as in|[Ww]ith|[Ii]n) `([^` ]+)`:\s*\Z")


class Block(NamedTuple):
    """``line`` is that of its first line in the page; ``file`` the name when it is the content of a file, else empty."""

    page: str
    line: int
    language: str
    text: str
    file: str

    @property
    def is_commands(self) -> bool:
        return self.language == "sh"

    @property
    def is_shown(self) -> bool:
        return self.language in ("", "yaml", "ini") and not self.file

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"


def of(path: Path) -> list[Block]:
    """The blocks of a page in order."""
    page = path.read_text()
    found = []
    for match in _FENCED.finditer(page):
        named = _NAMED.search(match["before"])
        line = page.count("\n", 0, match.start("text")) + 1
        found.append(Block(path.name, line, match["language"], textwrap.dedent(match["text"]), named[1] if named else ""))
    return found


def missing(shown: str, output: str) -> list[str]:
    """The lines of ``shown`` that the output does not have. Numbers, the width of gaps and the order are not compared."""
    there = "\n".join(_plain(line) for line in output.splitlines())
    lines = [line for line in shown.splitlines() if line.strip() not in ("", "…")]
    return [line for line in lines if not re.search(rf"^{re.escape(_plain(line)).replace('…', '.*')}$", there, re.MULTILINE)]


def _plain(line: str) -> str:
    return re.sub(r"\d+", "0", " ".join(line.split()))
