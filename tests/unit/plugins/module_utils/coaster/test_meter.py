# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.coasters.pool.plugins.module_utils.coaster.meter import Meter


def test_rates() -> None:
    meter = Meter(100.0)
    meter.total += 50
    meter.tick(100.5)
    assert (meter.current, meter.average(100.5)) == (0, 50)
    meter.total += 50
    meter.tick(102.0)
    assert (meter.current, meter.average(102.0)) == (50, 50)
    meter.tick(104.0)
    assert (meter.current, meter.average(104.0)) == (0, 25)
