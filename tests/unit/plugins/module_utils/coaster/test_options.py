# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster.options import Option, UsageError, number, parse, usage

SPEC = (Option("port", "p", "N", "the port"), Option("nosec", help="plain TCP"), Option("max", value="N"))


def test_names_aliases_switches_and_the_rest() -> None:
    assert parse(["-port", "12", "-nosec", "run", "-port", "x"], SPEC) == ({"port": "12", "nosec": "true"}, ["run", "-port", "x"])
    assert parse(["-p", "12"], SPEC) == ({"port": "12"}, [])
    assert parse([], SPEC) == ({}, [])
    assert parse(["", "-p"], SPEC) == ({}, ["", "-p"])


def test_the_last_of_a_repeated_option_counts() -> None:
    assert parse(["-port", "1", "-p", "2"], SPEC)[0] == {"port": "2"}


def test_a_negative_number_is_a_value() -> None:
    assert parse(["-max", "-1"], SPEC) == ({"max": "-1"}, [])


@pytest.mark.parametrize("argv", [["-bogus"], ["--port", "1"], ["-port=1"], ["-"]])
def test_an_unknown_option_is_named(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="Unknown option: " + argv[0]):
        parse(argv, SPEC)


@pytest.mark.parametrize("argv", [["-p"], ["-p", "-nosec"], ["-p", "-"]])
def test_a_missing_value_is_told(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="The option -p needs a value: -p N"):
        parse(argv, SPEC)


def test_usage() -> None:
    assert usage("program <options>", SPEC[:2]) == (
        "Usage:\n  program <options>\nOptions:\n"
        "  -port | -p N                         the port\n"
        "  -nosec                               plain TCP\n"
    )


def test_numbers() -> None:
    assert number({}, "port", 1984) == 1984
    assert number({"port": "12"}, "port", 1984) == 12
    assert number({"max": "-1"}, "max", 0, least=-1) == -1
    with pytest.raises(UsageError, match="The value of -port must be a number, not '1x'"):
        number({"port": "1x"}, "port", 0)
    for text in ("0", "70000"):
        with pytest.raises(UsageError, match="from 1 to 65535, not " + text):
            number({"port": text}, "port", 0, 1, 65535)
