#!/usr/bin/python
# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of swift_worker_info; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swift_worker_info
short_description: Tell the state of a coaster worker
version_added: 1.0.0
description:
  - Returns what runs on a host for a pool, and the last lines of the logs that the worker and its supervisor keep there.
  - Changes nothing.
author:
  - The coasters.pool contributors (@coasters)
options:
  pool:
    description: Name of the pool.
    type: str
    default: default
  lines:
    description: How many lines of the logs. With V(0) there need not be any.
    type: int
    default: 0
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
- name: Look at the worker and the end of its log
  coasters.pool.swift_worker_info:
    lines: 50
  register: worker
"""

RETURN = r"""
hostname:
  description: What the host calls itself.
  returned: success
  type: str
  sample: node07
running:
  description: Whether a worker is supervised there.
  returned: success
  type: bool
engine:
  description: The engine of the worker.
  returned: when it runs
  type: str
  sample: builtin
slots:
  description: Jobs that the worker runs at a time.
  returned: when it runs
  type: int
  sample: 16
urls:
  description: The URLs that the worker tries.
  returned: when it runs
  type: list
  elements: str
log:
  description: The last lines of the logs, without control characters.
  returned: success
  type: list
  elements: str
"""
