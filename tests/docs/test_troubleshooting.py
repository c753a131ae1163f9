# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sentences of the page on troubleshooting are those that the programs say."""

from __future__ import annotations

import re

import pytest

from ansible_collections.coasters.pool.plugins.plugin_utils import causes
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
SENTENCES = [row.partition(" | ")[0].removeprefix("| ").strip("` ") for row in PAGE.splitlines() if row.startswith("| `")]
OTHERS = "Task cpus"
"""What Jetstream says."""
_JOINED = re.compile(r"""["']\s+f?["']""")
"""Two pieces of one text in Python."""


@pytest.fixture(scope="module")
def source() -> str:
    """All that the programs could say, each text on one line."""
    paths = [ROOT / "start_pool.py", *(ROOT / "coaster_pool").rglob("*.py"), *(ROOT / "plugins").rglob("*.py"), *(ROOT / "plugins").rglob("*.sh")]
    return "\n".join(_JOINED.sub("", path.read_text()) for path in paths)


@pytest.mark.parametrize("sentence", [sentence for sentence in SENTENCES if not sentence.startswith(OTHERS)])
def test_the_programs_say_it(sentence: str, source: str) -> None:
    pieces = [piece for piece in (part.strip() for part in sentence.split("…")) if len(piece) > 2]
    assert pieces
    assert [piece for piece in pieces if piece not in source] == []


@pytest.mark.parametrize("sentence", [sentence for dummy, dummy_, sentence in causes._CAUSES])
def test_every_cause_that_ssh_can_have_is_there(sentence: str) -> None:
    start = re.split(r"[:;(]", sentence)[0].strip()
    assert any(known.startswith(start) for known in SENTENCES)
