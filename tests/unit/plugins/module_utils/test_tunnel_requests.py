# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to a keeper that answers, that answers nonsense, and that is not there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import state, tunnel_requests


def test_the_command() -> None:
    """Nothing is compressed, whatever Ansible wants; the host is no option."""
    command = tunnel_requests.command(["ssh", "-C", "-o", "ControlMaster=auto", "-p", "22"], "-oProxyCommand=x")
    assert "-C" not in command and command[0] == "ssh" and command.index("Compression=no") < command.index("ControlMaster=auto")
    assert command[-4:] == ["-R", "{listen}:{to}", "--", "-oProxyCommand=x"]


@contextmanager
def keeper(folder: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """One that gives one answer, and what it was asked."""
    monkeypatch.chdir(folder)
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(tunnel_requests.SOCKET)
        listening.listen()

        def speak() -> None:
            connection, dummy = listening.accept()
            with connection, connection.makefile("rb") as requests:
                asked.append(requests.readline())
                connection.sendall(answer)

        speaker = threading.Thread(target=speak)
        speaker.start()
        yield asked
        speaker.join()


@pytest.mark.parametrize("name", ["pool", "x" * 120])
def test_an_answer(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a folder whose path is too long for a socket."""
    folder = tmp_path / name
    folder.mkdir()
    with keeper(folder, b'{"port": 4711}\n', monkeypatch) as asked:
        assert tunnel_requests.ask(str(folder), {"look": "h"}) == {"port": 4711}
    assert asked == [b'{"look": "h"}\n']


def test_no_keeper(tmp_path: Path) -> None:
    with pytest.raises(tunnel_requests.TunnelError, match="keeper does not run"):
        tunnel_requests.ask(str(tmp_path), {"close": "h"})


def test_a_keeper_that_does_not_listen(tmp_path: Path) -> None:
    state.write_json(str(tmp_path / "keeper.pid"), state.this_process())
    with pytest.raises(tunnel_requests.TunnelError, match="keeper does not run"):
        tunnel_requests.ask(str(tmp_path), {"close": "h"}, limit=0.1)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(tunnel_requests.TunnelError, match="cannot be asked for a tunnel"):
        tunnel_requests.ask(str(tmp_path / "file"), {"close": "h"})


@pytest.mark.parametrize(("answer", "said"), [
    (b"", "the pool's keeper ended"), (b"x\n", "gave no answer"), (b"[]\n", "nonsense"), (b'{"error": "broken"}\n', "broken"),
])
def test_an_answer_that_is_none(tmp_path: Path, answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with keeper(tmp_path, answer, monkeypatch), pytest.raises(tunnel_requests.TunnelError, match=said):
        tunnel_requests.ask(str(tmp_path), {"close": "h"})
