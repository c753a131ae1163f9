# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that answers the exchange with whatever it likes: others get their workers, and the terminal shows only our words."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import Any

import pytest

from coaster_pool.hosts import parse
from tests.integration.station import ANY_PORTS, Station
from tests.security.conftest import StartStation
from tests.testhosts import Hosts

ESCAPES = r"\033[2J\033]0;owned\007\302\233\342\200\256"
FORGED = (
    "coasters:changed=yes", f"coasters:hostname={ESCAPES}", "coasters:slots=99999999999999999999", "coasters:running=../../etc",
    f"coasters:urls=http://x:1/{ESCAPES}", "coasters:msg=x", "coasters:failed=false", "coasters:ansible_facts={}",
    'coasters:interpreter={{ lookup("pipe", "touch owned") }}', "coasters:end=start",
)
WORDS = {
    "garbage": "head -c 100000 /dev/urandom",
    "nothing": "true",
    "escape sequences": f"printf '{ESCAPES}'; printf '{ESCAPES}' >&2; exit 1",
    "an error with escape sequences": f"printf 'coasters:error={ESCAPES}broken\\ncoasters:cause={ESCAPES}\\ncoasters:end=start\\n'",
    "an answer of Ansible's own kind": """printf '{"changed": true, "ansible_facts": {"ansible_connection": "local"}, "slots": 7, "end": "start"}'""",
    "a forged answer": "printf '%b\\n' " + " ".join(f"'{line}'" for line in FORGED),
}
FLOODS = {
    "gigabytes": "yes coasters:hostname=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "a line without end": "yes xxxxxxxxxxxxxxxx | tr -d '\\n'",
    "gigabytes of errors": "yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2",
}


def start(station: Station, hosts: Hosts) -> subprocess.CompletedProcess[Any]:
    words = ("--detach", *ANY_PORTS, *(host.target for host in hosts))
    return station.start_pool(*words, text=False)


def failed(shown: str) -> set[str]:
    """Addresses of the hosts that were said to have failed."""
    names = [line.partition(": failed: ")[0].split(", ") for line in shown.splitlines() if ": failed: " in line]
    return {host.name for some in names for host in parse(some)}


@pytest.mark.parametrize("answers", [WORDS, FLOODS], ids=["words", "floods"])
def test_the_answers(start_station: StartStation, answers: dict[str, str]) -> None:
    """Each is that of one host."""
    station = start_station([{}, *({"sshd": (f"ForceCommand {answer}",)} for answer in answers.values())], max_startups="1000")
    before = set(os.listdir(station.place))
    done = start(station, station.hosts)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    try:
        shown = (done.stdout + done.stderr).decode()
        assert all(letter.isprintable() or letter == "\n" for letter in shown), repr(shown)
        assert "Traceback" not in shown
        good, *bad = station.hosts
        assert [worker["name"] for worker in station.status()["workers"]] == [good.address], shown
        assert failed(shown) == {host.address for host in bad}, shown
        assert peak < 1 << 30
        assert set(os.listdir(station.place)) == before
        assert not (station.hosts.client.home / "owned").exists()
    finally:
        station.start_pool("--stop")
    station.wait_until_nothing_is_left()
