# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of faults is whole and has nothing lost, and docs/complaints.md names tests and faults that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]
NAMES = [fault.name for fault in FAULTS]
COMPLAINTS = (ROOT / "docs" / "complaints.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/faults.md"])
def test_every_fault_has_a_row_in_which_nothing_is_lost(page: str) -> None:
    lines = (ROOT / page).read_text().split(table.MARKS[0])[1].split(table.MARKS[1])[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == NAMES
    for fault, jobs, completed, failed, *lost, whole in rows:
        assert lost == ["0", "0", "0"], fault
        assert int(jobs) == int(completed) + int(failed) > 0, fault
        assert float(whole) > 0, fault


def test_each_complaint_is_answered() -> None:
    rows = re.findall(r"^\| (\d+) \| (?:[^|]+ \| ){2}([^|]+) \|$", COMPLAINTS, re.M)
    assert [int(number) for number, dummy in rows] == list(range(1, 26))
    for number, pins in rows:
        assert re.search(r"`test_\w+::test_\w+`|fault \*", pins), number


@pytest.mark.parametrize(("file", "name"), sorted(set(re.findall(r"`(test_\w+)::(test_\w+)`", COMPLAINTS))))
def test_a_named_test_exists(file: str, name: str) -> None:
    assert any(f"def {name}(" in path.read_text() for path in (ROOT / "tests").rglob(f"{file}.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"fault \*([^*]+)\*", COMPLAINTS))))
def test_a_named_fault_exists(name: str) -> None:
    assert name in NAMES
