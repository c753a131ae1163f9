# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``pip install coaster-pool`` in an empty environment: commands, plays and documentation are found with no further settings."""

from __future__ import annotations

import signal
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from .environment import LIMIT, ROOT, Environment, ours

VERSION = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
INSIDE = "ansible_collections/coasters/pool/"


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment"))
    made.pip(wheel)
    return made


def test_it_holds_what_it_should_and_no_more(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    collection = ours("meta", "playbooks", "plugins", "roles", "CHANGELOG.md", "LICENSE", "README.md", "galaxy.yml")
    shared = {f"coaster_pool-{VERSION}.data/data/{name}" for name in ours("share")}
    assert sorted(names) == sorted({INSIDE + name for name in collection} | ours("coaster_pool", "start_pool.py") | shared)


def test_the_manual_and_the_completion_are_where_programs_look_for_them(environment: Environment) -> None:
    share = environment.bin.parent / "share"
    assert (share / "man" / "man1" / "start-pool.1").is_file()
    assert (share / "bash-completion" / "completions" / "start-pool").is_file()
    assert (share / "zsh" / "site-functions" / "_start-pool").is_file()


def test_its_version_is_the_collections(wheel: Path, environment: Environment) -> None:
    assert wheel.name == f"coaster_pool-{VERSION}-py3-none-any.whl"
    assert environment.run("start-pool", "--version").split() == ["start-pool", VERSION]
    assert f"coasters.pool {VERSION}" in " ".join(environment.run("ansible-galaxy", "collection", "list", "coasters.pool").split())


def test_a_pool_starts_and_runs_a_job(environment: Environment) -> None:
    with environment.start("start-pool", "--name", "wheel", "--port", "0", "--worker-port", "0", "localhost") as pool:
        try:
            assert pool.stdout is not None
            url = pool.stdout.readline().removeprefix("Started coaster service: ").strip()
            assert url.startswith("http://")
            words = ("-provider", "coaster-persistent", "-service-contact", url, "-redirected", "/bin/echo", "from a job")
            assert "from a job" in environment.run("cog-job-submit", *words)
        finally:
            pool.send_signal(signal.SIGINT)
        assert pool.wait(timeout=LIMIT) == 128 + signal.SIGINT
    assert not list((environment.home / ".coasters").glob("*"))


def test_plays_are_found_by_name(environment: Environment) -> None:
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        environment.run("ansible-playbook", "--syntax-check", f"coasters.pool.{path.stem}", "-i", "localhost,")


@pytest.mark.parametrize("kind", ["module", "callback", "role"])
def test_documentation_is_found_by_name(environment: Environment, kind: str) -> None:
    folder = {"module": "plugins/modules", "callback": "plugins/callback", "role": "roles"}[kind]
    for path in sorted((ROOT / folder).iterdir()):
        if not path.name.startswith("__"):
            assert "ERROR" not in environment.run("ansible-doc", "-t", kind, f"coasters.pool.{path.stem}")


@pytest.mark.parametrize("program", ["coaster-service", "coaster-worker", "cog-job-submit"])
def test_the_programs_of_the_engine_are_commands(environment: Environment, program: str) -> None:
    done = subprocess.run([environment.bin / program, "-help"], env=environment.variables, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert f"{program} " in done.stdout
    assert done.stderr == ""
