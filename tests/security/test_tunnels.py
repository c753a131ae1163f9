# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How workers reach the service, whether their hosts can open a connection to the client or not; and tunnels that break."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.station import ANY_PORTS, Station, wait
from tests.testhosts import Hosts, start, why_not

pytestmark = pytest.mark.skipif(bool(why_not("isolated")), reason=str(why_not("isolated")))

SIZE = 64 << 20


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with start(3, "isolated") as hosts:
        yield hosts


@pytest.fixture
def station(hosts: Hosts, tmp_path: Path) -> Iterator[Station]:
    """After the test nothing is left of its pool."""
    station = Station(hosts, tmp_path)
    yield station
    for host in hosts:
        host.mend()
    assert station.start_pool("--stop").returncode == 0
    station.wait_until_nothing_is_left()


def tunnels(station: Station) -> dict[str, int]:
    """Address of a host to the process of its tunnel."""
    found = (re.match(r"([0-9]+) .*ssh .* -R .* -- (\S+)\s*\Z", line) for line in station.here())
    return {match[2]: int(match[1]) for match in found if match}


def seen_from(station: Station) -> dict[str, str]:
    """Name of a worker to the address that its connection comes from."""
    with urllib.request.urlopen(f"{station.status()['control_url']}/wmInfo", timeout=30) as answer:
        workers = json.load(answer)["coaster"]["workers"]
    return {worker["block"]: worker["address"] for worker in workers}


def test_the_choice(station: Station) -> None:
    """Direct where the network is trusted and the host reaches the client; else a tunnel, and why is said."""
    near, walled, stranger = station.hosts
    walled.drop_to_client()
    stranger.drop_to_client()
    trust = [word for host in (near, walled) for word in ("--trust", f"{host.address}/32")]
    done = station.start_pool("--detach", "--require-all", *ANY_PORTS, *trust, *(host.target for host in station.hosts))
    assert done.returncode == 0, done.stderr
    assert set(tunnels(station)) == {walled.address, stranger.address}
    assert seen_from(station) == {near.address: near.address, walled.address: "127.0.0.1", stranger.address: "127.0.0.1"}
    said = [line for line in done.stderr.splitlines() if "tunnel" in line]
    assert len(said) == 1 and said[0].startswith(f"{walled.address}: it goes through a tunnel, because it cannot reach"), done.stderr


def test_direct_is_no_tunnel(station: Station) -> None:
    """Who asks for a direct route gets one, or hears why not."""
    near, walled = station.hosts[:2]
    walled.drop_to_client()
    done = station.start_pool("--detach", "--route", "direct", *ANY_PORTS, near.target, walled.target)
    assert done.returncode == 5, done.stderr
    assert re.search(rf"^{walled.address}: failed: it cannot reach the coaster service \(.*\): open that port", done.stderr, re.M), done.stderr
    assert (tunnels(station), seen_from(station)) == ({}, {near.address: near.address})


def parts(folder: Path) -> list[int]:
    """The sizes of the files in the folder that have not come whole."""
    return [path.stat().st_size for path in folder.iterdir() if path.name.startswith(".")] if folder.exists() else []


def test_cuts_in_the_middle_of_files(station: Station, tmp_path: Path) -> None:
    """The job ends well with the right file, or fails and says why and leaves no half of one; the tunnel comes back."""
    host = station.hosts[0]
    host.drop_to_client()
    assert station.start_pool("--detach", *ANY_PORTS, host.target).returncode == 0
    url = str(station.status()["url"])
    source, back, there = tmp_path / "source", tmp_path / "back", host.folder / "upper" / "home" / host.user / "there"
    source.write_bytes(os.urandom(SIZE))
    back.mkdir()
    words = ("-directory", f"/home/{host.user}/there", "-stagein", f"{source} -> file", "-stageout", f"{back}/file <- file")
    for folder in (there, back):
        tunnel = tunnels(station)[host.address]
        with station.job(url, *words, "/bin/true") as job:
            wait(lambda folder=folder: any(parts(folder)))
            os.kill(tunnel, signal.SIGSTOP)
            assert 0 < parts(folder)[0] < SIZE
            os.kill(tunnel, signal.SIGKILL)
            dummy, errors = job.communicate(timeout=120)
        if job.returncode == 0:
            assert (back / "file").read_bytes() == source.read_bytes()
        else:
            assert "Job failed: " in errors and not (back / "file").exists()
        wait(lambda tunnel=tunnel: tunnels(station).get(host.address, tunnel) != tunnel, "the tunnel does not come back")
        assert station.submit(url, "-redirected", "/bin/echo", "hello")[:2] == (0, "hello\n\n")
        assert parts(folder) == []
    host.run("rm -rf there")


def test_they_end_with_their_keeper(station: Station) -> None:
    """Also when it is killed."""
    assert station.start_pool("--detach", *ANY_PORTS, *(host.target for host in station.hosts)).returncode == 0
    assert len(tunnels(station)) == 3
    keeper = (station.state / "coasters" / "default" / "keeper.pid").read_text()
    match = re.search(r'"pid": ([0-9]+)', keeper)
    assert match
    os.kill(int(match[1]), signal.SIGKILL)
    wait(lambda: not tunnels(station), "tunnels outlive their keeper")
