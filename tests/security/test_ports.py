# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pool with default options opens on the client, and what a host and a second user of the client get from it."""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import sockets
from tests.integration.station import ANY_PORTS, Station
from tests.testhosts import Hosts, start, why_not

pytestmark = pytest.mark.skipif(bool(why_not("isolated")), reason=str(why_not("isolated")))

SCAN = """
import json, socket, sys
address, own = sys.argv[1], set(map(int, sys.argv[2:]))
found = []
for port in own or range(1, 65536):
    with socket.socket() as probe:
        probe.settimeout(0.5)
        if probe.connect_ex((address, port)) == 0:
            found.append(port)
print(json.dumps(found))
"""
FRAMES = """
import encodings.idna, os, socket, struct, sys
def frame(flags, data, tag=1):
    return struct.pack("<5I", tag, flags, len(data), tag ^ flags ^ len(data), 0) + data
def ask(port, *words):
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.settimeout(10)
        try:
            for at, word in enumerate(words):
                flags = (0x20 if at == 0 else 0) | (2 if at == len(words) - 1 else 0)
                sock.sendall(frame(flags, word))
            return sock.recv(65536)
        except OSError as error:
            return str(error).encode()
"""
SPEAK = FRAMES + """
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
client, worker, control = map(int, sys.argv[2:5])
print(ask(client, b"VERSION"))
print(ask(client, b"INFO", b"workers", b""))
print(ask(client, b"GET", b"file://localhost/etc/passwd", b"x"))
print(ask(worker, b"VERSION"))
print(ask(worker, b"REGISTER", sys.argv[5].encode(), b"thief", b"maxwalltime = -1, concurrency = 4"))
for path in (b"/wmInfo", b"/probe", b"/metrics"):
    with socket.create_connection(("127.0.0.1", control), 10) as sock:
        sock.sendall(b"GET " + path + b" HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        print(sock.recv(65536))
"""
REGISTER = FRAMES + """
print(ask(int(sys.argv[1]), b"REGISTER", sys.argv[2].encode(), b"thief", b"maxwalltime = -1, concurrency = 4"))
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with start(8, "isolated") as hosts:
        yield hosts


@pytest.fixture(scope="module")
def pool(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, str]]:
    """A pool with default options, the ports but for their numbers, whose hosts cannot open a connection to the client."""
    station = Station(hosts, tmp_path_factory.mktemp("pool"))
    for host in hosts:
        host.drop_to_client()
    with station.pool(*ANY_PORTS, "--require-all", *(host.target for host in hosts)) as running:
        yield station, running.url()
        assert running.end() == 130
    for host in hosts:
        host.mend()
    station.wait_until_nothing_is_left()


def ports(station: Station) -> dict[str, int]:
    known: dict[str, int] = json.loads((station.state / "coasters" / "default" / "pool.json").read_text())["ports"]
    return known


def blocks(station: Station) -> list[str]:
    lines = (station.state / "coasters" / "default" / "workers").read_text().splitlines()
    return [line.split()[0] for line in lines]


def test_it_works_with_every_packet_from_the_hosts_dropped(pool: tuple[Station, str]) -> None:
    station, url = pool
    assert len(station.status()["workers"]) == 8
    assert station.submit(url, "-redirected", "/bin/echo", "hello")[:2] == (0, "hello\n\n")


def test_all_ports_are_on_loopback(pool: tuple[Station, str]) -> None:
    station, _url = pool
    own = set(ports(station).values())
    listening = {(entry.local[0], entry.local[1]) for entry in sockets.entries() if entry.state == 0x0A and entry.local[1] in own}
    assert listening == {("127.0.0.1", port) for port in own}


def test_a_scan_from_a_host(pool: tuple[Station, str]) -> None:
    station, _url = pool
    host = station.hosts[0]
    host.mend()
    own = set(ports(station).values())
    found = host.run(f"python3 - {station.hosts.client.address} {' '.join(map(str, own))}", stdin=SCAN.encode(), timeout=300)
    host.drop_to_client()
    assert json.loads(found) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a second user")
def test_a_second_user_of_the_client(pool: tuple[Station, str]) -> None:
    """Even with a block id that it cannot have."""
    station, _url = pool
    known, user = ports(station), pwd.getpwnam("nobody").pw_uid
    words = [str(user), str(known["service"]), str(known["worker"]), str(known["control"]), blocks(station)[0]]
    done = subprocess.run([sys.executable, "-c", SPEAK, *words], capture_output=True, text=True, timeout=120, check=True)
    answers = done.stdout.splitlines()
    assert len(answers) == 8
    assert all(f"user {user} may not use this service" in answer for answer in answers), done.stdout
    assert len(station.status()["workers"]) == 8


def test_sockets_with_a_path(pool: tuple[Station, str]) -> None:
    """The keeper's, and those of ssh's connections to the hosts, are in folders that are closed to others."""
    station, _url = pool
    connections = list((station.hosts.client.home / ".ansible" / "cp").iterdir())
    assert len(connections) == 8
    for path in (station.state / "coasters" / "default" / "keeper.sock", *connections):
        assert path.is_socket() and stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path


def test_what_leads_to_the_client_from_a_host(pool: tuple[Station, str]) -> None:
    """Whoever is on the host reaches the end of its tunnel, and gets nowhere without an id, nor with that of another host."""
    station, _url = pool
    host = station.hosts[0]
    settings = host.run("cat .coasters/default/settings")
    match = re.search(r"^urls=http://127\.0\.0\.1:([0-9]+)$", settings, re.M)
    assert match
    own = host.run("cat .coasters/default/block").strip()
    for block, why in (("0" * 32, "not in this pool's list"), *((block, "in use by another worker") for block in blocks(station) if block != own)):
        assert why in host.run(f"python3 - {match[1]} {block}", stdin=REGISTER.encode(), user="root")
    assert len(station.status()["workers"]) == 8
