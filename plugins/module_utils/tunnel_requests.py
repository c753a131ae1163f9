# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the keeper of a pool is asked for a tunnel with, and how. Without asyncio, which takes longer to load than to be asked.

The keeper listens on the socket ``keeper.sock`` in the pool's folder (mode 0700) for one JSON object a line:
``{"open": HOST, "command": [ssh …], "to": "127.0.0.1:PORT"}``, ``{"look": HOST}`` or ``{"close": HOST}``, and answers each with one:
``{"port": N}`` (the port on the host's loopback that leads to the service, 0 when a look finds none), ``{"closed": bool}`` or ``{"error": text}``.
"""

import contextlib
import json
import os
import socket
import time

from . import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

SOCKET = "keeper.sock"
OPEN_LIMIT = 60.0
"""Seconds that a new tunnel may take to stand."""
MAX_LINE = 262144
OPTIONS = (
    "-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes",
    "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3", "-o", "Compression=no", "-o", "LogLevel=DEBUG1",
)
"""What makes an ssh command a tunnel; ssh takes the first value that it is given of each option. Only at DEBUG1 it says that the
forwarding of a port that was asked for stands."""


class TunnelError(Exception):
    """A tunnel cannot be opened; the text is what ssh said."""


def command(ssh: "List[str]", destination: str) -> "List[str]":
    """The tunnel's command from an ssh command that ends with nothing but options, and the host to log in to.

    Ansible's own options have ``-C``, for modules that it sends over slow lines; it would win over ours, and files that are
    staged would all be compressed.
    """
    options = [word for word in ssh[1:] if word != "-C"]
    return [ssh[0], *OPTIONS, "-N", "-n", *options, "-R", "{listen}:{to}", "--", destination]


def ask(folder: str, request: "Dict[str, Any]", limit: float = OPEN_LIMIT + 5) -> "Dict[str, Any]":
    """The keeper's answer to a request. Raises TunnelError when there is none within ``limit`` seconds, or it is an error."""
    until = time.monotonic() + limit
    with socket.socket(socket.AF_UNIX) as connection:
        while True:
            connection.settimeout(max(0.01, until - time.monotonic()))
            try:
                with in_folder(os.path.join(folder, SOCKET)) as name:
                    connection.connect(name)
                break
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if time.monotonic() > until or not state.alive(state.read_json(os.path.join(folder, "keeper.pid"))):
                    raise TunnelError("the pool's keeper does not run on the control node, and it alone opens tunnels") from error
                time.sleep(0.02)
            except OSError as error:
                raise TunnelError("the pool's keeper cannot be asked for a tunnel: %s" % error) from error
        try:
            connection.sendall((json.dumps(request) + "\n").encode())
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline(MAX_LINE).decode() or "{}")
        except (OSError, ValueError) as error:
            raise TunnelError("the pool's keeper gave no answer: %s" % error) from error
    if not isinstance(answer, dict) or "error" in answer or not answer:
        raise TunnelError(str(answer.get("error", "the pool's keeper ended")) if isinstance(answer, dict) else "nonsense")
    return answer


@contextlib.contextmanager
def in_folder(path: str) -> "Any":
    """A short name for a socket's path, which the system limits to about 100 bytes: through the open folder."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        yield "/proc/self/fd/%d/%s" % (folder, os.path.basename(path)) if os.path.isdir("/proc/self/fd") else path
    finally:
        os.close(folder)
