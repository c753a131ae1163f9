# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding, checking and running a Swift/K distribution, with programs that behave as its own and as Java do."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import swift
from tests.distribution import write_program

JAVA = """\
#!/bin/sh
if [ "$1" = -version ]; then
  {version}
fi
printf '%s\\n' "$@"
"""


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in PATH beside the system's tools, for a ``java``."""
    folder = tmp_path / "java's folder"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def says(folder: Path, version: str, then: str = "exit 0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_program(folder / "java", JAVA.format(version=f"echo '{version}' >&2; {then}"))
    return folder / "java"


def programs(folder: Path, worker: str = "#!/usr/bin/env -S perl -w\n") -> Path:
    folder.mkdir(parents=True)
    for name in swift.PROGRAMS:
        write_program(folder / name, worker)
    return folder


class TestInPath:
    def test_through_a_link(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bin_dir = programs(tmp_path / "swift" / "bin")
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "coaster-service").symlink_to(bin_dir / "coaster-service")
        monkeypatch.setenv("PATH", str(tmp_path / "links"))
        assert swift.in_path() == str(bin_dir)

    @pytest.mark.parametrize("worker", ["#!/usr/bin/python3\n", "#!/home/perla/python\n", "", "use strict; # perl\n"])
    def test_programs_with_another_worker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: str) -> None:
        monkeypatch.setenv("PATH", str(programs(tmp_path / "bin", worker)))
        assert swift.in_path() is None

    def test_a_service_without_a_worker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (programs(tmp_path / "bin") / "worker.pl").unlink()
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        assert swift.in_path() is None

    def test_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert swift.in_path() is None


class TestCheck:
    def test_whole(self, tmp_path: Path) -> None:
        assert swift.check(str(programs(tmp_path / "bin"))) == str(tmp_path / "bin")

    @pytest.mark.parametrize("missing", swift.PROGRAMS)
    def test_a_program_is_missing(self, tmp_path: Path, missing: str) -> None:
        (programs(tmp_path / "bin") / missing).unlink()
        with pytest.raises(swift.SwiftError, match=f"bin has no {missing}: name the bin directory of a Swift/K distribution$"):
            swift.check(str(tmp_path / "bin"))

    def test_the_folder_above(self, tmp_path: Path) -> None:
        programs(tmp_path / "bin")
        with pytest.raises(swift.SwiftError) as error:
            swift.check(str(tmp_path))
        assert str(error.value) == f"{tmp_path} has no coaster-service: name {tmp_path / 'bin'}"

    @pytest.mark.parametrize("name", [None, ""])
    def test_none(self, name: str | None) -> None:
        with pytest.raises(swift.SwiftError, match="needs the bin directory"):
            swift.check(name)

    def test_not_executable(self, tmp_path: Path) -> None:
        (programs(tmp_path / "bin") / "coaster-service").chmod(0o644)
        with pytest.raises(swift.SwiftError, match="coaster-service may not be run by this user: mend its mode"):
            swift.check(str(tmp_path / "bin"))

    def test_a_worker_need_not_be_executable(self, tmp_path: Path) -> None:
        (programs(tmp_path / "bin") / "worker.pl").chmod(0o444)
        assert swift.check(str(tmp_path / "bin"))


class TestJava:
    @pytest.mark.parametrize(
        ("said", "version"),
        [
            ('java version "1.8.0_392"', 8),
            ('openjdk version "1.8.0_252"', 8),
            ('openjdk version "9-ea"', 9),
            ('openjdk version "11.0.13" 2021-10-19', 11),
            ('openjdk version "17" 2021-09-14', 17),
            ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "21.0.8" 2025-07-15 LTS', 21),
            ('openjdk version "25-beta" 2025-09-16', 25),
        ],
    )
    def test_versions(self, java: Path, said: str, version: int) -> None:
        path = says(java, said)
        found = swift.find_java()
        assert (found.path, found.version) == (str(path), version)

    def test_none(self, java: Path) -> None:
        with pytest.raises(swift.SwiftError) as error:
            swift.find_java()
        assert str(error.value) == (
            "there is no Java on this machine, and Swift/K needs Java 8 or later: "
            "install a Java runtime and put it in PATH, or use the built-in engine"
        )

    def test_too_old(self, java: Path) -> None:
        path = says(java, 'java version "1.7.0_80"')
        with pytest.raises(swift.SwiftError) as error:
            swift.find_java()
        assert str(error.value).startswith(f"{path} is Java 7, and Swift/K needs Java 8 or later: install")

    def test_path_comes_before_java_home(self, java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home = says(tmp_path / "home" / "bin", 'openjdk version "11.0.1"')
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
        assert swift.find_java().path == str(home)
        assert swift.find_java().path == str(home)
        path = says(java, 'openjdk version "17.0.1"')
        assert swift.find_java().path == str(path)

    @pytest.mark.parametrize(
        ("said", "then", "told"),
        [
            ("Unable to locate a Java Runtime.", "exit 1", r"\(it said: Unable to locate a Java Runtime\.\)"),
            ("no number here", "exit 0", r"\(it said: no number here\)"),
            ('openjdk version "17"', "exit 3", r'\(it said: openjdk version "17"\)'),
            ("", "exit 0", r"\(it said: nothing\)"),
        ],
    )
    def test_one_that_does_not_run(self, java: Path, said: str, then: str, told: str) -> None:
        says(java, said, then)
        with pytest.raises(swift.SwiftError, match=f"java does not run {told}: install a Java runtime"):
            swift.find_java()

    def test_one_that_is_no_program(self, java: Path) -> None:
        write_program(java / "java", "#!/no/such/interpreter\n")
        with pytest.raises(swift.SwiftError, match=r"java does not run \(.*No such file"):
            swift.find_java()

    def test_one_that_hangs(self, java: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        says(java, "", "exec /bin/sleep 60")
        monkeypatch.setattr(swift, "JAVA_LIMIT", 0.2)
        with pytest.raises(swift.SwiftError, match=r"java does not run \(.*timed out"):
            swift.find_java()


class TestFurnish:
    def run(self, *command: str | Path) -> list[str]:
        return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True, env={"PATH": os.defpath}).stdout.split("\n")[:-1]

    @pytest.mark.parametrize(
        ("version", "kept"), [("1.8.0_392", ["-Djava.endorsed.dirs=/x"]), ("9.0.4", []), ("17.0.1", []), ("21", []), ("25", [])]
    )
    def test_the_launchers_java(self, java: Path, tmp_path: Path, version: str, kept: list[str]) -> None:
        says(java, f'openjdk version "{version}"')
        bin_dir = programs(tmp_path / "it's a distribution" / "bin")
        words = ["-Done", "-Djava.endorsed.dirs=/x", "a  b", "", "*", "$HOME", "-Djava.endorsed"]
        script = "#!/bin/sh\njava " + " ".join(f"'{word}'" for word in words) + ' "$@"\n'
        write_program(bin_dir / "cog-job-submit", script)
        made = Path(swift.furnish(str(tmp_path / "state"), str(bin_dir), swift.find_java()))
        assert made == tmp_path / "state" / "bin"
        expected = ["-Done", *kept, *words[2:], "the user's", "\\n"]
        assert self.run(made / "cog-job-submit", "the user's", "\\n") == expected
        assert (made / "worker.pl").read_text() == (bin_dir / "worker.pl").read_text()

    def test_twice_and_for_nobody_else(self, java: Path, tmp_path: Path) -> None:
        says(java, 'openjdk version "17"')
        for number in range(2):
            bin_dir = programs(tmp_path / str(number))
            write_program(bin_dir / "coaster-service", f"#!/bin/sh\necho {number}\n")
            made = Path(swift.furnish(str(tmp_path / "state"), os.path.relpath(bin_dir), swift.find_java()))
            assert self.run(made / "coaster-service") == [str(number)]
            assert (made / "worker.pl").resolve() == bin_dir / "worker.pl"
        for path in (made, made / "coaster-service", tmp_path / "state" / "java-shim" / "java"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_what_is_open() -> None:
    assert "its ports on this machine (4050, 4051, 39333) can run commands" in swift.open_ports({"a": 4050, "b": 4051, "c": 39333})
    assert "its ports on this machine can run commands" in swift.open_ports({"service": 0})
    for help_ in ("tunnels", "firewall", "built-in engine"):
        assert help_ in swift.open_ports({})
