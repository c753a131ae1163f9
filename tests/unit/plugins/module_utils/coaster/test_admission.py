# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster.admission import Admission, AdmissionError, same_origin


def test_without_a_list_everybody_is_let_in_under_its_own_name() -> None:
    admission = Admission()
    assert not admission.listed
    assert admission.block_name("anything") == "anything"
    admission.check_user(("127.0.0.1", 1), ("127.0.0.1", 2))


def test_a_list_of_workers(tmp_path: Path) -> None:
    path = tmp_path / "workers"
    path.write_text("id1 node1\n\nid2\n  id3   node1  \nid4 node4 more\n")
    admission = Admission(str(path))
    assert admission.listed
    assert admission.block_name("id1") == "node1"
    assert admission.block_name("id4") == "node4"
    for block_id, start in (("id2", "worker-"), ("id3", "node1-")):
        name = admission.block_name(block_id)
        assert name.startswith(start)
        assert block_id not in name
    for block_id in ("id5", "node1", ""):
        with pytest.raises(AdmissionError, match="not in this pool's list"):
            admission.block_name(block_id)


def test_who_is_off_the_list_may_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "workers"
    path.write_text("id1 a\n")
    admission = Admission(str(path))
    assert Admission().may_stay("anything")
    assert admission.may_stay("id1")
    path.unlink()
    assert admission.may_stay("id1")
    path.write_text("id2 b\n")
    assert not admission.may_stay("id1")


def test_the_list_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "workers"
    path.write_text("id1 a\n")
    admission = Admission(str(path))
    assert admission.block_name("id1") == "a"
    other = tmp_path / "new"
    other.write_text("id2 b\n")
    os.replace(other, path)
    assert admission.block_name("id2") == "b"
    with pytest.raises(AdmissionError):
        admission.block_name("id1")


def test_a_list_that_cannot_be_read_lets_nobody_in(tmp_path: Path) -> None:
    with pytest.raises(AdmissionError, match="cannot be read: No such file"):
        Admission(str(tmp_path / "missing")).block_name("id1")


def test_users_over_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        remote, local = client.getsockname(), server.getsockname()
        Admission(users=[os.getuid()]).check_user(remote, local)
        with pytest.raises(AdmissionError, match="user %d may not" % os.getuid()):
            Admission(users=[os.getuid() + 1]).check_user(remote, local)
    with pytest.raises(AdmissionError, match="cannot be seen"):
        Admission(users=[os.getuid()]).check_user(remote, ("127.0.0.1", 1))


def test_users_of_other_machines_are_not_looked_at() -> None:
    Admission(users=[]).check_user(("192.0.2.1", 5), ("192.0.2.2", 6))


DIAL = "import socket, sys; sock = socket.create_connection((sys.argv[1], int(sys.argv[2]))); print(sock.getsockname()[1], flush=True); sys.stdin.read()"


def test_the_origin_of_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        local = server.getsockname()
        with socket.create_connection(local) as one, socket.create_connection(local) as two:
            mine = (one.getsockname(), local)
            assert same_origin(mine, (two.getsockname(), local))
            assert not same_origin(mine, (("127.0.0.9", 1), local))
            command = [sys.executable, "-c", DIAL, local[0], str(local[1])]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                assert process.stdin is not None and process.stdout is not None
                other = (("127.0.0.1", int(process.stdout.readline())), local)
                assert not same_origin(mine, other)
                process.stdin.close()
                process.wait(30)
            assert same_origin(mine, other)
    assert same_origin((("192.0.2.1", 1), local), (("192.0.2.1", 2), local))
