# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/conformance.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "unit" / "plugins" / "module_utils" / "coaster"
PAGE = (ROOT / "docs" / "conformance.md").read_text()


@pytest.mark.parametrize(("file", "name"), sorted(set(re.findall(r"`(test_\w+)::(test_\w+)`", PAGE))))
def test_a_named_test_exists(file: str, name: str) -> None:
    assert f"\ndef {name}(" in (TESTS / f"{file}.py").read_text()


def test_the_checklist_has_all_items() -> None:
    assert re.findall(r"^\| ([0-9]+) \|", PAGE, re.M) == [str(number) for number in range(1, 35)]
