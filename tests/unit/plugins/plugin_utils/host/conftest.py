# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.plugins.plugin_utils.host.account import Account

SHELLS = [Path(name) for name in ("/bin/dash", "/bin/bash", "/bin/busybox", "/bin/ksh", "/bin/mksh")]


@pytest.fixture(params=[shell for shell in SHELLS if shell.exists()] or [Path("/bin/sh")], ids=lambda shell: shell.name)
def account(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Account]:
    """An account whose ``sh`` is each shell of this machine in turn."""
    account = Account(tmp_path / "home", request.param)
    yield account
    account.clear()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Account]:
    """An account with this machine's own ``sh``, for what does not depend on it."""
    account = Account(tmp_path / "home")
    yield account
    account.clear()
