# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a pool, kept in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.state import StateError
from coaster_pool import members


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "coasters"


def test_there_are_none_yet(state: Path) -> None:
    assert members.load("p") == {}
    assert not state.exists()


def test_what_is_saved_is_loaded(state: Path) -> None:
    members.save("p", {"node01": {"ansible_user": "u"}, "node02": {}})
    assert members.load("p") == {"node01": {"ansible_user": "u"}, "node02": {}}
    members.save("p", {"node02": {}})
    assert members.load("p") == {"node02": {}}
    assert members.load("other") == {}
    assert (state / "p" / members.FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"node01": 7})])
def test_a_file_that_is_none_of_ours(state: Path, content: str) -> None:
    (state / "p").mkdir(parents=True)
    (state / "p" / members.FILE).write_text(content)
    assert members.load("p") == {}


def test_a_name_that_is_none() -> None:
    with pytest.raises(StateError, match="cannot be a pool's name"):
        members.load("../p")
