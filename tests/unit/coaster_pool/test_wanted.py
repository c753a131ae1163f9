# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a command line, from all its sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from coaster_pool import command_line, wanted
from coaster_pool.failure import Failure


def members(*words: str) -> dict[str, dict[str, object]]:
    return wanted.members(command_line.parse(list(words)))


def test_words_files_and_inventories_as_one_table(tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("node[02-03]*4  # the new ones\n")
    (tmp_path / "inventory").write_text("[workers]\nnode04 ansible_user=u\nnode01 ansible_port=2222\n")
    found = members("v@node01", "--hosts-file", str(tmp_path / "hosts.txt"), "-i", str(tmp_path / "inventory"))
    assert found == {
        "node04": {"ansible_user": "u"},
        "node01": {"ansible_port": 2222, "ansible_user": "v"},
        "node02": {"swift_worker_slots": 4},
        "node03": {"swift_worker_slots": 4},
    }


def test_no_host_is_asked_for() -> None:
    assert members("--status") == {}


def test_a_host_in_two_places(tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("node01\n")
    with pytest.raises(Failure, match="node01 is named twice"):
        members("u@node01", "--hosts-file", str(tmp_path / "hosts.txt"))
