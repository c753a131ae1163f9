# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong with a host, a port or a word: one clear sentence, the documented exit status, nothing left."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.integration.station import ANY_PORTS, Station, wait
from tests.testhosts.fixtures import StartHosts

USAGE, NO_SERVICE, NO_WORKERS = 2, 3, 4
CHANGED = "its host key has changed since it was last seen: find out why; if that is right, remove the old key with `ssh-keygen -R HOST`"


def refused(station: Station, status: int, *words: str, **options: object) -> list[str]:
    """What start_pool.py says when it ends with the status, its own notice of the end left out."""
    done = station.start_pool(*words, **options)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line != "stopping the pool"]


def no_worker(station: Station, told: dict[str, str], *words: str) -> None:
    """One line about each host, the words' reasons, and one about the pool."""
    lines = refused(station, NO_WORKERS, *ANY_PORTS, *words, *told)
    expected = [f"{word.rpartition('@')[2]}: failed: {sentence}" for word, sentence in told.items()]
    assert (sorted(lines[:-1]), lines[-1]) == (sorted(expected), "start_pool.py: no worker could be started")


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
    def test_each_reason_has_its_sentence(self, station: Station) -> None:
        closed, silent, unknown, changed, other, foreign = station.hosts[:6]
        closed.refuse()
        silent.silence()
        station.hosts.client.know([closed, silent, changed, other, foreign])
        known = station.hosts.client.known_hosts
        known.write_text(known.read_text().replace(changed.public_key, other.public_key))
        told = {
            "no-such-host.invalid": "its name does not resolve: check the spelling, the ssh config or the name service",
            closed.target: "nothing listens at its ssh port: check the port and that sshd runs there",
            silent.target: "it gave no answer in time: check the address, the firewall and that the machine is up",
            unknown.target: "its host key is not known: connect once with `ssh HOST`, compare the key, and accept it",
            changed.target: CHANGED,
            f"nobody-here@{foreign.address}": "it accepts none of your ssh keys: put your public key there, or load the key into the agent",
        }
        no_worker(station, told, "--connect-limit", "8")

    def test_a_changed_host_key_is_not_accepted_as_a_new_one(self, station: Station) -> None:
        first, second = station.hosts[:2]
        path = station.hosts.client.known_hosts
        path.write_text(path.read_text().replace(first.public_key, second.public_key))
        no_worker(station, {first.target: CHANGED}, "--accept-new-host-keys")

    def test_no_python_and_a_full_disk(self, start_hosts: StartHosts, tmp_path: Path) -> None:
        station = Station(start_hosts([{"python": False}, {"home_size": "64k"}], "isolated"), tmp_path)
        bare, full = station.hosts
        full.run("head -c 200000 /dev/zero >fill || true")
        lines = refused(station, NO_WORKERS, *ANY_PORTS, bare.target, full.target)
        assert f"{bare.address}: failed: there is no Python 3.6 or later on this host: install it or set swift_worker_interpreter" in lines
        assert any(line.startswith(f"{full.address}: failed: ") and "free space" in line for line in lines), lines
        full.run("rm -f fill")
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
            wait(lambda: "standard output: No space left on device: Started coaster service: http://127.0.0.1:" in running.said)
            assert running.end() == 130
