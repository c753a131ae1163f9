# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.station import Station
from tests.testhosts.fixtures import StartHosts

StartStation = Callable[..., Station]


@pytest.fixture
def start_station(start_hosts: StartHosts, tmp_path: Path) -> StartStation:
    """As start_hosts, but the client of the hosts."""
    return lambda *words, **options: Station(start_hosts(*words, **options), tmp_path)
