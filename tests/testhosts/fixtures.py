# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pytest fixtures: ``pytest_plugins = ["tests.testhosts.fixtures"]`` in the top conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from .hosts import Hosts, start, why_not

StartHosts = Callable[..., Hosts]


@pytest.fixture
def start_hosts() -> Iterator[StartHosts]:
    """``start_hosts(count, kind=None, **options)``: as testhosts.start(); the hosts end with the test.

    A test that asks for isolated hosts where they cannot be made is skipped, with the reason.
    """
    with ExitStack() as stack:

        def begin(hosts: int | Sequence[dict[str, Any]], kind: str | None = None, **options: Any) -> Hosts:
            reason = why_not(kind) if kind else None
            if reason:
                pytest.skip(reason)
            return stack.enter_context(start(hosts, kind, **options))

        yield begin
