# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the words of ssh to a cause. The texts are OpenSSH's own, with what Ansible puts before them; test_pool.py has ssh say some."""

from __future__ import annotations

import pytest

from ansible_collections.coasters.pool.plugins.plugin_utils import causes

BEFORE = "Failed to connect to the host via ssh: "
SAID = {
    "name": [
        "ssh: Could not resolve hostname nosuch: Name or service not known",
        "ssh: Could not resolve hostname nosuch: Temporary failure in name resolution",
        "ssh: Could not resolve hostname nosuch: nodename nor servname provided, or not known",
    ],
    "refused": ["ssh: connect to host 10.0.0.1 port 22: Connection refused"],
    "no_route": ["ssh: connect to host 10.0.0.1 port 22: No route to host", "ssh: connect to host ::1 port 22: Network is unreachable"],
    "timed_out": [
        "ssh: connect to host 10.0.0.1 port 22: Connection timed out",
        "ssh: connect to host 10.0.0.1 port 22: Operation timed out",
        "Connection timed out during banner exchange",
    ],
    "dropped": [
        "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 10.0.0.1 port 22",
        "kex_exchange_identification: Connection closed by remote host\nConnection closed by 10.0.0.1 port 22",
        "ssh_exchange_identification: Connection closed by remote host",
        "Exceeded MaxStartups\r\nkex_exchange_identification: banner line contains invalid characters",
    ],
    "key": [
        "user@10.0.0.1: Permission denied (publickey).",
        "user@10.0.0.1: Permission denied (publickey,password).",
        "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
        'Load key "/home/user/.ssh/id": invalid format\r\nuser@10.0.0.1: Permission denied (publickey).',
    ],
    "host_key_unknown": [
        "No ED25519 host key is known for 10.0.0.1 and you have requested strict checking.\r\nHost key verification failed.",
        "No RSA host key is known for node and you have requested strict checking.\nHost key verification failed.",
    ],
    "host_key_changed": [
        "@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@@\nIT IS POSSIBLE THAT SOMEONE IS DOING "
        "SOMETHING NASTY!\nHost key for 10.0.0.1 has changed and you have requested strict checking.\nHost key verification failed.",
    ],
    "ssh_config": [
        "/home/user/.ssh/config: line 3: Bad configuration option: prxyjump\r\n/home/user/.ssh/config: terminating, 1 bad configuration options",
        "Bad owner or permissions on /home/user/.ssh/config",
    ],
    "forwarding": ["Error: remote port forwarding failed for listen port 0"],
    "unsaid": [
        "Data could not be sent to remote host '127.0.0.1'. Make sure this host can be reached over SSH: [Errno 32] Broken pipe",
    ],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in SAID.items() for text in texts])
def test_cause(name: str, text: str) -> None:
    for said in (text, BEFORE + text, "Warning: Permanently added 'x'.\r\n" + text):
        cause = causes.of(said)
        assert cause.name == name
        assert ": " in cause.sentence  # what happened: what to try


def test_every_cause_has_an_example() -> None:
    assert {name for dummy, name, dummy in causes._CAUSES} == set(SAID)


def test_unknown_words_are_shown() -> None:
    assert causes.of("ssh: something\nnew\x1b[2J of theirs\n\n") == ("ssh", "ssh failed: new?[2J of theirs")


def test_silence() -> None:
    assert causes.of(" \n") == ("ssh", "ssh failed: it said nothing")
