#!/usr/bin/python
# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells what the coaster service of a pool says of its workers and jobs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: coaster_service_info
short_description: Tell the state of a pool
version_added: 1.0.0
description:
  - Returns the addresses of a running pool and what its coaster service says of its workers and jobs.
  - Can wait until the service lists the workers that are expected.
author:
  - The coasters.pool contributors (@coasters)
options:
  pool:
    description: Name of the pool.
    type: str
    default: default
  workers:
    description: Names of the hosts to wait for.
    type: list
    elements: str
    default: []
  min_workers:
    description: Fewer workers than this are an error.
    type: int
    default: 0
  limit:
    description: Seconds to wait for the service and its workers.
    type: float
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
- name: Ask the service of the pool
  coasters.pool.coaster_service_info:
  register: pool
"""

RETURN = r"""
url:
  description: The coaster service URL, for clients.
  returned: success
  type: str
  sample: http://127.0.0.1:4050
engine:
  description: The engine that runs.
  returned: success
  type: str
  sample: builtin
since:
  description: When the service was started first, in seconds since the epoch.
  returned: success
  type: float
workers:
  description: The registered workers, each with C(name), C(host), C(slots), C(busy), C(completed), C(failed) and C(last_seen).
  returned: success
  type: list
  elements: dict
jobs:
  description: How many jobs are C(queued), C(active), C(completed) and C(failed).
  returned: success
  type: dict
missing:
  description: Which of O(workers) are not listed.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.coasters.pool.plugins.module_utils import pool_info


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=pool_info.ARGUMENTS, supports_check_mode=True)
    result = pool_info.tell(module.params, module.check_mode)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
