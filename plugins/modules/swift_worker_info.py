#!/usr/bin/python
# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of swift_worker_info; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swift_worker_info
short_description: Read the end of a coaster worker's logs
version_added: 1.0.0
description:
  - Returns the last lines of the logs that the worker and its supervisor keep on the host. Changes nothing.
author:
  - The coasters.pool contributors (@coasters)
options:
  pool:
    description: Name of the pool.
    type: str
    default: default
  lines:
    description: How many lines.
    type: int
    default: 20
attributes:
  check_mode:
    description: Changes nothing in either mode.
    support: full
  diff_mode:
    description: Nothing is shown beside the result.
    support: none
  platform:
    description: Where it runs.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Read the log
  coasters.pool.swift_worker_info:
    lines: 50
  register: worker
"""

RETURN = r"""
log:
  description: The last lines, without control characters.
  returned: success
  type: list
  elements: str
"""
