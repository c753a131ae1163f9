# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool on a Swift/K distribution: the one in COASTERS_SWIFT_BIN_DIR, or one of our own programs in its shape.

Only what holds for both engines is expected here; docs/engines.md has what differs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import distribution
from tests.distribution import Distribution, write_program
from tests.integration.station import ANY_PORTS, Running, Station, wait
from tests.testhosts import Hosts
from tests.testhosts.fixtures import StartHosts

PERL_WORKER = r"""#!/usr/bin/perl
# Registers and waits: what shows that a host without Python runs its worker.
use strict;
use IO::Socket::INET;
my ($option, $slots, $urls, $block, $logs) = @ARGV;
my ($to) = $urls =~ m{//([^,/]+)};
my $service = IO::Socket::INET->new(PeerAddr => $to) or exit 111;
sub frame {
  my ($flags, $data) = @_;
  print $service pack("V5", 1, $flags, length $data, 1 ^ $flags ^ length $data, 0), $data;
}
frame(0x20, "REGISTER");
frame(0, $block);
frame(0, "perl");
frame(2, "maxwalltime = -1, concurrency = $slots");
$service->flush;
1 while sysread $service, my $data, 65536;
exit 107;
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    return distribution.given() or distribution.made(tmp_path_factory.mktemp("swift"))


@pytest.fixture(scope="class")
def pool(engine: Distribution, eight: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, Running, str]]:
    """A pool on all eight hosts, and its URL. At the end nothing of it is left."""
    station = Station(eight, tmp_path_factory.mktemp("pool"))
    station.env = engine.env(station.env)
    with station.pool(*ANY_PORTS, "--swift-bin-dir", str(engine.bin_dir), *(host.target for host in eight)) as running:
        yield station, running, running.url()
        assert running.end() == 130
    station.wait_until_nothing_is_left()


def slots(station: Station) -> dict[str, int]:
    return {worker["name"]: worker["slots"] for worker in station.status()["workers"]}


def expected(station: Station) -> dict[str, int]:
    return {host.address: int(host.run("nproc")) for host in station.hosts}


class TestPool:
    def test_every_host_has_a_worker_with_its_cores(self, pool: tuple[Station, Running, str]) -> None:
        station, dummy, url = pool
        known = station.status()
        assert (known["engine"], known["url"], known["missing"]) == ("swift", url, [])
        named = {worker["name"]: worker["host"] for worker in known["workers"]}
        assert named == {host.address: host.hostname for host in station.hosts}
        assert slots(station) == expected(station)

    def test_the_run_says_what_is_open_and_how_to_submit(self, pool: tuple[Station, Running, str]) -> None:
        station, running, dummy = pool
        assert running.said.count("Swift/K listens on every interface without authentication") == 1
        assert f"export PATH={os.path.dirname(station.program('x'))}:$PATH" in running.said

    def test_a_job_on_every_slot_of_every_host_at_once(self, pool: tuple[Station, Running, str]) -> None:
        station, dummy, url = pool
        script = "hostname; while [ ! -e /tmp/go-swift ]; do sleep 0.05; done"
        with contextlib.ExitStack() as stack:
            count = sum(slots(station).values())
            jobs = [stack.enter_context(station.job(url, "-redirected", "/bin/sh", "-c", script)) for dummy in range(count)]
            wait(lambda: station.status()["jobs"]["active"] == len(jobs))
            assert {worker["name"]: worker["busy"] for worker in station.status()["workers"]} == slots(station)
            for host in station.hosts:
                host.run("touch /tmp/go-swift")
            seen = Counter(job.communicate(timeout=60)[0].strip() for job in jobs)
        assert [job.returncode for job in jobs] == [0] * len(jobs)
        assert seen == {host.hostname: expected(station)[host.address] for host in station.hosts}
        for host in station.hosts:
            host.run("rm /tmp/go-swift")

    def test_jetstreams_command_line_with_this_cog_job_submit_in_path(self, pool: tuple[Station, Running, str], tmp_path: Path) -> None:
        station, dummy, url = pool
        scripts = {"hello.cloud_download": "echo fetched", "hello": "echo hello; echo trouble >&2", "hello.cloud_upload": "echo sent"}
        (tmp_path / "cloud_scripts").mkdir()
        for name, text in scripts.items():
            (tmp_path / "cloud_scripts" / f"{name}.sh").write_text(f"{text}\n")
        staged = " : ".join(f"{tmp_path}/cloud_scripts/./{name}.sh -> /tmp/pworks/{name}.sh" for name in scripts)
        outputs = (".hello.hostname", "hello.remote.out", "hello.remote.err")
        back = " : ".join(f"{tmp_path}/{name} <- ./{name}" for name in outputs)
        run = "".join(f"bash {name}.sh >>./hello.remote.out 2>>./hello.remote.err;" for name in scripts)
        line = (
            f'cog-job-submit -provider "coaster-persistent" -attributes "maxWallTime=240:00:00"    -service-contact "{url}" '
            f'-stagein "{staged}" -stageout "{back}" -directory "/tmp/pworks" '
            f'/bin/bash -c "mkdir -p /tmp/pworks;cd /tmp/pworks;hostname > ./.hello.hostname;{run}"'
        )
        # As another shell of the user has it: the line that was shown, and nothing of what the pool was started with.
        shown = re.search(r"export (PATH=\S+)", pool[1].said)
        assert shown is not None
        env = station.env | {"PATH": os.defpath}
        command = ["/bin/bash", "-c", f"{shown[1]}\n{line}"]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert (tmp_path / ".hello.hostname").read_text().strip() in {host.hostname for host in station.hosts}
        assert (tmp_path / "hello.remote.out").read_text().split() == ["fetched", "hello", "sent"]
        assert (tmp_path / "hello.remote.err").read_text() == "trouble\n"
        for host in station.hosts:
            host.run("rm -rf /tmp/pworks")

    def test_a_file_there_and_back(self, pool: tuple[Station, Running, str], tmp_path: Path) -> None:
        station, dummy, url = pool
        sent, back = tmp_path / "sent", tmp_path / "back"
        sent.write_bytes(os.urandom(5_000_000))
        words = ("-stagein", f"{sent} -> there", "-stageout", f"{back} <- copy", "-directory", "/tmp/large")
        assert station.submit(url, *words, "/bin/cp", "there", "copy")[0] == 0
        assert back.read_bytes() == sent.read_bytes()
        for host in station.hosts:
            host.run("rm -rf /tmp/large")

    def test_a_job_that_fails(self, pool: tuple[Station, Running, str]) -> None:
        station, dummy, url = pool
        code, output, errors = station.submit(url, "-redirected", "/bin/sh", "-c", "echo out; exit 3")
        assert (code != 0, output.strip()) == (True, "out")
        assert "Process completed with exit code 3" in errors

    def test_the_screen(self, pool: tuple[Station, Running, str]) -> None:
        station, dummy, url = pool
        with station.pool("--show-stats", *(host.target for host in station.hosts)) as screen:
            assert screen.process.stdout is not None
            shown = [" ".join(screen.process.stdout.readline().split()) for dummy in range(7 + len(station.hosts))]
            assert shown[:2] == ["Coaster service", f"URL {url}"]
            assert shown[2] == "Workers Active Lost" and shown[3].startswith("8 ")
            assert shown[4] == "Jobs Queued Active Completed Failed"
            rows = {row.split()[0]: row.split()[1:4] for row in shown[7:]}
            cores = expected(station)
            assert rows == {host.address: [f"({host.hostname})", str(cores[host.address]), "0"] for host in station.hosts}

    def test_a_killed_worker_comes_back(self, pool: tuple[Station, Running, str]) -> None:
        station, dummy, url = pool
        host = station.hosts[3]

        def worker() -> str:
            return host.run("cat ~/.coasters/default/worker.pid", check=False).strip()

        before = worker()
        host.run(f"kill -KILL {before}")
        wait(lambda: worker().isdigit() and worker() != before)
        # An engine may list the slots of a dead worker for a while.
        wait(lambda: slots(station) == expected(station))
        code, output, dummy = station.submit(url, "-redirected", "/bin/echo", "again")
        assert (code, output.strip()) == (0, "again")

    def test_a_killed_service_comes_back_with_its_workers(self, pool: tuple[Station, Running, str]) -> None:
        station, running, url = pool
        [service] = [words for words in station.here() if "-localport" in words and ("-classpath" in words or "-IS" in words)]
        os.kill(int(service.split()[0]), signal.SIGKILL)
        known = station.state / "coasters" / "default" / "pool.json"
        wait(lambda: json.loads(known.read_text())["restarts"] == 1)
        wait(lambda: slots(station) == expected(station))
        assert station.status()["url"] == url
        assert station.submit(url, "-redirected", "/bin/echo", "again")[0] == 0
        assert running.process.poll() is None


def test_hosts_with_perl_and_without_python(engine: Distribution, start_hosts: StartHosts, tmp_path: Path) -> None:
    hosts = start_hosts(2, "isolated", python=False)
    station = Station(hosts, tmp_path)
    station.env = engine.env(station.env)
    bin_dir = engine.bin_dir
    if not engine.real:
        bin_dir = shutil.copytree(engine.bin_dir, tmp_path / "distribution" / "bin")
        write_program(bin_dir / "worker.pl", PERL_WORKER)
    with station.pool(*ANY_PORTS, "--require-all", "--swift-bin-dir", str(bin_dir), *(host.target for host in hosts)) as running:
        url = running.url()
        assert slots(station) == expected(station)
        if engine.real:
            assert station.submit(url, "-redirected", "/bin/echo", "hello")[:2] == (0, "hello\n\n")
        assert running.end() == 130
    station.wait_until_nothing_is_left()


class TestTrouble:
    """One clear sentence, and nothing is left, which the station sees to."""

    def start(self, engine: Distribution, station: Station, java: str) -> subprocess.CompletedProcess[str]:
        folder = station.place / "another java"
        folder.mkdir()
        write_program(folder / "java", java)
        env = station.env | {"PATH": f"{folder}:{station.env['PATH']}"}
        return station.start_pool(*ANY_PORTS, "--swift-bin-dir", str(engine.bin_dir), station.hosts[0].target, env=env)

    def test_java_too_old(self, engine: Distribution, station: Station) -> None:
        done = self.start(engine, station, "#!/bin/sh\necho 'java version \"1.7.0_80\"'\n")
        assert (done.returncode, done.stdout) == (3, "")
        assert f"{station.place}/another java/java is Java 7, and Swift/K needs Java 8 or later" in done.stderr

    def test_a_service_that_dies_at_start(self, engine: Distribution, station: Station) -> None:
        version = "[ \"$1\" != -version ] || exec echo 'java version \"17\"'"
        done = self.start(engine, station, f"#!/bin/sh\n{version}\necho starting\necho 'Error: no luck'\nexit 2\n")
        assert (done.returncode, done.stdout) == (3, "")
        assert "the coaster service ended with status 2: Error: no luck" in done.stderr
        assert "  starting\n" in done.stderr

    def test_a_directory_without_the_programs(self, station: Station) -> None:
        done = station.start_pool("--swift-bin-dir", str(station.place), "localhost")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{station.place} has no coaster-service: name the bin directory of a Swift/K distribution" in done.stderr
