# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.coasters.pool.plugins.module_utils.coaster import staging
from ansible_collections.coasters.pool.plugins.module_utils.coaster.staging import (
    FRAME,
    FileError,
    Incoming,
    Outgoing,
    Piece,
    expand,
    native,
    skipped,
    text,
)


def path(folder: Path, name: str = "") -> bytes:
    return os.fsencode(folder / name)


def send(file: Outgoing) -> list[bytes]:
    pieces = []
    while file.left:
        pieces.append(file.read())
    file.close()
    return pieces


def receive(where: bytes, data: bytes) -> None:
    file = Incoming(where, len(data))
    file.write(data)
    file.finish()
    file.discard()


def test_a_file_is_read_in_frames(tmp_path: Path) -> None:
    data = os.urandom(2 * FRAME + 5)
    (tmp_path / "file").write_bytes(data)
    file = Outgoing(path(tmp_path, "file"))
    assert file.size == len(data)
    pieces = send(file)
    assert [len(piece) for piece in pieces] == [FRAME, FRAME, 5]
    assert b"".join(pieces) == data


def test_an_empty_file_has_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = Outgoing(path(tmp_path, "file"))
    assert file.size == file.left == 0
    assert file.read() == b""
    file.close()


def test_a_file_that_grows_is_sent_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    file = Outgoing(path(tmp_path, "file"))
    with (tmp_path / "file").open("ab") as grown:
        grown.write(b"6")
    assert send(file) == [b"12345"]


def test_a_file_that_shrinks_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    file = Outgoing(path(tmp_path, "file"))
    (tmp_path / "file").write_bytes(b"12")
    with pytest.raises(FileError, match="Became shorter while it was sent"):
        file.read()
    file.close()


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("none", "No such file or directory"), ("", "Is not a regular file"), ("pipe", "Is not a regular file")):
        with pytest.raises(FileError) as caught:
            Outgoing(path(tmp_path, name))
        assert str(caught.value) == "%s (%s)" % (tmp_path / name, reason)


def test_a_read_error_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"1")
    file = Outgoing(path(tmp_path, "file"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", _disk_error)
        with pytest.raises(FileError, match=r"file \(Input/output error\)"):
            file.read()
    file.close()


def _disk_error(*_args: object) -> bytes:
    raise OSError(5, "Input/output error")


@contextlib.contextmanager
def taken(folder: Path, data: bytes) -> Iterator[tuple[Outgoing, socket.socket, socket.socket]]:
    """A file that is sent, and a connection."""
    (folder / "file").write_bytes(data)
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    with one, other:
        yield Outgoing(path(folder, "file")), one, other


def drain(piece: Piece, one: socket.socket, other: socket.socket) -> bytes:
    """All of the piece, through the connection."""
    data = b""
    while piece:
        before = len(piece)
        assert before - piece.send(one) == len(piece)
        with contextlib.suppress(BlockingIOError):
            while True:
                data += other.recv(1000000)
    return data


@pytest.mark.parametrize("sendfile", [True, False])
def test_a_socket_takes_the_pieces_from_the_file(tmp_path: Path, sendfile: bool) -> None:
    data = os.urandom(2 * FRAME + 5)
    with taken(tmp_path, data) as (file, one, other):
        if not sendfile:  # as with a file system that cannot do it
            fcntl.fcntl(one, fcntl.F_SETFL, fcntl.fcntl(one, fcntl.F_GETFL) | os.O_APPEND)
            with pytest.raises(OSError, match="Invalid argument"), (tmp_path / "file").open("rb") as source:
                os.sendfile(one.fileno(), source.fileno(), 0, 10)
        pieces = [file.take() for dummy in range(3)]
        assert file.left == 0
        file.close()
        assert pieces.pop() == data[2 * FRAME:]
        assert b"".join(drain(piece, one, other) for piece in pieces if isinstance(piece, Piece)) == data[:2 * FRAME]


def test_a_socket_that_takes_nothing_leaves_a_piece_as_it_is(tmp_path: Path) -> None:
    with taken(tmp_path, bytes(100 * FRAME)) as (file, one, _other):
        for dummy in range(2):
            piece = file.take()
            with pytest.raises(BlockingIOError):
                while piece.send(one):
                    piece = piece or file.take()
            assert len(piece) > 0
        file.close()


def test_a_broken_socket_is_told(tmp_path: Path) -> None:
    with taken(tmp_path, bytes(2 * FRAME)) as (file, one, other):
        other.close()
        with pytest.raises(BrokenPipeError):
            file.take().send(one)
        file.close()


def test_a_file_that_shrinks_when_a_piece_is_on_its_way_is_told(tmp_path: Path) -> None:
    with taken(tmp_path, b"1" * 3 * FRAME) as (file, one, other):
        piece = file.take()
        os.truncate(tmp_path / "file", 10)
        assert drain(piece, one, other) == b"1" * 10 + bytes(FRAME - 10)
        os.truncate(tmp_path / "file", 3 * FRAME)
        with pytest.raises(FileError, match="Became shorter while it was sent"):
            file.take()
        file.close()


def test_a_file_is_open_as_long_as_a_piece_is_on_its_way(tmp_path: Path) -> None:
    with taken(tmp_path, bytes(2 * FRAME)) as (file, one, other):
        number = file._source.file
        piece = file.take()
        file.close()
        assert len(drain(piece, one, other)) == FRAME
        assert os.readlink("/proc/self/fd/%d" % number) == str(tmp_path / "file")
        del piece
        assert not os.path.exists("/proc/self/fd/%d" % number) or os.readlink("/proc/self/fd/%d" % number) != str(tmp_path / "file")


def test_a_file_stands_under_its_name_only_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file"
    file = Incoming(path(target), 5)
    file.write(b"123")
    assert not target.exists()
    file.write(b"45")
    file.finish()
    file.discard()
    assert target.read_bytes() == b"12345"
    assert [entry.name for entry in target.parent.iterdir()] == ["file"]


def test_an_empty_file_arrives(tmp_path: Path) -> None:
    receive(path(tmp_path, "file"), b"")
    assert (tmp_path / "file").read_bytes() == b""


def test_what_was_given_up_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    file = Incoming(path(tmp_path, "file"), 5)
    file.write(b"123")
    file.discard()
    file.discard()
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
    file = Incoming(path(tmp_path, "file"), 5)
    next(entry for entry in tmp_path.iterdir() if entry.name != "file").unlink()
    file.discard()


@pytest.mark.parametrize("data", [b"12", b"1234"])
def test_a_file_of_another_length_is_refused(tmp_path: Path, data: bytes) -> None:
    file = Incoming(path(tmp_path, "file"), 3)
    file.write(data)
    with pytest.raises(FileError, match="File size mismatch. Expected 3 bytes, got %d" % len(data)):
        file.finish()
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_who_reads_the_old_file_is_not_disturbed_and_its_mode_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old content")
    (tmp_path / "file").chmod(0o751)
    with (tmp_path / "file").open() as old:
        receive(path(tmp_path, "file"), b"new")
        assert old.read() == "old content"
    assert (tmp_path / "file").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o751


def test_a_new_file_has_the_mode_of_the_mask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        receive(path(tmp_path, "file"), b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    receive(path(tmp_path, "link"), b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"data"


def test_a_pipe_is_written_in_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    receive(path(tmp_path, "pipe"), b"data")
    assert os.read(reader, 100) == b"data"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_long_name_fits(tmp_path: Path) -> None:
    receive(path(tmp_path, "n" * 255), b"data")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"data"


def test_where_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, reason in (("", "Is a directory"), ("file/x", "Not a directory"), ("file/y/x", "Not a directory")):
        with pytest.raises(FileError) as caught:
            Incoming(path(tmp_path, name), 1)
        assert str(caught.value) == "%s (%s)" % (tmp_path / name, reason)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    file = Incoming(b"/dev/full", 5)
    with pytest.raises(FileError, match=r"/dev/full \(No space left on device\)"):
        file.write(b"12345")
    file.discard()


def test_a_folder_that_vanishes_is_told(tmp_path: Path) -> None:
    file = Incoming(path(tmp_path, "folder/file"), 1)
    file.write(b"1")
    (tmp_path / "folder").rename(tmp_path / "moved")
    with pytest.raises(FileError, match=r"folder/file \(No such file or directory\)"):
        file.finish()
    file.discard()


@pytest.mark.parametrize(
    ("mode", "sent"),
    [
        # sent when: ok + present, ok + missing, failed + present, failed + missing (coaster-protocol 5.5)
        (0, (True, True, True, True)),
        (1, (True, True, True, True)),
        (2, (True, False, True, False)),
        (4, (False, False, True, True)),
        (8, (True, True, False, False)),
        (6, (False, False, True, False)),
        (10, (True, False, False, False)),
        (3, (True, False, True, False)),
        (12, (False, False, False, False)),
    ],
)
def test_modes(mode: int, sent: tuple[bool, ...]) -> None:
    cases = [(present, failed) for failed in (False, True) for present in (True, False)]
    assert tuple(not skipped(mode, present, failed) for present, failed in cases) == sent


def test_a_source_without_wildcards_stands_for_itself(tmp_path: Path) -> None:
    assert expand(path(tmp_path, "none"), "d*") == [(path(tmp_path, "none"), "d*")]
    assert expand(path(tmp_path, "*/none"), "d") == [(path(tmp_path, "*/none"), "d")]


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("a*.q", "out_*.z", {"a1.q": "out_1.z", "a22.q": "out_22.z"}),
        ("a?.q", "out_?.z", {"a1.q": "out_1.z"}),
        ("*.?", "d/*/?/*", {"a1.q": "d/a1/q/*", "a22.q": "d/a22/q/*", "b+[x].q": "d/b+[x]/q/*"}),
        ("*1*", "*", {"a1.q": "a"}),
        ("b+[x].*", "*", {"b+[x].q": "q"}),
        (".*", "hidden*", {".a.q": "hiddena.q"}),
        ("*.q", "one", {"a1.q": "one", "a22.q": "one", "b+[x].q": "one"}),
        ("z*", "*", {}),
    ],
)
def test_wildcards(tmp_path: Path, source: str, destination: str, expected: dict[str, str]) -> None:
    for name in ("a1.q", "a22.q", "b+[x].q", ".a.q"):
        (tmp_path / name).touch()
    found = expand(path(tmp_path, source), destination)
    assert found == [(path(tmp_path, name), filled) for name, filled in expected.items()]


def test_wildcards_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert expand(path(tmp_path, "none/*"), "*") == []


def test_wildcards_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").touch()
    assert expand(b"?", "?") == [(b"a", "a")]


def test_bytes_that_are_not_text_survive() -> None:
    assert native(text(b"\xff\xc3\xa9")) == b"\xff\xc3\xa9"
    assert text(b"\xc3\xa9") == "é"
    assert staging.because(b"\xff", OSError(2, "No such file or directory")) == "\udcff (No such file or directory)"
