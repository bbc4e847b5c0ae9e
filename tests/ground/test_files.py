"""Files appear whole or not at all, whatever happens to the process meanwhile."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from posterhall.errors import DataError
from posterhall.runs import atomic_file, fingerprint, write_atomic
from posterhall.runs.files import TEMPORARY


def names(directory):
    return sorted(each.name for each in directory.iterdir())


def test_text_is_utf8_and_bytes_are_bytes(tmp_path):
    write_atomic(tmp_path / "a", "naïve\r\n")
    write_atomic(tmp_path / "b", b"\xff\x00")
    assert (tmp_path / "a").read_bytes() == "naïve\r\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\xff\x00"
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")

    def fail_halfway():
        with atomic_file(path) as file:
            file.write(b"half of the ne")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    code = f"""
import os, signal
from pathlib import Path
from posterhall.runs import atomic_file
with atomic_file(Path({str(path)!r})) as file:
    file.write(b"half" * 100_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    [leftover] = [name for name in names(tmp_path) if name != "a"]
    assert TEMPORARY.fullmatch(leftover)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_the_bytes_are_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    path, events = tmp_path / "a", []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    replace = os.replace
    monkeypatch.setattr("pathlib.os.replace", lambda *a: (events.append("replace"), replace(*a)))
    write_atomic(path, "new")
    assert TEMPORARY.fullmatch(os.path.basename(events[0]))
    assert events[1:] == ["replace", str(tmp_path)]


def test_a_reader_never_sees_a_part(tmp_path):
    path = tmp_path / "a"
    whole = {bytes([i]) * 50_000 for i in range(20)}
    write_atomic(path, b"\0" * 50_000)
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for data in whole:
        write_atomic(path, data)
    stop.set()
    reader.join()
    assert seen <= whole


def test_permissions_are_those_of_the_old_file_or_of_the_umask(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("x")
    old.chmod(0o640)
    before = os.umask(0o022)
    try:
        write_atomic(old, "y")
        write_atomic(new, "y")
    finally:
        os.umask(before)
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE(new.stat().st_mode) == 0o644


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    write_atomic(tmp_path / ("é" * 127), "x")
    assert names(tmp_path) == ["é" * 127]


def test_a_device_is_written_and_not_replaced(tmp_path):
    write_atomic(os.devnull, "x")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_atomic(pipe, "through")
    reader.join()
    assert got == [b"through"]
    with pytest.raises(DataError, match="read only once"):
        fingerprint(pipe)


def test_places_that_cannot_be_written_are_bad_input(tmp_path):
    with pytest.raises(DataError, match="it is a directory"):
        write_atomic(tmp_path, "x")
    with pytest.raises(DataError, match="No such file or directory"):
        write_atomic(tmp_path / "none" / "a", "x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="Not a directory"):
        write_atomic(tmp_path / "file" / "a", "x")


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o444)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everything
    with pytest.raises(DataError, match="write-protected"):
        write_atomic(path, "new")
    assert path.read_text() == "old"


def test_a_fingerprint_is_size_and_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert fingerprint(path) == {"path": str(path), "bytes": 3, "sha256": known}
    path.write_bytes(bytes(5_000_000))
    assert fingerprint(path)["sha256"] == hashlib.sha256(bytes(5_000_000)).hexdigest()


def test_a_directorys_fingerprint_covers_names_and_contents(tmp_path):
    def tree(**files):
        root = tmp_path / str(len(names(tmp_path)))
        for name, text in files.items():
            (root / name / "deep").mkdir(parents=True)
            (root / name / "deep" / "file").write_text(text)
        return fingerprint(root)

    first = tree(a="1", b="22")
    assert first["bytes"] == 3
    assert tree(b="22", a="1")["sha256"] == first["sha256"]
    assert (
        len({each["sha256"] for each in (first, tree(a="1"), tree(a="1", c="22"), tree(a="2", b="21"))}) == 4
    )


def test_an_input_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt: No such file"):
        fingerprint(tmp_path / "none.txt")
