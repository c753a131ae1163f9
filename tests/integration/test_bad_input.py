# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a host, a port or a word: one clear sentence, the documented exit status, nothing left."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.integration.station import ANY_PORTS, Station
from tests.testhosts import Host
from tests.testhosts.fixtures import StartHosts

USAGE, NO_SERVICE, NO_WORKERS = 2, 3, 4


def refused(station: Station, status: int, *words: str, **options: object) -> list[str]:
    """What start_pool.py says when it ends with the status, its own notice of the end left out."""
    done = station.start_pool(*words, **options)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line != "stopping the pool"]


def no_worker(station: Station, host: Host | str, sentence: str, *words: str) -> None:
    """One line about the host and one about the pool."""
    name = host if isinstance(host, str) else host.address
    target = host if isinstance(host, str) else host.target
    assert refused(station, NO_WORKERS, *ANY_PORTS, *words, target) == [
        f"{name}: failed: {sentence}", "start_pool.py: no worker could be started",
    ]


class TestWords:
    def test_no_host(self, station: Station) -> None:
        assert refused(station, USAGE)[-1] == "start_pool.py: error: name at least one host, as user@host, an ssh alias, or localhost"

    def test_the_same_host_twice(self, station: Station) -> None:
        [line] = refused(station, USAGE, "h1", "worker@h1")
        assert line.startswith("start_pool.py: the host h1 is named twice")

    @pytest.mark.parametrize("word", ["-oProxyCommand=touch pwned", "$(touch pwned)", "{{ lookup('pipe', 'touch pwned') }}", "h1;touch pwned"])
    def test_a_word_that_is_no_host(self, station: Station, word: str) -> None:
        lines = refused(station, USAGE, "h1", word)
        assert word.split()[0].strip("'") in lines[-1]
        assert not (station.place / "pwned").exists()

    def test_a_bin_dir_without_coaster_service(self, station: Station, tmp_path: Path) -> None:
        line = refused(station, USAGE, "--swift-bin-dir", str(tmp_path), "h1")[-1]
        assert f"{tmp_path} has no coaster-service: name the bin directory of a Swift/K distribution" in line

    def test_a_name_that_is_no_folder(self, station: Station) -> None:
        [line] = refused(station, USAGE, "--name", "../up", "h1")
        assert "'../up' cannot be a pool's name" in line


class TestHosts:
    def test_a_name_that_does_not_resolve(self, station: Station) -> None:
        no_worker(station, "no-such-host.invalid", "its name does not resolve: check the spelling, the ssh config or the name service")

    def test_nothing_listens(self, station: Station) -> None:
        station.hosts[0].refuse()
        no_worker(station, station.hosts[0], "nothing listens at its ssh port: check the port and that sshd runs there")

    def test_no_answer(self, station: Station) -> None:
        station.hosts[0].silence()
        sentence = "it gave no answer in time: check the address, the firewall and that the machine is up"
        no_worker(station, station.hosts[0], sentence, "--connect-limit", "1")

    def test_an_unknown_host_key(self, station: Station) -> None:
        station.hosts.client.know(station.hosts[1:])
        sentence = "its host key is not known: connect once with `ssh HOST`, compare the key, and accept it"
        no_worker(station, station.hosts[0], sentence)

    def test_a_changed_host_key(self, station: Station) -> None:
        first, second = station.hosts[0], station.hosts[1]
        path = station.hosts.client.known_hosts
        path.write_text(path.read_text().replace(first.public_key, second.public_key))
        sentence = "its host key has changed since it was last seen: find out why; if that is right, remove the old key with `ssh-keygen -R HOST`"
        no_worker(station, first, sentence)
        no_worker(station, first, sentence, "--accept-new-host-keys")

    def test_a_user_whom_it_does_not_know(self, station: Station) -> None:
        target = f"nobody-here@{station.hosts[0].address}"
        assert refused(station, NO_WORKERS, *ANY_PORTS, target)[0] == (
            f"{station.hosts[0].address}: failed: it accepts none of your ssh keys: put your public key there, or load the key into the agent"
        )

    def test_no_python(self, start_hosts: StartHosts, tmp_path: Path) -> None:
        station = Station(start_hosts([{"python": False}], "isolated"), tmp_path)
        sentence = "there is no Python 3.6 or later on this host: install it or set swift_worker_interpreter"
        no_worker(station, station.hosts[0], sentence)
        station.wait_until_nothing_is_left()

    def test_a_full_disk(self, start_hosts: StartHosts, tmp_path: Path) -> None:
        station = Station(start_hosts([{"home_size": "64k"}], "isolated"), tmp_path)
        station.hosts[0].run("head -c 200000 /dev/zero >fill || true")
        [line, dummy] = refused(station, NO_WORKERS, *ANY_PORTS, station.hosts[0].target)
        assert "free space" in line
        station.hosts[0].run("rm -f fill")
        station.wait_until_nothing_is_left()

    def test_the_pool_goes_on_with_the_others(self, station: Station) -> None:
        station.hosts[1].refuse()
        with station.pool(*ANY_PORTS, *(host.target for host in station.hosts[:3]), "no-such-host.invalid") as running:
            url = running.url()
            assert f"{station.hosts[1].address}: failed: nothing listens at its ssh port" in running.said
            assert "no-such-host.invalid: failed: its name does not resolve" in running.said
            assert {worker["name"] for worker in station.status()["workers"]} == {station.hosts[0].address, station.hosts[2].address}
            assert station.submit(url, "-redirected", "/bin/echo", "works")[:2] == (0, "works\n\n")
            assert running.end() == 130


class TestPorts:
    @pytest.mark.parametrize("option", ["--port", "--worker-port"])
    def test_a_busy_port_names_its_holder_and_leaves_it_alone(self, station: Station, option: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            other = "--worker-port" if option == "--port" else "--port"
            lines = refused(station, NO_SERVICE, option, str(port), other, "0", station.hosts[0].target)
            assert f"port {port} is held by " in lines[-1]
            assert f"(pid {os.getpid()})" in lines[-1]
            socket.create_connection(("127.0.0.1", port)).close()

    def test_both_ports_the_same(self, station: Station) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        assert f"port {port}" in refused(station, NO_SERVICE, "--port", port, "--worker-port", port, station.hosts[0].target)[-1]


class TestClient:
    def test_a_state_folder_that_cannot_be_made(self, station: Station, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        [line] = refused(station, NO_SERVICE, *ANY_PORTS, "localhost", env=station.env | {"XDG_STATE_HOME": str(tmp_path / "file")})
        assert f"the folder {tmp_path}/file/coasters/default cannot be made (Not a directory): free it or set XDG_STATE_HOME" in line

    def test_standard_output_that_is_full(self, station: Station) -> None:
        with open("/dev/full", "w") as full, station.pool(*ANY_PORTS, "localhost", stdout=full) as running:
            from tests.integration.station import wait

            wait(lambda: "standard output: No space left on device: Started coaster service: http://127.0.0.1:" in running.said)
            assert running.end() == 130
