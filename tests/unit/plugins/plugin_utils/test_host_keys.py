# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.coasters.pool.plugins.plugin_utils import host_keys
from ansible_collections.coasters.pool.plugins.plugin_utils.exchange import ExchangeError

CHECKED = ["-o", "StrictHostKeyChecking=yes"]
NEW = ["-o", "StrictHostKeyChecking=accept-new"]


@pytest.mark.parametrize("off", ["StrictHostKeyChecking=no", "-oStrictHostKeyChecking=off", "stricthostkeychecking NO", '-oStrictHostKeyChecking="no"'])
@pytest.mark.parametrize("asked", [CHECKED, NEW])
def test_the_check_that_was_asked_for_is_turned_off(off: str, asked: list[str]) -> None:
    with pytest.raises(ExchangeError, match="turn the check of its host key off"):
        host_keys.check(["ssh", "-C", "-o", off, *asked])
    host_keys.check(["ssh", *asked, "-o", off])


def test_nobody_asked() -> None:
    """A play of the user's own may do without."""
    host_keys.check(["ssh"])
    host_keys.check(["ssh", "-o", "StrictHostKeyChecking=no"])
    host_keys.check(["ssh", *CHECKED, *NEW])
