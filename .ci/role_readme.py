# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The README of each role, made from its argument specs. Run as: python .ci/role_readme.py   (writes roles/*/README.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"


def markdown(text: str | list[str]) -> str:
    """Ansible's markup as Markdown: every C(), V(), O(), RV(), E() and M() is code."""
    joined = " ".join(text) if isinstance(text, list) else text
    return re.sub(r"\b(?:C|V|O|RV|E|M)\(([^)]*)\)", r"`\1`", joined)


def default(option: dict[str, Any]) -> str:
    """The cell of an option's default value."""
    if option.get("required"):
        return "required"
    if "default" not in option:
        return ""
    value = option["default"]
    return f"`{value}`" if value and isinstance(value, str) else f"`{json.dumps(value)}`"


def entry_point(role: str, name: str, spec: dict[str, Any]) -> Iterator[str]:
    """The lines of one entry point."""
    yield f"## {name}: {spec['short_description']}"
    yield ""
    yield markdown(spec["description"])
    yield ""
    yield "```yaml"
    yield f"- name: {spec['short_description']}"
    yield "  ansible.builtin.include_role:"
    yield f"    name: coasters.pool.{role}"
    if name != "main":
        yield f"    tasks_from: {name}"
    yield "```"
    yield ""
    yield "| Variable | Type | Default | Meaning |"
    yield "|---|---|---|---|"
    for variable, option in spec["options"].items():
        kind = f"list of {option['elements']}" if option["type"] == "list" else option["type"]
        meaning = markdown(option["description"])
        if "choices" in option:
            meaning += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
        yield f"| `{variable}` | {kind} | {default(option)} | {meaning} |"
    yield ""


def readme(role: Path) -> str:
    """The text of the role's README.md."""
    about = yaml.safe_load((role / "meta" / "main.yml").read_text())["galaxy_info"]["description"]
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    lines = [f"# coasters.pool.{role.name}", "", about, "", "<!-- Made from meta/argument_specs.yml by `make readmes`. -->", ""]
    for name, spec in specs.items():
        lines += entry_point(role.name, name, spec)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    for folder in sorted(ROLES.iterdir()):
        (folder / "README.md").write_text(readme(folder))
