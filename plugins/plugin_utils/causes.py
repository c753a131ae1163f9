# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a host could not be reached: from the words of ssh to a cause class and a sentence that says what to try. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from ansible_collections.coasters.pool.plugins.module_utils.text import printable


class Cause(NamedTuple):
    """``name`` is the class (for programs), ``sentence`` what happened and what to do (for people)."""

    name: str
    sentence: str


_CAUSES = [
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed", "host_key_changed",
     "its host key has changed since it was last seen: find out why; if that is right, remove the old key with `ssh-keygen -R HOST`"),
    (r"Host key verification failed|No .* host key is known", "host_key_unknown",
     "its host key is not known: connect once with `ssh HOST`, compare the key, and accept it"),
    (r"Could not resolve hostname|Name or service not known|Temporary failure in name resolution|nodename nor servname", "name",
     "its name does not resolve: check the spelling, the ssh config or the name service"),
    (r"Connection refused", "refused",
     "nothing listens at its ssh port: check the port and that sshd runs there"),
    (r"No route to host|Network is unreachable|Host is down", "no_route",
     "there is no route to it: check the network and that the machine is up"),
    (r"kex_exchange_identification|Connection closed by remote host|ssh_exchange_identification|Exceeded MaxStartups|not allowed at this time",
     "dropped", "it dropped the connection before the login (often sshd's MaxStartups): run the same command again, or raise MaxStartups there"),
    (r"remote port forwarding failed", "forwarding",
     "its sshd opens no tunnel: let AllowTcpForwarding allow it there, or take the route 'direct'"),
    (r"banner exchange|Connection timed out|Operation timed out|timed out|Timeout", "timed_out",
     "it gave no answer in time: check the address, the firewall and that the machine is up"),
    (r"Permission denied|Too many authentication failures|no mutual signature|Load key", "key",
     "it accepts none of your ssh keys: put your public key there, or load the key into the agent"),
    (r"Bad configuration option|Bad owner or permissions", "ssh_config", "the ssh config cannot be used: mend it"),
    (r"Data could not be sent to remote host", "unsaid", "ssh ended and did not say why: try `ssh HOST true`"),
]


def of(text: str) -> Cause:
    """The cause in what ssh (or Ansible about it) said; class ``ssh`` with ssh's own last words when none is known."""
    for pattern, name, sentence in _CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return Cause(name, sentence)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Cause("ssh", "ssh failed: " + (printable(lines[-1]) if lines else "it said nothing"))
