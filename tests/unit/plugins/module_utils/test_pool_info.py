# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a pool, with a real service and a real worker."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import launcher, pool_info, state


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield tmp_path
    launcher.stop("p")


@pytest.fixture
def known() -> dict[str, Any]:
    """pool.json of a pool without workers."""
    return launcher.start(launcher.Wanted("p", "builtin", service_port=0, worker_port=0, listen="127.0.0.1"))


def wanted(**settings: Any) -> dict[str, Any]:
    """The arguments of the module."""
    return {name: argument["default"] for name, argument in pool_info.ARGUMENTS.items()} | {"pool": "p"} | settings


class TestWait:
    def test_a_pool_without_workers(self, known: dict[str, Any]) -> None:
        found = pool_info.wait("p")
        assert {name: found[name] for name in pool_info.KEPT} == {name: known[name] for name in pool_info.KEPT}
        assert (found["workers"], found["missing"], found["lost"], found["jobs"]["queued"]) == ([], [], 0, 0)

    def test_workers_that_do_not_come(self, known: dict[str, Any]) -> None:
        assert pool_info.wait("p", ["h1", "h2"], 0.2)["missing"] == ["h1", "h2"]

    def test_a_worker_that_comes(self, known: dict[str, Any], home: Path) -> None:
        block = state.block_ids("p", ["h1"])["h1"]
        command = [os.path.join(known["bin_dir"], "worker.pl"), "-c", "3", known["worker_url"], block, str(home / "logs")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
            assert pool_info.wait("p", ["h1"], 60)["missing"] == []
            found = pool_info.wait("p", ["h1", "h2"], 0.1)
            assert found["missing"] == ["h2"]
            [row] = found["workers"]
            assert (row["name"], row["host"], row["slots"], row["busy"]) == ("h1", socket.gethostname(), 3, 0)
            worker.terminate()

    def test_no_pool(self) -> None:
        with pytest.raises(launcher.LaunchError, match="is not running: start it first"):
            pool_info.wait("p")

    def test_a_start_that_is_under_way(self) -> None:
        launcher.start(launcher.Wanted("p", "builtin", service_port=0, worker_port=0, listen="127.0.0.1"), wait=False)
        assert pool_info.wait("p", limit=60)["url"].startswith("http://127.0.0.1:")


class TestTell:
    """The result of the module."""

    def test_of_a_pool(self, known: dict[str, Any]) -> None:
        told = pool_info.tell(wanted(), check=False)
        assert (told["url"], told["workers"], told["changed"], "failed" in told) == (known["url"], [], False, False)

    def test_of_too_few_workers(self, known: dict[str, Any]) -> None:
        told = pool_info.tell(wanted(min_workers=1, limit=0.1), check=False)
        assert (told["failed"], told["url"]) == (True, known["url"])
        assert told["msg"] == "0 of the 1 workers that are needed registered with the coaster service within 0.1 s"

    def test_a_check_waits_for_nothing(self, known: dict[str, Any]) -> None:
        assert "failed" not in pool_info.tell(wanted(workers=["h1"], min_workers=1, limit=1000.0), check=True)

    def test_of_no_pool(self) -> None:
        assert pool_info.tell(wanted(), check=False) == {
            "failed": True, "msg": "the coaster service of pool 'p' is not running: start it first", "log": [],
        }

    def test_of_a_service_that_failed(self) -> None:
        state.make_folder(state.folder("p"))
        state.write_json(os.path.join(state.folder("p"), "pool.json"), {"error": "it ended", "log": ["one", "two"]})
        assert pool_info.tell(wanted(), check=False) == {"failed": True, "msg": "it ended", "log": ["one", "two"]}
