# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-playbook is given beside the play."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
from ansible.config.manager import ConfigManager

from coaster_pool import hosts, playbook
from coaster_pool.end import Ending
from tests.conftest import collections_root

COLLECTIONS = Path("/collections")


def test_host_keys_are_checked_whatever_the_user_set() -> None:
    assert playbook.environment(COLLECTIONS, 1, {"ANSIBLE_HOST_KEY_CHECKING": "False"})["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert "StrictHostKeyChecking=yes" in playbook.ssh_options(False)
    assert "BatchMode=yes" in playbook.ssh_options(False)


def test_the_users_collections_stay_behind_ours() -> None:
    assert playbook.environment(COLLECTIONS, 1, {})["ANSIBLE_COLLECTIONS_PATH"] == "/collections"
    settings = playbook.environment(COLLECTIONS, 1, {"ANSIBLE_COLLECTIONS_PATH": "/a:/b"})
    assert settings["ANSIBLE_COLLECTIONS_PATH"] == "/collections:/a:/b"


@pytest.mark.parametrize(("cores", "hosts", "forks"), [
    (2, 0, "1"), (2, 1, "1"), (2, 64, "64"), (2, 1000, "64"), (1, 1000, "32"), (64, 100, "100"), (64, 1000, "128"),
])
def test_all_hosts_at_once_as_far_as_the_cores_go(monkeypatch: pytest.MonkeyPatch, cores: int, hosts: int, forks: str) -> None:
    monkeypatch.setattr(playbook.os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert playbook.environment(COLLECTIONS, hosts, {})["ANSIBLE_FORKS"] == forks


def test_the_users_forks_win() -> None:
    assert playbook.environment(COLLECTIONS, 8, {"ANSIBLE_FORKS": "3"})["ANSIBLE_FORKS"] == "3"


def test_the_programs_of_this_python_come_first() -> None:
    found = playbook.environment(COLLECTIONS, 1, {"PATH": "/a:/b"})["PATH"]
    assert found == os.path.dirname(sys.executable) + ":/a:/b"


class TestConfig:
    """Ansible looks for ansible.cfg where it is started, which is the runner's folder and not the user's."""

    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "home").mkdir()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)

    @pytest.mark.skipif(os.path.exists("/etc/ansible/ansible.cfg"), reason="this machine has a configuration of its own")
    def test_ours_for_those_who_have_none(self) -> None:
        config = playbook.environment(COLLECTIONS, 1, {})["ANSIBLE_CONFIG"]
        assert float(ConfigManager(config).get_config_value("DEFAULT_INTERNAL_POLL_INTERVAL")) > 0.001

    def test_the_one_that_ansible_finds_by_itself(self, tmp_path: Path) -> None:
        (tmp_path / "home" / ".ansible.cfg").touch()
        assert "ANSIBLE_CONFIG" not in playbook.environment(COLLECTIONS, 1, {})

    def test_the_one_of_the_current_folder(self, tmp_path: Path) -> None:
        (tmp_path / "ansible.cfg").touch()
        assert playbook.environment(COLLECTIONS, 1, {})["ANSIBLE_CONFIG"] == str(tmp_path / "ansible.cfg")

    def test_the_one_that_the_user_names(self, tmp_path: Path) -> None:
        (tmp_path / "ansible.cfg").touch()
        assert "ANSIBLE_CONFIG" not in playbook.environment(COLLECTIONS, 1, {"ANSIBLE_CONFIG": "/etc/mine"})

    def test_not_one_that_anybody_can_have_put_there(self, tmp_path: Path) -> None:
        (tmp_path / "ansible.cfg").touch()
        tmp_path.chmod(0o1777)
        assert playbook.environment(COLLECTIONS, 1, {}).get("ANSIBLE_CONFIG") != str(tmp_path / "ansible.cfg")


class TestRun:
    """Real playbooks of the collection, with ansible-runner."""

    @pytest.fixture
    def private(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        (tmp_path / "private").mkdir()
        return str(tmp_path / "private")

    def test_what_each_task_did_is_heard(self, private: str) -> None:
        heard: list[playbook.Outcome] = []
        inventory = {"all": {"hosts": {"localhost": hosts.local_variables()}}}
        status = playbook.run("pool_status", inventory, {}, collections_root(), None, heard.append, private, check=True)
        assert status == 2
        [outcome] = [outcome for outcome in heard if outcome.action.startswith("coasters.pool.")]
        assert (outcome.kind, outcome.host, outcome.action) == ("failed", "localhost", "coasters.pool.coaster_service_info")
        assert "is not running" in outcome.result["msg"]

    def test_a_signal_from_before(self, private: str) -> None:
        with Ending() as ending:
            os.kill(os.getpid(), signal.SIGTERM)
            assert playbook.run("pool_status", {"all": {"hosts": {}}}, {}, collections_root(), ending, print, private) is None
        assert os.listdir(private) == []

    @pytest.mark.parametrize("patience", [60.0, 0.0])
    def test_a_signal_interrupts_it(self, private: str, monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
        """While it waits for a host that says nothing; without patience it is killed."""
        monkeypatch.setattr(playbook, "CANCEL_AFTER", patience)
        heard: list[playbook.Outcome] = []
        with socket.create_server(("127.0.0.1", 0)) as silent, Ending() as ending:

            def answer() -> None:
                with silent.accept()[0]:
                    os.kill(os.getpid(), signal.SIGINT)
                    ended.wait(60)

            ended = threading.Event()
            caller = threading.Thread(target=answer)
            caller.start()
            inventory = {"all": {"hosts": {"node01": {"ansible_host": "127.0.0.1", "ansible_port": silent.getsockname()[1]}}}}
            playbook.run("pool_logs", inventory, {}, collections_root(), ending, heard.append, private, connect_limit=60)
            ended.set()
            caller.join()
            assert (ending.came, ending.on_signal) == (True, None)
        assert [outcome for outcome in heard if outcome.action.startswith("coasters.pool.") and outcome.kind == "ok"] == []
