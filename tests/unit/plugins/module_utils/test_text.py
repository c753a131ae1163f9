# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a host's text reaches the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.coasters.pool.plugins.module_utils.text import MAX_LENGTH, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, ümläut, 日本", "plain words, ümläut, 日本"),
        ("\x1b[31mred\x07", "?[31mred?"),
        ("a\nb\rc\td\0e", "a?b?c?d?e"),
        ("\x9b2J", "?2J"),
        ("abc\u202edef\u2066g\u200b", "abc?def?g?"),
        ("\udc80", "?"),
    ],
)
def test_controls_are_shown_as_marks(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(max_size=2 * MAX_LENGTH))
def test_always_short_and_printable(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == min(len(text), MAX_LENGTH)
    assert not text.isprintable() or text.startswith(printable(text))
