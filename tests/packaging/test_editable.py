# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``pip install --editable``: Python and Ansible read the checkout itself, never a copy of an earlier day."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .environment import ROOT, Environment, ours


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for name in ours("."):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def environment(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment"))
    made.pip("--no-deps", "--editable", checkout)
    return made


def test_nothing_of_the_collection_is_copied(environment: Environment) -> None:
    packages = next((environment.bin.parent / "lib").glob("python3*/site-packages"))
    assert not (packages / "ansible_collections").exists()
    assert not list(packages.rglob("*swift_worker*"))


@pytest.mark.parametrize("name", ["ansible_collections.coasters.pool.plugins.module_utils.coaster", "coaster_pool", "start_pool"])
def test_python_finds_the_checkout(environment: Environment, checkout: Path, name: str) -> None:
    words = ("-c", f"import importlib.util, os; print(os.path.realpath(importlib.util.find_spec({name!r}).origin))")
    found = Path(environment.run("python", *words).strip())
    assert found.is_relative_to(checkout.resolve())


def test_a_change_counts_at_once(environment: Environment, checkout: Path) -> None:
    (checkout / "plugins" / "module_utils" / "news.py").write_text("SAID = 'changed'\n")
    words = ("-c", "from ansible_collections.coasters.pool.plugins.module_utils import news; print(news.SAID)")
    assert environment.run("python", *words) == "changed\n"
