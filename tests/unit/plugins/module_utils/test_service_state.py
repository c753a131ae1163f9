# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module coaster_service does and says, with real services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import launcher, service_state, state
from tests import distribution


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield tmp_path
    launcher.stop("p")


def ensure(check: bool = False, **settings: Any) -> dict[str, Any]:
    defaults = {name: argument.get("default") for name, argument in service_state.ARGUMENTS.items()}
    return service_state.ensure(defaults | {"pool": "p", "service_port": 0, "worker_port": 0, "engine": "builtin"} | settings, check)


def test_start_and_stop(home: Path) -> None:
    checked = ensure(check=True, hosts=["a"])
    assert (checked["changed"], checked["diff"]) == (True, {"before": {}, "after": {"engine": "builtin"}})
    assert state.pools() == []
    started = ensure(hosts=["a"])
    assert started["changed"] and started["folder"] == state.folder("p")
    assert started["bin_dir"] == f"{state.folder('p')}/bin"
    assert list(state.read_workers(f"{started['folder']}/workers")) == ["a"]
    assert not ensure()["changed"]
    assert ensure(check=True, state="stopped")["changed"]
    assert ensure(state="stopped") == {"changed": True, "diff": {"before": {"engine": "builtin"}, "after": {}}}
    assert ensure(state="stopped") == {"changed": False, "diff": {"before": {}, "after": {}}}


def test_swift_says_what_is_open(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = distribution.made(home)
    monkeypatch.setenv("PATH", made.env({})["PATH"] + ":/usr/bin:/bin")
    started = ensure(engine="swift", bin_dir=str(made.bin_dir), service_port=0)
    assert started["warnings"] == [started["open_ports"]]
    assert str(started["ports"]["worker"]) in started["open_ports"]


def test_failures(home: Path) -> None:
    assert ensure(pool="-")["msg"].startswith("'-' cannot be a pool's name")
    failed = ensure(engine="swift", bin_dir="/nowhere")
    assert (failed["failed"], failed["log"]) == (True, [])
    assert "/nowhere" in failed["msg"]
