# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the collection is found: in a flat checkout, in an Ansible tree, and beside an installed package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coaster_pool import collection

PACKAGE = Path(collection.__file__).parent
ASK = (
    "import pathlib, sys; from coaster_pool import collection; scratch = pathlib.Path(sys.argv[1]);"
    "print(collection.importable(scratch)); collection.importable(scratch);"
    "import ansible_collections.coasters.pool.plugins.where as found; print(found.__file__); print(*scratch.iterdir())"
)


def furnish(place: Path) -> Path:
    """Something that looks like the collection."""
    (place / "playbooks").mkdir(parents=True)
    (place / "plugins").mkdir()
    (place / "plugins" / "where.py").touch()
    return place


def ask(place: Path, scratch: Path) -> list[str]:
    """Link the package into ``place`` as a copy of it would be, and ask it from a new process."""
    (place / "coaster_pool").mkdir()
    for file in PACKAGE.glob("*.py"):
        (place / "coaster_pool" / file.name).write_bytes(file.read_bytes())
    scratch.mkdir()
    done = subprocess.run([sys.executable, "-IBc", f"import sys; sys.path.insert(0, {str(place)!r}); {ASK}", str(scratch)],
                          capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_flat_checkout_gets_a_link(tmp_path: Path) -> None:
    here = furnish(tmp_path / "checkout")
    root, module, made = ask(here, tmp_path / "scratch")
    assert root == made == str(tmp_path / "scratch" / "collections")
    assert Path(module).resolve() == here / "plugins" / "where.py"


def test_a_checkout_in_an_ansible_tree_is_used_as_it_is(tmp_path: Path) -> None:
    here = furnish(tmp_path / "ansible_collections" / "coasters" / "pool")
    assert ask(here, tmp_path / "scratch") == [str(tmp_path), str(here / "plugins" / "where.py"), ""]


def test_the_wheel_brings_the_collection_along(tmp_path: Path) -> None:
    here = furnish(tmp_path / "ansible_collections" / "coasters" / "pool")
    assert ask(tmp_path, tmp_path / "scratch") == [str(tmp_path), str(here / "plugins" / "where.py"), ""]


def test_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    root = collection.importable(tmp_path)
    assert (root / "ansible_collections" / "coasters" / "pool" / "galaxy.yml").is_file()
    assert sys.path == [str(root)]


@pytest.mark.parametrize("inside", ["", "ansible_collections/coasters/pool"])
def test_the_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    """As above, in this process."""
    here = tmp_path / "here"
    (here / "ansible_collections" / "coasters" / "pool" / "playbooks").mkdir(parents=True)
    monkeypatch.setattr(collection, "_HERE", here / inside)
    assert collection.root(tmp_path / "scratch") == here
    monkeypatch.setattr(collection, "_HERE", tmp_path / "checkout")
    monkeypatch.setattr(sys, "path", [])
    for dummy in range(2):
        assert collection.importable(tmp_path / "scratch") == tmp_path / "scratch" / "collections"
    assert sys.path == [str(tmp_path / "scratch" / "collections")]
    assert (tmp_path / "scratch" / "collections" / "ansible_collections" / "coasters" / "pool").readlink() == tmp_path / "checkout"
