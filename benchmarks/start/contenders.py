# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured. Each contender starts from nothing, on clean hosts, and gives the cost of each thing that it did, by name."""

from __future__ import annotations

import contextlib
import json
import random
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coaster_pool.hosts import folded
from tests.testhosts import Host, Hosts

from .meter import Client, Cost

ROOT = Path(__file__).resolve().parents[2]
START_POOL = [sys.executable, str(ROOT / "start_pool.py"), "--quiet"]
DASK_PYTHON = ROOT / "build" / "benchmark" / "dask" / "bin" / "python"
NO_OP = [{"hosts": "localhost", "gather_facts": False, "tasks": [{"ansible.builtin.raw": "true"}]}]
RAW = [{"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.raw": "true"}]}]


SETTLED = 15.0
"""Seconds without another worker after which none is waited for."""


@dataclass
class Station:
    """A client without history in an empty ``folder``, and the hosts that it shall use; ``spare`` joins later."""

    hosts: Hosts
    used: Sequence[Host]
    spare: Host
    client: Client
    folder: Path
    ports: list[int]
    """Three ports that are free."""

    @property
    def targets(self) -> list[str]:
        """``user@address`` of each host."""
        return [host.target for host in self.used]

    def pool_ports(self) -> list[str]:
        """Options for start_pool.py, so that pools of others on this machine are in nobody's way."""
        return ["--port", str(self.ports[0]), "--worker-port", str(self.ports[1])]


Contender = Callable[[Station], dict[str, Cost]]


@contextmanager
def station(hosts: Hosts, used: Sequence[Host], spare: Host) -> Iterator[Station]:
    """A station of its own for one contender; its client and what it left on the hosts are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        (folder / "home").mkdir()
        path = ":".join((str(hosts.client.bin), str(Path(sys.executable).parent), hosts.env()["PATH"]))
        env = {**hosts.env(), "HOME": str(folder / "home"), "XDG_STATE_HOME": str(folder / "state"), "PATH": path}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed collection is kept compiled, as what pip installs
        try:
            with Client(env, folder) as client:
                yield Station(hosts, used, spare, client, folder, _free_ports(3))
        finally:
            _clean([*used, spare])


def _free_ports(count: int) -> list[int]:
    """Below those that systems give to connections, one of which could take them meanwhile."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            found.append(port)
    return found


def _clean(hosts: Sequence[Host]) -> None:
    """End all processes of the hosts but their sshd, and remove what was put there."""
    for host in hosts:
        host.run("rm -rf /home/*/.coasters /home/*/swift /home/*/dask* /tmp/*; kill -KILL -1", user="root", check=False)


def ssh(at: Station) -> dict[str, Cost]:
    """The floor: ``ssh HOST true``, all at once."""
    line = 'for host; do ssh -o BatchMode=yes "$host" true & done; wait'
    return {"ssh": at.client.run(["sh", "-c", line, "sh", *at.targets])}


def ansible(at: Station) -> dict[str, Cost]:
    """Ansible's own floor: one no-op task here, and one raw task on every host."""
    costs = {}
    for name, play, hosts in (("ansible-noop", NO_OP, ["localhost"]), ("ansible-raw", RAW, [host.address for host in at.used])):
        (at.folder / f"{name}.yml").write_text(json.dumps(play))
        words = ["ansible-playbook", "-i", ",".join(hosts) + ",", "-u", at.used[0].user, "-f", str(len(hosts)), f"{name}.yml"]
        costs[name] = at.client.run(words + (["-c", "local"] if hosts == ["localhost"] else []))
        _must_be_well(at, name, costs[name])
    return costs


def pool(name: str, *options: str) -> Contender:
    """``start_pool.py``: a whole life of a pool. Names: ``NAME``, and the same with ``again``, ``status``, ``add`` and ``stop``."""

    def contender(at: Station) -> dict[str, Cost]:
        command = [*START_POOL, *at.pool_ports(), *options, "--detach", "--require-all"]
        pool_json = str(at.folder / "state" / "coasters" / "default" / "pool.json")
        lives: dict[str, tuple[list[str], int]] = {
            "": ([*command, *at.targets], len(at.used)),
            " again": ([*command, *at.targets], 0),
            " status": ([*START_POOL, "--status"], 0),
            " add": ([*command, *at.targets, at.spare.target], len(at.used) + 1),
            " stop": ([*START_POOL, "--stop"], 0),
        }
        costs = {}
        for what, (words, workers) in lives.items():
            costs[name + what] = at.client.run(words, ready={"pool": pool_json, "workers": workers} if workers else None)
            _must_be_well(at, name + what, costs[name + what])
        return costs

    return contender


def dead(every: int) -> Contender:
    """``start_pool.py`` with every ``every``-th host dead, from the first on: it drops every packet."""

    def contender(at: Station) -> dict[str, Cost]:
        silent = at.used[::every]
        for host in silent:
            host.silence()
        try:
            cost = at.client.run([*START_POOL, *at.pool_ports(), "--detach", *at.targets])
        finally:
            for host in silent:
                host.mend()
        named = f"{folded(sorted(host.address for host in silent))}: failed: "
        if cost.status != 5 or named not in at.client.log():
            raise RuntimeError(f"with {len(silent)} dead hosts start_pool.py ended with {cost.status} and said: {at.client.log()}")
        return {"dead": cost}

    return contender


def start_coaster_service(bin_dir: Path) -> Contender:
    """Swift/K's own starter, in ssh mode, until its service lists all workers, or the last of those that it does not lose: it tells
    some of many that come at once that it does not know them, and they end."""

    def contender(at: Station) -> dict[str, Cost]:
        settings = {
            "WORKER_MODE": "ssh",
            "WORKER_USERNAME": at.used[0].user,
            "WORKER_HOSTS": " ".join(host.address for host in at.used),
            "WORKER_LOCATION": "/tmp/swift",
            "WORKER_LOG_DIR": "/tmp/swift",
            "WORKER_LOGGING_LEVEL": "NONE",
            "WORKER_CONCURRENCY": "2",
            "IPADDR": at.hosts.client.address,
            # The script passes it on word by word; so its service can be asked for its workers.
            "SERVICE_PORT": f"{at.ports[0]} -controlPort {at.ports[2]}",
            "LOCAL_PORT": str(at.ports[1]),
        }
        conf = at.folder / "coaster-service.conf"
        conf.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items()))
        command = [str(bin_dir / "start-coaster-service"), "-conf", str(conf)]
        ready = {"control": at.ports[2], "workers": len(at.used), "settled": SETTLED}
        return {"start-coaster-service": at.client.run(command, limit=60.0, ready=ready)}

    return contender


def dask(at: Station) -> dict[str, Cost]:
    """Dask's SSHCluster, until its scheduler, which is on the first host, lists all workers."""
    ready = at.folder / "ready"
    known = at.hosts.client
    words = [str(ready), at.used[0].user, str(known.identity), str(known.known_hosts), "/mnt/bin/python", *(host.address for host in at.used)]
    command = [str(DASK_PYTHON), str(Path(__file__).with_name("dask_cluster.py")), *words]
    return {"dask": at.client.run(command, ready={"file": str(ready)})}


def install_dask() -> Path | None:
    """A venv with Dask below build/, which test hosts can see as /mnt; None where the system has no Python of its own that can make one."""
    if not DASK_PYTHON.exists():
        made = subprocess.run(["/usr/bin/python3", "-m", "venv", str(DASK_PYTHON.parents[1])], check=False)
        if made.returncode:
            return None
    subprocess.run([str(DASK_PYTHON), "-m", "pip", "install", "--quiet", "distributed", "asyncssh"], check=True)
    return DASK_PYTHON.parents[1]


def _must_be_well(at: Station, what: str, cost: Cost) -> None:
    if cost.status:
        raise RuntimeError(f"{what} ended with status {cost.status}; it said: {at.client.log()}")
