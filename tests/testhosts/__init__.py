# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test hosts: real ssh to real ``sshd`` processes, many on one machine, without a container engine.

    with testhosts.start(8) as hosts:
        subprocess.run(["ssh", hosts[0].target, "hostname"], env=hosts.env())
        hosts[1].crash()

By hand: ``python -m tests.testhosts up 8``.
"""

from __future__ import annotations

from .client import Client
from .host import Host, Options, Unsupported
from .hosts import Hosts, start, why_not
from .runs import Process

__all__ = ["Client", "Host", "Hosts", "Options", "Process", "Unsupported", "start", "why_not"]
