# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain test hosts: sshd processes of the running user on 127.0.0.x, each with a home and a host key of its own. Needs no root."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
from pathlib import Path

from . import client, runs, sshd
from .host import Host, Options, Unsupported, shell

CLIENT = "127.0.0.1"
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server", "/usr/libexec/sftp-server")


def why_not() -> str | None:
    """Why plain hosts cannot be made here, or None when they can."""
    return None if sshd.program() else "plain test hosts need openssh-server"


class PlainHost(Host):
    def __init__(self, run: int, index: int, folder: Path, options: Options, authorized_key: str) -> None:
        if not (options.python and options.perl) or options.home_size or options.shared:
            raise Unsupported("python=False, perl=False, home_size and shared need isolated test hosts")
        self.name = f"h{index}"
        self.hostname = socket.gethostname()
        self.address = f"127.{1 + run % 254}.{index // 250}.{index % 250 + 1}"
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.folder = folder
        self._pids = folder / "pids"
        self._options = options
        self._sshd: subprocess.Popen[bytes] | None = None
        self._occupied: list[socket.socket] = []

        self.home = folder / "home"
        self.home.mkdir(parents=True)
        (folder / "authorized_keys").write_text(f"{authorized_key}\n")
        client.make_key(folder / "host_key")
        self.public_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
        self._configure()

    def _configure(self) -> None:
        """A free port and the sshd_config for it."""
        with socket.socket() as probe:
            probe.bind((self.address, 0))
            self.port = probe.getsockname()[1]
        command = 'cd "$HOME" && exec "$SHELL" ${SSH_ORIGINAL_COMMAND:+-c "$SSH_ORIGINAL_COMMAND"}'
        own = [
            f"ListenAddress {self.address}:{self.port}",
            f"AuthorizedKeysFile {self.folder}/authorized_keys",
            f"SetEnv HOME={self.home} {runs.MARK}={self.folder}",
            f"ForceCommand {command}",
            "PermitRootLogin yes",
            "StrictModes no",
            *(f"Subsystem sftp {path}" for path in SFTP_SERVERS if Path(path).exists()),
        ]
        text = sshd.config(self._options, host_key=self.folder / "host_key", own=own)
        (self.folder / "sshd_config").write_text(text)

    @property
    def up(self) -> bool:
        return self._sshd is not None and self._sshd.poll() is None

    def launch(self) -> None:
        """First half of a start; wait_listening() is the second."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        program = sshd.program()
        assert program is not None
        with (self.folder / "log").open("wb") as errors:
            self._sshd = subprocess.Popen(
                [program, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=os.environ | {runs.MARK: str(self.folder)},
                start_new_session=True,
            )
        runs.record(self._pids, [self._sshd.pid])

    def wait_listening(self) -> None:
        process, log = self._sshd, self.folder / "log"
        assert process is not None
        runs.wait_until(lambda: sshd.listens(log) or process.poll() is not None, sshd.START_LIMIT)
        if not sshd.listens(log):
            raise RuntimeError(f"test host {self.name} did not start: {log.read_text().strip() or 'no message'}")

    def start(self) -> None:
        self._vacate()
        if not self.up:
            self.launch()
            self.wait_listening()

    def run(self, command: str, *, user: str | None = None, stdin: bytes = b"", check: bool = True, timeout: float = 60) -> str:
        if user not in (None, self.user):
            raise Unsupported(f"run() as {user} needs isolated test hosts")
        env = os.environ | {"HOME": str(self.home), runs.MARK: str(self.folder)}
        return shell(["sh", "-c", command], stdin=stdin, check=check, timeout=timeout, env=env, cwd=self.home)

    def processes(self) -> list[runs.Process]:
        ours = runs.belonging(self.folder, [self._pids])
        return [process for process in runs.processes() if process.pid in ours]

    def stop(self) -> None:
        self._kill(signal.SIGTERM)
        runs.wait_until(lambda: not self.processes(), 2)
        self.crash()

    def crash(self) -> None:
        self._vacate()
        self._end_sshd()
        runs.wait_until(lambda: not self._kill(signal.SIGKILL), 10)

    def _end_sshd(self) -> None:
        """End the listening sshd alone; open sessions go on."""
        if self._sshd:
            self._sshd.send_signal(signal.SIGSTOP)
            runs.record(self._pids, runs.belonging(self.folder, [self._pids]))
            self._sshd.kill()
            runs.bury(self._sshd)
            self._sshd = None

    def refuse(self) -> None:
        self._end_sshd()

    def silence(self) -> None:
        """New connections time out; those that are open stay."""
        self._end_sshd()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.address, self.port))
        listener.listen(0)
        self._occupied = [listener]
        for dummy in range(4):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex((self.address, self.port))
            self._occupied.append(caller)

    def _vacate(self) -> None:
        for held in self._occupied:
            held.close()
        self._occupied = []

    def release(self) -> None:
        self._vacate()
        if self._sshd:
            runs.bury(self._sshd)
            self._sshd = None

    def mend(self) -> None:
        self.start()
