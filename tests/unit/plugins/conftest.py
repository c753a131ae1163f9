# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import testhosts
from tests.testhosts import Hosts


@pytest.fixture
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the pools of this test keep their files on this machine, whose user has an empty home."""
    for name, folder in (("HOME", "home"), ("XDG_STATE_HOME", "state")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def one_host() -> Iterator[Hosts]:
    with testhosts.start(1, "plain") as hosts:
        yield hosts


@pytest.fixture
def by_ssh(one_host: Hosts, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What makes a task run on a test host, through a real ssh whose connections end with it."""
    for name, value in one_host.env().items():
        if name != "HOME":
            monkeypatch.setenv(name, value)
    host = one_host[0]
    return {
        "connection": "ssh", "ansible_host": host.address, "ansible_user": host.user, "ansible_ssh_args": "-o ControlMaster=no",
        "ansible_pipelining": True, "ansible_ssh_extra_args": "-o BatchMode=yes",
    }
