# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain hosts: what they refuse, and that they need no root."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests import testhosts
from tests.testhosts import Unsupported
from tests.testhosts.fixtures import StartHosts

PROGRAM = """
import os, subprocess
from tests import testhosts
assert os.getuid() != 0 and testhosts.why_not("isolated") == "isolated test hosts need root"
with testhosts.start(2) as hosts:
    for host in hosts:
        subprocess.run(["ssh", host.target, "id -u; touch only-here; ls"], env=hosts.env(), check=True)
print(os.listdir("/tmp/testhosts-" + str(os.getuid())))
"""


@pytest.mark.parametrize("options", [{"python": False}, {"perl": False}, {"home_size": "1m"}, {"shared": Path("/usr")}])
def test_options_that_need_isolated_hosts(options: dict[str, object]) -> None:
    with pytest.raises(Unsupported, match="need isolated test hosts"):
        testhosts.start(1, "plain", **options)


def test_faults_that_need_isolated_hosts(start_hosts: StartHosts) -> None:
    host = start_hosts(1, "plain")[0]
    for fault in (host.cut, host.drop_to_client, host.impair, lambda: host.run("true", user="somebody")):
        with pytest.raises(Unsupported, match="needs isolated test hosts"):
            fault()


def test_a_user_who_is_not_root(start_hosts: StartHosts) -> None:
    """The package is carried onto an isolated host, whose user then runs plain hosts there."""
    host = start_hosts(1, "isolated")[0]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(Path(testhosts.__file__).parent, "tests/testhosts", filter=lambda item: None if "__pycache__" in item.name else item)
    host.run("tar xf -", stdin=packed.getvalue())
    uid = host.run("id -u").strip()
    assert host.run("/usr/bin/python3 -", stdin=PROGRAM.encode()).split() == [uid, "only-here"] * 2 + ["[]"]
    assert len(host.processes()) == 1
