# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of somebody's settings: replaced in one step, with its owner and mode, and with a backup that stays."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

MAX_SIZE = 1 << 20
"""Bytes at most."""
MAX_BACKUPS = 1000


def find(path: str | Path) -> Path:
    """The file itself, behind any links."""
    return Path(os.path.realpath(Path(path).expanduser()))


def read(path: Path) -> bytes | None:
    """The content, None when there is no file. Raises OSError, or ValueError when it is no file of settings."""
    if not path.exists():
        return None
    if not path.is_file():
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise ValueError(f"it is larger than {MAX_SIZE} bytes")
    return data


def check_writable(path: Path) -> None:
    """Raises OSError when replace() cannot work. A read-only file is left alone, although its folder would allow to replace it."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
    effective = os.access in os.supports_effective_ids
    if path.exists() and not os.access(path, os.W_OK, effective_ids=effective):
        raise PermissionError(errno.EACCES, "you may not write it")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise PermissionError(errno.EACCES, f"you may not write into {folder}")


def replace(path: Path, old: bytes | None, new: bytes, is_backup: Callable[[bytes], bool]) -> Path | None:
    """Replace the content ``old`` (None: there is no file) and return the backup that was made or, as ``is_backup`` tells, found.

    Backups are ``NAME.bak``, ``NAME.bak.1`` and so on; none is ever written over. A new file, and folders that are missing, are for
    this user alone. Raises OSError, and then everything is as before.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    like = None if old is None else path.stat()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        _fill(handle, new, like)
        backup = None if old is None or like is None else _back_up(path, old, like, is_backup)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return backup


def _back_up(path: Path, old: bytes, like: os.stat_result, is_backup: Callable[[bytes], bool]) -> Path:
    for number in range(MAX_BACKUPS):
        backup = path.with_name(f"{path.name}.bak{f'.{number}' if number else ''}")
        try:
            handle = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            with contextlib.suppress(OSError, ValueError):
                if is_backup(read(backup) or b""):
                    return backup
            continue
        try:
            _fill(handle, old, like)
        except BaseException:
            backup.unlink()
            raise
        return backup
    raise FileExistsError(errno.EEXIST, f"it has {MAX_BACKUPS} backups: remove some")


def _fill(handle: int, data: bytes, like: os.stat_result | None) -> None:
    """Write an open file to the disk and close it, with the owner and mode of another. Raises OSError."""
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        if like is not None:
            now = os.fstat(handle)
            if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid):
                try:
                    os.fchown(handle, like.st_uid, like.st_gid)
                except PermissionError as error:
                    raise PermissionError(errno.EPERM, "it belongs to somebody else, and its owner would change") from error
            os.fchmod(handle, stat.S_IMODE(like.st_mode))
        os.fsync(handle)
