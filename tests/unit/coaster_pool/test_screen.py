# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of --show-stats, as text."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from ansible_collections.coasters.pool.plugins.module_utils import launcher
from ansible_collections.coasters.pool.plugins.module_utils.statistics import Statistics, Worker
from coaster_pool import screen
from coaster_pool.end import Ending

URL = "http://127.0.0.1:4050"
JOBS = {"queued": 3, "active": 5, "completed": 70, "failed": 2}


def lines(now: Statistics | None, failed: dict[str, str] | None = None, trouble: str = "", width: int = 80) -> list[str]:
    """The picture's lines, blanks folded."""
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(screen.draw(URL, now, failed or {}, trouble))
    text = capture.get()
    assert all(len(line) <= width for line in text.splitlines())
    return [" ".join(line.split()) for line in text.splitlines()]


def test_sections_from_top_to_bottom() -> None:
    workers = [
        Worker("node02", "node02.cluster", 8, 4, 41, 2, 0.0),
        Worker("node01", "node01", 16, 1, 29, 0, 0.0),
        Worker("10.0.0.3", "", 1, 0, 0, 0, 0.0),
    ]
    assert lines(Statistics(workers, JOBS, 1), {"node04": "its name does not resolve"}) == [
        "Coaster service",
        f"URL {URL}",
        "Workers Active Lost",
        "3 1",
        "Jobs Queued Active Completed Failed",
        "3 5 70 2",
        "Host Slots Busy Completed Failed",
        "10.0.0.3 1 0 0 0",
        "node01 16 1 29 0",
        "node02 (node02.cluster) 8 4 41 2",
        "Without a worker",
        "node04 its name does not resolve",
    ]


def test_what_an_engine_does_not_tell_is_a_dash() -> None:
    shown = lines(Statistics([Worker("node01", "", 4, 2, 9, None, 0.0)], {**JOBS, "queued": None, "failed": None}, None))
    assert [shown[at] for at in (3, 5, 7)] == ["1 -", "- 5 70 -", "node01 4 2 9 -"]


def test_no_worker_yet() -> None:
    assert lines(Statistics([], dict.fromkeys(JOBS, 0), 0))[:4] == ["Coaster service", f"URL {URL}", "Workers Active Lost", "0 0"]


def test_a_service_that_does_not_answer() -> None:
    assert lines(None, trouble="it is being started again") == ["Coaster service", f"URL {URL}", "it is being started again"]


def test_a_service_that_answers_again_keeps_no_trouble() -> None:
    assert "again" not in " ".join(lines(Statistics([], JOBS, 0)))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_url_can_be_read_at_any_width(width: int) -> None:
    assert f"URL {URL}" in lines(Statistics([], JOBS, 0), width=width)


@pytest.mark.parametrize(("host", "shown"), [("[bold]node[/bold]", "[bold]node[/bold]"), ("[red", "[red"), ("\x1b[2J\u202e", "?[2J?")])
def test_a_hosts_words_do_not_draw(host: str, shown: str) -> None:
    now = Statistics([Worker("node01", host, 1, 0, 0, 0, 0.0)], JOBS, 0)
    assert f"node01 ({shown}) 1 0 0 0" in lines(now, {"node02": shown}, width=160)


class Kept:
    """What the screen asks a pool for. ``answers``: of check(), one after another."""

    url = URL
    failed: dict[str, str] = {}

    def __init__(self, control_url: str, *answers: bool) -> None:
        self.info = {"control_url": control_url}
        self.answers = list(answers)

    def check(self) -> bool:
        return self.answers.pop(0)


class TestShow:
    """With a real service."""

    @pytest.fixture
    def control_url(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        monkeypatch.setattr(screen, "REFRESH", 0.1)
        yield launcher.start(launcher.Wanted("default", "builtin", service_port=0, worker_port=0))["control_url"]
        launcher.stop("default")

    def test_pictures_until_the_pool_is_stopped(self, control_url: str, capsys: pytest.CaptureFixture[str]) -> None:
        with Ending() as ending:
            screen.show(Kept(control_url, True, True, False), ending)  # type: ignore[arg-type]
        assert capsys.readouterr().out.count("Jobs") == 3

    def test_until_a_signal(self, control_url: str, capsys: pytest.CaptureFixture[str]) -> None:
        with Ending() as ending:
            os.kill(os.getpid(), signal.SIGTERM)
            screen.show(Kept(control_url), ending)  # type: ignore[arg-type]
        assert capsys.readouterr().out.count("Jobs") == 1

    def test_a_service_that_is_away(self, control_url: str, capsys: pytest.CaptureFixture[str]) -> None:
        launcher.stop("default")
        with Ending() as ending:
            screen.show(Kept(control_url, False), ending)  # type: ignore[arg-type]
        assert "the service does not answer; it is being started again" in " ".join(capsys.readouterr().out.split())

    def test_on_a_terminal(self, control_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        there, end = os.openpty()
        with open(end, "w") as terminal, Ending() as ending:
            monkeypatch.setattr(screen, "Console", lambda: Console(file=terminal, width=80))
            monkeypatch.setenv("TERM", "xterm")
            screen.show(Kept(control_url, True, False), ending)  # type: ignore[arg-type]
            shown = ""
            while "Coaster service" not in shown:
                shown += os.read(there, 65536).decode()
        os.close(there)
        assert "\x1b[?1049h" in shown
