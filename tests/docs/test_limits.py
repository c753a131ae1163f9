# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/limits.md says what the engine does."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = "plugins/module_utils/coaster"
ROW = re.compile(r"\| .* \| (?P<value>\d+) \| .*\| `(?P<module>\w+)\.(?P<name>[A-Z_]+)` \| (?P<tests>.*) \|")
ROWS = [match.groupdict() for match in map(ROW.match, (ROOT / "docs" / "limits.md").read_text().splitlines()) if match]
LIMIT = re.compile(r"(MAX_|SPARE_|HIGH_|LOW_)|(SILENCE|REGISTER|LOST|CONNECT|OUTPUT|KILL|CLEANUP)_LIMIT\b|(REGISTER|DEFAULT_WALL)TIME\b")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["module"] + "." + row["name"])
def test_a_limit_has_its_documented_default_and_tests(row: dict[str, str]) -> None:
    module = importlib.import_module(f"ansible_collections.coasters.pool.plugins.module_utils.coaster.{row['module']}")
    assert getattr(module, row["name"]) == int(row["value"])
    for test in re.findall(r"`(\w+\.py)`", row["tests"]):
        assert (ROOT / "tests" / "unit" / ENGINE / test).is_file()


def test_no_limit_is_left_out() -> None:
    listed = {(row["module"], row["name"]) for row in ROWS}
    found = {
        (path.stem, name) for path in (ROOT / ENGINE).glob("*.py") if path.stem != "screen"
        for name in re.findall(r"^([A-Z][A-Z_]*) = [0-9]", path.read_text(), re.M) if LIMIT.match(name)
    }
    assert found - listed == set()
