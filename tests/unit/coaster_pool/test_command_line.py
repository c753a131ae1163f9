# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of start_pool.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from coaster_pool import command_line


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence with which the command line is refused."""
    with pytest.raises(SystemExit) as ended:
        command_line.parse(list(arguments))
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.strip().splitlines()[-1]


def test_the_defaults_are_those_of_the_original() -> None:
    options = command_line.parse(["user@1.0.0.1", "user@1.0.0.2"])
    assert options.fqdns == ["user@1.0.0.1", "user@1.0.0.2"]
    assert (options.show_stats, options.swift_bin_dir) == (False, None)
    assert (options.name, options.port, options.worker_port) == ("default", 4050, 4051)


def test_everything_given(swift: Path) -> None:
    options = command_line.parse(
        ["--show-stats", "--swift-bin-dir", f"{swift}/.", "--name", "p", "--port", "0", "--worker-port", "65535", "localhost"]
    )
    assert (options.show_stats, options.swift_bin_dir) == (True, str(swift))
    assert (options.name, options.port, options.worker_port) == ("p", 0, 65535)


@pytest.fixture
def swift(tmp_path: Path) -> Path:
    for program in ("coaster-service", "worker.pl", "cog-job-submit"):
        (tmp_path / program).touch()
    return tmp_path


def test_no_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert refuse(capsys) == "start_pool.py: error: name at least one host, as user@host, an ssh alias, or localhost"


@pytest.mark.parametrize("word", ["-1", "65536", "http", "4050x", ""])
@pytest.mark.parametrize("option", ["--port", "--worker-port"])
def test_no_port(capsys: pytest.CaptureFixture[str], option: str, word: str) -> None:
    assert f"{word} is not a port: give a number from 0 to 65535" in refuse(capsys, f"{option}={word}", "node01")


@pytest.mark.parametrize("program", ["coaster-service", "worker.pl"])
def test_a_directory_without_the_programs(capsys: pytest.CaptureFixture[str], swift: Path, program: str) -> None:
    (swift / program).unlink()
    said = refuse(capsys, "--swift-bin-dir", str(swift), "node01")
    assert f"{swift} has no {program}: name the bin directory of a Swift/K distribution" in said


def test_a_directory_that_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "has no coaster-service" in refuse(capsys, "--swift-bin-dir", str(tmp_path / "none"), "node01")


def test_an_option_is_no_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: -oProxyCommand=id" in refuse(capsys, "node01", "-oProxyCommand=id")


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.parse(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for action in command_line.parser()._actions:
        assert action.help, action.dest
        assert all(name in text for name in action.option_strings)


@pytest.mark.parametrize("value", ["{{ lookup('pipe', 'id') }}", "a{% raw %}", "{# no #}", "a\nb", "\x1b[2J", "a\u202eb"])
@pytest.mark.parametrize("option", ["--listen", "--allow-user", "--swift-bin-dir"])
def test_a_value_is_data(capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    assert "cannot be used: leave out control characters and '{{', '{%' and '{#'" in refuse(capsys, f"{option}={value}", "node01")


@pytest.mark.parametrize("value", ["everywhere", "10.0.0.1/8", "{{ x }}", ""])
def test_no_network(capsys: pytest.CaptureFixture[str], value: str) -> None:
    assert f"{value!r} is not a network: write it as 10.0.0.0/8" in refuse(capsys, f"--trust={value}", "node01")


def test_a_command_after_two_dashes() -> None:
    options = command_line.parse(["node01", "--", "make", "--", "-q"])
    assert (options.fqdns, options.command, options.quiet) == (["node01"], ["make", "--", "-q"], False)


@pytest.mark.parametrize("words", [["node01"], ["-i", "hosts"], ["--hosts-file", "hosts"]])
def test_a_stop_is_for_the_whole_pool(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert "--stop ends the whole pool: leave the hosts out, or take them out of it with --remove" in refuse(capsys, "--stop", *words)


@pytest.mark.parametrize("words", [["--status"], ["--stop"], ["--remove", "node01"], ["--logs", "node01"]])
def test_what_cannot_be_checked(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert "--check says what a start would do: it goes with none of" in refuse(capsys, "--check", *words)


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "name a command after --" in refuse(capsys, "node01", "--")


@pytest.mark.parametrize("option", ["--detach", "--status", "--stop", "--remove", "--logs", "--show-stats"])
def test_a_command_goes_with_a_pool_of_its_own(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert "a command after -- goes with none of" in refuse(capsys, option, "node01", "--", "true")


@pytest.mark.parametrize(
    ("words", "fqdns", "config"),
    [
        (["--jetstream-config", "node01"], ["node01"], "/home/u/.config/jetstream/config.yaml"),
        (["node01", "--jetstream-config"], ["node01"], "/home/u/.config/jetstream/config.yaml"),
        (["--jetstream-config", "my.yaml", "node01"], ["node01"], "my.yaml"),
        (["--jetstream-config", "./mine", "node01"], ["node01"], "./mine"),
        (["node01"], ["node01"], None),
    ],
)
def test_the_file_for_jetstream(monkeypatch: pytest.MonkeyPatch, words: list[str], fqdns: list[str], config: str | None) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    options = command_line.parse(words)
    assert (options.fqdns, options.jetstream_config) == (fqdns, config)


@pytest.mark.parametrize("word", ["0", "-1", "1000000", "many"])
def test_no_number_of_workers(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert f"{word} is not a number of workers: give 1 or more" in refuse(capsys, f"--min-workers={word}", "node01")


@pytest.mark.parametrize("option", ["--connect-limit", "--drain-limit"])
@pytest.mark.parametrize("word", ["0", "-1", "soon"])
def test_no_number_of_seconds(capsys: pytest.CaptureFixture[str], option: str, word: str) -> None:
    assert f"{word} is not a number of seconds: give 1 or more" in refuse(capsys, f"{option}={word}", "node01")


def test_numbers_as_they_are_meant() -> None:
    options = command_line.parse(["node01", "--min-workers", "3", "--connect-limit", "20", "--drain-limit", "5", "--trust", "10.0.0.0/8"])
    assert (options.min_workers, options.connect_limit, options.drain_limit, options.trust) == (3, 20, 5, ["10.0.0.0/8"])
