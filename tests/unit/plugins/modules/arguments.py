# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module's arguments: as it is given them, and as its documentation has them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import yaml
from ansible.module_utils import basic


def result(module: ModuleType, arguments: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """What the module prints when it is run with these arguments, and with Ansible's own (_ansible_…)."""
    output = io.StringIO()
    given = json.dumps({"ANSIBLE_MODULE_ARGS": arguments | settings}).encode()
    with (
        mock.patch.object(basic, "_ANSIBLE_ARGS", given), mock.patch.object(basic, "_ANSIBLE_PROFILE", "legacy", create=True),
        redirect_stdout(output), pytest.raises(SystemExit),
    ):
        exec(compile(Path(str(module.__file__)).read_text(), str(module.__file__), "exec"), {"__name__": "__main__"})
    printed: dict[str, Any] = json.loads(output.getvalue())
    return printed


def documented(module: ModuleType) -> dict[str, Any]:
    """The module's documentation as an argument spec."""
    options: dict[str, Any] = yaml.safe_load(module.DOCUMENTATION)["options"]
    return {name: {key: value for key, value in option.items() if key != "description"} for name, option in options.items()}


def public(spec: Mapping[str, Any]) -> dict[str, Any]:
    """An argument spec without what a documentation does not say."""
    return {name: {key: value for key, value in option.items() if key != "no_log"} for name, option in spec.items()}
