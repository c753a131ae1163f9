# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import testhosts
from tests.integration.station import Station
from tests.testhosts import Hosts
from tests.testhosts.fixtures import StartHosts


@pytest.fixture(scope="session")
def eight() -> Iterator[Hosts]:
    """Eight hosts, isolated where possible, that many tests share: each leaves them as it found them."""
    with testhosts.start(8) as hosts:
        yield hosts


@pytest.fixture
def station(eight: Hosts, tmp_path: Path) -> Iterator[Station]:
    """The client of the eight hosts. After the test nothing of a pool is left anywhere."""
    station = Station(eight, tmp_path)
    yield station
    for host in eight:
        host.mend()
    eight.client.know(eight)
    station.wait_until_nothing_is_left()


@pytest.fixture
def start_station(start_hosts: StartHosts, tmp_path: Path) -> object:
    """As start_hosts, but the client of the hosts."""
    return lambda *words, **options: Station(start_hosts(*words, **options), tmp_path)
