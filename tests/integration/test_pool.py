# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool over real ssh: its start, the jobs on it, and its end."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.station import ANY_PORTS, Station, wait
from tests.testhosts import Hosts


@pytest.fixture(scope="module")
def shared(eight: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, str]]:
    """A pool on all eight hosts and its URL, for tests that only run jobs."""
    station = Station(eight, tmp_path_factory.mktemp("shared"))
    with station.pool(*ANY_PORTS, *(host.target for host in eight)) as running:
        url = running.url()
        assert [line for line in running.said.splitlines() if "worker started" in line] != []
        yield station, url
        assert running.end() == 130
    station.wait_until_nothing_is_left()


class TestJobs:
    def test_every_host_has_a_worker(self, shared: tuple[Station, str]) -> None:
        station, url = shared
        known = station.status()
        assert (known["running"], known["url"], known["engine"]) == (True, url, "builtin")
        assert {worker["name"]: worker["host"] for worker in known["workers"]} == {host.address: host.hostname for host in station.hosts}
        cores = {host.address: int(host.run("nproc")) for host in station.hosts}
        assert {worker["name"]: worker["slots"] for worker in known["workers"]} == cores

    def test_a_job_on_every_slot_of_every_host_at_once(self, shared: tuple[Station, str]) -> None:
        station, url = shared
        slots = {worker["name"]: worker["slots"] for worker in station.status()["workers"]}
        go = "/tmp/go-at-once"
        script = f"hostname; while [ ! -e {go} ]; do sleep 0.05; done"
        with contextlib.ExitStack() as stack:
            jobs = [stack.enter_context(station.job(url, "-redirected", "/bin/sh", "-c", script)) for dummy in range(sum(slots.values()))]
            wait(lambda: station.status()["jobs"]["active"] == len(jobs))
            assert {worker["name"]: worker["busy"] for worker in station.status()["workers"]} == slots
            for host in station.hosts:
                host.run(f"touch {go}")
            seen = Counter(job.communicate(timeout=60)[0].strip() for job in jobs)
        assert all(job.returncode == 0 for job in jobs)
        expected: Counter[str] = Counter()
        for host in station.hosts:
            host.run(f"rm -f {go}")
            expected[host.hostname] += slots[host.address]
        assert seen == expected

    def test_a_large_file_there_and_back(self, shared: tuple[Station, str], tmp_path: Path) -> None:
        station, url = shared
        sent, back = tmp_path / "sent", tmp_path / "back"
        sent.write_bytes(os.urandom(50_000_000))
        assert station.submit(
            url, "-stagein", f"{sent} -> there", "-stageout", f"{back} <- changed", "-directory", "/tmp/large",
            "/bin/sh", "-c", "tr '\\000-\\377' '\\001-\\377\\000' <there >changed",
        ) == (0, "", "")
        assert back.read_bytes() == bytes((byte + 1) % 256 for byte in sent.read_bytes())
        for host in station.hosts:
            host.run("rm -rf /tmp/large")

    @pytest.mark.parametrize("status", [0, 1, 3, 255])
    def test_the_jobs_exit_status(self, shared: tuple[Station, str], status: int) -> None:
        station, url = shared
        code, output, errors = station.submit(url, "-redirected", "/bin/sh", "-c", f"echo out; echo err >&2; exit {status}")
        assert (code, output.strip()) == (status, "out")
        assert ("" if status == 0 else f"Process completed with exit code {status}") in errors
        assert "err" in errors

    def test_jobs_run_as_the_ssh_user_with_its_home(self, shared: tuple[Station, str]) -> None:
        station, url = shared
        code, output, dummy = station.submit(url, "-redirected", "/bin/sh", "-c", "id -un; umask; echo $HOME")
        assert (code, output.split()[0]) == (0, station.hosts[0].user)
        assert output.split()[1] == station.hosts[0].run("umask").strip()

    def test_jetstreams_command_line(self, shared: tuple[Station, str], tmp_path: Path) -> None:
        """As its CloudSwiftBackend passes it to bash, word for word, for two tasks that it starts at once."""
        station, url = shared
        (tmp_path / "cloud_scripts").mkdir()
        work = "/tmp/pworks"
        tasks = {"hello": "echo hello; hostname", "bad": "echo trouble >&2; exit 7"}
        processes = []
        for task, script in tasks.items():
            for name, text in ((task, script), (f"{task}.cloud_download", "echo fetched"), (f"{task}.cloud_upload", "echo sent")):
                (tmp_path / "cloud_scripts" / f"{name}.sh").write_text(f"{text}\n")
            names = [f"{task}.cloud_download.sh", f"{task}.cloud_upload.sh", f"{task}.sh"]
            stage_in = " : ".join(f"{tmp_path}/cloud_scripts/./{name} -> {work}/{name}" for name in names)
            outputs = {f".{task}.hostname": f".{task}.hostname", f"{task}.remote.out": f"{task}.remote.out", f"{task}.remote.err": f"{task}.remote.err"}
            stage_out = " : ".join(f"{tmp_path}/{here} <- ./{there}" for here, there in outputs.items())
            run = "".join(f"bash {name}.sh >>./{task}.remote.out 2>>./{task}.remote.err;"
                          for name in (f"{task}.cloud_download", task, f"{task}.cloud_upload"))
            line = (
                'cog-job-submit -provider "coaster-persistent" -attributes "maxWallTime=240:00:00"    '
                f'-service-contact "{url}" -stagein "{stage_in}" -stageout "{stage_out}" -directory "{work}" '
                f'/bin/bash -c "mkdir -p {work};cd {work};hostname > ./.{task}.hostname;{run}"'
            )
            path = f"{os.path.dirname(station.program('cog-job-submit'))}:{station.env['PATH']}"
            processes.append(subprocess.Popen(["/bin/bash", "-c", line], env=station.env | {"PATH": path}, cwd=tmp_path))
        assert [process.wait(60) for process in processes] == [0, 0]
        names = {host.hostname for host in station.hosts}
        for task in tasks:
            assert (tmp_path / f".{task}.hostname").read_text().strip() in names
        hello = (tmp_path / "hello.remote.out").read_text().split()
        assert (hello[:2], hello[2] in names, hello[3:]) == (["fetched", "hello"], True, ["sent"])
        assert (tmp_path / "bad.remote.err").read_text() == "trouble\n"
        for host in station.hosts:
            host.run("rm -rf /tmp/pworks")

    def test_the_same_command_again_changes_nothing(self, shared: tuple[Station, str]) -> None:
        station, url = shared
        before = station.status()
        with station.pool(*ANY_PORTS, *(host.target for host in station.hosts)) as again:
            assert again.url() == url
            assert "nothing to do" in again.said
            assert again.process.wait(60) == 0
        after = station.status()
        assert [worker["name"] for worker in after["workers"]] == [worker["name"] for worker in before["workers"]]
        assert (after["since"], after["restarts"], after["lost"]) == (before["since"], 0, 0)
