# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventories in examples. Those of clouds need an account; here Ansible reads what they make of machines as each plugin tells them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from coaster_pool import inventories
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples" / "inventory"
PUBLIC, PRIVATE = "1.0.0.1", "10.0.0.1"
AZURE = {"powerstate": "running", "tags": {"pool": "coasters"}}
CLOUDS = {
    "azure_rm": {
        "public": AZURE | {"public_ipv4_addresses": [PUBLIC], "private_ipv4_addresses": [PRIVATE]},
        "private": AZURE | {"public_ipv4_addresses": [], "private_ipv4_addresses": [PRIVATE]},
        "other": {"powerstate": "running", "tags": {}, "public_ipv4_addresses": [PUBLIC], "private_ipv4_addresses": []},
    },
    "aws_ec2": {
        "public": {"public_ip_address": PUBLIC, "private_ip_address": PRIVATE},
        "private": {"public_ip_address": "", "private_ip_address": PRIVATE},
    },
    "gcp_compute": {
        "public": {"networkInterfaces": [{"networkIP": PRIVATE, "accessConfigs": [{"natIP": PUBLIC}]}]},
        "private": {"networkInterfaces": [{"networkIP": PRIVATE}]},
    },
}
"""Machines of each cloud with the variables that its plugin gives them, as far as the example uses them."""


def plain(value: Any) -> Any:
    """Without the mark that Ansible puts on what comes from outside."""
    return value["__ansible_unsafe"] if isinstance(value, dict) else value


def test_every_cloud_has_its_machines_here() -> None:
    assert {path.stem for path in EXAMPLES.iterdir()} == set(CLOUDS)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_cloud(cloud: str, tmp_path: Path) -> None:
    example = yaml.safe_load((EXAMPLES / f"{cloud}.yml").read_text())
    assert example["plugin"].endswith(f".{cloud}")
    machines, made = tmp_path / "machines.yml", tmp_path / "made.yml"
    machines.write_text(yaml.safe_dump({"all": {"hosts": CLOUDS[cloud]}}))
    chosen = " and ".join(f"({condition})" for condition in example.get("include_host_filters", ["true"]))
    compose = example.get("compose") or example["hostvar_expressions"]
    made.write_text(yaml.safe_dump({"plugin": "ansible.builtin.constructed", "strict": True, "compose": compose, "groups": {"chosen": chosen}}))
    found = inventories.load([str(machines), str(made)], limit="chosen")
    assert {name: plain(variables["ansible_host"]) for name, variables in found.items()} == {"public": PUBLIC, "private": PRIVATE}


def test_hosts() -> None:
    found = inventories.load([str(ROOT / "inventory" / "hosts.yml")])
    assert found["node02.example.org"] == {"ansible_user": "genomics", "ansible_port": 2222}
    assert found["node03.example.org"] == {"swift_worker_slots": 8}
