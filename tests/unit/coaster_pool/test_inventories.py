# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What any inventory of Ansible's says of a host is what Ansible reads again from the pool's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import state
from coaster_pool import hosts, inventories
from coaster_pool.failure import USAGE, Failure
from coaster_pool.hosts import Host

INI = """\
bastion ansible_host=10.0.0.1
[workers]
node[01:02] ansible_user=jobs password=unneeded
node03 ansible_host="{{ short }}.example.org" ansible_user=other
[workers:vars]
short="{{ deeper }}3"
deeper=n
unneeded=1
swift_worker_slots=4
ansible_ssh_common_args=-o ProxyJump=bastion -F {{ inventory_dir }}/config
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts.ini").write_text(INI)
    return tmp_path


def script(path: Path, answer: Any) -> str:
    path.write_text(f"#!{sys.executable}\nprint({json.dumps(answer)!r})\n")
    path.chmod(0o755)
    return str(path)


def resolved(table: dict[str, dict[str, Any]], name: str, text: str, **environment: str) -> Any:
    """What Ansible makes of a template for a host of an inventory that is written from the table."""
    Path("pool").mkdir(exist_ok=True)
    Path("pool", "hosts.json").write_text(json.dumps({"all": {"hosts": table}}))
    command = [sys.executable, "-m", "ansible.cli.adhoc", "-i", "pool/hosts.json", name, "-m", "debug", "-a", json.dumps({"msg": text})]
    variables = {**os.environ, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "True", "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal", **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=variables, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.partition("=>")[2])["msg"]


def test_hosts_with_their_variables(folder: Path) -> None:
    common = {
        "swift_worker_slots": 4, "inventory_dir": str(folder), "ansible_ssh_common_args": "-o ProxyJump=bastion -F {{ inventory_dir }}/config",
    }
    assert inventories.load(["hosts.ini"]) == {
        "bastion": {"ansible_host": "10.0.0.1"},
        "node01": {"ansible_user": "jobs", **common},
        "node02": {"ansible_user": "jobs", **common},
        "node03": {"ansible_user": "other", "ansible_host": "{{ short }}.example.org", "short": "{{ deeper }}3", "deeper": "n", **common},
    }


def test_ansible_resolves_what_is_left_to_it(folder: Path) -> None:
    table = inventories.load(["hosts.ini"])
    (folder / "hosts.ini").unlink()
    said = resolved(table, "node03", "{{ ansible_host }} {{ ansible_ssh_common_args }} {{ swift_worker_slots + 1 }} {{ ansible_user }}")
    assert said == f"n3.example.org -o ProxyJump=bastion -F {folder}/config 5 other"


@pytest.mark.parametrize("setting", ["warning", "error"])
def test_some_of_the_hosts(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("ANSIBLE_HOST_PATTERN_MISMATCH", setting)
    assert list(inventories.load(["hosts.ini"], "workers:!node02")) == ["node01", "node03"]
    with pytest.raises(Failure, match="the inventory hosts.ini names no host that is meant by nobody"):
        inventories.load(["hosts.ini"], "nobody")


def test_variables_beside_the_inventory(folder: Path) -> None:
    for name, port in (("group_vars/workers.yml", 2200), ("host_vars/node02.yml", 2222)):
        (folder / name).parent.mkdir()
        (folder / name).write_text(f"ansible_port: {port}\n")
    table = inventories.load(["hosts.ini"])
    assert {name: variables.get("ansible_port") for name, variables in table.items()} == {
        "bastion": None, "node01": 2200, "node02": 2222, "node03": 2200,
    }


def test_a_folder_of_inventories(folder: Path) -> None:
    (folder / "all").mkdir()
    (folder / "hosts.ini").rename(folder / "all" / "one")  # older Ansible reads no .ini in a folder
    (folder / "all" / "two.yml").write_text("workers: {hosts: {node04: {ansible_port: 23}}}\n")
    table = inventories.load(["all/"])
    assert list(table) == ["bastion", "node01", "node02", "node03", "node04"]
    assert table["node04"]["swift_worker_slots"] == 4
    assert table["node04"]["inventory_dir"] == str(folder / "all")


def test_sources_are_read_together(folder: Path) -> None:
    """The second is a plugin that works on the hosts of the first."""
    (folder / "more.yml").write_text(
        "plugin: ansible.builtin.constructed\ncompose: {ansible_port: 2200 + swift_worker_slots}\n"
        "groups: {small: swift_worker_slots < 8}\n"
    )
    found = inventories.load(["hosts.ini", "more.yml"], "small")
    assert [int(variables["ansible_port"]) for variables in found.values()] == [2204, 2204, 2204]  # older Ansible composes text


def test_a_list_of_hosts() -> None:
    assert inventories.load(["node01,node02:2222"]) == {"node01": {}, "node02": {"ansible_port": 2222}}


def test_a_program(folder: Path) -> None:
    source = script(folder / "cloud", {
        "g": {"hosts": ["i-1", "i-2"], "vars": {"ansible_user": "cloud"}},
        "_meta": {"hostvars": {"i-1": {"ansible_host": "10.0.0.1", "tags": {"Name": "{{ lookup('pipe', 'id') }}"}, "facts": "x" * 1000}}},
    })
    assert inventories.load([source]) == {"i-1": {"ansible_host": "10.0.0.1", "ansible_user": "cloud"}, "i-2": {"ansible_user": "cloud"}}


def test_a_vault_stays_closed(folder: Path) -> None:
    (folder / "password").write_text("secret")
    vault = {"ANSIBLE_VAULT_PASSWORD_FILE": str(folder / "password")}
    encrypted = subprocess.run(
        [sys.executable, "-m", "ansible.cli.vault", "encrypt_string", "--name", "ansible_password", "an open word"],
        capture_output=True, text=True, check=True, timeout=120, env={**os.environ, **vault},
    ).stdout
    (folder / "vault.yml").write_text("all:\n  hosts:\n    node01:\n" + "".join(f"      {line}\n" for line in encrypted.splitlines()))
    table = inventories.load(["vault.yml"])
    assert "an open word" not in json.dumps(table)
    assert resolved(table, "node01", "{{ ansible_password }}", **vault) == "an open word"


def test_what_is_no_template_stays_none(folder: Path) -> None:
    (folder / "unsafe.yml").write_text("all: {hosts: {node01: {ansible_user: !unsafe '{{ 1 + 1 }}'}}}\n")
    assert resolved(inventories.load(["unsafe.yml"]), "node01", "{{ ansible_user }}") == "{{ 1 + 1 }}"


def test_keys_are_found_from_where_the_command_was_given(folder: Path) -> None:
    (folder / "keys.ini").write_text(
        "a ansible_ssh_private_key_file=keys/id\nb ansible_private_key_file=~/id\nc ansible_private_key_file=/id\n"
        "d ansible_ssh_private_key_file='{{ inventory_dir }}/id'\n"
    )
    found = [value for variables in inventories.load(["keys.ini"]).values() for name, value in variables.items() if "key_file" in name]
    assert found == [str(folder / "keys/id"), "~/id", "/id", "{{ inventory_dir }}/id"]


def test_this_machine(folder: Path) -> None:
    (folder / "local.ini").write_text("localhost swift_worker_slots=2\n")
    assert inventories.load(["local.ini"]) == {"localhost": {**hosts.local_variables(), "swift_worker_slots": 2}}
    (folder / "local.ini").write_text("127.0.0.1 ansible_connection=local ansible_user=me ansible_python_interpreter=/usr/bin/python3\n")
    assert inventories.load(["local.ini"]) == {
        "127.0.0.1": {"ansible_connection": "local", "ansible_user": "me", "ansible_python_interpreter": "/usr/bin/python3"},
    }


def test_ssh_to_this_machine_is_not_the_client(folder: Path) -> None:
    (folder / "local.ini").write_text("localhost ansible_user=me\n")
    assert inventories.load(["local.ini"]) == {"localhost+ssh": {"ansible_host": "localhost", "ansible_user": "me"}}


@pytest.mark.parametrize(
    "name", ["-oProxyCommand=id", "a b", "a\nb", "a\x1b[31m", "node:22", "node[1:2]", "{{ 1 }}", "all", "ungrouped"],
)
def test_names_that_would_mean_something_else(folder: Path, name: str) -> None:
    if name in ("all", "ungrouped"):
        with pytest.raises(Failure) as failure:
            inventories._host(name, {})
    else:
        with pytest.raises(Failure) as failure:
            inventories.load([script(folder / "names", {"g": {"hosts": ["node01", name]}, "_meta": {"hostvars": {}}})])
    assert str(failure.value) == f"{name!r} of the inventory cannot be a host of a pool: give it another name, and its address in ansible_host"
    assert failure.value.status == USAGE


def test_an_address_is_no_option(folder: Path) -> None:
    (folder / "hosts.ini").write_text("node01 ansible_host=-oProxyCommand=id\n")
    with pytest.raises(Failure, match="'node01' of the inventory cannot be a host of a pool"):
        inventories.load(["hosts.ini"])


def test_other_names_stay(folder: Path) -> None:
    names = ["web.example.org", "fe80::1", "10.0.0.1", "my_host+2", "nöde", "i-0abc"]
    source = script(folder / "names", {"g": {"hosts": names}, "_meta": {"hostvars": {}}})
    table = inventories.load([source])
    assert list(table) == names
    Path("pool.json").write_text(json.dumps({"all": {"hosts": table}}))
    assert list(inventories.load(["pool.json"])) == names


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (None, "Completely failed to parse inventory source"),
        ("all:\n  hosts:\n   a: [\n", "YAML parsing failed|Syntax Error while loading YAML"),
        ("plugin: no.such.plugin\n", "no.such.plugin"),
        ("#!/bin/sh\necho 'out of \x1b]0;credit' >&2\nexit 3\n", r"out of \?\]0;credit"),
    ],
)
def test_an_inventory_that_ansible_cannot_read(folder: Path, content: str | None, detail: str) -> None:
    path = folder / "bad.yml"
    if content is not None:
        path.write_text(content)
        path.chmod(0o755 if content.startswith("#!") else 0o644)
    with pytest.raises(Failure) as failure:
        inventories.load(["hosts.ini", "bad.yml"])
    assert str(failure.value) == "the inventory hosts.ini and bad.yml cannot be read: see what Ansible says above"
    assert failure.value.status == USAGE
    assert re.search(detail, " ".join(" ".join(failure.value.details).split()))
    assert all(line.isprintable() for line in failure.value.details)


def test_an_inventory_without_hosts(folder: Path) -> None:
    (folder / "empty.ini").write_text("[workers]\n")
    with pytest.raises(Failure, match="the inventory empty.ini names no host$"):
        inventories.load(["empty.ini"])


def test_too_many_hosts(folder: Path) -> None:
    (folder / "many.ini").write_text("node[00001:10001]\n")
    with pytest.raises(Failure, match="the inventory many.ini names more than 10000 hosts"):
        inventories.load(["many.ini"])


def test_a_source_is_no_option() -> None:
    with pytest.raises(Failure, match="the inventory --version cannot be read"):
        inventories.load(["--version"])


def test_an_answer_that_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible writes what ANSIBLE_DEBUG is for between the braces."""
    monkeypatch.setenv("ANSIBLE_DEBUG", "True")
    with pytest.raises(Failure, match="ansible-inventory answers with something else than JSON"):
        inventories.load(["hosts.ini"])


def test_an_inventory_that_takes_too_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended with all that it started."""
    monkeypatch.setattr(inventories, "TIME_LIMIT", 3.0)
    with pytest.raises(Failure, match="the inventory slow cannot be read: Ansible took more than 3 s"):
        inventories._run(["sh", "-c", "sleep 600 & echo $! > pid; wait"], "slow")
    pid = int((folder / "pid").read_text())
    until = time.monotonic() + 60
    while state.start_time(pid) is not None:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_host_words_go_before_the_inventory() -> None:
    found = {"node01": {"ansible_user": "jobs", "ansible_port": 23}, "node02": {"swift_worker_slots": 2}}
    assert inventories.merge(found, [Host("node01", "me", slots=8), Host("node03")]) == {
        "node01": {"ansible_user": "me", "ansible_port": 23, "swift_worker_slots": 8}, "node02": {"swift_worker_slots": 2}, "node03": {},
    }
    assert found["node01"] == {"ansible_user": "jobs", "ansible_port": 23}
