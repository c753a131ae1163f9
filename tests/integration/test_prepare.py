# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What jobs need is brought to the hosts before their workers start: files of the control node."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.integration.station import Station
from tests.testhosts import Host

START, STOP = "coasters.pool.start_pool", "coasters.pool.stop_pool"


def prepare(station: Station, hosts: list[Host], *words: str, **variables: Any) -> dict[str, int]:
    """Start a pool and stop it again; how many tasks for its hosts changed something beside the start of the worker."""
    ports = {"coaster_service_port": 0, "coaster_service_worker_port": 0, "ansible_python_interpreter": "/usr/bin/python3"}
    settings = ["-i", station.inventory(hosts), "-e", json.dumps(ports | variables)]
    done = station.playbook(START, *settings, *words)
    stopped = station.playbook(STOP, *settings)
    assert (done.returncode, stopped.returncode) == (0, 0), done.stdout + done.stderr
    return {host.name: int(re.findall(rf"^{re.escape(host.address)} .* changed=(\d+)", done.stdout, re.M)[0]) - 1 for host in hosts}


def test_files(station: Station, tmp_path: Path) -> None:
    (tmp_path / "azure-cli.sif").write_bytes(b"an image")
    (tmp_path / "tool").write_text("#!/bin/sh\necho a tool\n")
    hosts = list(station.hosts[:2])
    files = [
        {"src": str(tmp_path / "azure-cli.sif"), "dest": "images/"},
        {"src": str(tmp_path / "tool"), "dest": "tool", "mode": "0755"},
    ]
    assert prepare(station, hosts, "--check", swift_worker_files=files) == {"h1": 1, "h2": 1}
    assert [host.run("ls") for host in hosts] == ["", ""]
    assert prepare(station, hosts, swift_worker_files=files) == {"h1": 1, "h2": 1}
    for host in hosts:
        assert host.run("cat images/azure-cli.sif; ./tool") == "an imagea tool\n"
    assert prepare(station, hosts, swift_worker_files=files) == {"h1": 0, "h2": 0}
    for host in hosts:
        host.run("rm -r images tool .ansible")
