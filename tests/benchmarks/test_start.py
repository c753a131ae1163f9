# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A start costs what it cost when benchmarks/start/results.json was written, within a wide margin."""

from __future__ import annotations

import json
from collections.abc import Callable

from benchmarks.start import contenders, figures, page
from benchmarks.start.__main__ import measure
from tests.testhosts import Hosts

COUNT = 4
MARGIN = 1.6


def test_client_cpu_is_no_more_than_it_was(start_hosts: Callable[..., Hosts]) -> None:
    written = figures.from_json(json.loads(page.RESULTS.read_text()))
    known = figures.guarded(written.rounds, COUNT)
    steps = [(COUNT, contenders.ssh), (1, contenders.ansible), (COUNT, contenders.pool("start"))]
    now = figures.guarded(measure(start_hosts(COUNT + 1, "isolated"), steps, 2), COUNT)
    assert {what: ratio for what, ratio in now.items() if ratio > MARGIN * known[what]} == {}, known
