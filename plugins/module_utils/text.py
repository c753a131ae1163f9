# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that comes from a worker host, which is not trusted to write on the user's terminal."""

MAX_LENGTH = 500
"""Most characters of one value that are shown."""


def printable(text: str) -> str:
    """The first MAX_LENGTH characters, ``?`` for each that would move the cursor, break the line or turn the writing."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_LENGTH])
