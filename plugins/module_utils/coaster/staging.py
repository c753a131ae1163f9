# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on their way: what workers and submit clients read and write for staging (coaster-protocol 5). Python 3.6 and later.

Paths are bytes, as the operating system has them.
"""

import contextlib
import os
import stat

from .jobs import IF_PRESENT, ON_ERROR, ON_SUCCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import List, Tuple, Union

FRAME = 524288
"""Bytes in a data frame to whoever takes so many."""
JAVA_FRAME = 65536
"""Bytes in a data frame for a service that has not said what it takes: Swift/K's holds back what it has no room for after a
number of frames, whatever their size (coaster-protocol 5.6)."""

_WILDCARD = "([*?])"
_MATCHING = {"*": "(.*)", "?": "(.)"}


class FileError(Exception):
    """A file cannot be carried; the text names it and says why."""


class Outgoing:
    """A file to be sent in pieces of ``frame`` bytes: ``size`` bytes, of which ``left`` have not been taken yet. Raises FileError."""

    def __init__(self, path: bytes, frame: int = FRAME) -> None:
        self._path, self._frame = path, frame
        self._source = _Source(path)
        found = os.fstat(self._source.file)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise FileError(text(path) + " (Is not a regular file)")
        self.size = self.left = found.st_size

    def read(self) -> bytes:
        """The next ``frame`` bytes, or all that are left. Raises FileError, also when the file has become shorter."""
        size = min(self._frame, self.left)
        data = self._source.read(self.size - self.left, size)
        if self._source.problem:
            raise FileError("%s (%s)" % (text(self._path), self._source.problem))
        self.left -= size
        return data

    def take(self) -> "Union[Piece, bytes]":
        """As read(), but a piece that is not the last has not been read yet: the socket takes it from the file.

        The last one has to be taken when the others have been sent: whether the file was whole until then is known only now.
        """
        if self.left <= self._frame or self._source.problem:
            return self.read()
        piece = Piece(self._source, self.size - self.left, self._frame)
        self.left -= self._frame
        return piece

    def close(self) -> None:
        """The file is of no use after this; it is open as long as a socket has to take a piece of it."""
        del self._source


class Piece:
    """As many bytes of a file as its length says, which go to a socket without a way through this process."""

    __slots__ = ("_source", "_at", "_left")

    def __init__(self, source: "_Source", at: int, size: int) -> None:
        self._source, self._at, self._left = source, at, size

    def __len__(self) -> int:
        return self._left

    def send(self, sock: "socket.socket") -> int:
        """Send what the socket takes, and forget it; how much it was. Raises OSError when the socket takes nothing."""
        try:
            sent = os.sendfile(sock.fileno(), self._source.file, self._at, self._left)
        except BlockingIOError:
            raise
        except OSError:
            sent = 0
        # Not every file system can do that; and a file that has become shorter has nothing to send.
        sent = sent or sock.send(self._source.read(self._at, self._left))
        self._at += sent
        self._left -= sent
        return sent


class _Source:
    """An open file, which closes when it has no user any more. ``problem``: why not all of it could be read."""

    def __init__(self, path: bytes) -> None:
        self.problem = ""
        self.file = -1
        try:
            # Not blocking, because opening a named pipe would wait for its writer.
            self.file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise FileError(because(path, error)) from error

    def __del__(self) -> None:
        if self.file >= 0:
            os.close(self.file)

    def read(self, at: int, size: int) -> bytes:
        """So many bytes; zeros instead of those that cannot be read, because the peer has been promised so many."""
        try:
            data = os.pread(self.file, size, at)
        except OSError as error:
            data = b""
            self.problem = error.strerror or ""
        else:
            if len(data) < size:
                self.problem = "Became shorter while it was sent"
        return data.ljust(size, b"\0")


class Incoming:
    """A file of ``size`` bytes that arrives piece by piece; it stands under its name only when whole, and its folder is made.

    Devices and the like are written in place. All methods but discard() raise FileError, after which only that is allowed.
    """

    def __init__(self, path: bytes, size: int) -> None:
        self._path, self._size = path, size
        self._written = 0
        self._temporary = b""
        self._file = -1
        try:
            self._open(os.path.realpath(path))
        except OSError as error:
            self.discard()
            raise FileError(because(path, error)) from error

    def _open(self, path: bytes) -> None:
        self._target = path
        folder, name = os.path.split(path)
        mode = None
        try:
            found = os.stat(path)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(21, "Is a directory")
            if not stat.S_ISREG(found.st_mode):
                self._file = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                return
            mode = stat.S_IMODE(found.st_mode)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
        self._temporary = os.path.join(folder, b".%s.%d.%s" % (name[:200], os.getpid(), os.urandom(4).hex().encode()))
        self._file = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        if mode is not None:
            os.fchmod(self._file, mode)

    def write(self, data: "Union[bytes, memoryview]") -> None:
        """The next piece."""
        self._written += len(data)
        try:
            while data:
                data = data[os.write(self._file, data):]
        except OSError as error:
            raise FileError(because(self._path, error)) from error

    def finish(self) -> None:
        """All pieces have come: the file stands under its name."""
        if self._written != self._size:
            raise FileError("File size mismatch. Expected %d bytes, got %d" % (self._size, self._written))
        try:
            file, self._file = self._file, -1
            os.close(file)
            if self._temporary:
                os.rename(self._temporary, self._target)
                self._temporary = b""
        except OSError as error:
            raise FileError(because(self._path, error)) from error

    def discard(self) -> None:
        """Leave nothing of what has come; without effect on a file that was finished."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)
            self._temporary = b""


def skipped(mode: int, present: bool, failed: bool) -> bool:
    """Whether a stage-out with this mode does not take place: any condition that is set and does not hold prevents it.

    ``present``: the file exists; ``failed``: the job ended with an exit code other than 0 (coaster-protocol 5.5).
    """
    return bool(mode & IF_PRESENT and not present or mode & ON_ERROR and not failed or mode & ON_SUCCESS and failed)


def expand(source: bytes, destination: str) -> "List[Tuple[bytes, str]]":
    """The files that a stage-out source with ``*`` or ``?`` in its last step stands for, in order, each with its destination,
    where wildcards are replaced one after another by what the source's matched (coaster-protocol 5.5).

    A source without wildcards stands for itself, whether it exists or not.
    """
    folder, name = os.path.split(source)
    if b"*" not in name and b"?" not in name:
        return [(source, destination)]
    import re  # milliseconds that a worker's start need not take

    wanted = (_MATCHING.get(part) or re.escape(part) for part in re.split(_WILDCARD, text(name)))
    pattern = re.compile("".join(wanted) + r"\Z", re.S)
    try:
        present = sorted(os.listdir(folder or b"."))
    except OSError:
        present = []
    found = []
    for candidate in present:
        match = pattern.match(text(candidate))
        if match is not None and (candidate[:1] != b"." or name[:1] == b"."):
            parts, matched = re.split(_WILDCARD, destination), match.groups()
            parts[1:2 * len(matched):2] = matched[:len(parts) // 2]
            found.append((os.path.join(folder, candidate), "".join(parts)))
    return found


def native(words: str) -> bytes:
    """Protocol text as the bytes that were sent."""
    return words.encode("utf-8", "surrogateescape")


def text(path: bytes) -> str:
    """Bytes as protocol text; the inverse of native()."""
    return path.decode("utf-8", "surrogateescape")


def because(path: bytes, error: OSError) -> str:
    """The path and why it failed, as Java peers say it."""
    return "%s (%s)" % (text(path), error.strerror)
