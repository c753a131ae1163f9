# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the built-in engine, and any other bin directory beside it: ``python benchmarks/engine [--against DIR]``.

One run, one machine, everything on loopback. Prints a table and writes JSON (``--json FILE``).
"""

from __future__ import annotations

import argparse
import contextlib
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
    """No-op jobs a second, 4 workers with 4 slots, 128 in flight, beside what the machine can do; then the latency of one at a time."""
    engine.workers(4, 4)
    client = Client(engine.address)
    client.run(200, 128)
    rates = [(spawn_rate(1000), jobs / client.run(jobs, 128)) for dummy in range(3)]
    times = [client.run(1, 1) for dummy in range(100)]
    return {
        "no-op jobs per second": statistics.median(rate for _spawned, rate in rates),
        "no-op jobs, % of bare posix_spawn and wait": 100 * statistics.median(rate / spawned for spawned, rate in rates),
        "latency of one job, ms": 1000 * statistics.median(times),
    }


def small_costs(engine: Engine, idle: float) -> dict[str, float]:
    """CPU of starting workers, of idle ones, of a submission; memory of the service with 16 workers."""
    workers, start = [], []
    for dummy in range(5):
        workers += engine.workers(1, 4)
        start.append(cpu_seconds(workers[-1].pid))
    workers += engine.workers(11, 4)
    fresh = resident_mb(engine.service.pid)
    time.sleep(3)
    before = [cpu_seconds(worker.pid) for worker in workers]
    time.sleep(idle)
    idle_share = 100 * statistics.median(cpu_seconds(worker.pid) - earlier for worker, earlier in zip(workers, before, strict=True)) / idle
    Client(engine.address).run(1000, 128)
    memory = resident_mb(engine.service.pid)
    costs = []
    for dummy in range(7):
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        engine.submit("/bin/true")
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)
    return {
        "CPU of a worker from start to registered, ms": 1000 * statistics.median(start),
        "CPU of an idle worker, % of a core": idle_share,
        "memory of the service with 16 workers, before the first job, MB": fresh,
        "memory of the service with 16 workers, after 1,000 jobs, MB": memory,
        "CPU of one cog-job-submit, ms": 1000 * statistics.median(costs),
    }


def staging(engine: Engine, size: int) -> dict[str, float]:
    """MB/s of one large file in each direction, beside a plain copy; what the job and its processes cost otherwise is taken off."""
    engine.workers(1, 1)
    source, target = engine.folder / "large", engine.folder / "back"
    with source.open("wb") as file:
        for dummy in range(size // 1048576):
            file.write(os.urandom(1048576))
        file.flush()
        os.fsync(file.fileno())  # else the system does so meanwhile
    job = str(engine.folder / "job")
    os.makedirs(job, exist_ok=True)
    empty = min(_seconds(lambda: engine.submit("-directory", job, "/bin/true")) for dummy in range(3))
    into, back, copied, passed = [], [], [], []
    for dummy in range(5):
        for path in (target, Path(job) / "in"):
            path.unlink(missing_ok=True)  # to give back the memory of an old file takes time too
        passed.append(relay_rate(size))
        take_memory(engine.folder / "reserve", size)
        copied.append(relay_rate(size, source, target))
        target.unlink()
        take_memory(engine.folder / "reserve", size)
        into.append(_seconds(lambda: engine.submit("-directory", job, "-stagein", f"{source} -> {job}/in", "/bin/true")) - empty)
        take_memory(engine.folder / "reserve", size)
        back.append(_seconds(lambda: engine.submit("-directory", job, "-stageout", f"{target} <- in", "/bin/true")) - empty)
    if target.stat().st_size != size or not filecmp.cmp(source, target, shallow=False):
        raise RuntimeError("the staged file is not the same")
    for path in (source, target, Path(job) / "in"):
        path.unlink()
    rates = {way: statistics.median(size / MB / seconds for seconds in taken) for way, taken in (("in", into), ("out", back))}
    relay = statistics.median(passed)
    return {
        "stage in, MB/s": rates["in"], "stage out, MB/s": rates["out"], "TCP copy through one relay, MB/s": relay,
        "stage in, % of that copy": 100 * rates["in"] / relay, "stage out, % of that copy": 100 * rates["out"] / relay,
        "the same from a file to a file, MB/s": statistics.median(copied),
    }


def take_memory(path: Path, size: int) -> None:
    """Leave so many bytes free that this machine has. A virtual one gives free pages back after about two seconds, and to get
    them again, each with a fault in its host, would be most of what is measured; the relay of the comparison takes none.

    It does so two seconds after some were freed, with those too that were freed since, and in portions every two seconds: first it
    has to be done with what was freed before."""
    time.sleep(12)
    block = bytes(1048576)
    with path.open("wb", buffering=0) as file:
        for dummy in range(size // len(block)):
            file.write(block)
    path.unlink()


def _seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def simulated(engine: Engine, workers: int, slots: int, jobs: int, in_flight: int) -> tuple[float, float]:
    """Jobs a second with simulated workers over real sockets, and by how many MB the service grew from none to the last job."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    before = resident_mb(engine.service.pid)
    simulation = context.Process(target=simulate_workers, args=(engine.worker_address, workers, slots, ready), daemon=True)
    simulation.start()
    if not ready.wait(120):
        raise RuntimeError("the simulated workers did not register")
    rate = jobs / Client(engine.address).run(jobs, in_flight)
    growth = resident_mb(engine.service.pid) - before
    simulation.terminate()
    return rate, growth


def scale(fresh: Callable[[], Engine], workers: int, jobs: int) -> dict[str, float]:
    """Many simulated workers beside four, all with 4 slots and 8 jobs in flight for each slot as in throughput(), in turn, each time
    with a fresh service; and both with 2,000 in flight, which leave half of the slots idle, where four have as many slots as many."""
    rates, idle, growths = [], [], []
    for dummy in range(3):
        with fresh() as engine:
            few, _growth = simulated(engine, 4, 4, jobs // 4, 128)
        with fresh() as engine:
            many, growth = simulated(engine, workers, 4, jobs, 32 * workers)
        rates.append((few, many))
        growths.append(growth)
        with fresh() as engine:
            few, _growth = simulated(engine, 4, workers, jobs // 4, 2 * workers)
        with fresh() as engine:
            idle.append(simulated(engine, workers, 4, jobs // 4, 2 * workers)[0] / few)
    return {
        "jobs per second, 4 simulated workers": statistics.median(few for few, _many in rates),
        "jobs per second, many simulated workers": statistics.median(many for _few, many in rates),
        "jobs per second with many, % of that with 4": 100 * statistics.median(many / few for few, many in rates),
        "the same with half of the slots idle, and 4 with as many slots, %": 100 * statistics.median(idle),
        "memory that the service grew by for each of them, KB": 1024 * statistics.median(growths) / workers,
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
    return {"20,000 jobs queued at once, accepted after, s": took, "longest heartbeat of another client meanwhile, ms": 1000 * max(worst)}


def spawn_rate(count: int) -> float:
    """posix_spawn and wait of /bin/true, one after the other, a second."""
    began = time.monotonic()
    for dummy in range(count):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    return count / (time.monotonic() - began)


def relay_rate(size: int, source: Path | None = None, target: Path | None = None) -> float:
    """MB/s of a plain TCP copy through one relay on loopback: sender, relay and receiver are processes of their own.

    Without files the sender repeats one block, and the receiver throws away what it gets.
    """
    context = multiprocessing.get_context("fork")
    ends = [socket.create_server(("127.0.0.1", 0)) for dummy in range(2)]

    def relay() -> None:
        into = ends[0].accept()[0]
        out = socket.create_connection(ends[1].getsockname())
        while data := into.recv(262144):
            out.sendall(data)

    def send() -> None:
        with socket.create_connection(ends[0].getsockname()) as connection:
            if source is not None:
                with source.open("rb") as file:
                    connection.sendfile(file)
                return
            block = os.urandom(262144)
            for dummy in range(size // len(block)):
                connection.sendall(block)

    for part in (relay, send):
        context.Process(target=part, daemon=True).start()
    connection = ends[1].accept()[0]
    received = 0
    began = time.monotonic()
    with contextlib.nullcontext() if target is None else target.open("wb", buffering=0) as file:
        while received < size:
            data = connection.recv(262144)
            received += len(data)
            if file is not None:
                file.write(data)
    return size / MB / (time.monotonic() - began)


GOALS: dict[str, tuple[str, float]] = {
    "no-op jobs per second": ("at least", 5),
    "latency of one job, ms": ("at most", 1 / 15),
    "CPU of one cog-job-submit, ms": ("at most", 1 / 5),
    "CPU of an idle worker, % of a core": ("at most", 1 / 50),
    "memory of the service with 16 workers, after 1,000 jobs, MB": ("at most", 1 / 4),
    "stage in, MB/s": ("at least", 2),
    "stage out, MB/s": ("at least", 2),
}
"""Ratio of ours to the other engine's figure."""

ABSOLUTE: dict[str, tuple[str, float]] = {
    "no-op jobs, % of bare posix_spawn and wait": ("at least", 50),
    "CPU of a worker from start to registered, ms": ("at most", 80),
    "stage in, % of that copy": ("at least", 50),
    "stage out, % of that copy": ("at least", 50),
    "jobs per second with many, % of that with 4": ("at least", 80),
    "memory that the service grew by for each of them, KB": ("at most", 50),
    "longest heartbeat of another client meanwhile, ms": ("at most", 500),
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
        parts.append(("queue", lambda engine: queue(engine, 20000)))
    for name, part in parts:
        print(f"… {bin_dir.parent.name}/{bin_dir.name}: {name}", file=sys.stderr, flush=True)
        with Engine(bin_dir, scratch / name) as engine:
            rows.update(part(engine))
        shutil.rmtree(scratch / name, ignore_errors=True)
    if all_rows:
        print(f"… {bin_dir.parent.name}/{bin_dir.name}: scale", file=sys.stderr, flush=True)
        rows.update(scale(lambda: Engine(bin_dir, scratch / "scale"), options.workers, options.scale_jobs))
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
    with tempfile.TemporaryDirectory(prefix="coasters-benchmark-") as folder:
        scratch = Path(folder)
        bundle.programs(str(scratch / "builtin" / "bin"), sys.executable)
        ours = measure(scratch / "builtin" / "bin", scratch / "ours", options, True)
        theirs = measure(options.against.resolve(), scratch / "theirs", options, False) if options.against else {}
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    print(machine + "\n")
    print(f"| {'what':66} | {'ours':>9} | {'other':>9} | {'ratio':>7} | {'goal':>16} |  |\n|{'---|' * 6}")
    missed = 0
    for name, value in ours.items():
        other = theirs.get(name)
        ratio = value / other if other else None
        goal = ABSOLUTE.get(name) or GOALS.get(name)
        compared = value if name in ABSOLUTE else ratio
        reached = ""
        if goal and compared is not None:
            reached = "yes" if (compared >= goal[1] if goal[0] == "at least" else compared <= goal[1]) else "NO"
            missed += reached == "NO"
        print(
            f"| {name:66} | {value:9.3g} | {'' if other is None else format(other, '9.3g'):>9} | {'' if ratio is None else format(ratio, '7.3f'):>7} "
            f"| {f'{goal[0]} {goal[1]:.3g}' + ' ×' * (name in GOALS) if goal else '':>16} | {reached} |"
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "ours": ours, "other": theirs}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
