# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that systemd keeps running, also after a boot: as a unit of the user, or of the system where the user is root.

The worker's unit is written by ``exchange.sh``, on hosts that need not have Python.
"""

import contextlib
import os
import pwd
import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Tuple

ANSWERS = ("initializing", "starting", "running", "degraded", "maintenance")
"""What a systemd says of itself that can be told to start a unit (systemctl(1), is-system-running)."""
LIMIT = 60.0
"""Seconds that systemd may take for one thing."""
LINGER = "/var/lib/systemd/linger"
"""Where logind notes the users whose units run without a login."""

UNIT = """\
[Unit]
Description={description}
StartLimitIntervalSec=0

[Service]
ExecStart={command}
WorkingDirectory={folder}
{environment}StandardOutput=append:{log}
StandardError=inherit
KillMode=mixed
TimeoutStopSec=15
Restart=on-failure
RestartSec=10

[Install]
WantedBy={target}
"""


class SystemdError(Exception):
    """systemd does not do what it is asked for; the text says what to do."""


class Unit:
    """The unit ``name``.service of the user ``uid``, who runs this process."""

    def __init__(self, name: str, uid: int) -> None:
        self.name = name + ".service"
        self.uid = uid
        self.folder = os.path.join(os.path.expanduser("~"), ".config", "systemd", "user") if uid else "/etc/systemd/system"

    @property
    def path(self) -> str:
        """The file of the unit, which need not exist."""
        return os.path.join(self.folder, self.name)

    def check(self) -> None:
        """Raises SystemdError when systemd could not keep a program for this user."""
        if self.uid:
            user = pwd.getpwuid(self.uid).pw_name
            if not os.path.exists(os.path.join(LINGER, user)) and self._run("loginctl", "enable-linger")[0]:
                raise SystemdError(
                    "systemd would end the service with the last login: let root run 'loginctl enable-linger %s' on this machine" % user
                )
        if self._control("is-system-running")[1] not in ANSWERS:
            raise SystemdError("systemd does not answer on this machine: set coaster_service_supervisor to detached, or mend it")

    def start(self, description: str, command: "List[str]", environment: "Dict[str, str]", folder: str, log: str) -> int:
        """Write the unit and start it, now and after each boot; its process id. Raises SystemdError."""
        text = UNIT.format(
            description=_plain(description),
            command=" ".join(_quoted(word).replace("$", "$$") for word in command),
            folder=_plain(folder),
            environment="".join("Environment=%s\n" % _quoted("%s=%s" % pair) for pair in environment.items()),
            log=_plain(log),
            target="default.target" if self.uid else "multi-user.target",
        )
        try:
            os.makedirs(self.folder, exist_ok=True)
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise SystemdError("the unit %s cannot be written: %s" % (self.path, error.strerror)) from error
        self._control("daemon-reload")
        failed, said = self._control("enable", "--quiet", "--now", self.name)
        if failed:
            self.remove()
            raise SystemdError("systemd does not start %s: %s" % (self.name, said))
        return int(self._control("show", "--property=MainPID", "--value", self.name)[1] or 0)

    def remove(self) -> None:
        """Stop the program, with all it started, and forget the unit."""
        self._control("disable", "--quiet", "--now", self.name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self._control("daemon-reload")

    def _control(self, *words: str) -> "Tuple[int, str]":
        return self._run("systemctl", *(["--user"] if self.uid else []), *words)

    def _run(self, *words: str) -> "Tuple[int, str]":
        """The exit status and all that was said. A login without a session, such as Ansible's, is not told where systemd listens."""
        environment = dict({"XDG_RUNTIME_DIR": "/run/user/%d" % self.uid}, **os.environ)
        try:
            done = subprocess.run(  # pylint: disable=ansible-bad-function  # not only modules need it
                words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return 1, str(error)
        return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def _plain(text: str) -> str:
    """A setting in which nothing means something to systemd."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """One word of a command or an environment."""
    return '"%s"' % _plain(word).replace("\\", "\\\\").replace('"', '\\"')
