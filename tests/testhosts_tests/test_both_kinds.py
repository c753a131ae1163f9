# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every test host does, of either kind."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests import testhosts
from tests.testhosts import Host, Hosts, Process, runs
from tests.testhosts.fixtures import StartHosts

QUICK = ("-o", "ConnectTimeout=1")
KINDS = ["isolated", "plain"]


@pytest.fixture(params=KINDS)
def hosts(request: pytest.FixtureRequest, start_hosts: StartHosts) -> Hosts:
    return start_hosts(2, request.param)


def home(host: Host) -> str:
    return host.run("pwd").strip()


def test_answers_ssh(hosts: Hosts) -> None:
    for host in hosts:
        shown = hosts.ssh(host, 'hostname; id -un; pwd; echo "$HOME"; echo "${SSH_CONNECTION%% *}"').stdout.split()
        assert shown == [host.hostname, host.user, home(host), home(host), hosts.client.address]
    assert home(hosts[0]) != home(hosts[1]) or hosts.kind == "isolated"


def test_alias_and_shell_quoting(hosts: Hosts) -> None:
    done = subprocess.run(["ssh", "h2", "echo 'a  b' | cat; exit 7"], env=hosts.env(), capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("a  b\n", 7)


def test_copies_a_file_both_ways(hosts: Hosts, tmp_path: Path) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(1 << 20))
    for command in (["scp", str(sent), f"{hosts[0].target}:there"], ["scp", f"{hosts[0].target}:there", str(back)]):
        subprocess.run(command, env=hosts.env(), check=True, capture_output=True)
    assert back.read_bytes() == sent.read_bytes()
    assert hosts[0].run("ls").split() == ["there"]
    assert hosts[1].run("ls") == ""


def test_only_the_sets_own_ssh_files_are_used(hosts: Hosts) -> None:
    shown = subprocess.run(["ssh", "-G", hosts[0].target], env=hosts.env(), capture_output=True, text=True, check=True).stdout
    used = dict(line.split(" ", 1) for line in shown.splitlines())
    assert used["identityfile"] == str(hosts.client.identity)
    assert used["userknownhostsfile"] == str(hosts.client.known_hosts)
    assert used["globalknownhostsfile"] == "/dev/null"
    assert "SSH_AUTH_SOCK" not in hosts.env()


def test_host_keys_are_checked(hosts: Hosts) -> None:
    hosts.client.know([])
    assert "Host key verification failed" in hosts.ssh(hosts[0]).stderr
    hosts.client.know(hosts)
    assert hosts.ssh(hosts[0]).returncode == 0
    assert hosts[0].public_key != hosts[1].public_key


def test_processes_are_those_of_the_host(hosts: Hosts) -> None:
    before = hosts[1].processes()
    hosts.ssh(hosts[0], "nohup sleep 4321 > /dev/null 2>&1 &")
    found: list[Process] = []

    def sleeps() -> bool:
        found[:] = [process for process in hosts[0].processes() if process.args == "sleep 4321"]
        return len(found) == 1

    assert runs.wait_until(sleeps, 30)
    assert hosts[1].processes() == before
    os.kill(found[0].pid, 9)
    assert runs.wait_until(lambda: found[0] not in hosts[0].processes(), 30)


def test_run_reports_failure(hosts: Hosts) -> None:
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        hosts[0].run("exit 3")
    assert hosts[0].run("echo out; echo err >&2; exit 3", check=False) == "out\nerr\n"
    assert hosts[0].run("tr a b", stdin=b"banana") == "bbnbnb"


@pytest.mark.parametrize("end", ["crash", "stop"])
def test_down_and_up_again(hosts: Hosts, end: str) -> None:
    host = hosts[0]
    hosts.ssh(host, "echo kept > file; nohup sleep 4321 > /dev/null 2>&1 &")
    getattr(host, end)()
    assert host.processes() == []
    assert hosts.ssh(host, "true", *QUICK).returncode == 255
    assert hosts.ssh(hosts[1]).returncode == 0
    getattr(host, end)()
    host.start()
    host.start()
    assert hosts.ssh(host, "cat file").stdout == "kept\n"
    assert all("4321" not in process.args for process in host.processes())


def test_stop_lets_processes_say_goodbye(hosts: Hosts) -> None:
    hosts[0].run("nohup sh -c \"trap 'echo bye > note; exit' TERM; touch up; while :; do sleep 0.05; done\" > /dev/null 2>&1 &")
    assert runs.wait_until(lambda: "up" in hosts[0].run("ls"), 30)
    hosts[0].stop()
    hosts[0].start()
    assert hosts[0].run("cat note") == "bye\n"


def test_frozen_host_accepts_and_says_nothing(hosts: Hosts) -> None:
    hosts[0].freeze()
    with socket.create_connection((hosts[0].address, hosts[0].port), timeout=30) as caller:
        caller.settimeout(1)
        with pytest.raises(TimeoutError):
            caller.recv(1)
        hosts[0].thaw()
        caller.settimeout(30)
        assert caller.recv(4) == b"SSH-"


def test_silent_host_times_out(hosts: Hosts) -> None:
    hosts[0].silence()
    assert "timed out" in hosts.ssh(hosts[0], "true", *QUICK).stderr
    assert hosts.ssh(hosts[1]).returncode == 0
    hosts[0].mend()
    assert hosts.ssh(hosts[0]).returncode == 0


def test_refusing_host_keeps_open_sessions(hosts: Hosts) -> None:
    argv = ["ssh", "-o", "BatchMode=yes", hosts[0].target, "cat"]
    with subprocess.Popen(argv, env=hosts.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdin and session.stdout
        for line in (b"before\n", b"after\n"):
            session.stdin.write(line)
            session.stdin.flush()
            assert session.stdout.readline() == line
            hosts[0].refuse()
        assert "Connection refused" in hosts.ssh(hosts[0]).stderr
        session.stdin.close()
        assert session.wait(30) == 0
    hosts[0].mend()
    assert hosts.ssh(hosts[0]).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_sshd_lines_of_one_host(start_hosts: StartHosts, kind: str) -> None:
    hosts = start_hosts([{"sshd": ("ForceCommand sleep 86400",)}, {}], kind)
    with subprocess.Popen(["ssh", "-n", "h1", "true"], env=hosts.env()) as caller:
        assert runs.wait_until(lambda: any(process.args == "sleep 86400" for process in hosts[0].processes()), 30)
        assert caller.poll() is None
        hosts[0].stop()
        assert caller.wait(30) == 255
    assert hosts.ssh(hosts[1]).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_max_startups(start_hosts: StartHosts, kind: str) -> None:
    hosts = start_hosts(1, kind, max_startups=1)
    with socket.create_connection((hosts[0].address, hosts[0].port), timeout=30) as first:
        assert first.recv(4) == b"SSH-"
        assert hosts.ssh(hosts[0]).returncode == 255
    assert runs.wait_until(lambda: hosts.ssh(hosts[0]).returncode == 0, 30)


def children() -> set[int]:
    """The processes that this one has started, for this set of hosts or another."""
    return {process.pid for process in runs.processes() if process.ppid == os.getpid()}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left(start_hosts: StartHosts, kind: str, tmp_path: Path) -> None:
    before = children()
    hosts = start_hosts(2, kind)
    hosts.ssh(hosts[0], "nohup sleep 4321 > /dev/null 2>&1 &")
    master = ["ssh", "-nNf", "-o", "ControlMaster=yes", "-o", f"ControlPath={tmp_path}/%n", "h1"]
    subprocess.run(master, env=hosts.env(), check=True)
    subprocess.run([*master[:-1], "h2"], env=hosts.env(), check=True)
    assert len([process for process in runs.processes() if str(tmp_path) in process.args]) == 2
    hosts[1].refuse()
    folder = runs.folder(hosts.number)
    ours = {process.pid for host in hosts for process in host.processes()}
    ours |= children() - before
    assert len(ours) > 4
    hosts.close()
    assert ours & {process.pid for process in runs.processes()} == set()
    assert not [process for process in runs.processes() if str(tmp_path) in process.args], "a session is left"
    assert runs.owner(hosts.number) != runs.identity(os.getpid())
    if not runs.owner(hosts.number):  # else somebody else has the number by now
        assert not folder.exists()
        assert str(folder) not in Path("/proc/self/mountinfo").read_text()
        assert not [name for name in os.listdir("/sys/class/net") if name.startswith(runs.bridge(hosts.number))]
    hosts.close()


def test_sets_do_not_collide() -> None:
    found: list[tuple[str, ...]] = []

    def one() -> None:
        with testhosts.start(2) as hosts:
            found.append(tuple(host.address for host in hosts if hosts.ssh(host).returncode == 0))
            barrier.wait(60)

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=one) for dummy in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({address for addresses in found for address in addresses}) == 6
