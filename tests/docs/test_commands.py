# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command block of README, CONTRIBUTING and docs is run, and shows what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs import blocks
from tests.docs.reader import Reader, own_network
from tests.testhosts.fixtures import StartHosts

PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))) if "```sh" in path.read_text()]
ELSEWHERE = {
    r"make demo": "tests/packaging/test_checkout.py",
    r"make (test|setup|lint)\b.*": "Makefile",  # this is them
    r"make benchmark-start\b.*": "tests/benchmarks/test_start.py",
    r".*--swift-bin-dir ~/swift/bin .*": "tests/integration/test_swift_engine.py",
    r"COASTERS_SWIFT_BIN_DIR=.*": "tests/integration/test_swift_engine.py",
    r".*examples/inventory/.*": "tests/docs/test_inventories.py",
}
"""Commands that are run somewhere else, or, where they need a cloud, are tried as far as possible there."""


def elsewhere(command: str) -> str | None:
    return next((place for pattern, place in ELSEWHERE.items() if re.fullmatch(pattern, command)), None)


@pytest.fixture
def network() -> Iterator[None]:
    with own_network():
        yield


@pytest.fixture
def reader(network: None, start_hosts: StartHosts, tmp_path: Path) -> Iterator[Reader]:
    with Reader(start_hosts(3, "isolated"), tmp_path) as made:
        yield made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page(page: Path, request: pytest.FixtureRequest) -> None:
    found = blocks.of(page)
    if all(elsewhere(line) for block in found if block.is_commands for line in block.text.splitlines()):
        return
    reader = request.getfixturevalue("reader")
    output = ""
    for block in found:
        if block.file:
            reader.write(block.file, block.text)
        elif block.is_commands and not all(elsewhere(line) for line in block.text.splitlines()):
            output += reader.run(block.text)
        elif block.is_shown:
            assert blocks.missing(block.text, output) == [], f"{block}, shows what the commands before it do not:\n{output}"


def test_no_exception_is_out_of_date() -> None:
    lines = [line for page in PAGES for block in blocks.of(page) if block.is_commands for line in block.text.splitlines()]
    assert [pattern for pattern in ELSEWHERE if not any(re.fullmatch(pattern, line) for line in lines)] == []
    assert [place for place in ELSEWHERE.values() if not (ROOT / place).is_file()] == []
