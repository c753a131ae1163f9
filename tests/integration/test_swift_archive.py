# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""coaster_service_swift_archive: a distribution that the role unpacks for the pool, from a path and from an address."""

from __future__ import annotations

import functools
import hashlib
import http.server
import re
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import distribution
from tests.distribution import Distribution
from tests.integration.station import Station


@pytest.fixture
def engine(tmp_path: Path) -> Distribution:
    return distribution.given() or distribution.made(tmp_path / "swift")


@pytest.fixture
def here(engine: Distribution, station: Station, tmp_path: Path) -> Iterator[Station]:
    """A client whose only host is itself, with the Java that the distribution needs. A pool that is left is stopped after the test."""
    (tmp_path / "hosts").write_text(f"localhost ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    station.env = engine.env(station.env)
    yield station
    if station.files():
        play(station, "stop_pool")


def pack(folder: Path, archive: Path) -> Path:
    """The folder as ``swift-0.97`` in an archive."""
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "swift-0.97")
    return archive


@pytest.fixture
def archive(engine: Distribution, tmp_path: Path) -> Path:
    return pack(engine.bin_dir.parent, tmp_path / "swift 0.97.tar.gz")


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def play(station: Station, name: str, *words: str, **variables: str) -> tuple[int, str]:
    settings = {"coaster_service_port": "0", "coaster_service_worker_port": "0", **variables}
    extra = [word for name, value in settings.items() for word in ("-e", f"{name}='{value}'")]
    done = station.playbook(f"coasters.pool.{name}", "-i", str(station.place / "hosts"), *extra, *words)
    return done.returncode, done.stdout + done.stderr


def changes(output: str) -> int:
    return sum(map(int, re.findall(r"changed=(\d+)", output)))


@pytest.fixture(params=["path", "address"])
def source(request: pytest.FixtureRequest, archive: Path) -> Iterator[str]:
    if request.param == "path":
        yield str(archive)
        return
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{archive.name.replace(' ', '%20')}"
        server.shutdown()


def test_a_pool_on_an_archive(here: Station, archive: Path, source: str) -> None:
    settings = {"coaster_service_swift_archive": source, "coaster_service_swift_archive_checksum": checksum(archive)}
    code, output = play(here, "start_pool", **settings)
    assert code == 0, output
    known = here.status()
    assert (known["engine"], [worker["name"] for worker in known["workers"]]) == ("swift", ["localhost"])
    code, output, dummy = here.submit(known["url"], "-redirected", "/bin/echo", "hello")
    assert (code, output.strip()) == (0, "hello")
    code, output = play(here, "start_pool", **settings)
    assert (code, changes(output)) == (0, 0), output


def test_a_check_changes_nothing(here: Station, archive: Path) -> None:
    settings = {"coaster_service_swift_archive": str(archive), "coaster_service_swift_archive_checksum": checksum(archive)}
    code, output = play(here, "start_pool", "--check", **settings)
    assert code != 0
    assert f"{archive} is not unpacked yet, which a check does not do" in output
    assert here.files() == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"coaster_service_swift_archive_checksum": ""}, "coaster_service_swift_archive_checksum its checksum"),
        ({"coaster_service_swift_archive_checksum": "9f86d081"}, "such as sha256:9f86d081"),
        ({"coaster_service_swift_archive": "swift.tar.gz"}, "must be an absolute path or an address"),
        ({"coaster_service_swift_archive_checksum": "sha256:" + "0" * 64}, "checksum"),
        ({"coaster_service_swift_archive": "/no/such/file"}, "/no/such/file"),
    ],
)
def test_an_archive_that_cannot_be_taken(here: Station, archive: Path, change: dict[str, str], told: str) -> None:
    settings = {"coaster_service_swift_archive": str(archive), "coaster_service_swift_archive_checksum": checksum(archive)}
    code, output = play(here, "start_pool", **(settings | change))
    assert code != 0
    assert told in " ".join(output.split())
    assert not here.status()["running"]


def test_an_archive_of_something_else(here: Station, tmp_path: Path) -> None:
    (tmp_path / "something").mkdir()
    other = pack(tmp_path / "something", tmp_path / "other.tar.gz")
    settings = {"coaster_service_swift_archive": str(other), "coaster_service_swift_archive_checksum": checksum(other)}
    code, output = play(here, "start_pool", **settings)
    assert code != 0
    assert "holds no coaster-service: name an archive of a Swift/K distribution" in " ".join(output.split())
