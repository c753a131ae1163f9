# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the built-in engine, and any other bin directory beside it: ``python benchmarks/engine [--against DIR]``.

One run, one machine, everything on loopback. Prints a table and writes JSON (``--json FILE``).
"""

from __future__ import annotations

import argparse
import filecmp
import json
import multiprocessing
import os
import platform
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "build" / "collections"), str(ROOT), str(Path(__file__).resolve().parent)]

from engine import Engine, cpu_seconds, resident_mb  # noqa: E402
from load import Client, simulate_workers  # noqa: E402

from ansible_collections.coasters.pool.plugins.module_utils.coaster import bundle  # noqa: E402

MB = 1e6


def throughput(engine: Engine, jobs: int) -> dict[str, float]:
    """No-op jobs a second, 4 workers with 4 slots, 128 in flight; then the latency of one at a time."""
    engine.workers(4, 4)
    client = Client(engine.address)
    client.run(200, 128)
    rate = statistics.median(jobs / client.run(jobs, 128) for dummy in range(3))
    times = [client.run(1, 1) for dummy in range(100)]
    return {"no-op jobs per second": rate, "latency of one job, ms": 1000 * statistics.median(times)}


def small_costs(engine: Engine, idle: float) -> dict[str, float]:
    """CPU of starting workers, of idle ones, of a submission; memory of the service with 16 workers."""
    first = engine.workers(1, 4)[0]
    start = [cpu_seconds(first.pid)] + [cpu_seconds(engine.workers(1, 4)[0].pid) for dummy in range(4)]
    engine.workers(11, 4)
    memory = resident_mb(engine.service.pid)
    time.sleep(3)
    before = cpu_seconds(first.pid)
    time.sleep(idle)
    idle_share = 100 * (cpu_seconds(first.pid) - before) / idle
    costs = []
    for dummy in range(7):
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        engine.submit("/bin/true")
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)
    return {
        "CPU of a worker from start to registered, ms": 1000 * statistics.median(start),
        "CPU of an idle worker, % of a core": idle_share,
        "memory of the service with 16 workers, MB": memory,
        "CPU of one cog-job-submit, ms": 1000 * statistics.median(costs),
    }


def staging(engine: Engine, size: int) -> dict[str, float]:
    """MB/s of one large file in each direction; what the job and its processes cost otherwise is taken off."""
    engine.workers(1, 1)
    source, target = engine.folder / "large", engine.folder / "back"
    with source.open("wb") as file:
        for dummy in range(size // 1048576):
            file.write(os.urandom(1048576))
    job = str(engine.folder / "job")
    os.makedirs(job, exist_ok=True)
    empty = min(_seconds(lambda: engine.submit("-directory", job, "/bin/true")) for dummy in range(3))
    into = min(_seconds(lambda: engine.submit("-directory", job, "-stagein", f"{source} -> {job}/in", "/bin/true")) for dummy in range(2))
    back = min(_seconds(lambda: engine.submit("-directory", job, "-stageout", f"{target} <- in", "/bin/true")) for dummy in range(2))
    if target.stat().st_size != size or not filecmp.cmp(source, target, shallow=False):
        raise RuntimeError("the staged file is not the same")
    for path in (source, target, Path(job) / "in"):
        path.unlink()
    return {"stage in, MB/s": size / MB / (into - empty), "stage out, MB/s": size / MB / (back - empty)}


def _seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def many_workers(engine: Engine, workers: int, jobs: int) -> dict[str, float]:
    """Simulated workers over real sockets: jobs a second with 4 and with many, and the service's memory for each."""
    context = multiprocessing.get_context("fork")
    rates = []
    sims = []
    memory = 0.0
    client = Client(engine.address)
    for count, slots, number in ((4, 4 * workers // 4, jobs // 4), (workers - 4, 4, jobs)):
        ready = context.Event()
        before = resident_mb(engine.service.pid)
        simulation = context.Process(target=simulate_workers, args=(engine.worker_address, count, slots, ready), daemon=True)
        simulation.start()
        sims.append(simulation)
        if not ready.wait(120):
            raise RuntimeError("the simulated workers did not register")
        memory = resident_mb(engine.service.pid) - before
        rates.append(number / client.run(number, 2000))
    for simulation in sims:
        simulation.terminate()
    return {
        f"jobs per second, {workers} simulated workers": rates[1],
        "that as % of 4 simulated workers with as many slots": 100 * rates[1] / rates[0],
        "memory of the service for each further worker, KB": 1024 * memory / (workers - 4),
    }


def queue(engine: Engine, jobs: int) -> dict[str, float]:
    """Many jobs submitted at once by one client while another one asks for heartbeats."""
    other = Client(engine.address)
    client = Client(engine.address)
    worst: list[float] = []
    finished = threading.Event()

    def ask() -> None:
        while not finished.is_set():
            worst.append(other.heartbeat())
            time.sleep(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    took = client.submit_all(jobs)
    finished.set()
    asking.join()
    return {f"{jobs} jobs queued at once: accepted after, s": took, "longest heartbeat of another client meanwhile, ms": 1000 * max(worst)}


def spawn_rate(count: int) -> float:
    """posix_spawn and wait of /bin/true, one after the other, a second."""
    began = time.monotonic()
    for dummy in range(count):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    return count / (time.monotonic() - began)


def relay_rate(size: int) -> float:
    """MB/s of a plain TCP copy through one relay on loopback: sender, relay and receiver are processes of their own."""
    context = multiprocessing.get_context("fork")
    ends = [socket.create_server(("127.0.0.1", 0)) for dummy in range(2)]

    def relay() -> None:
        into = ends[0].accept()[0]
        out = socket.create_connection(ends[1].getsockname())
        while data := into.recv(262144):
            out.sendall(data)

    def send() -> None:
        with socket.create_connection(ends[0].getsockname()) as connection:
            block = os.urandom(262144)
            for dummy in range(size // len(block)):
                connection.sendall(block)

    for target in (relay, send):
        context.Process(target=target, daemon=True).start()
    connection = ends[1].accept()[0]
    received = 0
    began = time.monotonic()
    while received < size:
        received += len(connection.recv(262144))
    return size / MB / (time.monotonic() - began)


GOALS: dict[str, tuple[str, float]] = {
    "no-op jobs per second": ("at least", 5),
    "latency of one job, ms": ("at most", 1 / 15),
    "CPU of one cog-job-submit, ms": ("at most", 1 / 5),
    "CPU of an idle worker, % of a core": ("at most", 1 / 50),
    "memory of the service with 16 workers, MB": ("at most", 1 / 4),
    "stage in, MB/s": ("at least", 2),
    "stage out, MB/s": ("at least", 2),
}
"""Ratio of ours to the other engine's figure."""

ABSOLUTE: dict[str, tuple[str, float]] = {
    "no-op jobs, % of bare posix_spawn": ("at least", 50),
    "CPU of a worker from start to registered, ms": ("at most", 80),
    "stage in, % of a TCP copy through a relay": ("at least", 50),
    "stage out, % of a TCP copy through a relay": ("at least", 50),
    "that as % of 4 simulated workers with as many slots": ("at least", 80),
    "memory of the service for each further worker, KB": ("at most", 50),
}


def measure(bin_dir: Path, scratch: Path, options: argparse.Namespace, all_rows: bool) -> dict[str, float]:
    """All figures of one engine."""
    rows: dict[str, float] = {}
    parts: list[tuple[str, Callable[[Engine], dict[str, float]]]] = [
        ("throughput", lambda engine: throughput(engine, options.jobs)),
        ("costs", lambda engine: small_costs(engine, options.idle)),
        ("staging", lambda engine: staging(engine, options.size * 1048576)),
    ]
    if all_rows:
        parts += [("scale", lambda engine: many_workers(engine, options.workers, options.scale_jobs)), ("queue", lambda engine: queue(engine, 20000))]
    for name, part in parts:
        print(f"… {bin_dir.parent.name}/{bin_dir.name}: {name}", file=sys.stderr, flush=True)
        with Engine(bin_dir, scratch / name) as engine:
            rows.update(part(engine))
        shutil.rmtree(scratch / name, ignore_errors=True)
    return rows


def main() -> int:
    """Measure and report; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, metavar="DIR", help="a bin directory with coaster-service, worker.pl and cog-job-submit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--jobs", type=int, default=3000, help="no-op jobs for the rate (%(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="size of the staged file in MiB (%(default)s)")
    parser.add_argument("--idle", type=float, default=20, help="seconds for which idle workers are watched (%(default)s)")
    parser.add_argument("--workers", type=int, default=1000, help="simulated workers (%(default)s)")
    parser.add_argument("--scale-jobs", type=int, default=100000, help="jobs for them (%(default)s)")
    options = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk's own speed and moods are not what is measured
    with tempfile.TemporaryDirectory(prefix="coasters-benchmark-", dir=memory) as folder:
        scratch = Path(folder)
        bundle.programs(str(scratch / "builtin" / "bin"), sys.executable)
        spawn, relay = spawn_rate(2000), relay_rate(options.size * 1048576)
        ours = measure(scratch / "builtin" / "bin", scratch / "ours", options, True)
        theirs = measure(options.against.resolve(), scratch / "theirs", options, False) if options.against else {}
    ours["no-op jobs, % of bare posix_spawn"] = 100 * ours["no-op jobs per second"] / spawn
    for way in ("in", "out"):
        ours[f"stage {way}, % of a TCP copy through a relay"] = 100 * ours[f"stage {way}, MB/s"] / relay
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    print(f"{machine}; bare posix_spawn {spawn:.0f} a second, TCP copy through a relay {relay:.0f} MB/s\n")
    print(f"| {'what':62} | {'ours':>9} | {'other':>9} | {'ratio':>7} | {'goal':>16} |  |\n|{'---|' * 6}")
    missed = 0
    for name, value in ours.items():
        other = theirs.get(name)
        ratio = value / other if other else None
        goal = GOALS.get(name) if ratio is not None else ABSOLUTE.get(name)
        reached = ""
        if goal:
            compared = ratio if ratio is not None else value
            reached = "yes" if (compared >= goal[1] if goal[0] == "at least" else compared <= goal[1]) else "NO"
            missed += reached == "NO"
        print(
            f"| {name:62} | {value:9.3g} | {'' if other is None else format(other, '9.3g'):>9} | {'' if ratio is None else format(ratio, '7.3f'):>7} "
            f"| {f'{goal[0]} {goal[1]:.3g}' if goal else '':>16} | {reached} |"
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "spawn": spawn, "relay": relay, "ours": ours, "other": theirs}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
