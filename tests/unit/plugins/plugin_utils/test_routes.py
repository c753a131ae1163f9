# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.coasters.pool.plugins.plugin_utils import routes
from ansible_collections.coasters.pool.plugins.plugin_utils.exchange import ExchangeError


@pytest.mark.parametrize("word", ["10.0.0.1/8", "10.0.0.0/33", "x", "", "10.0.0.0/8 ", "-oProxyCommand=x", "{{ x }}"])
def test_no_network(word: str) -> None:
    with pytest.raises(ExchangeError, match=f"{word!r} is not a network: write it as"):
        routes.networks(["10.0.0.0/8", word])


@pytest.mark.parametrize(("host", "trust", "trusted"), [
    ("10.1.2.3", ["10.0.0.0/8"], True),
    ("10.1.2.3", ["192.168.0.0/16", "10.0.0.0/8"], True),
    ("10.1.2.3", ["10.1.2.4/32"], False),
    ("10.1.2.3", [], False),
    ("fd00::1", ["fd00::/8"], True),
    ("fd00::1", ["0.0.0.0/0"], False),
    ("fe80::1%lo", ["fe80::/10"], True),
    ("localhost", ["127.0.0.0/8", "::1/128"], True),
    ("localhost", ["10.0.0.0/8"], False),
    ("no-such-host.invalid", ["0.0.0.0/0", "::/0"], False),
])
def test_trusted(host: str, trust: list[str], trusted: bool) -> None:
    assert routes.trusted(host, trust) is trusted


def test_every_address_has_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to two networks is as good as the worse one."""
    found = [(2, 1, 6, "", ("10.0.0.1", 0)), (2, 1, 6, "", ("192.0.2.1", 0))]
    monkeypatch.setattr(routes.socket, "getaddrinfo", lambda *dummy, **options: found)
    assert not routes.trusted("two", ["10.0.0.0/8"])
    assert routes.trusted("two", ["10.0.0.0/8", "192.0.2.0/24"])
