# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool on this machine alone, and the screen."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.station import ANY_PORTS, LIMIT, Station


@pytest.fixture
def no_ssh(station: Station) -> Station:
    """A client where ssh fails."""
    folder = station.place / "no-ssh"
    folder.mkdir()
    (folder / "ssh").write_text("#!/bin/sh\necho ssh was used >&2\nexit 255\n")
    (folder / "ssh").chmod(0o755)
    station.env["PATH"] = f"{folder}:{station.env['PATH']}"
    return station


def test_localhost_needs_no_ssh(no_ssh: Station) -> None:
    station = no_ssh
    with station.pool(*ANY_PORTS, "localhost") as running:
        url = running.url()
        assert station.submit(url, "-redirected", "/bin/echo", "works") == (0, "works\n\n", "\n")
        [worker] = station.status()["workers"]
        assert (worker["name"], worker["slots"]) == ("localhost", len(os.sched_getaffinity(0)))
        assert running.end() == 130
    assert station.left() == []
    assert list(station.hosts.client.home.glob(".coasters*")) == []


def read(screen: int, until: Callable[[str], object]) -> str:
    """What a terminal shows, until it shows that."""
    shown = ""
    end = time.monotonic() + LIMIT
    while not until(shown):
        assert time.monotonic() < end, shown
        if select.select([screen], [], [], 1)[0]:
            shown += os.read(screen, 65536).decode()
    return shown


def test_the_screen_on_a_terminal(no_ssh: Station) -> None:
    screen, terminal = pty.openpty()
    with no_ssh.pool(*ANY_PORTS, "--show-stats", "localhost", stdin=terminal, stdout=terminal, env=no_ssh.env | {"TERM": "xterm"}) as running:
        shown = read(screen, lambda shown: shown.count("Coaster service") >= 3)
        assert "\x1b[?1049h" in shown  # a screen of its own
        picture = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.rpartition("Coaster service")[0].rpartition("Coaster service")[2])
        assert re.search(r"URL +http://127\.0\.0\.1:\d+", picture)
        assert "Started coaster service" not in shown
        running.process.send_signal(signal.SIGINT)
        assert "\x1b[?1049l" in read(screen, lambda shown: "\x1b[?1049l" in shown)
        assert running.process.wait(LIMIT) == 130
    os.close(screen)
    os.close(terminal)
    assert no_ssh.left() == []


def test_the_screen_in_a_file(no_ssh: Station, tmp_path: Path) -> None:
    path = tmp_path / "screen"
    with path.open("w") as file, no_ssh.pool(*ANY_PORTS, "--show-stats", "localhost", stdout=file) as running:
        end = time.monotonic() + LIMIT
        while path.read_text().count("Coaster service") < 3:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert running.end() == 130
    lines = [" ".join(line.split()) for line in path.read_text().splitlines()]
    assert lines[0] == "Coaster service"
    assert lines[1].startswith("URL http://127.0.0.1:")
    assert "\x1b" not in path.read_text()
