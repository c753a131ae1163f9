# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``ansible-galaxy collection install`` where there is nothing but ansible-core: roles, plugins and plays work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from .environment import LIMIT, Environment, ours

KEPT = ("meta", "playbooks", "plugins", "roles")


@pytest.fixture(scope="module")
def environment(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Ansible and the collection, of which all is deleted that it must not need."""
    made = Environment(tmp_path_factory.mktemp("environment"))
    made.pip("ansible-core")
    made.run("ansible-galaxy", "collection", "install", "--offline", tarball)
    for path in installed(made).iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return made


def installed(environment: Environment) -> Path:
    return environment.home / ".ansible" / "collections" / "ansible_collections" / "coasters" / "pool"


def test_it_holds_what_it_should_and_no_more(tarball: Path) -> None:
    with tarfile.open(tarball) as file:
        names = {member.name for member in file if member.isfile()}
    wanted = ours(*KEPT, "CHANGELOG.md", "LICENSE", "README.md", "changelogs/changelog.yaml", "docs/*.md", "docs/*.png", "docs/*.svg")
    assert names == wanted | {"FILES.json", "MANIFEST.json"}


def test_a_pool_starts_runs_a_job_and_stops(environment: Environment) -> None:
    written = environment.home / "service.json"
    words = ("-i", "localhost,", "-c", "local", "-e", "ansible_python_interpreter={{ ansible_playbook_python }}", "-e", "coaster_service_port=0",
             "-e", "coaster_service_worker_port=0")
    try:
        said = environment.run(
            "ansible-playbook", "coasters.pool.start_pool", *words, ANSIBLE_CALLBACKS_ENABLED="coasters.pool.service_url",
            COASTERS_SERVICE_URL_FILE=str(written),
        )
        url = json.loads(written.read_text())["url"]
        assert f"Started coaster service: {url}" in said
        submit = environment.home / ".local" / "state" / "coasters" / "default" / "bin" / "cog-job-submit"
        words_of_job = ("-provider", "coaster-persistent", "-service-contact", url, "-redirected", "/bin/echo", "from a job")
        done = subprocess.run(
            [submit, *words_of_job], env=environment.variables, capture_output=True, text=True, timeout=LIMIT, check=True
        )
        assert "from a job" in done.stdout
    finally:
        environment.run("ansible-playbook", "coasters.pool.stop_pool", *words)
    assert not submit.exists()


def test_documentation_is_found_by_name(environment: Environment) -> None:
    for kind, name in (("module", "swift_worker"), ("callback", "service_url"), ("role", "coaster_service")):
        assert name in environment.run("ansible-doc", "-t", kind, f"coasters.pool.{name}")


def test_an_execution_environment_gets_what_the_control_node_needs(tarball: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(tarball, tmp_path / "ansible_collections" / "coasters" / "pool")
    builder = Path(sys.executable).parent / "ansible-builder"
    done = subprocess.run([builder, "introspect", "--sanitize", tmp_path], capture_output=True, text=True, timeout=LIMIT, check=True)
    found = yaml.safe_load(done.stdout)
    assert [line.split("  #")[0] for line in found["system"]] == ["openssh-client [platform:dpkg]", "openssh-clients [platform:rpm]"]
    assert (found["python"], done.stderr) == ([], "")
