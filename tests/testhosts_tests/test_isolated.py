# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only isolated hosts can do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.testhosts import Host, Hosts, runs
from tests.testhosts.fixtures import StartHosts

QUICK = ("-o", "ConnectTimeout=1")
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hosts(start_hosts: StartHosts) -> Hosts:
    return start_hosts(2, "isolated")


def calls_back(hosts: Hosts, host: Host) -> bool:
    """Whether a program on the host reaches a port of the client."""
    with socket.create_server((hosts.client.address, 0)) as listener:
        listener.settimeout(2)
        port = listener.getsockname()[1]
        dial = f"import socket; socket.create_connection(('{hosts.client.address}', {port}), timeout=2)"
        return host.run(f'/usr/bin/python3 -c "{dial}"', check=False) == ""


def test_a_root_file_system_of_its_own(hosts: Hosts) -> None:
    for path in ("/etc/mine", "/tmp/mine", "/usr/mine", "/root/mine", "/var/mine"):
        hosts[0].run(f"touch {path}", user="root")
        assert not Path(path).exists()
        assert "No such file" in hosts[1].run(f"ls {path}", user="root", check=False)
    hosts[0].stop()
    hosts[0].start()
    assert hosts[0].run("ls /etc/mine /usr/mine; ls /tmp", user="root").split() == ["/etc/mine", "/usr/mine"]


def test_the_machine_is_hidden(hosts: Hosts) -> None:
    assert "No such file" in hosts[0].run(f"ls {CHECKOUT}", user="root", check=False)
    assert hosts[0].run("ls -A /root /opt /srv /mnt", user="root").split() == ["/mnt:", "/opt:", "/root:", "/srv:"]
    assert hosts[0].run("ls /home").split() == ["worker"]
    assert hosts[0].run("ls /sys/class/net").split() == ["eth0", "lo"]
    assert set(hosts[0].run("ps -e -o pid=").split()) <= {str(pid) for pid in range(1, 100)}


def test_its_name_resolves_to_loopback_as_on_debian(hosts: Hosts) -> None:
    assert hosts[1].run("getent hosts h2").split()[0] == "127.0.1.1"


def test_terminal(hosts: Hosts) -> None:
    assert hosts.ssh(hosts[0], "tty", "-tt").stdout.startswith("/dev/pts/")


@pytest.mark.parametrize("missing", ["python", "perl"])
def test_without_an_interpreter(start_hosts: StartHosts, missing: str) -> None:
    hosts = start_hosts([{missing: False}, {}], "isolated")
    look = f"ls /usr/bin /usr/local/bin /bin | grep '^{missing}' || echo none"
    assert hosts[0].run(look) == "none\n"
    assert missing in hosts[1].run(look)
    assert hosts.ssh(hosts[0], f"{missing}{'3' * (missing == 'python')} --version").returncode == 127


def test_disk_full(start_hosts: StartHosts) -> None:
    hosts = start_hosts(1, "isolated", home_size="1m")
    assert "No space left" in hosts.ssh(hosts[0], "head -c 2000000 /dev/zero > big").stderr
    assert hosts.ssh(hosts[0], "head -c 2000000 /dev/zero > /tmp/big").returncode == 0
    hosts[0].stop()
    hosts[0].start()
    assert "big" in hosts.ssh(hosts[0], "ls").stdout


def test_a_folder_of_the_machine(start_hosts: StartHosts, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    tmp_path.joinpath("file").write_text("of the machine")
    hosts = start_hosts(1, "isolated", shared=tmp_path)
    assert hosts.ssh(hosts[0], "cat /mnt/file").stdout == "of the machine"
    assert "Read-only" in hosts[0].run("touch /mnt/other", user="root", check=False)


def test_cut_and_mended_cable(hosts: Hosts) -> None:
    argv = ["ssh", "-o", "BatchMode=yes", hosts[0].target, "cat"]
    with subprocess.Popen(argv, env=hosts.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdin and session.stdout
        session.stdin.write(b"before\n")
        session.stdin.flush()
        assert session.stdout.readline() == b"before\n"
        hosts[0].cut()
        session.stdin.write(b"after\n")
        session.stdin.flush()
        assert hosts.ssh(hosts[0], "true", *QUICK).returncode == 255
        assert hosts.ssh(hosts[1]).returncode == 0
        hosts[0].mend()
        assert session.stdout.readline() == b"after\n"
        session.stdin.close()
        assert session.wait(60) == 0


def test_a_crash_is_silent_and_a_stop_is_not(hosts: Hosts) -> None:
    callers = [socket.create_connection((host.address, 22), timeout=30) for host in hosts]
    banners = [caller.makefile("rb").readline() for caller in callers]
    assert all(banner.startswith(b"SSH-") for banner in banners)
    hosts[0].crash()
    hosts[1].stop()
    callers[0].settimeout(1)
    with pytest.raises(TimeoutError):
        callers[0].recv(1)
    assert callers[1].recv(1) == b""
    for caller in callers:
        caller.close()


def test_killing_its_first_process_ends_the_host(hosts: Hosts) -> None:
    first = min(hosts[0].processes(), key=lambda process: process.pid)
    os.kill(first.pid, signal.SIGKILL)
    assert runs.wait_until(lambda: not hosts[0].up, 30)
    assert hosts[0].processes() == []
    hosts[0].start()
    assert hosts.ssh(hosts[0]).returncode == 0


def test_client_behind_nat(hosts: Hosts) -> None:
    assert calls_back(hosts, hosts[0])
    hosts[0].drop_to_client()
    assert not calls_back(hosts, hosts[0])
    assert calls_back(hosts, hosts[1])
    assert hosts.ssh(hosts[0], "echo there").stdout == "there\n"
    hosts[0].mend()
    assert calls_back(hosts, hosts[0])


def test_drop_to_client_ends_connections_that_are_open(hosts: Hosts) -> None:
    with socket.create_server((hosts.client.address, 0)) as listener:
        port = listener.getsockname()[1]
        talk = f"exec 3<> /dev/tcp/{hosts.client.address}/{port}; while sleep 0.05; do echo >&3; done"
        hosts[0].run(f"nohup bash -c '{talk}' > /dev/null 2>&1 &")
        listener.settimeout(30)
        inbound = listener.accept()[0]
        inbound.settimeout(1)
        assert inbound.recv(1) == b"\n"
        hosts[0].drop_to_client()
        deadline = time.monotonic() + 30
        with pytest.raises(TimeoutError):
            while time.monotonic() < deadline:
                inbound.recv(4096)
        inbound.close()


def test_delay(hosts: Hosts) -> None:
    def round_trip() -> float:
        began = time.monotonic()
        socket.create_connection((hosts[0].address, 22), timeout=30).close()
        return time.monotonic() - began

    hosts[0].impair(delay=0.2)
    assert round_trip() > 0.39
    hosts[0].mend()
    assert min(round_trip() for dummy in range(5)) < 0.2


def test_loss(hosts: Hosts) -> None:
    hosts[0].impair(loss=0.1)
    data = "0123456789\n" * 50000
    assert hosts.ssh(hosts[0], "cat", stdin=data).stdout == data
    hosts[0].impair(loss=1)
    assert hosts.ssh(hosts[0], "true", *QUICK).returncode == 255
    hosts[0].crash()
    hosts[0].start()
    assert hosts.ssh(hosts[0]).returncode == 0


def test_two_hosts_reach_each_other(hosts: Hosts) -> None:
    dial = f"import socket; print(socket.create_connection(('{hosts[1].address}', 22), timeout=20).recv(4))"
    assert hosts[0].run(f'/usr/bin/python3 -c "{dial}"') == "b'SSH-'\n"


def test_a_host_that_does_not_start_is_named(start_hosts: StartHosts) -> None:
    def own() -> list[int]:
        me = runs.identity(os.getpid())
        return [number for number in range(runs.RUNS) if runs.owner(number) == me]

    before = own()
    with pytest.raises(RuntimeError, match="test host h2 did not start: .*NoSuchOption"):
        start_hosts([{}, {"sshd": ("NoSuchOption yes",)}], "isolated")
    assert own() == before
