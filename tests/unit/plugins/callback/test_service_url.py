# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The callback in real runs of ansible-playbook, and without it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.plugins.loader import callback_loader

from ansible_collections.coasters.pool.plugins.module_utils import launcher
from tests.conftest import collections_root

CALLBACK = "coasters.pool.service_url"
START = "- coasters.pool.coaster_service: {engine: builtin, service_port: 0, worker_port: 0}"
INFO = "- coasters.pool.coaster_service_info:"


@pytest.fixture(autouse=True)
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a pool that runs already."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield launcher.start(launcher.Wanted("default", "builtin", None, 0, 0, listen="127.0.0.1"))["url"]
    launcher.stop("default")


def play(place: Path, *tasks: str, config: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the tasks on this machine."""
    (place / "play.yml").write_text("\n  ".join(["- hosts: localhost", "gather_facts: false", "tasks:", *tasks]) + "\n")
    (place / "ansible.cfg").write_text(config)
    return subprocess.run(
        [sys.executable, "-m", "ansible.cli.playbook", "play.yml"], cwd=place, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        | {"ANSIBLE_COLLECTIONS_PATH": str(collections_root()), "HOME": str(place), "ANSIBLE_CONFIG": str(place / "ansible.cfg")} | environment, check=False,
    )


def test_the_url_at_the_end(tmp_path: Path, url: str) -> None:
    path = tmp_path / "service.json"
    done = play(tmp_path, START, ANSIBLE_CALLBACKS_ENABLED=CALLBACK, COASTERS_SERVICE_URL_FILE=str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"\nStarted coaster service: {url}\n") == 1
    assert done.stdout.index("PLAY RECAP") > 0
    assert json.loads(path.read_text()) == {"url": url, "engine": "builtin", "pool": "default"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_the_callback(tmp_path: Path) -> None:
    done = play(tmp_path, START, COASTERS_SERVICE_URL_FILE=str(tmp_path / "service.json"))
    assert done.returncode == 0
    assert "Started coaster service" not in done.stdout
    assert not (tmp_path / "service.json").exists()


def test_set_in_ansible_cfg(tmp_path: Path, url: str) -> None:
    config = f"[defaults]\ncallbacks_enabled = {CALLBACK}\n[callback_coasters_service_url]\npath = service.json\n"
    done = play(tmp_path, INFO, config=config)
    assert f"Started coaster service: {url}" in done.stdout
    assert json.loads((tmp_path / "service.json").read_text())["url"] == url


def test_a_run_that_starts_nothing(tmp_path: Path) -> None:
    done = play(tmp_path, "- debug: {msg: 'http://elsewhere'}", ANSIBLE_CALLBACKS_ENABLED=CALLBACK, COASTERS_SERVICE_URL_FILE=str(tmp_path / "x"))
    assert done.returncode == 0
    assert "Started coaster service" not in done.stdout
    assert not (tmp_path / "x").exists()


def test_a_file_that_cannot_be_written(tmp_path: Path, url: str) -> None:
    path = tmp_path / "none" / "service.json"
    done = play(tmp_path, INFO, ANSIBLE_CALLBACKS_ENABLED=CALLBACK, COASTERS_SERVICE_URL_FILE=str(path))
    assert f"Started coaster service: {url}" in done.stdout
    said = "".join((done.stderr + done.stdout).split())  # older Ansible wraps its warnings anywhere
    assert f"the coaster service URL could not be written to {path}: No such file or directory".replace(" ", "") in said


class Shown:
    """A display that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def display(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(("action", "values", "lines"), [
    ("coasters.pool.coaster_service", {"url": "http://a:1", "bin_dir": "/a b"},
     ["Started coaster service: http://a:1", "For cog-job-submit: export PATH='/a b':$PATH"]),
    ("coasters.pool.coaster_service_info", {"url": "http://a:1"}, ["Started coaster service: http://a:1"]),
    ("coasters.pool.coaster_service", {"changed": True}, []),
    ("ansible.builtin.uri", {"url": "http://a:1"}, []),
])
@pytest.mark.parametrize("prefix", ["", "_"])
def test_whose_url_is_shown(action: str, values: dict[str, object], lines: list[str], prefix: str) -> None:
    """With results as ansible-core has them since 2.19, and before."""
    shown = Shown()
    callback = callback_loader.get(CALLBACK)
    callback.set_options()
    callback._display = shown
    callback.v2_runner_on_ok(SimpleNamespace(**{f"{prefix}task": SimpleNamespace(resolved_action=action), f"{prefix}result": values}))
    callback.v2_playbook_on_stats(None)
    assert shown.lines == lines
