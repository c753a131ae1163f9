# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What jobs need is brought to the hosts before their workers start: files of the control node, packages from an archive."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.station import ANY_PORTS, Station
from tests.testhosts import Host
from tests.testhosts.fixtures import StartHosts

PYTHON = {"ansible_python_interpreter": "/usr/bin/python3"}


def prepare(station: Station, host: Host, **variables: Any) -> list[int]:
    """Prepare the host in check mode, then really, then again; the number of changed tasks of each."""
    names = ("checked", "first", "again")
    entry = {"ansible_host": host.address, "ansible_user": host.user} | PYTHON
    role = {"ansible.builtin.import_role": {"name": "coasters.pool.swift_worker", "tasks_from": "prepare"}}
    plays = [{"hosts": name, "gather_facts": False, "check_mode": name == "checked", "tasks": [role]} for name in names]
    inventory, playbook = station.place / "hosts.json", station.place / "play.json"
    inventory.write_text(json.dumps({"all": {"hosts": dict.fromkeys(names, entry)}}))
    playbook.write_text(json.dumps(plays))
    done = station.playbook(str(playbook), "-i", str(inventory), "-e", json.dumps(variables))
    assert done.returncode == 0, done.stdout + done.stderr
    return [int(re.findall(rf"^{name} .* changed=(\d+)", done.stdout, re.M)[0]) for name in names]


def test_files(station: Station, tmp_path: Path) -> None:
    (tmp_path / "azure-cli.sif").write_bytes(b"an image")
    (tmp_path / "tool").write_text("#!/bin/sh\necho a tool\n")
    files = [
        {"src": str(tmp_path / "azure-cli.sif"), "dest": "images/"},
        {"src": str(tmp_path / "tool"), "dest": "tool", "mode": "0755"},
    ]
    host = station.hosts[0]
    assert prepare(station, host, swift_worker_files=files) == [1, 1, 0]
    assert host.run("cat images/azure-cli.sif; ./tool") == "an imagea tool\n"
    host.run("rm -r images tool .ansible")


def test_they_are_there_before_the_worker_starts(station: Station, tmp_path: Path) -> None:
    """A host that cannot have its file has no worker, and the others do."""
    (tmp_path / "there").write_text("what the job needs\n")
    first, second = station.hosts[:2]
    inventory = tmp_path / "inventory.json"
    files = {host.address: {"swift_worker_files": [{"src": str(tmp_path / name), "dest": "needed"}]} for host, name in ((first, "nowhere"), (second, "there"))}
    inventory.write_text(json.dumps({"all": {"vars": {"ansible_user": first.user} | PYTHON, "hosts": files}}))
    with station.pool(*ANY_PORTS, "-i", str(inventory)) as running:
        url = running.url()
        assert f"{first.address}: failed: " in running.said and "nowhere" in running.said
        assert [worker["name"] for worker in station.status()["workers"]] == [second.address]
        assert station.submit(url, "-redirected", "/bin/sh", "-c", "cat ~/needed")[:2] == (0, "what the job needs\n\n")
    for host in (first, second):
        host.run("rm -rf .ansible needed")


CONTROL = """\
Package: coasters-needed
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: what a job needs
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with an archive of one Debian package, which holds /usr/bin/needed."""
    tree, folder = tmp_path / "package", tmp_path / "archive"
    for made in (folder, tree / "DEBIAN", tree / "usr" / "bin"):
        made.mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(CONTROL)
    (tree / "usr" / "bin" / "needed").write_text("#!/bin/sh\necho what the job needs\n")
    (tree / "usr" / "bin" / "needed").chmod(0o755)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, folder / "needed.deb"], check=True, capture_output=True)
    package = (folder / "needed.deb").read_bytes()
    (folder / "Packages").write_text(f"{CONTROL}Filename: ./needed.deb\nSize: {len(package)}\nSHA256: {hashlib.sha256(package).hexdigest()}\n")
    return folder


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="the package of this test is one of Debian's")
def test_packages(start_hosts: StartHosts, tmp_path: Path, archive: Path) -> None:
    """By root, through sudo, with the package manager of the host."""
    station = Station(start_hosts(1, "isolated", shared=archive), tmp_path)
    host = station.hosts[0]
    lists = "rm -rf /etc/apt/sources.list* && echo 'deb [trusted=yes] file:/mnt ./' > /etc/apt/sources.list && apt-get -qq update"
    host.run(f"echo '{host.user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/test; {lists}", user="root")
    assert prepare(station, host, swift_worker_packages=["coasters-needed"]) == [1, 1, 0]
    assert host.run("needed") == "what the job needs\n"
