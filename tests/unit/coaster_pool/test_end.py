# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The signals that end a pool, sent to this very process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

from coaster_pool.end import SIGNALS, Ending


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_pool(number: signal.Signals) -> None:
    heard: list[str] = []
    with Ending() as ending:
        ending.on_signal = lambda: heard.append("signal")
        assert not ending.wait(0)
        os.kill(os.getpid(), number)
        assert ending.wait(60)
        assert ending.came
    assert heard == ["signal"]
    assert ending.status == 128 + number


def test_the_first_signal_decides_the_status() -> None:
    heard: list[str] = []
    with Ending() as ending:
        os.kill(os.getpid(), signal.SIGTERM)
        ending.on_signal = lambda: heard.append("second")
        os.kill(os.getpid(), signal.SIGINT)
    assert ending.status == 143
    assert heard == ["second"]


def test_without_a_signal_the_status_is_zero() -> None:
    with Ending() as ending:
        assert not ending.wait(0.01)
    assert ending.status == 0


def test_a_signal_wakes_who_waits() -> None:
    with Ending() as ending:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGHUP)).start()
        assert ending.wait(60)


def test_the_handlers_from_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(RuntimeError), Ending():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise RuntimeError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_how_long_ago_the_signal_came() -> None:
    with Ending() as ending:
        assert ending.seconds() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        first = ending.seconds()
        assert 0 <= first <= ending.seconds()


def test_more_signals_than_anybody_reads() -> None:
    """The pipe that wakes the waiting program is full then, and the handler goes on."""
    with Ending() as ending:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(ending._writing, b"!" * 4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(ending._writing, b"!")
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.wait(0)
    assert ending.status == 128 + signal.SIGTERM
