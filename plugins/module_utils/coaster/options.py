# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines in the style of Swift/K's programs (coaster-protocol 6): ``-name value``, one dash, no ``=``.

Runs on Python 3.6 and later; argparse would cost more CPU than a whole submit client may.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Sequence, Tuple


class UsageError(Exception):
    """The command line is wrong; the text is one sentence that says where and what to do."""


class Option:
    """One option: ``-name``, perhaps ``-alias``. ``value`` is the word for its value in the usage text, empty for a
    switch; ``help`` is its line there."""

    __slots__ = ("name", "alias", "value", "help")

    def __init__(self, name: str, alias: str = "", value: str = "", help: str = "") -> None:
        self.name, self.alias, self.value, self.help = name, alias, value, help


def parse(argv: "Sequence[str]", spec: "Sequence[Option]") -> "Tuple[Dict[str, str], List[str]]":
    """The options in ``argv`` by their full names (a switch has the value ``"true"``), and the words after them.

    Parsing stops at the first word that is neither an option nor the value of one. A value may not begin with ``-``,
    except for a negative number. The last one of a repeated option counts.
    Raises UsageError on an unknown option or a missing value.
    """
    known = {}
    for option in spec:
        known[option.name] = option
        if option.alias:
            known[option.alias] = option
    values: "Dict[str, str]" = {}
    words = list(argv)
    position = 0
    while position < len(words) and words[position].startswith("-"):
        word = words[position]
        if word[1:] not in known:
            raise UsageError("Unknown option: %s (-help lists the options)" % word)
        option = known[word[1:]]
        position += 1
        if not option.value:
            values[option.name] = "true"
            continue
        if position == len(words) or _is_option(words[position]):
            raise UsageError("The option %s needs a value: %s %s" % (word, word, option.value))
        values[option.name] = words[position]
        position += 1
    return values, words[position:]


def _is_option(word: str) -> bool:
    return word.startswith("-") and not word[1:].isdigit()


def usage(line: str, spec: "Sequence[Option]") -> str:
    """The usage text: ``line`` and a line for each option, ended by a newline."""
    lines = ["Usage:", "  " + line, "Options:"]
    for option in spec:
        words = "-" + option.name + (" | -" + option.alias if option.alias else "") + (" " + option.value if option.value else "")
        lines.append("  %-36s %s" % (words, option.help))
    return "\n".join(lines) + "\n"


def number(values: "Dict[str, str]", name: str, default: int, least: int = 0, most: int = 0x7FFFFFFF) -> int:
    """The value of an option as a number from ``least`` to ``most``. Raises UsageError."""
    text = values.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        raise UsageError("The value of -%s must be a number, not %r" % (name, text)) from None
    if not least <= value <= most:
        raise UsageError("The value of -%s must be from %d to %d, not %d" % (name, least, most, value))
    return value
