# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Molecule scenarios, on plain test hosts: converge, the same again without a change, verify, stop."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import testhosts
from tests.conftest import ROOT, collections_root
from tests.testhosts import Hosts

SCENARIOS = sorted(path.parent.name for path in (ROOT / "extensions" / "molecule").glob("*/molecule.yml"))


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with testhosts.start(2, "plain") as hosts:
        yield hosts


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, hosts: Hosts, tmp_path: Path) -> None:
    table = {host.name: {"ansible_host": host.address, "ansible_user": host.user} for host in hosts}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": table}}))
    environment = {name: value for name, value in hosts.env().items() if not name.startswith(("ANSIBLE_", "XDG_"))} | {
        "ANSIBLE_COLLECTIONS_PATH": str(collections_root()),
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=1s",
        "MOLECULE_HOSTS": str(tmp_path / "hosts.yml"),
        "PATH": os.pathsep.join((str(hosts.client.bin), str(Path(sys.executable).parent), os.environ["PATH"])),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    molecule = Path(sys.executable).parent / "molecule"
    done = subprocess.run([molecule, "test", "-s", scenario], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "actions=5" in re.sub(r"\x1b\[[0-9;]*m", "", done.stderr), done.stderr
