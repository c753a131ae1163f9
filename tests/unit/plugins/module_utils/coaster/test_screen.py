# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster.screen import WIDTH, Screen, units

GIB = 2 ** 30


def info(blocks: int = 2, rate: int = 0, block_id: str = "w%d") -> dict[str, Any]:
    return {
        "coaster": {
            "url": "http://192.0.2.1:4050", "worker_url": "http://192.0.2.1:4051", "workers": [{}] * blocks, "lost": 3,
            "jobs": {"queued": 4, "active": 5, "completed": 6, "failed": 7, "cancelled": 0},
        },
        "runtime": {
            "maxHeap": 6320816128, "crtHeap": 406847488, "usedHeap": 20395000, "freeHeap": 1024,
            "readBytesTotal": 2294, "readCurrentRate": rate, "readAverageRate": 286,
            "writeBytesTotal": 0, "writeCurrentRate": 0, "writeAverageRate": 0,
        },
        "blocks": [{"id": block_id % number, "nodes": [{}] * number, "jobsCompleted": 10 * number} for number in range(1, blocks + 1)],
    }


def text(frame: str) -> list[str]:
    return re.sub("\x1b\\[[0-9;]*[a-zA-Z]", "", frame).split("\n")


def test_the_picture() -> None:
    blank = ""
    lines = [line.rstrip() for line in text(Screen().frame(info(), ["first", "second", "third"]))]
    assert lines == [
        blank, blank, "  Coaster Service", blank,
        "  URL                          http://192.0.2.1:4050", "  Worker connect URL           http://192.0.2.1:4051",
        blank, blank, "   Workers                       Active          Completed       Failed", blank,
        "                                 2               0               3",
        blank, blank, "   Jobs          Queued          Active          Completed       Failed", blank,
        "                 4               5               6               7",
        blank, blank, "   Heap          Max             Current         Used            Free", blank,
        "                 5.89 GB         388 MB          19.45 MB        1024 B",
        blank, blank, "   I/O           Total           Current         Peak            Average", blank,
        "   Read          2.24 KB         0 B/s           0 B/s           286 B/s",
        "   Write         0 B             0 B/s           0 B/s           0 B/s",
        blank, blank, "   Blocks                                Nodes               Jobs Completed", blank,
        "   w2                                    2                   20", "   w1                                    1                   10",
        blank, "second", "third",
    ]


def test_every_line_fills_the_width() -> None:
    assert {len(line) for line in text(Screen().frame(info(rate=5)))[:-2]} == {WIDTH}


def test_at_most_eight_blocks() -> None:
    lines = [line.strip() for line in text(Screen().frame(info(10)))]
    assert "... (2 more)" in lines
    assert sum(line.startswith("w") for line in lines) == 8


def test_long_names_are_cut() -> None:
    assert {len(line) for line in text(Screen().frame(info(1, block_id="w%d" + "x" * 100)))[:-2]} == {WIDTH}


def test_rates_are_compared_with_their_peak() -> None:
    screen = Screen()
    for rate, color in ((1000, "32"), (500, "33"), (99, "31"), (900, "32")):
        frame = screen.frame(info(rate=rate))
        assert "\x1b[%sm%s B/s" % (color, rate) in frame
        assert " 1000 B/s " in frame


@pytest.mark.parametrize(("number", "shown"), [
    (0, "0 "), (1024, "1024 "), (1025, "1 K"), (1536, "1.5 K"), (GIB, "1024 M"), (GIB + GIB // 2, "1.5 G"), (5000 * GIB, "5000 G"),
])
def test_units(number: int, shown: str) -> None:
    assert units(number) == shown
