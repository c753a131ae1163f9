# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running services for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import service as service_module
from tests.unit.plugins.module_utils.coaster.peers import Running


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts services, and stops them after the test."""
    started: list[Running] = []

    def begin(**settings: Any) -> Running:
        started.append(Running(**settings))
        return started[-1]

    yield begin
    for running in started:
        running.close()


@pytest.fixture
def service(start: Callable[..., Running]) -> Running:
    return start()


@pytest.fixture
def low_water(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flow control that sets in after 256 KiB."""
    monkeypatch.setattr(service_module, "HIGH_WATER", 262144)
    monkeypatch.setattr(service_module, "LOW_WATER", 65536)
