"""Files that appear whole or not at all, and fingerprints of those that are read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from posterhall.errors import DataError

TEMPORARY = re.compile(r"\..*\.[0-9a-f]{12}\.tmp")
"""Names of files that `atomic_file` has not finished; after a kill they are left over."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears whole or not at all.

    The bytes go to a hidden file beside `path`, which takes its place when the block ends and is
    removed if it ends in an exception; a kill in between leaves the old file untouched. A device or a
    pipe (/dev/stdout) is written directly.

    Raises:
        DataError: if nothing can be written there.
    """
    path = Path(os.path.realpath(path))  # through a link, so that the link survives
    try:
        mode = path.stat().st_mode & 0o7777 if path.exists() else None
        if path.is_dir():
            raise DataError(f"cannot write {path}: it is a directory; give the name of a file")
        if mode is not None and not os.access(path, os.W_OK):
            raise DataError(f"cannot write {path}: it is write-protected; choose another place")
        if mode is not None and not path.is_file():
            with open(path, "wb") as device:
                yield device
            return
        # 60 letters keep within 255 bytes whatever the name is.
        temporary = path.with_name(f".{path.name[:60]}.{os.urandom(6).hex()}.tmp")
        handle = open(temporary, "xb")  # noqa: SIM115 - closed below, before the rename
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another place") from error
    try:
        with handle:
            if mode is not None:
                os.fchmod(handle.fileno(), mode)
            yield handle
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file, text as UTF-8, such that a kill leaves the old or the new one."""
    with atomic_file(path) as handle:
        handle.write(data.encode() if isinstance(data, str) else data)


def _sync(path: Path) -> None:
    """Have the disk take a file's bytes, or a directory's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def fingerprint(path: Path) -> dict[str, Any]:
    """An input's path, size in bytes and SHA-256; a directory's covers its files' names and contents.

    Raises:
        DataError: if it cannot be read, or not twice (a pipe).
    """
    try:
        if not path.is_dir():
            if path.exists() and not path.is_file():  # reading a pipe would leave nothing for the work
                raise DataError(f"{path} can be read only once; write it to a file first")
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                return {"path": str(path), "bytes": file.tell(), "sha256": sha256}
        within = hashlib.sha256()
        total = 0
        for file_path in sorted(each for each in path.rglob("*") if each.is_file()):
            part = fingerprint(file_path)
            total += part["bytes"]
            name = file_path.relative_to(path).as_posix()
            within.update(f"{name}\0{part['bytes']}\0{part['sha256']}\n".encode("utf-8", "surrogateescape"))
        return {"path": str(path), "bytes": total, "sha256": within.hexdigest()}
    except OSError as error:
        raise DataError(f"cannot read the input {path}: {error.strerror or error}") from error
