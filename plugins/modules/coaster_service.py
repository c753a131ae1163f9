#!/usr/bin/python
# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts or stops the coaster service of a pool."""

from __future__ import annotations

DOCUMENTATION = r"""
module: coaster_service
short_description: Start or stop the coaster service of a pool
version_added: 1.0.0
description:
  - Starts the coaster service that hands jobs to the workers of a pool, on the machine where Jetstream runs (the client).
  - A keeper process starts the service's program, keeps it running on the same ports, and ends it with the pool.
author:
  - The coasters.pool contributors (@coasters)
options:
  state:
    description:
      - With V(started) the service runs and answers when the module returns.
      - With V(stopped) the service, its keeper and the pool's folder on this machine are gone.
    type: str
    choices: [started, stopped]
    default: started
  pool:
    description: Name of the pool. Pools with different names do not touch each other.
    type: str
    default: default
  engine:
    description:
      - Which programs to run. V(builtin) is the engine of this collection, V(swift) a Swift/K distribution.
      - V(auto) takes Swift/K when O(bin_dir) is given or its C(coaster-service) is found in C(PATH), else V(builtin).
    type: str
    choices: [auto, builtin, swift]
    default: auto
  bin_dir:
    description: The C(bin) directory of a Swift/K distribution. It runs on Java 8 or later.
    type: path
  service_port:
    description: Port for clients such as C(cog-job-submit). V(0) is any free port.
    type: int
    default: 4050
  worker_port:
    description: Port for workers. V(0) is any free port.
    type: int
    default: 4051
  listen:
    description: Address that the port for clients is bound to. Only the built-in engine can be told.
    type: str
    default: 127.0.0.1
  reach:
    description:
      - Hosts or networks whose workers connect without a tunnel.
      - The built-in engine binds its port for workers to loopback and to this machine's addresses that lead to them.
      - Where the service is not on the control node, or runs as another user there, no tunnel leads to it and this is needed.
    type: list
    elements: str
    default: []
  allow_users:
    description:
      - Users of this machine who may be clients of the built-in engine over loopback, beside the one who starts the service.
      - They can run commands on the pool's workers.
    type: list
    elements: str
    default: []
  address:
    description:
      - Address or name of this machine that the service announces in its URL, by default the one of O(listen).
      - Where the service is not on the control node, workers use it too, by default the address that Ansible uses.
    type: str
  hosts:
    description: The hosts whose workers may register with the built-in engine, each with a block id that is made for it.
    type: list
    elements: str
    default: []
  owner:
    description: Id of a process on this machine to which the pool belongs. When it is gone, the service ends.
    type: int
  wait:
    description: Whether to return only when the service answers.
    type: bool
    default: true
  limit:
    description: Seconds until the service must answer.
    type: float
    default: 30
  supervisor:
    description:
      - How the keeper of the service runs. V(detached) is a process of its own.
      - V(systemd) starts it again after a boot, and whenever it fails, as a unit of the user, or of the system where the user is root.
        Users other than root need lingering, which root may have to allow with C(loginctl enable-linger).
      - A service that runs already is left alone, however it was started.
    type: str
    choices: [detached, systemd]
    default: detached
  keep_logs:
    description: Whether O(state=stopped) leaves the folder with the logs.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says truthfully what would be done and does nothing.
    support: full
  diff_mode:
    description: Shows the engine of the service before and after.
    support: full
  platform:
    description: Where it runs.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Start the coaster service
  coasters.pool.coaster_service:
    service_port: 4050

- name: Stop it
  coasters.pool.coaster_service:
    state: stopped
"""

RETURN = r"""
worker_urls:
  description:
    - For the option O(coasters.pool.swift_worker#module:urls) where the service is not on the control node, or runs as another user there.
    - Empty where the control node itself leads the workers to it.
  returned: when started
  type: list
  elements: str
  sample: ["http://10.0.0.5:4051"]
url:
  description: The coaster service URL, for clients.
  returned: when the service answers
  type: str
  sample: http://127.0.0.1:4050
worker_url:
  description: The URL for workers, as the service announces it.
  returned: when the service answers
  type: str
  sample: http://127.0.0.1:4051
control_url:
  description: The URL of the statistics, on loopback.
  returned: when the service answers
  type: str
  sample: http://localhost:34567
engine:
  description: The engine that runs.
  returned: when started
  type: str
  sample: builtin
ports:
  description: The ports for clients (C(service)), workers (C(worker)) and statistics (C(control)).
  returned: when the service answers
  type: dict
bin_dir:
  description: The directory of the pool's three programs. With it in C(PATH) the user has a C(cog-job-submit) that works.
  returned: when started
  type: str
open_ports:
  description: One sentence on what Swift/K leaves open.
  returned: when the engine is Swift/K
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.coasters.pool.plugins.module_utils import service_state


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=service_state.ARGUMENTS, supports_check_mode=True)
    result = service_state.ensure(module.params, module.check_mode)
    if not module._diff:
        result.pop("diff", None)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
