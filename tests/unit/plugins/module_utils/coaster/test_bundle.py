# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import pkgutil
import shutil
import stat
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils import coaster
from ansible_collections.coasters.pool.plugins.module_utils.coaster import bundle

from .services import beside, listening
from .workers import Service, shell

PATIENCE = 60.0
CHECKOUT = Path(__file__).resolve().parents[5]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], timeout=PATIENCE, capture_output=True, text=True, check=False)


def pythons() -> list[str]:
    """A Python of each version from 3.6 on that is on this machine; a name in PATH may be a mere shim."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = []
    for minor in range(6, 16):
        name = "python3.%d" % minor
        for candidate in ("/usr/bin/" + name, "/usr/local/bin/" + name, *map(str, root.glob("3.%d.*/bin/python" % minor)), shutil.which(name)):
            if candidate and os.access(candidate, os.X_OK) and run(candidate, "-c", "").returncode == 0:
                found.append(candidate)
                break
    return found or [sys.executable]


def serve(*command: str) -> None:
    """Run a worker's program against a service that gives it a job and ends it."""
    with listening() as listener:
        url = "http://127.0.0.1:%d" % listener.port

        def script() -> None:
            service = Service(listener)
            assert service.register() == {"maxwalltime": "-1", "concurrency": "2"}
            assert service.run(shell("exit 3")).exit_code == 3
            service.shut_down()

        def action() -> int:
            return subprocess.run([*command, "-c", "2", url, "b", "."], timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False).returncode

        assert beside(script, action, listener.close) == 0


# the worker as one file


def test_the_archive_has_each_source_and_what_this_python_makes_of_it() -> None:
    names = ["__main__.py", *["coaster/%s.py" % name for name in bundle.WORKER_MODULES]]
    with zipfile.ZipFile(BytesIO(bundle.worker_archive())) as archive:
        assert archive.namelist() == [path for name in names for path in (name, name + "c")]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        for name in bundle.WORKER_MODULES:
            assert archive.read("coaster/%s.py" % name) == (Path(coaster.__path__[0]) / (name + ".py")).read_bytes()
        assert bundle.worker_sources() == b"".join(archive.read(name) for name in names)


def test_what_is_compiled_is_taken_by_the_python_that_made_it(tmp_path: Path) -> None:
    """Its own sources may then be anything; another version of Python, as those below, has nothing but these."""
    with zipfile.ZipFile(BytesIO(bundle.worker_archive())) as archive, zipfile.ZipFile(tmp_path / "worker", "w") as changed:
        for name in archive.namelist():
            changed.writestr(name, archive.read(name) if name.endswith("c") else b"raise SystemExit('compiled anew')")
    serve(sys.executable, "-IS", str(tmp_path / "worker"))


def test_what_is_compiled_does_not_name_the_client() -> None:
    """Where the sources are on the client is nothing to a host, whose log may show a trace."""
    with zipfile.ZipFile(BytesIO(bundle.worker_archive())) as archive:
        for name in archive.namelist()[::2]:
            compiled = archive.read(name + "c")
            assert name.encode() in compiled and str(Path(coaster.__path__[0])).encode() not in compiled


@pytest.mark.parametrize("python", pythons())
def test_the_archive_is_a_worker_on_every_python(tmp_path: Path, python: str) -> None:
    """Its name does not matter, and it leaves no files."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "worker").write_bytes(bundle.worker_archive())
    serve(python, "-IS", str(tmp_path / "w" / "worker"))
    assert [entry.name for entry in (tmp_path / "w").iterdir()] == ["worker"]


def test_a_source_that_is_not_there() -> None:
    with pytest.raises(OSError):
        bundle.source("nonsense")


def test_a_loader_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkgutil, "get_data", lambda package, name: None)
    with pytest.raises(OSError, match="the source of run cannot be read"):
        bundle.source("run")


# the programs


def version(python: str) -> list[int]:
    return [int(word) for word in run(python, "-c", "import sys; print(*sys.version_info[:2])").stdout.split()]


@pytest.mark.parametrize("python", pythons())
def test_a_pool_on_every_python(tmp_path: Path, python: str) -> None:
    """The worker as one file on this Python; service and client too, where it is not too old for them."""
    programs, worker = tmp_path / "bin", tmp_path / "worker"
    bundle.programs(str(programs), python if version(python) >= [3, 8] else sys.executable)
    worker.write_bytes(bundle.worker_archive())
    (tmp_path / "in").write_text("hello")

    def submit(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(programs / "cog-job-submit"), "-service-contact", "http://127.0.0.1:" + clients, "-redirected", *words],
            timeout=PATIENCE, capture_output=True, text=True, check=False, cwd=tmp_path)

    with subprocess.Popen(
        [programs / "coaster-service", "-nosec", "-passive", "-port", "0", "-listen", "127.0.0.1", "-workerlisten", "127.0.0.1"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    ) as service:
        assert service.stdout is not None
        lines = iter(service.stdout.readline, "")
        clients = next(line for line in lines if line.startswith("Started ")).strip().rpartition(":")[2]
        url = next(line for line in lines if line.startswith("Worker ")).split()[-1]
        with subprocess.Popen([python, "-IS", worker, "-c", "2", url, "b", "."], cwd=tmp_path, stdin=subprocess.DEVNULL) as running:
            job = ("-directory", str(tmp_path / "job"), "-stagein", "in -> in", "-stageout", "out <- out")
            result = submit(*job, "-env", "A=$A-b", "/bin/sh", "-c", 'cat in; echo "$1$A" > out', "sh", "é  ")
            assert (result.returncode, result.stdout, result.stderr) == (0, "hello\n", "\n")
            assert (tmp_path / "out").read_text() == "é  -b\n"
            assert submit("/bin/sh", "-c", "echo no >&2; exit 200").returncode == 200
            result = submit("-attributes", "maxwalltime=00:00:01", "/bin/sleep", "600")
            assert (result.returncode, result.stderr.splitlines()[0]) == (1, "Job failed: Walltime exceeded")
            loaded = Path("/proc/%d/maps" % service.pid).read_text()
            assert "_asyncio." in loaded and "_ssl." not in loaded
            service.terminate()
            assert (running.wait(PATIENCE), service.wait(PATIENCE)) == (0, 143)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bin")
    bundle.programs(str(folder), sys.executable)
    return folder


def check_programs(folder: Path) -> None:
    for name, word in (("coaster-service", "-portfile"), ("cog-job-submit", "-stagein")):
        result = run(folder / name, "-help")
        assert (result.returncode, result.stderr) == (0, "")
        assert word in result.stdout
    assert run(folder / "worker.pl").stderr == "Not given: URI\n"
    serve(str(folder / "worker.pl"))


def test_the_programs_run_by_themselves(programs: Path) -> None:
    assert {entry.name for entry in programs.iterdir()} == {"coaster", "coaster-service", "cog-job-submit", "worker.pl"}
    for name in bundle.PROGRAMS:
        assert stat.S_IMODE((programs / name).stat().st_mode) == 0o755
    assert (programs / "worker.pl").read_text().startswith("#!%s -IS\n" % sys.executable)
    check_programs(programs)


def test_a_link_to_a_program_runs_it(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "submit").symlink_to(programs / "cog-job-submit")
    assert run(tmp_path / "submit", "-help").returncode == 0


def test_written_again_over_what_is_there(programs: Path) -> None:
    bundle.programs(str(programs), sys.executable)
    assert {entry.name for entry in programs.iterdir()} == {"coaster", "coaster-service", "cog-job-submit", "worker.pl"}


@pytest.mark.skipif(not shutil.which("perl"), reason="needs perl")
def test_perl_runs_the_worker(programs: Path) -> None:
    """``perl worker.pl`` starts what the first line names (perlrun)."""
    serve("perl", str(programs / "worker.pl"))


@pytest.mark.parametrize("name", ["with blanks and 'quotes'", "x" * 130, "perl-scripts"])
def test_interpreters_that_a_first_line_cannot_name(tmp_path: Path, name: str) -> None:
    python = tmp_path / name / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    bundle.programs(str(tmp_path / "bin"), str(python))
    assert (tmp_path / "bin" / "worker.pl").read_text().startswith("#!/bin/sh\n")
    check_programs(tmp_path / "bin")
    if shutil.which("perl"):
        serve("perl", str(tmp_path / "bin" / "worker.pl"))


def test_a_package_in_a_zip_file_writes_the_same(programs: Path, tmp_path: Path) -> None:
    """Ansible runs modules from a zip file."""
    archive = tmp_path / "modules.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("outer/__init__.py", "")
        for path in Path(coaster.__path__[0]).glob("*.py"):
            packed.write(path, "outer/coaster/" + path.name)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from outer.coaster import bundle;"
        "bundle.programs(sys.argv[2], sys.argv[3]); open(sys.argv[4], 'wb').write(bundle.worker_sources())"
    )
    result = run(sys.executable, "-c", script, archive, tmp_path / "bin", sys.executable, tmp_path / "worker")
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "worker").read_bytes() == bundle.worker_sources()
    for path in programs.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert (tmp_path / "bin" / path.relative_to(programs)).read_bytes() == path.read_bytes()


def test_the_programs_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "%s:%s" % (os.path.dirname(sys.executable), os.environ["PATH"]))
    check_programs(CHECKOUT / "bin")
    if shutil.which("perl"):
        serve("perl", str(CHECKOUT / "bin" / "worker.pl"))


def test_programs_of_another_version(programs: Path) -> None:
    assert bundle.is_current(str(programs))
    path = programs / "coaster" / "frames.py"
    path.write_bytes(path.read_bytes() + b"#\n")
    assert not bundle.is_current(str(programs))
    path.unlink()
    assert not bundle.is_current(str(programs))
