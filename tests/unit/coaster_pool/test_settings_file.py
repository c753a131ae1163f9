# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings are replaced whole or not at all, and what was there stays in a backup."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coaster_pool import settings_file

ROOT = os.geteuid() == 0
NOBODY = 65534


def no_backup(content: bytes) -> bool:
    del content
    return False


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"old")
    return path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, other than pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may do anything; then the test is somebody else."""
    if ROOT:
        os.seteuid(NOBODY)
    yield
    if ROOT:
        os.seteuid(0)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_a_file_is_replaced_and_backed_up(file: Path) -> None:
    assert settings_file.replace(file, b"old", b"new", no_backup) == file.with_name("config.yaml.bak")
    assert file.read_bytes() == b"new"
    assert file.with_name("config.yaml.bak").read_bytes() == b"old"
    assert names(file) == ["config.yaml", "config.yaml.bak"]


def test_a_backup_is_never_written_over(file: Path) -> None:
    for number in range(3):
        file.write_bytes(b"old %d" % number)
        settings_file.replace(file, b"old %d" % number, b"new", no_backup)
    assert names(file) == ["config.yaml", "config.yaml.bak", "config.yaml.bak.1", "config.yaml.bak.2"]
    assert [file.with_name(name).read_bytes() for name in names(file)] == [b"new", b"old 0", b"old 1", b"old 2"]


def test_a_backup_that_serves_is_found(file: Path) -> None:
    file.with_name("config.yaml.bak").mkdir()
    file.with_name("config.yaml.bak.1").write_bytes(b"other")
    file.with_name("config.yaml.bak.2").write_bytes(b"serves")
    file.with_name("config.yaml.bak.3").write_bytes(b"serves")
    backup = settings_file.replace(file, b"old", b"new", lambda content: content == b"serves")
    assert backup == file.with_name("config.yaml.bak.2")
    assert file.read_bytes() == b"new"


def test_backups_have_an_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_file, "MAX_BACKUPS", 1)
    settings_file.replace(file, b"old", b"new", no_backup)
    with pytest.raises(FileExistsError, match="it has 1 backups: remove some"):
        settings_file.replace(file, b"new", b"newer", no_backup)
    assert file.read_bytes() == b"new"
    assert names(file) == ["config.yaml", "config.yaml.bak"]


def test_a_new_file_is_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "config.yaml"
    settings_file.check_writable(path)
    assert settings_file.read(path) is None
    assert settings_file.replace(path, None, b"new", no_backup) is None
    assert path.read_bytes() == b"new"
    assert [stat.S_IMODE(entry.stat().st_mode) for entry in (path, path.parent)] == [0o600, 0o700]
    assert names(path) == ["config.yaml"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640, 0o664])
def test_the_mode_stays(file: Path, mode: int) -> None:
    file.chmod(mode)
    backup = settings_file.replace(file, b"old", b"new", no_backup)
    assert backup is not None
    assert [stat.S_IMODE(entry.stat().st_mode) for entry in (file, backup)] == [mode, mode]


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_the_owner_stays(file: Path) -> None:
    os.chown(file, NOBODY, NOBODY)
    backup = settings_file.replace(file, b"old", b"new", no_backup)
    assert backup is not None
    assert {(entry.stat().st_uid, entry.stat().st_gid) for entry in (file, backup)} == {(NOBODY, NOBODY)}


@pytest.mark.skipif(not ROOT, reason="only root can make files of others")
def test_a_file_of_somebody_else_is_left_alone(open_folder: Path, unprivileged: None) -> None:
    os.seteuid(0)
    path = open_folder / "config.yaml"
    path.write_bytes(b"old")
    path.chmod(0o666)
    os.seteuid(NOBODY)
    settings_file.check_writable(path)
    with pytest.raises(PermissionError) as error:
        settings_file.replace(path, b"old", b"new", no_backup)
    assert error.value.strerror == "it belongs to somebody else, and its owner would change"
    assert path.read_bytes() == b"old"
    assert names(path) == ["config.yaml"]


def test_a_read_only_file_is_left_alone(open_folder: Path, unprivileged: None) -> None:
    path = open_folder / "config.yaml"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(PermissionError) as error:
        settings_file.check_writable(path)
    assert error.value.strerror == "you may not write it"


@pytest.mark.parametrize("name", ["config.yaml", "a/b/config.yaml"])
def test_a_read_only_folder_is_told(open_folder: Path, unprivileged: None, name: str) -> None:
    if ROOT:
        os.seteuid(0)
    open_folder.chmod(0o555)
    if ROOT:
        os.seteuid(NOBODY)
    with pytest.raises(PermissionError) as error:
        settings_file.check_writable(open_folder / name)
    assert error.value.strerror == f"you may not write into {open_folder}"


def test_a_file_is_no_folder(file: Path) -> None:
    with pytest.raises(NotADirectoryError) as error:
        settings_file.check_writable(file / "jetstream" / "config.yaml")
    assert error.value.strerror == f"{file} is not a folder"


def test_a_link_is_followed(file: Path) -> None:
    link = file.with_name("link.yaml")
    link.symlink_to("config.yaml")
    assert settings_file.find(link) == settings_file.find(file)


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings_file.find("~/config.yaml") == Path(os.path.realpath(tmp_path)) / "config.yaml"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="it is not a file"):
        settings_file.read(tmp_path / "config.yaml")


def test_what_is_no_settings_is_not_read(file: Path) -> None:
    file.write_bytes(b"#" * settings_file.MAX_SIZE)
    assert len(settings_file.read(file) or b"") == settings_file.MAX_SIZE
    file.write_bytes(b"#" * (settings_file.MAX_SIZE + 1))
    with pytest.raises(ValueError, match="it is larger than 1048576 bytes"):
        settings_file.read(file)


@pytest.mark.parametrize(("old", "new"), [(b"old", b"new" * 100), (b"old" * 100, b"new")])
def test_a_full_disk_changes_nothing(file: Path, old: bytes, new: bytes) -> None:
    """A write beyond the limit for files fails as one to a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        with pytest.raises(OSError) as error:
            settings_file.replace(file, old, new, no_backup)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.errno == errno.EFBIG
    assert file.read_bytes() == b"old"
    assert names(file) == ["config.yaml"]
