# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One pool of hosts with each Python that this machine has, beside a host with Perl only and one with neither."""

from __future__ import annotations

import os
import re
from pathlib import Path

from coaster_pool.hosts import folded
from tests.integration.station import ANY_PORTS, Station, wait
from tests.testhosts import Host
from tests.testhosts.fixtures import StartHosts

OTHERS = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
"""Where Pythons beside the system's are, each in a folder of its own; a test host has it as /mnt."""
SHIM = b"#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n"
REFUSED = "there is no Python 3.6 or later on this host: install it or set swift_worker_interpreter"


def pythons() -> dict[str, str]:
    """The path on a test host of each Python 3.6 or later of this machine, by its name, ``python3.11``; the newest last."""
    found = {path.name: f"/mnt/{path.relative_to(OTHERS)}" for path in OTHERS.glob("3.*/bin/python3.*")}
    found |= {path.name: str(path) for path in Path("/usr/bin").glob("python3.*")}
    names = [name for name in found if re.fullmatch(r"python3\.([6-9]|\d\d)", name)]
    return {name: found[name] for name in sorted(names, key=lambda name: int(name[len("python3."):]))}


def install(host: Host, name: str, path: str) -> None:
    """Have PATH lead to the Python, under its full name, and to a python3 that is the shim of a Python which is not there."""
    host.run("cat > /usr/local/bin/python3; chmod 755 /usr/local/bin/python3", user="root", stdin=SHIM)
    library = f"{Path(path).parents[1]}/lib/lib{name}"
    host.run(f"ln -s {path} /usr/local/bin/; for file in {library}*.so*; do [ ! -e $file ] || ln -s $file /usr/lib/; done", user="root")


def test_each_python_perl_only_and_neither(start_hosts: StartHosts, tmp_path: Path) -> None:
    known = pythons()
    options = [{"python": path.startswith("/usr/bin/")} for path in known.values()] + [{"python": False}, {"python": False, "perl": False}]
    hosts = start_hosts(options, "isolated", shared=OTHERS if OTHERS.is_dir() else None)
    with_python = dict(zip(known, hosts[:len(known)], strict=True))
    for name, host in with_python.items():
        if known[name].startswith("/mnt/"):
            install(host, name, known[name])

    station = Station(hosts, tmp_path)
    with station.pool(*ANY_PORTS, *(host.target for host in hosts)) as running:
        url = running.url()
        assert f"{folded(host.address for host in hosts[len(known):])}: failed: {REFUSED}\n" in running.said
        for name, host in with_python.items():
            assert host.run("readlink /proc/$(cat .coasters/default/worker.pid)/exe").strip().endswith(f"/{name}")
        slots = sum(worker["slots"] for worker in station.status()["workers"])
        script = "hostname; until [ -e /tmp/go ]; do sleep 0.1; done"
        jobs = [station.job(url, "-redirected", "/bin/sh", "-c", script) for dummy in range(slots)]
        wait(lambda: station.status()["jobs"]["active"] == slots)
        for host in with_python.values():
            host.run("touch /tmp/go")
        assert {job.communicate(timeout=120)[0].strip() for job in jobs} == {host.hostname for host in with_python.values()}
        assert running.end() == 130
    for host in with_python.values():
        host.run("rm /tmp/go")
    station.wait_until_nothing_is_left()
