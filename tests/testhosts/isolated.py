# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Isolated test hosts: namespaces on a bridge, an overlay of ``/`` as root file system, sshd as first process. Needs root."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import client, runs, sshd
from .host import Host, Options, shell

KEPT = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "var"}
"""Top-level folders that a host shares with the machine; everything else of it is hidden."""
EMPTY = {"dev": 0o755, "home": 0o755, "mnt": 0o755, "opt": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755, "srv": 0o755, "sys": 0o555, "tmp": 0o1777}
INIT = Path(__file__).with_name("init.sh")
CHECKOUT = Path(__file__).resolve().parents[2]
USER = "worker"
TOOLS = {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux"}
SMALL = ["-o", "mode=0755"]


def why_not() -> str | None:
    """Why isolated hosts cannot be made here, or None when they can."""
    if os.getuid() != 0:
        return "isolated test hosts need root"
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if sshd.program() is None:
        missing.append("openssh-server")
    return f"isolated test hosts need {', '.join(missing)}" if missing else None


def _ip(*commands: str) -> None:
    """Run ``ip`` commands in one process."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


class Network:
    """A bridge with the client on it: ``10.64.0.0/10`` cut into a /22 per run, the first that no route of this machine meets."""

    def __init__(self, number: int) -> None:
        self.number = number
        routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, check=True).stdout)
        used = [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
        nets = list(ipaddress.IPv4Network("10.64.0.0/10").subnets(new_prefix=22))
        self.subnet = next(net for net in nets[number:] if not any(net.overlaps(other) for other in used))
        self.client = str(self.subnet[1])
        name = runs.bridge(number)
        _ip(
            f"link add name {name} address {self._mac(0)} type bridge mcast_snooping 0",
            f"link set {name} group {runs.group(number)}",
            f"address add {self.client}/22 dev {name}",
            f"link set {name} up",
        )

    def address(self, host: int) -> str:
        return str(self.subnet[host + 1])

    def _mac(self, host: int) -> str:
        return f"02:74:{self.number >> 8:02x}:{self.number & 255:02x}:{host >> 8:02x}:{host & 255:02x}"

    def plug_in(self, hosts: Sequence[IsolatedHost]) -> None:
        """A cable from the bridge to each host's namespace, where it is eth0."""
        commands = []
        for host in hosts:
            peer = f"name eth0 address {self._mac(host.index)} netns {host.init}"
            commands += [
                f"link add name {host.link} up master {runs.bridge(self.number)} type veth peer {peer}",
                f"link set {host.link} group {runs.group(self.number)}",
            ]
        _ip(*commands)


class IsolatedHost(Host):
    port = 22
    user = USER

    def __init__(self, network: Network, index: int, folder: Path, options: Options, authorized_key: str) -> None:
        self.index = index
        self.name = self.hostname = f"h{index}"
        self.network = network
        self.address = network.address(index)
        self.link = runs.link(network.number, index)
        self.folder = folder
        self._shared = options.shared
        self._launcher: subprocess.Popen[bytes] | None = None
        self._wire: subprocess.Popen[bytes] | None = None
        self.init = 0
        self._init_identity = ""
        self._furnish(options, authorized_key)

    def _furnish(self, options: Options, authorized_key: str) -> None:
        """The host's disk: what differs from the machine's own root file system."""
        upper = self.folder / "upper"
        for made in (upper, self.folder / "work", self.folder / "root"):
            made.mkdir(parents=True)
        for entry in os.scandir("/"):
            if entry.name not in KEPT and entry.name not in EMPTY:
                _hide(upper, Path(entry.path))
        for name, mode in EMPTY.items():
            _empty(upper / name, mode)
        if CHECKOUT.parts[1] in KEPT:
            _hide(upper, CHECKOUT)
        for hidden, wanted in (("python", options.python), ("perl", options.perl)):
            if not wanted:
                for folder in ("/usr/bin", "/usr/local/bin", "/usr/libexec"):
                    for path in Path(folder).glob(f"*{hidden}*"):
                        _hide(upper, path)

        etc = upper / "etc"
        uid = _new_user(etc)
        (etc / "hostname").write_text(f"{self.hostname}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {self.hostname}\n")
        _empty(etc / "ssh", 0o755)
        client.make_key(etc / "ssh" / "ssh_host_ed25519_key")
        self.public_key = " ".join((etc / "ssh" / "ssh_host_ed25519_key.pub").read_text().split()[:2])
        own = ["Subsystem sftp internal-sftp", "UseDNS no"]
        (etc / "ssh" / "sshd_config").write_text(sshd.config(options, host_key=Path("/etc/ssh/ssh_host_ed25519_key"), own=own))

        homes = upper / "home"
        if options.home_size:
            homes = self.folder / "home"
            homes.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0755,size={options.home_size}", "tmpfs", str(homes)], check=True)
        self._uid = uid
        home = homes / USER
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        (home / ".ssh" / "authorized_keys").write_text(f"{authorized_key}\n")
        for path in (home, home / ".ssh", home / ".ssh" / "authorized_keys"):
            os.chown(path, uid, uid)
        home.chmod(0o700)

    @property
    def up(self) -> bool:
        return self._launcher is not None and runs.alive(self._init_identity)

    def launch(self) -> None:
        """First half of a boot: new namespaces, mounts. Read with wait_mounted()."""
        log = self.folder / "log"
        command = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--propagation", "private", "--fork", "--kill-child"]
        address = f"{self.address}/{self.network.subnet.prefixlen}"
        program = sshd.program()
        assert program is not None
        with log.open("wb") as errors:
            self._launcher = subprocess.Popen(
                [*command, "sh", "-e", str(INIT), self.name, str(self.folder), address, program, str(self._shared or "")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def wait_mounted(self) -> None:
        assert self._launcher is not None and self._launcher.stdout is not None
        line = self._launcher.stdout.readline()
        self._launcher.stdout.close()
        if not line:
            raise self._failure()
        self.init = int(line)
        self._init_identity = runs.identity(self.init)
        self._pid_namespace = os.readlink(f"/proc/{self.init}/ns/pid")
        runs.record(self.folder / "pids", [self._launcher.pid, self.init])

    def go(self) -> None:
        """Second half: the cable is in. Read with wait_listening()."""
        assert self._launcher is not None and self._launcher.stdin is not None
        self._launcher.stdin.write(b"\n")
        self._launcher.stdin.close()

    def wait_listening(self) -> None:
        launcher, log = self._launcher, self.folder / "log"
        assert launcher is not None
        runs.wait_until(lambda: sshd.listens(log) or launcher.poll() is not None, sshd.START_LIMIT)
        if not sshd.listens(log):
            raise self._failure()

    def _failure(self) -> RuntimeError:
        return RuntimeError(f"test host {self.name} did not start: {(self.folder / 'log').read_text().strip() or 'no message'}")

    def release(self) -> None:
        self._end_wire()
        if self._launcher:
            runs.bury(self._launcher)
            self._launcher = None

    def start(self) -> None:
        if not self.up:
            if self._launcher:
                self._end()
            boot(self.network, [self])

    def run(self, command: str, *, user: str | None = None, stdin: bytes = b"", check: bool = True, timeout: float = 60) -> str:
        root = user == "root"
        home = "/root" if root else f"/home/{USER}"
        env = {"HOME": home, "USER": user or USER, "LOGNAME": user or USER, "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
        become = [] if root else ["setpriv", f"--reuid={self._uid}", f"--regid={self._uid}", "--clear-groups"]
        line = f"cd {home} && {command}"
        argv = [*self._enter("--mount", "--uts", "--ipc", "--net", "--pid", "--root"), *become, "sh", "-c", line]
        return shell(argv, stdin=stdin, check=check, timeout=timeout, env=env)

    def _enter(self, *namespaces: str) -> list[str]:
        return ["nsenter", f"--target={self.init}", *namespaces]

    def processes(self) -> list[runs.Process]:
        return list(runs.processes(self._here)) if self.up else []

    def _here(self, pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/ns/pid") == self._pid_namespace
        except OSError:
            return False

    def stop(self) -> None:
        if not self.up:
            return
        runs.kill({process.pid for process in self.processes()} - {self.init}, signal.SIGTERM)
        runs.wait_until(lambda: len(self.processes()) < 2, 2)
        self._end()

    def crash(self) -> None:
        if not self.up:
            return
        _ip(f"link del {self.link}")
        self._end()

    def _end(self) -> None:
        if self.up:
            runs.send(self.init, signal.SIGKILL)
        self.release()
        (self.folder / "pids").unlink(missing_ok=True)
        runs.wait_until(lambda: not Path("/sys/class/net", self.link).exists(), sshd.START_LIMIT)

    def cut(self) -> None:
        _ip(f"link set {self.link} down")

    def _filter(self, *chains: str) -> None:
        """Replace the host's packet filter; its own users cannot."""
        table = "table inet testhost"
        rules = f"{table} {{}}\ndelete {table}\n" + (f"{table} {{\n{''.join(chains)}}}\n" if chains else "")
        subprocess.run([*self._enter("--net"), "nft", "-f", "-"], input=rules, text=True, check=True)

    def drop_to_client(self) -> None:
        self._filter(_chain("output", f"ip daddr {self.network.client} tcp sport != 22 drop", f"ip daddr {self.network.client} meta l4proto != tcp drop"))

    def silence(self) -> None:
        self._filter(_chain("input", 'iifname "eth0" drop'), _chain("output", 'oifname "eth0" drop'))

    def refuse(self) -> None:
        self._filter(_chain("input", "tcp dport 22 tcp flags & (syn | ack) == syn reject with tcp reset"))

    def impair(self, *, delay: float = 0, loss: float = 0) -> None:
        self._end_wire()
        tap = runs.wire(self.network.number, self.index)
        command, cwd = runs.python("wire", self.link, tap, str(delay), str(loss))
        self._wire = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        runs.record(self.folder / "pids", [self._wire.pid])
        assert self._wire.stdout is not None
        if not self._wire.stdout.readline():
            raise RuntimeError(f"the wire of {self.name} did not start")
        self._segments("gso_max_segs 1")
        # Without arp off the client would answer from this end, past the bridge.
        _ip(f"link set {self.link} nomaster arp off", f"link set {tap} up master {runs.bridge(self.network.number)}")

    def _segments(self, setting: str) -> None:
        """Frames leave the host one packet each, rather than as large ones that are cut up later, so that each is lost alone."""
        subprocess.run([*self._enter("--net"), "ip", "link", "set", "eth0", *setting.split()], check=True)

    def _end_wire(self) -> None:
        if self._wire:
            self._wire.kill()
            runs.bury(self._wire)
            self._wire = None

    def mend(self) -> None:
        if self.up:
            self._filter()
            if self._wire:
                self._end_wire()
                self._segments("gso_max_segs 65535")
            _ip(f"link set {self.link} up arp on master {runs.bridge(self.network.number)}")


def _chain(hook: str, *rules: str) -> str:
    body = "\n".join(rules)
    return f"chain {hook} {{ type filter hook {hook} priority 0;\n{body}\n}}\n"


def boot(network: Network, hosts: Sequence[IsolatedHost]) -> None:
    """Start hosts, all at once."""
    for host in hosts:
        host.launch()
    for host in hosts:
        host.wait_mounted()
    network.plug_in(hosts)
    for host in hosts:
        host.go()
    for host in hosts:
        host.wait_listening()


def _hide(upper: Path, path: Path) -> None:
    """A whiteout, as overlayfs calls it: the file or folder of the machine is not there on the host."""
    target = upper / path.relative_to("/")
    _parents(upper, target)
    os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))


def _parents(upper: Path, target: Path) -> None:
    """Folders on the way to ``target``, with the modes that they have on the machine."""
    for folder in reversed(target.relative_to(upper).parents[:-1]):
        if not (upper / folder).exists():
            (upper / folder).mkdir()
            (upper / folder).chmod(stat.S_IMODE(Path("/", folder).stat().st_mode))


def _empty(folder: Path, mode: int) -> None:
    """A folder that shows nothing of the machine's folder of that name."""
    folder.mkdir()
    folder.chmod(mode)
    os.setxattr(folder, "trusted.overlay.opaque", b"y")


def _new_user(etc: Path) -> int:
    """Add the user to the host's user database; its id. The password is ``*``: with ``!`` sshd would take it for locked."""
    etc.mkdir(mode=0o755, exist_ok=True)
    taken = {int(line.split(":")[2]) for name in ("passwd", "group") for line in Path("/etc", name).read_text().splitlines() if line.count(":") > 2}
    uid = next(number for number in range(2000, 60000) if number not in taken)
    login = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
    for name, line, mode in (
        ("passwd", f"{USER}:x:{uid}:{uid}:test user:/home/{USER}:{login}", 0o644),
        ("group", f"{USER}:x:{uid}:", 0o644),
        ("shadow", f"{USER}:*:19000:0:99999:7:::", 0o600),
    ):
        old = [kept for kept in Path("/etc", name).read_text().splitlines() if not kept.startswith(f"{USER}:")]
        (etc / name).write_text("\n".join([*old, line]) + "\n")
        (etc / name).chmod(mode)
    return uid
