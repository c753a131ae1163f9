# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exchange with a host as text: what goes there, and what comes back."""

from __future__ import annotations

import hashlib
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.coasters.pool.plugins.module_utils.text import MAX_LENGTH
from ansible_collections.coasters.pool.plugins.plugin_utils import exchange


def test_the_command_is_one_script_and_its_words() -> None:
    words = shlex.split(exchange.command("start", "my.pool"))
    assert words[:2] == ["sh", "-c"]
    assert words[3:] == ["coasters", "start", "my.pool"]


@pytest.mark.parametrize("pool", ["$(touch pwned)", "a b", "a'b", "a\nb", "-x", "{{ 7 * 7 }}"])
def test_a_word_arrives_as_it_was_sent(pool: str) -> None:
    command = exchange.command("none", pool)
    script = shlex.split(command)[2]
    shown = subprocess.run(["sh", "-c", command.replace(shlex.quote(script), "'printf %s \"$2\"'")], capture_output=True, text=True, check=False)
    assert shown.stdout == pool


def test_the_command_fits_one_argument_of_a_process() -> None:
    assert len(exchange.command("start", "p" * 63).encode()) < 100_000  # Linux: 128 KiB


def test_standard_input_has_settings_supervisor_and_program() -> None:
    program = bytes(range(256)) * 3
    data = exchange.standard_input({"slots": "4", "interpreter": "", "urls": "http://@:4051"}, program)
    head, dummy, body = data.partition(b"\n\n")
    keeper = exchange.supervisor()
    assert head.decode().splitlines() == ["slots=4", "urls=http://@:4051", f"supervisor_size={len(keeper)}", "program_size=768"]
    assert body == keeper + program + b"end\n"


def test_a_version_is_that_of_the_program_and_of_its_supervisor() -> None:
    assert exchange.version(b"a") == exchange.version(b"a") == hashlib.sha256(exchange.supervisor() + b"a").hexdigest()
    assert exchange.version(b"a") != exchange.version(b"b")


def test_standard_input_without_a_program() -> None:
    assert exchange.standard_input({"keep_logs": "yes"}) == b"keep_logs=yes\nsupervisor_size=0\nprogram_size=0\n\n"


@pytest.mark.parametrize("value", ["a\nrestart=yes", "a\r", "a\0b"])
def test_a_setting_is_one_line(value: str) -> None:
    with pytest.raises(exchange.ExchangeError, match="the setting block must be one line"):
        exchange.standard_input({"block": value})


@pytest.mark.parametrize(
    "url",
    ["http://@:4051", "http://10.0.0.5:4051", "https://node.example.org:1", "tcp://n_1:65535", "tcps://[::1]:4051", "http://[fe80::1%eth0]:1"],
)
def test_a_worker_url(url: str) -> None:
    assert exchange.check_urls([url, url]) == f"{url},{url}"


@pytest.mark.parametrize(
    "url",
    ["", "node:4051", "http://node", "http://node:", "http://node:4051/", "http://node:123456", "http://a b:1", "http://$(id):1",
     "http://a,http://b:1", "ftp://node:1", "http://user@node:1", "http://node:1\n", "http://node:1 -x", "http://::1:4051", "http://[x]:1"],
)
def test_no_worker_url(url: str) -> None:
    with pytest.raises(exchange.ExchangeError) as error:
        exchange.check_urls(["http://@:1", url])
    assert repr(url) in str(error.value)


def test_an_answer_among_the_words_of_login_files() -> None:
    output = "Welcome!\ncoasters:hostname=node07\r\ncoasters:urls=http://a:1,http://b=2\nbye\ncoasters:end=start\nlogout\n"
    assert exchange.answer(output, "start") == {"hostname": "node07", "urls": "http://a:1,http://b=2", "end": "start"}


@pytest.mark.parametrize(
    "output", ["", "coasters:hostname=x", "coasters:end=stop\n", "coasters:end=start2", " coasters:end=start", "coasters:end", "This account is closed.\n"]
)
def test_an_answer_that_is_not_whole(output: str) -> None:
    with pytest.raises(exchange.ExchangeError, match="no whole answer"):
        exchange.answer(output, "start")


def test_a_host_cannot_write_on_the_terminal() -> None:
    values = exchange.answer("coasters:error=\x1b[2J\x07gone\ncoasters:big=" + "x" * 100_000 + "\ncoasters:end=start\n", "start")
    assert values["error"] == "?[2J?gone"
    assert len(values["big"]) == MAX_LENGTH


@given(st.text(), st.sampled_from(["start", "stop"]))
def test_whatever_a_host_says_is_an_answer_or_refused(output: str, verb: str) -> None:
    for text in (output, f"{output}\ncoasters:{output}\ncoasters:end={verb}"):
        try:
            values = exchange.answer(text, verb)
        except exchange.ExchangeError:
            continue
        assert all(name.isprintable() and value.isprintable() for name, value in values.items())


@pytest.mark.parametrize(("text", "value"), [("7", 7), ("007", 7), ("", None), (None, None), ("-1", None), ("1.5", None), ("٣", None), ("1" * 10, None)])
def test_a_number(text: str | None, value: int | None) -> None:
    assert exchange.number(text) == value


def test_the_worker_of_a_host() -> None:
    assert exchange.worker("builtin 4 http://a:1,http://b:2") == {"engine": "builtin", "slots": 4, "urls": ["http://a:1", "http://b:2"]}
    assert exchange.worker("") == {}
    assert exchange.worker("nonsense") == {"engine": "nonsense", "slots": None, "urls": [""]}


def test_the_lines_of_a_log() -> None:
    assert exchange.log_lines("Welcome!\ncoasters>one\ncoasters:end=status\ncoasters>\x1b[2Jtwo\n") == ["one", "?[2Jtwo"]
