# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host words are data: what is taken, what is refused, and what Ansible makes of the rest."""

from __future__ import annotations

import json
import os
import re
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
    ("beef:22", Host("beef", port=22)),
    ("user@node01:2222*16", Host("node01", "user", 2222, 16)),
    ("node01*8", Host("node01", slots=8)),
    ("user@[2001:db8::1]:2222*4", Host("2001:db8::1", "user", 2222, 4)),
    ("[fe80::1]", Host("fe80::1")),
    ("fe80::1*2", Host("fe80::1", slots=2)),
    ("user@localhost", Host("localhost", "user")),
    ("localhost:22", Host("localhost", port=22)),
    ("[::1]:2222", Host("::1", port=2222)),
    ("node01+2222*2", Host("node01", port=2222, slots=2)),
    ("2001:db8::1+22", Host("2001:db8::1", port=22)),
    ("Allegra", Host("Allegra")),
]
RANGES = [
    ("node[01-04]", ["node01", "node02", "node03", "node04"]),
    ("node[1-3,7]", ["node1", "node2", "node3", "node7"]),
    ("node[8-11].example.org", ["node8.example.org", "node9.example.org", "node10.example.org", "node11.example.org"]),
    ("r[1-2]n[09-10]", ["r1n09", "r1n10", "r2n09", "r2n10"]),
    ("10.0.0.[5,7]", ["10.0.0.5", "10.0.0.7"]),
    ("n[098-101]", ["n098", "n099", "n100", "n101"]),
    ("n[99-101]", ["n99", "n100", "n101"]),
    ("n[5]", ["n5"]),
]
NAMES = [
    ("node01", "node01"),
    ("user@node01*8", "node01"),
    ("node01:2222", "node01+2222"),
    ("u@[2001:db8::1]:22", "2001:db8::1+22"),
    ("localhost*4", "localhost"),
    ("user@localhost", "user@localhost"),
    ("user@[::1]", "user@::1"),
    ("user@localhost:2222", "localhost+2222"),
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
    "a..b",
    "node01..",
    "[]",
    "node[",
    "node]",
    "node[1]]",
    "node[[1]]",
    "node[]",
    "node[1-]",
    "node[-1]",
    "node[3-1]",
    "node[01-9]",
    "node[1-09]",
    "node[1,,2]",
    "node[1-2-3]",
    "node[a-c]",
    "node[1-9999999999]",
    "node[{{ 1 }}]",
    "node[1-3]-",
    "[1-3]@node01",
    "node1,node2",
    "node01:",
    "node01:0",
    "node01:65536",
    "node01:-1",
    "node01:ssh",
    "node01:22:22",
    "node01*",
    "node01*0",
    "node01*-1",
    "node01*8*8",
    "node01*10000",
    "node01*8:22",
    "node01:22*8 ",
    "[node01]",
    "[1:2:3]",
    "[::1",
    "::1]",
    "[::1]22",
    "[::1]:",
    "[::g]",
    "fe80::1%eth0",
    "1:2:3",
    "all",
    "user@all:22",
    "ungrouped*8",
    "::1::",
    "12345::1",
]


@pytest.mark.parametrize(("word", "host"), REMOTE)
def test_a_host_of_the_pool(word: str, host: Host) -> None:
    assert hosts.parse([word]) == [host]
    variables = {"ansible_user": host.user, "ansible_port": host.port, "swift_worker_slots": host.slots}
    if host.name != host.address:
        variables["ansible_host"] = host.address
    assert host.variables() == {name: value for name, value in variables.items() if value}


@pytest.mark.parametrize(("word", "addresses"), RANGES)
def test_a_range_of_hosts(word: str, addresses: list[str]) -> None:
    assert hosts.parse([f"user@{word}:2222*16"]) == [Host(address, "user", 2222, 16) for address in addresses]


@pytest.mark.parametrize(("word", "name"), NAMES)
def test_the_name_in_the_pool(word: str, name: str) -> None:
    assert [host.name for host in hosts.parse([word])] == [name]


def test_the_name_does_not_depend_on_other_hosts() -> None:
    alone = [host.name for word in ("node:2222", "node:2223", "node") for host in hosts.parse([word])]
    assert [host.name for host in hosts.parse(["node:2222", "node:2223", "node"])] == alone
    assert len(set(alone)) == 3


def test_slots_of_this_machine() -> None:
    [host] = hosts.parse(["localhost*4"])
    assert host.variables() == {**hosts.local_variables(), "swift_worker_slots": 4}


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


@pytest.mark.parametrize("words", [
    ("node01", "node01"),
    ("a@node01", "b@node01"),
    ("node01", "node02", "node01"),
    ("node01", "Node01"),
    ("node01", "node01."),
    ("node01", "node01:22"),
    ("node01*4", "node01*8"),
    ("a@node01:2222", "b@node01:2222"),
    ("node02", "node[01-03]"),
    ("localhost", "127.0.0.1"),
    ("[::1]", "user@localhost"),
    ("2001:db8::1", "2001:DB8:0::1"),
])
def test_a_host_is_named_once(words: tuple[str, ...]) -> None:
    with pytest.raises(Failure, match="the host .* is named twice, by .*: name it once") as failure:
        hosts.parse(words)
    assert failure.value.status == USAGE
    assert repr(words[0]) in str(failure.value)
    assert repr(words[-1]) in str(failure.value)


def test_a_word_names_a_host_once() -> None:
    with pytest.raises(Failure, match=r"the host x111 is named twice, by 'x\[1-11\]\[1-11\]': name it once"):
        hosts.parse(["x[1-11][1-11]"])


@pytest.mark.parametrize("words", [["node[1-10001]"], ["node[1-100]x[1-100]", "one"], ["node[1-999999999][1-999999999][1-999999999]"]])
def test_there_are_not_too_many(words: list[str]) -> None:
    with pytest.raises(Failure, match="more than 10000 hosts are named") as failure:
        hosts.parse(words)
    assert failure.value.status == USAGE


def test_as_many_as_there_may_be() -> None:
    assert len(hosts.parse(["node[1-100]x[1-100]"])) == hosts.LIMIT


def test_a_name_has_a_length() -> None:
    assert hosts.parse(["a" * 252 + "[1]"])[0].address == "a" * 252 + "1"
    with pytest.raises(Failure, match="longer than the 253 characters"):
        hosts.parse(["a" * 252 + "[9-10]"])


def test_a_long_word_is_not_repeated_in_full() -> None:
    with pytest.raises(Failure) as failure:
        hosts.parse(["$" * 100_000])
    assert len(str(failure.value)) < 300


def test_the_order_stays() -> None:
    assert [host.name for host in hosts.parse(["c", "u@a", "b"])] == ["c", "a", "b"]


@given(st.text(max_size=30) | st.text("ab01@[]:-,.*", max_size=30))
def test_whatever_is_taken_is_harmless(word: str) -> None:
    try:
        taken = hosts.parse([word])
    except Failure:
        return
    for host in taken:
        for text in (host.address, host.user):
            assert text.isascii()
            assert not text.startswith(("-", "."))
            assert ".." not in text
            assert not set(text) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-:")
        assert 0 <= host.port < 65536
        assert 0 <= host.slots < 10_000
    if "[" not in word and "*" not in word and not re.search(r":\d+\Z", word):
        [host] = taken
        assert word == (f"{host.user}@{host.address}" if host.user else host.address)


@given(st.lists(st.from_regex(r"(?:u@)?n(?:0|1|\[0-2\])(?::2[0-2])?(?:\*[1-3])?", fullmatch=True), max_size=4))
def test_names_are_as_different_as_the_hosts(words: list[str]) -> None:
    try:
        taken = hosts.parse(words)
    except Failure as failure:
        assert "is named twice" in str(failure)
        return
    assert len({host.name for host in taken}) == len({(host.address, host.port or 22) for host in taken}) == len(taken)


def test_a_file_of_hosts(tmp_path: Path) -> None:
    file = tmp_path / "hosts.txt"
    file.write_bytes("\ufeff# the cluster\r\n\r\nuser@node01:2222  node[02-03]*8 # fast\n\t node04#slow\n#node05".encode())
    assert hosts.from_file(str(file)) == ["user@node01:2222", "node[02-03]*8", "node04"]


def test_a_file_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "hosts.txt").write_text("node01")
    assert hosts.from_file("~/hosts.txt") == ["node01"]


def test_hosts_on_standard_input() -> None:
    code = "from coaster_pool import hosts; print(hosts.from_file('-'), hosts.sys.stdin.closed)"
    done = subprocess.run([sys.executable, "-c", code], input="node01 # one\nnode02\n", capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "['node01', 'node02'] False\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"node01\n\nnode02 -oProxyCommand=id\n", "{path}, line 3: '-oProxyCommand=id' is not a host: "),
        (b"node01 slots=8", "{path}, line 1: 'slots=8' is not a host: "),
        (b"# nobody\n\n", "{path} names no host"),
        (b"", "{path} names no host"),
        (b"node\xff", "{path} is no list of hosts: it is not text in UTF-8"),
        (b"node01\n" * 200_000, "{path} is no list of hosts: it is larger than 1048576 bytes"),
        (None, "the hosts in {path} cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "hosts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Failure) as failure:
        hosts.from_file(str(path))
    assert str(failure.value).startswith(sentence.format(path=path))
    assert failure.value.status == USAGE


def test_a_folder_is_no_file_of_hosts(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot be read: Is a directory"):
        hosts.from_file(str(tmp_path))


def inventory(wanted: list[Host], variables: dict[str, str]) -> str:
    """As the playbooks get it."""
    return json.dumps({"all": {"hosts": {host.name: host.variables() for host in wanted}, "vars": variables}})


def test_ansible_reads_the_inventory_as_it_is_meant(tmp_path: Path) -> None:
    words = [
        "node01", "user@1.0.0.1", "u@2001:db8::1", "localhost*2", "node01:2222", "v@[2001:db8::2]:2222", "u@[::1]:2222", "42", "beef:22", "n[1-2]*8",
        "w@127.0.0.1:23",
    ]
    wanted = hosts.parse(words)
    (tmp_path / "hosts.json").write_text(inventory(wanted, {"common": "x"}))
    shown = subprocess.run(
        [sys.executable, "-m", "ansible.cli.inventory", "-i", str(tmp_path / "hosts.json"), "--list"],
        capture_output=True, text=True, check=True, timeout=120,
    )
    assert shown.stderr == ""
    read = json.loads(shown.stdout)
    assert read["ungrouped"]["hosts"] == [host.name for host in wanted]
    assert read["_meta"]["hostvars"] == {host.name: {**host.variables(), "common": "x"} for host in wanted}


def test_ssh_to_this_machine_is_not_the_client(tmp_path: Path) -> None:
    """Ansible runs what is meant for localhost on the client, and not on a host of the pool that looks like it."""
    (tmp_path / "hosts.json").write_text(inventory(hosts.parse(["nobody@127.0.0.1", "nobody@localhost:9"]), {}))
    shown = subprocess.run(
        [sys.executable, "-m", "ansible.cli.adhoc", "-i", str(tmp_path / "hosts.json"), "localhost", "-m", "debug", "-a", "var=ansible_connection"],
        capture_output=True, text=True, check=True, timeout=120, env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "False"},
    )
    assert '"ansible_connection": "local"' in shown.stdout


class TestFolded:
    @pytest.mark.parametrize(
        ("names", "line"),
        [
            ([], ""),
            (["h1"], "h1"),
            (["node01", "node02", "node03", "node07", "h1"], "node[01-03,07], h1"),
            (["10.0.0.10", "10.0.0.9", "10.0.1.1"], "10.0.0.[9-10], 10.0.1.1"),
            (["n08", "n09", "n10", "n11"], "n[08-11]"),
            (["n9", "n10", "n010"], "n[9,010,10]"),
            (["a1b2", "a1b3", "a2b3"], "a1b[2-3], a2b3"),
            (["n1.example.org", "n2.example.org"], "n[1-2].example.org"),
            (["a+22", "a+23", "user@localhost", "::1", "::2"], "a+22, a+23, user@localhost, ::1, ::2"),
        ],
    )
    def test_lines(self, names: list[str], line: str) -> None:
        assert hosts.folded(names) == line

    @given(st.sets(st.from_regex(r"(n|h0|10[.]0[.])[0-9]{1,3}", fullmatch=True), max_size=40))
    def test_it_is_read_as_it_was_meant(self, names: set[str]) -> None:
        assert {host.name for host in hosts.parse(hosts.folded(sorted(names)).replace("], ", "] ").replace(", ", " ").split())} == names
