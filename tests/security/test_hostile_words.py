# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, paths and values that would be options, commands or templates, if something took them for more than data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, collections_root

TRAP = "touch ${TRAP}"
WORDS = [
    f"-oProxyCommand={TRAP}", f"node-oProxyCommand={TRAP}", f"$({TRAP})", f"`{TRAP}`", f"a;{TRAP}", f"a|{TRAP}", f"a&&{TRAP}", f"user@$({TRAP})",
    "{{ lookup('pipe', 'touch ${TRAP}') }}", "{% raw %}", "a{{1}}", "user@{{ x }}", f"a\n{TRAP}", f"a\r{TRAP}", "a\0b", "a'b", 'a"b', "a\\b", "~root",
    "-", "--", "-F/dev/null", "user@-oProxyCommand=x", "-l@host", "a@b@c", "host:22:22", "[::1", "host*0", "h\u00f6st", "\u0430", "a\u202eb", "a\x1b[2Jb",
    "\x07", "host%h", "..", "a/b", "*", "node[1-", "node[1-99999999]", "all", "$HOME", "!", "",
]


def run(tmp_path: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """start_pool.py where every trap that is sprung leaves a file ``sprung``."""
    env = dict(os.environ, XDG_STATE_HOME=str(tmp_path / "state"), HOME=str(tmp_path), TRAP=str(tmp_path / "sprung")) | variables
    command = [sys.executable, str(ROOT / "start_pool.py"), "--port", "0", "--worker-port", "0", *words]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert not (tmp_path / "sprung").exists(), words
    return done


def refused(done: subprocess.CompletedProcess[bytes]) -> bool:
    """With one sentence that draws nothing."""
    lines = done.stderr.decode().splitlines()
    return done.returncode == 2 and done.stdout == b"" and b"Traceback" not in done.stderr and b"\x1b" not in b"".join(line.encode() for line in lines)


@pytest.mark.parametrize("word", WORDS, ids=ascii)
def test_a_word_that_is_no_host(tmp_path: Path, word: str) -> None:
    """In a file of hosts nothing is taken for an option of ours."""
    (tmp_path / "hosts").write_text(f"good {word}\n" if word else "")
    done = run(tmp_path, "--hosts-file", "hosts")
    assert refused(done), done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("option", ["--name", "--listen", "--trust", "--allow-user", "--swift-bin-dir", "--hosts-file", "--inventory", "--route", "--port"])
@pytest.mark.parametrize("value", [f"-oProxyCommand={TRAP}", f"$({TRAP})", "{{ lookup('pipe', 'touch ${TRAP}') }}", f"a\n{TRAP}", "../../up"])
def test_a_value(tmp_path: Path, option: str, value: str) -> None:
    done = run(tmp_path, f"{option}={value}", "--detach", "localhost")
    try:
        assert done.returncode in (2, 3), (done.returncode, done.stderr)
        assert done.stdout == b""
        assert b"Traceback" not in done.stderr
    finally:
        if (tmp_path / "state").exists():
            run(tmp_path, "--stop")
    assert {path.name for path in tmp_path.iterdir()} <= {"state", ".ansible"}


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "a b", "{{ x }}", "a\nb", "a\x1b[2J", "a[1]", "a\u202eb"])
def test_a_name_in_an_inventory(tmp_path: Path, name: str) -> None:
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {name: {}}}}))
    done = run(tmp_path, "-i", "hosts.json")
    assert done.returncode == 2 and b"Traceback" not in done.stderr and b"\x1b" not in done.stderr, done.stderr


def test_an_address_in_an_inventory(tmp_path: Path) -> None:
    """For ansible-playbook, too, which reads the inventory itself."""
    hosts = {"all": {"hosts": {"h": {"ansible_host": f"-oProxyCommand=touch {tmp_path}/sprung"}}}}
    (tmp_path / "hosts.json").write_text(json.dumps(hosts))
    assert refused(run(tmp_path, "-i", "hosts.json"))
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(collections_root()), XDG_STATE_HOME=str(tmp_path / "state"), HOME=str(tmp_path))
    ports = ("-e", "coaster_service_port=0", "-e", "coaster_service_worker_port=0")
    program = str(Path(sys.executable).parent / "ansible-playbook")
    for route in ("direct", "tunnel"):
        command = [program, "coasters.pool.start_pool", "-i", "hosts.json", *ports, "-e", f"swift_worker_route={route}"]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, timeout=120, check=False)
        assert done.returncode != 0
        assert run(tmp_path, "--stop").returncode == 0
        assert not (tmp_path / "sprung").exists(), done.stdout


def test_paths_with_everything_in_them(tmp_path: Path) -> None:
    """The state folder's path is data as well, here for a whole pool."""
    odd = tmp_path / "a b$(touch sprung)`touch sprung`{{ 1 }}'\"\\;\u00e9"
    odd.mkdir()
    done = run(tmp_path, "--detach", "localhost*1", XDG_STATE_HOME=str(odd))
    try:
        assert done.returncode == 0, done.stderr
    finally:
        stopped = run(tmp_path, "--stop", XDG_STATE_HOME=str(odd))
    assert stopped.returncode == 0, stopped.stderr
    assert list(odd.rglob("*")) == [odd / "coasters"]
