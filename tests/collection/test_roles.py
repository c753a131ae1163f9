# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles' interface: what the argument specs say is what the roles do, and what their READMEs show."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted((ROOT / "roles").iterdir())


def specs(role: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"])


def name(role: Path) -> str:
    return role.name


@pytest.mark.parametrize("role", ROLES, ids=name)
def test_defaults_equal_the_specs(role: Path) -> None:
    in_specs = {}
    for entry_point in specs(role).values():
        for variable, option in entry_point["options"].items():
            if "default" in option:
                assert in_specs.setdefault(variable, option["default"]) == option["default"]
    assert yaml.safe_load((role / "defaults" / "main.yml").read_text()) == in_specs


@pytest.mark.parametrize("role", ROLES, ids=name)
def test_every_task_file_is_an_entry_point_with_a_spec(role: Path) -> None:
    """But those whose name begins with an underscore, which the others include."""
    assert {path.stem for path in (role / "tasks").glob("[!_]*.yml")} == set(specs(role))


@pytest.mark.parametrize("role", ROLES, ids=name)
def test_variables_have_the_prefix_of_the_role(role: Path) -> None:
    assert [variable for spec in specs(role).values() for variable in spec["options"] if not variable.startswith(f"{role.name}_")] == []


@pytest.mark.parametrize("role", ROLES, ids=name)
def test_the_readme_is_made_from_the_specs(role: Path) -> None:
    made = runpy.run_path(str(ROOT / ".ci" / "role_readme.py"))["readme"](role)
    assert (role / "README.md").read_text() == made, "run `make readmes`"
