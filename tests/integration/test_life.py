# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a pool as its user leads it: host words, growth, a look from another shell, and every way to end it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.integration.station import ANY_PORTS, LIMIT, Station, wait
from tests.testhosts import Host

SOME_FAILED, NO_WORKERS = 5, 4


def logins(hosts: list[Host]) -> list[int]:
    """How often each host's sshd has let somebody in."""
    return [(host.folder / "log").read_text(errors="replace").count("Accepted publickey") for host in hosts]


def slots(station: Station, pool: str = "default") -> dict[str, int]:
    return {worker["name"]: worker["slots"] for worker in station.status(pool)["workers"]}


@contextlib.contextmanager
def detached(station: Station, *words: str, status: int = 0):  # type: ignore[no-untyped-def]
    """A pool that was started with --detach; what that said. It is stopped after the context."""
    done = station.start_pool(*ANY_PORTS, "--detach", *words)
    try:
        assert done.returncode == status, done.stderr
        yield done
    finally:
        assert station.start_pool("--stop").returncode == 0


class TestHosts:
    def test_all_the_ways_to_name_them_at_once(self, station: Station) -> None:
        hosts = station.hosts
        (station.place / "hosts.txt").write_text("# the rack on the left\nh3*3 h[4-5]*2  # two at once\n\n")
        inventory = station.place / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"left": {"hosts": {"six": {"ansible_host": "h6"}}, "vars": {"swift_worker_slots": 4}}}))
        words = [f"{hosts[0].target}:{hosts[0].port}*5", f"{hosts[1].target}*6", "--hosts-file", "hosts.txt", "-i", str(inventory)]
        with station.pool(*ANY_PORTS, *words) as running:
            running.url()
            assert slots(station) == {
                f"{hosts[0].address}+{hosts[0].port}": 5, hosts[1].address: 6, "h3": 3, "h4": 2, "h5": 2, "six": 4,
            }
            assert running.end() == 130
        assert station.left() == []

    def test_one_address_behind_two_jump_hosts(self, station: Station) -> None:
        if station.hosts.kind != "isolated":
            pytest.skip("127.0.0.1 is another machine on isolated test hosts alone")
        left, right = station.hosts[:2]
        lines = "".join(f"127.0.0.1 {host.public_key}\n" for host in (left, right))
        with station.hosts.client.known_hosts.open("a") as known:
            known.write(lines)
        inventory = station.place / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"all": {"hosts": {
            name: {"ansible_host": "127.0.0.1", "ansible_user": jump.user, "ansible_ssh_common_args": f"-o ProxyJump={jump.name}"}
            for name, jump in (("left", left), ("right", right))
        }}}))
        with detached(station, "--require-all", "-i", str(inventory)):
            assert {worker["name"]: worker["host"] for worker in station.status()["workers"]} == {"left": left.hostname, "right": right.hostname}
        assert station.left() == []

    def test_two_pools_on_one_host(self, station: Station) -> None:
        host = station.hosts[0]
        with station.pool(*ANY_PORTS, "--name", "one", host.target) as one, station.pool(*ANY_PORTS, "--name", "two", host.target) as two:
            urls = {"one": one.url(), "two": two.url()}
            assert urls["one"] != urls["two"]
            for pool, url in urls.items():
                code, output, errors = station.submit(url, "-redirected", "/bin/sh", "-c", "echo $PPID", pool=pool)
                assert code == 0, errors
            with station.job(urls["two"], "/bin/sh", "-c", "sleep 2; exit 3", pool="two") as job:
                wait(lambda: station.status("two")["jobs"]["active"] == 1)
                assert one.end() == 130
                assert job.wait(LIMIT) == 3
            assert [path for path in station.files() if path.endswith((" .coasters", "/two"))] != []
            assert slots(station, "two") == {host.address: int(host.run("nproc"))}
            assert two.end() == 130
        assert station.left() == []


class TestGrowth:
    def test_only_new_hosts_are_contacted_and_one_that_leaves_is_drained(self, station: Station) -> None:
        first, second, third = hosts = list(station.hosts[:3])
        with detached(station, first.target, second.target) as started:
            url = started.stdout.split()[-1]
            before = logins(hosts)
            same = station.start_pool(*ANY_PORTS, first.target, second.target)
            assert (same.returncode, same.stdout) == (0, started.stdout)
            assert "nothing to do" in same.stderr
            assert logins(hosts) == before

            more = station.start_pool(*ANY_PORTS, *(host.target for host in hosts))
            assert (more.returncode, more.stdout) == (0, started.stdout)
            assert f"{third.address}: worker started" in more.stderr
            now = logins(hosts)
            assert now[:2] == before[:2]
            assert now[2] > before[2]

            other = station.start_pool(*ANY_PORTS, f"{first.target}*7")
            assert f"{first.address}: runs with {slots(station)[first.address]} slots, not 7; --restart ends its jobs and changes it" in other.stderr

            with contextlib.ExitStack() as stack:
                script = "until [ -e /tmp/leave ]; do sleep 0.1; done"
                count = sum(slots(station).values())
                jobs = [stack.enter_context(station.job(url, "/bin/sh", "-c", script)) for dummy in range(count)]
                wait(lambda: station.status()["jobs"]["active"] == count)
                removal = subprocess.Popen(
                    [sys.executable, str(ROOT / "start_pool.py"), "--remove", first.address], env=station.env, stderr=subprocess.PIPE, text=True,
                )
                wait(lambda: first.address not in (station.state / "coasters" / "default" / "workers").read_text())
                assert removal.poll() is None
                for host in hosts:
                    host.run("touch /tmp/leave")
                assert [job.wait(LIMIT) for job in jobs] == [0] * count
                assert removal.communicate(timeout=LIMIT)[1] == ""
                assert removal.returncode == 0
            wait(lambda: set(slots(station)) == {second.address, third.address})
            wait(lambda: not [line for line in station.there() if line.startswith(f"{first.name} ")])
            for host in hosts:
                host.run("rm -f /tmp/leave")
        assert station.left() == []

    def test_a_machine_with_two_names_keeps_its_worker(self, station: Station) -> None:
        host = station.hosts[0]
        script = "until [ -e /tmp/leave ]; do sleep 0.1; done"
        with detached(station, host.target) as started, station.job(started.stdout.split()[-1], "/bin/sh", "-c", script) as job:
            wait(lambda: station.status()["jobs"]["active"] == 1)
            again = station.start_pool(*ANY_PORTS, host.name)
            assert again.returncode == 0, again.stderr
            assert f"{host.name}: failed: this machine has a worker of the pool already, as {host.address}: name it once" in again.stderr
            host.run("touch /tmp/leave")
            assert job.wait(LIMIT) == 0
            host.run("rm /tmp/leave")
            known = station.status()
            assert (list(slots(station)), known["members"]) == ([host.address], [host.address])
        assert station.left() == []

    def test_slots_are_changed_when_that_is_asked_for(self, station: Station) -> None:
        first, second = station.hosts[:2]
        with detached(station, f"{first.target}*2", f"{second.target}*2"):
            before = logins([second])
            done = station.start_pool(*ANY_PORTS, "--restart", f"{first.target}*5")
            assert done.returncode == 0, done.stderr
            assert slots(station) == {first.address: 5, second.address: 2}
            assert logins([second]) == before


class TestLook:
    def test_from_another_shell(self, station: Station) -> None:
        first, second = station.hosts[:2]
        second.refuse()
        with detached(station, first.target, second.target, status=SOME_FAILED) as started:
            url = started.stdout.split()[-1]
            assert station.submit(url, "/bin/true")[0] == 0
            text = station.start_pool("--status")
            assert text.returncode == 0
            assert text.stdout.splitlines()[:2] == ["Pool     default (builtin engine)", f"URL      {url}"]
            rows = [line.split() for line in text.stdout.splitlines()[6:]]
            assert rows[0][:4] == [first.address, first.run("nproc").strip(), "0", "1"]
            assert " ".join(rows[1]) == f"{second.address} no worker: run the start command again"
            known = station.status()
            assert (known["url"], known["engine"], known["restarts"], len(known["workers"])) == (url, "builtin", 0, 1)
            assert {"host", "slots", "busy", "completed", "last_seen"} <= set(known["workers"][0])
            logs = station.start_pool("--logs", first.address)
            assert (logs.returncode, logs.stdout.splitlines()[0]) == (0, f"== {first.address} ==")
            second.mend()
            again = station.start_pool(*ANY_PORTS, first.target, second.target)
            assert again.returncode == 0
            assert again.stderr.splitlines()[0].startswith(f"{second.address}: worker started")
        done = station.start_pool("--status")
        assert (done.returncode, done.stdout) == (1, "pool 'default' does not run\n")

    def test_a_check_says_what_a_start_would_do_and_does_nothing(self, station: Station) -> None:
        first, second, third = station.hosts[:3]
        third.refuse()
        before = station.files()
        done = station.start_pool(*ANY_PORTS, "--check", f"{first.target}*3", third.target)
        assert (done.returncode, done.stdout) == (5, "")
        refused = f"{third.address}: failed: nothing listens at its ssh port: check the port and that sshd runs there"
        assert done.stderr.splitlines() == [
            "would start a coaster service (builtin engine) at port 0", f"{first.address}: would start a worker with 3 slots", refused,
        ]
        assert (station.files(), station.here()) == (before, [])
        with detached(station, f"{first.target}*3"):
            files, there = station.files(), slots(station)
            done = station.start_pool(*ANY_PORTS, "--check", f"{first.target}*3", f"{second.target}*2", third.target)
            assert sorted(done.stderr.splitlines()) == sorted([
                f"{first.address}: has its worker", f"{second.address}: would start a worker with 2 slots", refused,
            ])
            assert (station.files(), slots(station)) == (files, there)

    @pytest.mark.parametrize("quiet", [False, True])
    def test_a_terminal_shows_what_is_under_way(self, station: Station, quiet: bool) -> None:
        first, second = station.hosts[:2]
        screen, terminal = pty.openpty()
        words = ["--detach", *(["-q"] if quiet else []), first.target, second.target]
        done = station.start_pool(*ANY_PORTS, *words, capture_output=False, stdout=subprocess.PIPE, stderr=terminal)
        os.close(terminal)
        shown = ""
        with contextlib.suppress(OSError):
            while data := os.read(screen, 65536):
                shown += data.decode()
        os.close(screen)
        assert re.fullmatch(r"Started coaster service: http://127\.0\.0\.1:\d+\n", done.stdout)
        if quiet:
            assert shown == ""
        else:
            assert shown.startswith("connecting to ")
            lasting = re.sub(r"[^\n]*\r\x1b\[K", "", shown).splitlines()
            assert sorted(lasting[:2]) == sorted(f"{host.address}: worker started, {host.run('nproc').strip()} slots" for host in (first, second))
        assert station.start_pool("--stop").returncode == 0


class TestFailures:
    def test_how_many_are_enough(self, station: Station) -> None:
        """Three hosts refuse for the same reason, which is said once; then all are needed, or more than there are."""
        for host in station.hosts[1:4]:
            host.refuse()
        words = [host.target for host in station.hosts[:4]]
        first, last = (station.hosts[at].address for at in (1, 3))
        if station.hosts.kind == "isolated":
            prefix = first.rpartition(".")[0]
            names = f"{prefix}.[{first.rpartition('.')[2]}-{last.rpartition('.')[2]}]"
            folded = f"{names}: failed: nothing listens at its ssh port: check the port and that sshd runs there"
        for option, sentence in (
            ("--require-all", "only 1 of the 4 workers that are needed could be started"),
            ("--min-workers=2", "only 1 of the 2 workers that are needed could be started"),
        ):
            done = station.start_pool(*ANY_PORTS, option, *words)
            assert (done.returncode, done.stdout) == (NO_WORKERS, "")
            assert f"start_pool.py: {sentence}" in done.stderr.splitlines()
            if station.hosts.kind == "isolated":
                assert folded in done.stderr.splitlines()
            assert station.left() == []

    def test_a_host_that_cannot_call_back(self, station: Station) -> None:
        """The direct route is tried from there before a worker starts, with a limit."""
        host = station.hosts[0]
        if station.hosts.kind != "isolated":
            pytest.skip("drop_to_client() needs isolated test hosts")
        host.drop_to_client()
        done = station.start_pool(*ANY_PORTS, "--route", "direct", host.target, "--detach")
        assert done.returncode == NO_WORKERS
        assert f"{host.address}: failed: it cannot reach the coaster service" in done.stderr
        assert "open that port to it, or use the route 'tunnel'" in done.stderr
        assert station.left() == []
        trust = host.address.rpartition(".")[0] + ".0/24"
        with detached(station, "--trust", trust, host.target):
            assert list(slots(station)) == [host.address]

    def test_a_host_that_was_rebooted_is_back_after_the_same_command(self, station: Station) -> None:
        host = station.hosts[0]
        with detached(station, host.target) as started:
            host.stop()
            host.start()
            again = station.start_pool(*ANY_PORTS, host.target)
            assert (again.returncode, again.stdout) == (0, started.stdout)
            assert f"{host.address}: worker started" in again.stderr
            assert list(slots(station)) == [host.address]
            code, hostname, errors = station.submit(started.stdout.split()[-1], "-redirected", "/bin/hostname")
            assert (code, hostname.strip()) == (0, host.hostname), errors
        assert station.left() == []


class TestStop:
    def test_a_host_that_is_away_is_named(self, station: Station) -> None:
        """It is the only one that keeps what was put there, until the next stop."""
        here, away = station.hosts[:2]
        assert station.start_pool(*ANY_PORTS, "--detach", here.target, away.target).returncode == 0
        away.stop()
        done = station.start_pool("--stop", "--connect-limit", "2")
        assert done.returncode == 0
        end = "a worker there ends by itself, and what is in ~/.coasters/default stays"
        assert re.search(rf"^{re.escape(away.address)}: not stopped: .*; {re.escape(end)}$", done.stderr, re.M), done.stderr
        away.start()
        assert station.left() == [f"{away.name} .coasters"]
        away.run("rm -r .coasters")

    def test_after_a_start_that_was_killed(self, station: Station) -> None:
        with station.pool(*ANY_PORTS, *(host.target for host in station.hosts)) as running:
            wait(lambda: running.said.count("worker started") == len(station.hosts))
            running.end(signal.SIGKILL)
        done = station.start_pool("--stop")
        assert (done.returncode, done.stderr) == (0, "stopping the pool\n")
        assert station.files() == []
        station.wait_until_nothing_is_left()
        done = station.start_pool("--stop")
        assert (done.returncode, done.stderr) == (0, "there is no pool named 'default': nothing to stop\n")

    @pytest.mark.parametrize("seconds", [0.5, 1.5])
    def test_while_it_starts_elsewhere(self, station: Station, seconds: float) -> None:
        with station.pool(*ANY_PORTS, *(host.target for host in station.hosts)) as running:
            time.sleep(seconds)
            assert station.start_pool("--stop").returncode == 0
            wait(lambda: running.process.poll() is not None)
            assert "Traceback" not in running.said
        station.wait_until_nothing_is_left()

    def test_with_its_logs_kept(self, station: Station) -> None:
        host = station.hosts[0]
        assert station.start_pool(*ANY_PORTS, "--detach", host.target).returncode == 0
        assert station.start_pool("--stop", "--keep").returncode == 0
        assert host.run("ls .coasters/default").split() == ["logs"]
        assert [path.name for path in (station.state / "coasters" / "default").iterdir()] == ["logs"]
        assert station.here() + station.there() == []
        assert station.start_pool("--stop").returncode == 0
        host.run("rm -r .coasters")


class TestCommand:
    def test_a_command_on_a_pool_of_its_own(self, station: Station, tmp_path: Path) -> None:
        config = tmp_path / "config.yaml"
        mine = ["# mine", "backends:", "  local: {cpus: 4}  # keep"]
        config.write_text("\n".join(mine) + "\n")
        script = (
            'echo "$COASTER_SERVICE_URL $COASTER_WORKERS $COASTER_CPUS_PER_WORKER";'
            ' cog-job-submit -s "$COASTER_SERVICE_URL" -redirected /bin/hostname; exit 7'
        )
        done = station.start_pool(
            *ANY_PORTS, "--jetstream-config", str(config), f"{station.hosts[0].target}*3", f"{station.hosts[1].target}*2", "--", "/bin/sh", "-c", script,
        )
        assert done.returncode == 7, done.stderr
        [url, workers, cpus], [hostname] = (line.split() for line in done.stdout.splitlines()[:2])
        assert (workers, cpus) == ("2", "2")
        assert hostname in {host.hostname for host in station.hosts[:2]}
        assert station.left() == []
        text = config.read_text()
        assert [line for line in text.splitlines() if line in mine] == mine
        assert yaml.safe_load(text)["backends"]["cloud_swift"]["pool_info"] == {"cpus_per_worker": 2, "workers": 2, "serviceurl": url}

    def test_a_configuration_that_cannot_be_written_is_said_before_anything_starts(self, station: Station, tmp_path: Path) -> None:
        config = tmp_path / "config.yaml"
        config.write_text("backends: [\n")
        done = station.start_pool(*ANY_PORTS, "--jetstream-config", str(config), station.hosts[0].target)
        assert (done.returncode, done.stdout) == (2, "")
        assert str(config) in done.stderr.splitlines()[-1]
        assert config.read_text() == "backends: [\n"
        assert station.left() == []
