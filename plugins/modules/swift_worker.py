#!/usr/bin/python
# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of swift_worker; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swift_worker
short_description: Run a coaster worker on a host
version_added: 1.0.0
description:
  - Installs the worker's program and a supervisor below C(~/.coasters) of the ssh user, starts them, and reports, all in one
    exchange with the host's shell. The host needs Python 3.6 for the built-in engine, Perl for Swift/K, and no root.
  - A worker that runs with the same settings is left alone.
author:
  - The coasters.pool contributors (@coasters)
options:
  state:
    description:
      - With V(started) the worker is supervised on the host.
      - With V(stopped) the worker, its jobs and the pool's folder on the host are gone.
    type: str
    choices: [started, stopped]
    default: started
  pool:
    description: Name of the pool. Pools with different names do not touch each other.
    type: str
    default: default
  engine:
    description: Whose worker runs. V(builtin) is the one of this collection, V(swift) the C(worker.pl) of O(bin_dir).
    type: str
    choices: [builtin, swift]
    default: builtin
  bin_dir:
    description: The C(bin) directory of a Swift/K distribution on the control node.
    type: path
  urls:
    description:
      - Worker URLs of the coaster service, tried in order.
      - The host name C(@) stands for the address from which the client reaches the worker host, as that host sees it.
      - By default the service of the pool on this client, by way of O(route).
    type: list
    elements: str
    default: []
  port:
    description: The worker port of the service of the pool on this client.
    type: int
    default: 4051
  route:
    description:
      - How the worker reaches the service of the pool on this client, V(tunnel) through ssh or V(direct) by TCP.
      - V(auto) is direct for hosts on the networks in O(trust) and a tunnel for all others. A direct host that cannot call
        back gets a tunnel.
    type: str
    choices: [auto, direct, tunnel]
    default: auto
  trust:
    description: Networks whose hosts may be reached without a tunnel.
    type: list
    elements: str
    default: []
  slots:
    description: Jobs that may run at a time. By default the cores that the ssh user may use there.
    type: int
  block:
    description: The id under which the worker registers. By default the one that the pool keeps for this host.
    type: str
  interpreter:
    description: The Python (V(builtin)) or Perl (V(swift)) for the worker. By default it is looked for.
    type: str
  time_limit:
    description: Seconds without a service after which the worker ends its jobs and itself; half of it when it never found one.
    type: int
    default: 60
  restart:
    description: Whether a running worker with other slots, another version or another supervisor is ended, with its jobs, and started anew.
    type: bool
    default: false
  supervisor:
    description:
      - How the supervisor of the worker runs. V(detached) is a process of its own.
      - V(systemd) starts it again after a boot of the host, and whenever it ends, as a unit of the user, or of the system when the ssh user or
        C(become_user) is root. Users other than root need lingering, which root may have to allow with C(loginctl enable-linger).
    type: str
    choices: [detached, systemd]
    default: detached
  keep_logs:
    description: Whether O(state=stopped) leaves the logs on the host.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says truthfully what would be done and does nothing.
    support: full
  diff_mode:
    description: Shows engine, slots and URLs of the worker before and after.
    support: full
  platform:
    description: Where it runs.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Join the workers to the service of the pool on this client
  coasters.pool.swift_worker:

- name: Join a service elsewhere with four slots
  coasters.pool.swift_worker:
    urls: ["http://10.0.0.5:4051"]
    slots: 4

- name: Stop the worker
  coasters.pool.swift_worker:
    state: stopped
"""

RETURN = r"""
hostname:
  description: What the host calls itself.
  returned: when started
  type: str
  sample: node07
slots:
  description: Jobs that the worker runs at a time.
  returned: when started
  type: int
  sample: 16
pid:
  description: Process id of the supervisor on the host.
  returned: when started
  type: int
route:
  description: How the worker reaches the service, V(direct), V(tunnel), or V(local) on the client itself.
  returned: when started
  type: str
fallback:
  description: Why the route is a tunnel although the host is on a trusted network.
  returned: when the host could not reach the service directly
  type: str
urls:
  description: The URLs that the worker tries.
  returned: when started
  type: list
  elements: str
interpreter:
  description: The interpreter that runs the worker.
  returned: when started
  type: str
  sample: /usr/bin/python3
pending:
  description: What of the running worker differs from what is asked for (V(slots), V(version), V(engine), V(supervisor)) and needs O(restart).
  returned: when started
  type: list
  elements: str
cause:
  description: Class of the failure, for programs.
  returned: on failure
  type: str
  sample: interpreter
"""
