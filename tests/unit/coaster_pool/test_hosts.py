# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host words are data: what is taken, what is refused, and what Ansible makes of the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coaster_pool import hosts
from coaster_pool.failure import USAGE, Failure
from coaster_pool.hosts import Host

REMOTE = [
    ("node01", Host("node01", "")),
    ("user@node01", Host("node01", "user")),
    ("user@1.0.0.1", Host("1.0.0.1", "user")),
    ("first.last@node-01.example.org", Host("node-01.example.org", "first.last")),
    ("svc_jobs-2@my_alias", Host("my_alias", "svc_jobs-2")),
    ("node01.example.org.", Host("node01.example.org.", "")),
    ("fe80::1", Host("fe80::1", "")),
    ("user@2001:db8::10.0.0.1", Host("2001:db8::10.0.0.1", "user")),
    ("user@localhost", Host("localhost", "user")),
]
REFUSED = [
    "",
    " ",
    "@",
    "user@",
    "@node01",
    "user@user@node01",
    "-oProxyCommand=touch${IFS}/tmp/pwned",
    "user@-oProxyCommand=id",
    "-node",
    "-l@node01",
    "node-",
    ".node",
    "...",
    ".1",
    "a b",
    "node01\n",
    "node01\nnode02",
    "\tnode01",
    "node01\0",
    "$(id)",
    "`id`",
    "node01;id",
    "node01|id",
    "node01&",
    "node01>out",
    "'node01'",
    'node"01',
    "node\\01",
    "{{ lookup('pipe', 'id') }}",
    "{% raw %}",
    "node{01,02}",
    "node[01:10]",
    "node*",
    "~root",
    "a/b",
    "a,b",
    "!unsafe",
    "node=1",
    "nöde",
    "node\u202e01",
    "node\u0661",
    "\x1b[31mnode",
    "beef:22",
    "1:2:3",
    "::1::",
    "12345::1",
]


@pytest.mark.parametrize(("word", "host"), REMOTE)
def test_a_host_of_the_pool(word: str, host: Host) -> None:
    assert hosts.parse([word]) == [host]
    assert host.variables() == ({"ansible_user": host.user} if host.user else {})


@pytest.mark.parametrize("word", hosts.LOCAL)
def test_this_machine_needs_no_ssh(word: str) -> None:
    [host] = hosts.parse([word])
    assert host.variables() == {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


@pytest.mark.parametrize("word", REFUSED)
def test_a_word_that_is_no_host_is_refused(word: str) -> None:
    with pytest.raises(Failure) as failure:
        hosts.parse(["node01", word])
    assert failure.value.status == USAGE
    assert repr(word) in str(failure.value)
    assert str(failure.value).isprintable()


@pytest.mark.parametrize("words", [("node01", "node01"), ("a@node01", "b@node01"), ("node01", "node02", "node01"), ("node01", "Node01")])
def test_a_host_is_named_once(words: tuple[str, ...]) -> None:
    with pytest.raises(Failure, match=f"the host {words[-1].partition('@')[2] or words[-1]} is named twice") as failure:
        hosts.parse(words)
    assert failure.value.status == USAGE


def test_the_order_stays() -> None:
    assert [host.name for host in hosts.parse(["c", "u@a", "b"])] == ["c", "a", "b"]


@given(st.text(max_size=30))
def test_whatever_is_taken_is_harmless(word: str) -> None:
    try:
        [host] = hosts.parse([word])
    except Failure:
        return
    for text in (host.name, host.user):
        assert text.isascii()
        assert not text.startswith("-")
        assert not set(text) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-:")
    assert word == (f"{host.user}@{host.name}" if host.user else host.name)


def test_ansible_reads_the_inventory_as_it_is_meant(tmp_path: Path) -> None:
    words = ["node01", "user@1.0.0.1", "u@2001:db8::1", "localhost"]
    (tmp_path / "hosts.json").write_text(json.dumps(hosts.inventory(hosts.parse(words), {"common": "x"})))
    shown = subprocess.run(
        [sys.executable, "-m", "ansible", "inventory", "-i", str(tmp_path / "hosts.json"), "--list"], capture_output=True, text=True, check=True
    )
    read = json.loads(shown.stdout)["_meta"]["hostvars"]
    assert {name: variables.get("ansible_user") for name, variables in read.items()} == {
        "node01": None, "1.0.0.1": "user", "2001:db8::1": "u", "localhost": None
    }
    assert all(variables["common"] == "x" for variables in read.values())
