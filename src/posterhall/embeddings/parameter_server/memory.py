"""Arrays that live in private memory or in memory shared between processes, and locks for both.

Shared memory here is a file without a name (memfd, or an unlinked temporary file) whose descriptor the
child inherits. So there is nothing to clean up and nothing to leak, however the processes end, and it
does not count against the size of /dev/shm (64 MB in a default container). Locks are record locks on
such a file: the system releases them when their holder is killed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64

Lock = AbstractContextManager[Any]


@dataclass(frozen=True)
class ArraySpec:
    """Name, dtype (as numpy writes it, for example `<f4`) and shape of an array in a block."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


def nameless_file(size: int) -> int:
    """Descriptor of a new file of zeros that has no name; the system frees it when nobody holds it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("posterhall")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def aligned_zeros(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A float32 array of zeros that begins at a multiple of 64 bytes, so that vectors cross no cache line."""
    count = int(np.prod(shape, dtype=np.int64))
    room = np.zeros(count + _ALIGNMENT // 4, np.float32)
    skip = -room.ctypes.data % _ALIGNMENT // 4
    return room[skip : skip + count].reshape(shape)


class Block:
    """Arrays laid out one after the other in one piece of memory, zeroed.

    Args:
        specs: the arrays.
        fd: descriptor of a file to map, shared with whoever else maps it; None is private memory.
    """

    def __init__(self, specs: Sequence[ArraySpec], fd: int | None = None) -> None:
        self.specs = tuple(specs)
        self.fd = fd
        memory: Any = mmap.mmap(-1 if fd is None else fd, self.size(specs))
        self._arrays: dict[str, NDArray[Any]] = {}
        at = 0
        for spec in self.specs:
            count = int(np.prod(spec.shape, dtype=np.int64))
            flat = np.frombuffer(memory, np.dtype(spec.dtype), count, at)
            self._arrays[spec.name] = flat.reshape(spec.shape)
            at += -(-spec.bytes // _ALIGNMENT) * _ALIGNMENT

    @staticmethod
    def size(specs: Sequence[ArraySpec]) -> int:
        """Bytes that a block of these arrays takes."""
        return max(sum(-(-spec.bytes // _ALIGNMENT) * _ALIGNMENT for spec in specs), _ALIGNMENT)

    @classmethod
    def shared(cls, specs: Sequence[ArraySpec]) -> Block:
        """A block in new shared memory; the descriptor stays open as `fd`."""
        return cls(specs, nameless_file(cls.size(specs)))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def close(self) -> None:
        """Close the descriptor; the memory goes when the last array and the last process let go."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class RecordLock:
    """Excludes threads and processes; released by the system if its holder dies.

    Args:
        fd: descriptor of a lock file that every process inherited. A process must not close any
            descriptor of that file while it uses locks on it (POSIX drops them all).
        byte: the lock's number within the file.
    """

    def __init__(self, fd: int, byte: int) -> None:
        self._fd, self._byte = fd, byte
        self._threads = threading.Lock()  # record locks do not exclude threads of one process

    def __enter__(self) -> None:
        self._threads.acquire()
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, self._byte)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._byte)
        self._threads.release()
