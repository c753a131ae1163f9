# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults, one function each; in the order of the table."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coaster_pool.hosts import parse
from tests.testhosts import Host
from tests.testhosts.host import Unsupported

from . import load as loads
from .scene import MUTE, SLOTS, Problem, Scene

Play = Callable[[Scene], None]


@dataclass(frozen=True)
class Fault:
    """``play`` injects it into a scene made with ``hosts`` and ``arguments``; ``short``: part of the short form."""

    name: str
    play: Play
    short: bool
    hosts: int | Sequence[dict[str, Any]]
    arguments: Sequence[str]


FAULTS: list[Fault] = []


def fault(name: str, *, short: bool = False, hosts: int | Sequence[dict[str, Any]] = 4, arguments: Sequence[str] = ()) -> Callable[[Play], Play]:
    def add(play: Play) -> Play:
        FAULTS.append(Fault(name, play, short, hosts, arguments))
        return play

    return add


def ready(scene: Scene) -> tuple[loads.Load, Host]:
    """The pool runs, and works on jobs; the host that will suffer."""
    scene.start()
    return scene.begin_load(), scene.hosts[0]


@fault("none")
def none(scene: Scene) -> None:
    ready(scene)
    scene.inject()
    scene.await_whole()
    scene.end()


# hosts and cables


def crash(scene: Scene) -> None:
    dummy, host = ready(scene)
    scene.inject()
    host.crash()
    time.sleep(3)
    host.start()
    scene.expect_bystanders(host)
    scene.again()
    scene.await_whole()
    scene.note("3 s later the host is up again, and the same command is given")
    scene.end()


fault("host crash and reboot", short=True)(crash)
fault("host crash and reboot, direct route", arguments=("--route", "direct"))(crash)


def cut(scene: Scene, seconds: float) -> None:
    dummy, host = ready(scene)
    scene.inject()
    host.cut()
    time.sleep(seconds)
    host.mend()
    scene.await_whole()
    scene.end()


@fault("cable cut for 5 s", short=True)
def cut_5(scene: Scene) -> None:
    cut(scene, 5)


@fault("cable cut for 30 s")
def cut_30(scene: Scene) -> None:
    cut(scene, 30)


@fault("cable cut for 100 s")
def cut_100(scene: Scene) -> None:
    dummy, host = ready(scene)
    scene.inject()
    host.cut()
    time.sleep(100)
    host.mend()
    scene.again()
    scene.await_whole()
    scene.note("then the same command is given")
    scene.end()


def cut_for_good(scene: Scene) -> None:
    load, host = ready(scene)
    others = scene.hosts[1:]
    scene.inject()
    host.cut()
    scene.await_whole(others)
    left = [f"{process.pid} {process.args}" for process in scene.theirs(host)]
    scene.until(lambda: time.monotonic() > scene.injected + 65, "65 s pass", 70)
    left = [f"{process.pid} {process.args}" for process in scene.theirs(host) if not process.args.startswith("sshd")]
    if left:
        scene.problem(f"65 s after the cut the host, which is alone, still runs {left}")
    scene.finish()
    scene.stop()
    scene.await_gone([host])
    scene.check_bystanders()
    scene.note("whole without that host; its worker and jobs have ended 65 s after the cut")


fault("cable cut for good")(cut_for_good)
fault("cable cut for good, direct route", arguments=("--route", "direct"))(cut_for_good)


def impair(scene: Scene) -> None:
    ready(scene)
    scene.inject()
    for host in scene.hosts:
        host.impair(delay=0.2, loss=0.1)
    time.sleep(30)
    scene.await_whole()
    for host in scene.hosts:
        host.mend()
    scene.end()


fault("10 % loss, 200 ms delay")(impair)
fault("10 % loss, 200 ms delay, direct route", arguments=("--route", "direct"))(impair)


@fault("10 % loss, 200 ms delay, from start to stop")
def impaired_start(scene: Scene) -> None:
    for host in scene.hosts:
        host.impair(delay=0.2, loss=0.1)
    scene.inject()
    took = scene.start()
    if "failed" in scene.said():
        scene.again()
        scene.note("the same command was needed again")
    scene.begin_load()
    scene.await_whole()
    scene.note(f"started in {took:.0f} s")
    scene.end()


@fault("disk full on a host", short=True, hosts=[{"home_size": "8m"}, {}, {}, {}])
def disk_full(scene: Scene) -> None:
    dummy, host = ready(scene)
    host.run("cat /dev/zero > fill", check=False)
    time.sleep(10)
    scene.inject()
    host.run("rm fill")
    scene.await_whole()
    scene.note("for 10 s; seconds since there is space again")
    scene.end()


@fault("disk full on a host at the start", hosts=[{"home_size": "8m"}, {}, {}, {}])
def disk_full_at_start(scene: Scene) -> None:
    host = scene.hosts[0]
    host.run("cat /dev/zero > fill", check=False)
    others = scene.hosts[1:]
    scene.start()
    must_name(scene, host, "free")
    scene.begin_load(others)
    scene.inject()
    host.run("rm fill")
    scene.again()
    scene.await_whole()
    scene.note("the host is named with the cause; there is space again, and the same command is given")
    scene.end()


@fault("disk full on the client")
def disk_full_here(scene: Scene) -> None:
    files = scene.place / "load" / "files"
    scene.start()
    files.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(files)], check=True)
    try:
        scene.begin_load()
        full = files / "full"
        with full.open("wb") as file:
            try:
                while True:
                    file.write(bytes(65536))
                    file.flush()
            except OSError:
                pass
        time.sleep(8)
        scene.inject()
        full.unlink(missing_ok=True)
        scene.await_whole()
        scene.note("for 8 s; seconds since there is space again")
        scene.end()
    finally:
        subprocess.run(["umount", "--lazy", str(files)], check=False)


@fault("clock jumped 1 h ahead, then 2 h back", hosts=[{"sshd": ["SetEnv LD_PRELOAD=/srv/clock.so CLOCK_OFFSET=/srv/offset"]}] * 3)
def clock_jumped(scene: Scene) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unsupported("no C compiler for the library that makes the clock jump")
    library, here = scene.place / "clock.so", scene.place / "offset"
    subprocess.run([compiler, "-shared", "-fPIC", "-O", "-o", str(library), str(Path(__file__).with_name("clock.c"))], check=True)
    for host in scene.hosts:
        host.run("cat > /srv/clock.so && chmod 755 /srv/clock.so && echo 0 > /srv/offset", user="root", stdin=library.read_bytes())
    here.write_text("0")
    scene.environment = scene.station.env = scene.station.env | {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(here)}
    scene.start()
    scene.begin_load()

    def jump(seconds: int, where: Sequence[Host], client: bool) -> None:
        for host in where:
            host.run(f"echo {seconds} > /srv/offset", user="root")
        if client:
            here.write_text(str(seconds))

    scene.inject()
    for seconds, where, client in ((3600, scene.hosts[:1], False), (-3600, scene.hosts[:1], False), (3600, (), True), (-3600, scene.hosts[1:], True)):
        jump(seconds, where, client)
        time.sleep(4)
    scene.await_whole()
    workers = json.loads(subprocess.run(
        [*scene.command()[:2], "--status", "--json"], env=scene.environment, capture_output=True, check=True).stdout)["workers"]
    scene.note(f"on a host alone, on the client alone, on all; an LD_PRELOAD library moves the time of day of every program; {len(workers)} workers")
    scene.end()


# processes of the pool


@fault("worker SIGKILL", short=True)
def worker_killed(scene: Scene) -> None:
    dummy, host = ready(scene)
    scene.inject()
    os.kill(scene.on_host(host, "worker "), signal.SIGKILL)
    scene.await_whole()
    scene.end()


@fault("worker SIGSTOP for 30 s")
def worker_stopped(scene: Scene) -> None:
    dummy, host = ready(scene)
    pid = scene.on_host(host, "worker ")
    scene.inject()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(30)
    os.kill(pid, signal.SIGCONT)
    scene.await_whole()
    scene.end()


@fault("supervisor SIGKILL")
def supervisor_killed(scene: Scene) -> None:
    dummy, host = ready(scene)
    scene.inject()
    os.kill(scene.on_host(host, "supervisor "), signal.SIGKILL)
    scene.await_whole()
    scene.end()


@fault("supervisor SIGKILL, then worker SIGKILL")
def both_killed(scene: Scene) -> None:
    dummy, host = ready(scene)
    scene.inject()
    worker = scene.on_host(host, "worker ")
    os.kill(scene.on_host(host, "supervisor "), signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    time.sleep(1)
    scene.again()
    scene.await_whole()
    scene.note("then the same command is given")
    scene.end()


@fault("service SIGKILL", short=True)
def service_killed(scene: Scene) -> None:
    ready(scene)
    scene.inject()
    os.kill(scene.pid("service"), signal.SIGKILL)
    scene.await_whole()
    scene.end()


@fault("service SIGSTOP for 10 s")
def service_paused(scene: Scene) -> None:
    ready(scene)
    pid = scene.pid("service")
    scene.inject()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(10)
    os.kill(pid, signal.SIGCONT)
    scene.await_whole()
    scene.end()


@fault("service SIGSTOP for good")
def service_stopped(scene: Scene) -> None:
    ready(scene)
    scene.inject()
    os.kill(scene.pid("service"), signal.SIGSTOP)
    scene.await_whole()
    scene.end()


@fault("cog-job-submit SIGKILL")
def clients_killed(scene: Scene) -> None:
    load, dummy = ready(scene)
    scene.inject()
    killed = set(map(str, load.kill(6)))

    def runs() -> bool:
        return any(process.args.split()[-3] in killed for host in scene.hosts for process in scene.theirs(host) if "/bin/sh -c" in process.args)

    scene.until(lambda: not runs(), "the jobs of dead clients end", 20)
    scene.await_whole()
    scene.note("the jobs of dead clients count as failed; they are ended on the hosts")
    scene.end()


# the start


def must_name(scene: Scene, host: Host, *words: str) -> None:
    """The start has said that the host failed, and why."""
    lines = [line.partition(": failed: ") for line in scene.said().splitlines()]
    reasons = [reason for names, dummy, reason in lines if reason and host.address in {named.name for named in parse(names.split(", "))}]
    if len(reasons) != 1 or not all(word in reasons[0] for word in words):
        scene.problem(f"{host.name} should be named with {words}: {scene.said()}")


@fault("sshd's MaxStartups exceeded at start", hosts=[{"max_startups": "2"}, {}, {}, {}])
def max_startups(scene: Scene) -> None:
    host = scene.hosts[0]
    held = [socket.create_connection((host.address, host.port)) for dummy in range(2)]
    scene.start()
    must_name(scene, host, "MaxStartups")
    scene.begin_load(scene.hosts[1:])
    scene.inject()
    for connection in held:
        connection.close()
    scene.again()
    scene.await_whole()
    scene.note("the host is named with the cause; when its sshd has room again, the same command is given")
    scene.end()


@fault("MaxStartups of a jump host exceeded", hosts=[{"max_startups": "2"}, *({} for dummy in range(7))])
def jump_host(scene: Scene) -> None:
    behind = scene.hosts[1:]
    with scene.hosts.client.ssh_config.open("a") as config:
        config.write(f"Host {' '.join(host.address for host in behind)}\n  ProxyJump {scene.hosts[0].name}\n")
    scene.inject()
    took = scene.start()
    scene.begin_load(behind)
    scene.await_whole()
    scene.note(f"7 hosts behind one that lets in 2 at a time; started in {took:.0f} s")
    scene.end()


def silent(scene: Scene, name: str) -> None:
    """The last host will be silent at the start: it costs no other host's time, and is named."""
    bad, others = scene.hosts[-1], scene.hosts[:-1]
    took = scene.start()
    must_name(scene, bad)
    scene.begin_load(others)
    scene.inject()
    scene.await_whole(others)
    scene.note(f"{name}: started without it in {took:.0f} s, and it is named")


@fault("a host that lets in and then says nothing", hosts=[{}, {}, {}, {"sshd": [f"ForceCommand {MUTE}"]}])
def says_nothing(scene: Scene) -> None:
    silent(scene, "sshd logs in and runs nothing")
    scene.finish()
    scene.stop()
    scene.await_gone([scene.hosts[-1]])
    scene.check_bystanders()


@fault("a host that takes the connection and says nothing")
def no_banner(scene: Scene) -> None:
    scene.hosts[-1].freeze()
    silent(scene, "every process there is stopped")
    scene.inject()
    scene.hosts[-1].thaw()
    scene.again()
    scene.await_whole()
    scene.note("it wakes up, and the same command is given")
    scene.end()


@fault("10 dead hosts among 50", hosts=50)
def dead_hosts(scene: Scene) -> None:
    alive, dead = scene.hosts[:40], scene.hosts[40:]
    for host in dead:
        host.silence()
    without = scene.start(hosts=alive)
    scene.stop()
    scene.await_gone()
    took = scene.start()
    scene.note(f"40 hosts start in {without:.1f} s, with 10 more that drop every packet in {took:.1f} s; the connect limit is 10 s")
    if took > without + 30:
        scene.problem(f"dead hosts cost {took - without:.0f} s, so they were not waited for together")
    for host in dead:
        must_name(scene, host)
    scene.begin_load(alive, in_flight=2 * SLOTS * len(alive), seconds=loads.LONG)
    scene.inject()
    scene.await_whole(alive)
    scene.finish()
    scene.stop()
    scene.await_gone()
    scene.check_bystanders()


# the end


def parent(pid: int) -> int:
    """The parent of a process of the client; 0 when it has just ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def killed_while_starting(scene: Scene, victim: str, when: Callable[[], object]) -> None:
    """Kill a program of the client in the middle of a start; then nothing is left, and the same command makes the pool."""
    pool = scene.begin()
    scene.until(when, "the moment has come", 60)
    if victim == "start_pool.py":
        pool.kill()
    else:
        found = {int(line.split()[0]) for line in scene.station.here() if "ansible-playbook" in line}
        [first] = [pid for pid in found if parent(pid) not in found | {0}]
        os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    if victim != "start_pool.py":
        scene.until(lambda: pool.poll() is not None, "start_pool.py ends", 60)
        if pool.returncode in (0, 1) or "Traceback" in scene.said():
            scene.problem(f"start_pool.py ended with {pool.returncode}: {scene.said()}")
    pool.wait()
    gone = scene.await_gone(since=killed)
    scene.check_bystanders()
    scene.inject()
    scene.start()
    scene.begin_load()
    scene.await_whole()
    scene.end()
    scene.row.note = f"nothing left after {gone:.0f} s; then the same command is given"


@fault("start_pool.py SIGKILL as its playbook begins")
def killed_early(scene: Scene) -> None:
    killed_while_starting(scene, "start_pool.py", lambda: sum("ansible-playbook" in line for line in scene.station.here()) > 1)


@fault("start_pool.py SIGKILL as the first worker starts")
def killed_late(scene: Scene) -> None:
    killed_while_starting(scene, "start_pool.py", lambda: any("supervisor" in process.args for host in scene.hosts for process in scene.theirs(host)))


@fault("ansible-playbook SIGKILL as the first worker starts")
def playbook_killed(scene: Scene) -> None:
    killed_while_starting(scene, "ansible-playbook", lambda: any("supervisor" in process.args for host in scene.hosts for process in scene.theirs(host)))


def ended_by(scene: Scene, victim: Callable[[], int], number: signal.Signals) -> None:
    """The pool ends with jobs running; nothing is left; the same command makes it anew, and the load goes on there."""
    ready(scene)
    pool = scene.pool
    assert pool is not None
    os.kill(victim(), number)
    ended = time.monotonic()
    scene.until(lambda: pool.poll() is not None, "start_pool.py ends", 120)
    gone = scene.await_gone(since=ended)
    scene.check_bystanders()
    scene.inject()
    scene.start()
    scene.await_whole()
    scene.end()
    scene.row.note = f"nothing left after {gone:.0f} s; then the same command is given"


def pool_pid(scene: Scene) -> int:
    if scene.pool is None:
        raise Problem("there is no pool")
    return scene.pool.pid


@fault("start_pool.py SIGKILL", short=True)
def wrapper_killed(scene: Scene) -> None:
    ended_by(scene, lambda: pool_pid(scene), signal.SIGKILL)


@fault("keeper SIGKILL")
def keeper_killed(scene: Scene) -> None:
    ended_by(scene, lambda: scene.pid("keeper"), signal.SIGKILL)


@fault("Ctrl-C with jobs running")
def interrupted(scene: Scene) -> None:
    ended_by(scene, lambda: pool_pid(scene), signal.SIGINT)


__all__ = ["FAULTS", "SLOTS", "Fault"]
