"""Rows that are written once and then read: in memory, and on disk when they outgrow it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Budget:
    """Memory that several spools share.

    Args:
        limit: bytes that may be held; None means that nothing goes to disk.
        folder: where files go; None means the system's place for temporary files.
    """

    def __init__(self, limit: int | None, folder: Path | None = None) -> None:
        self.limit = limit
        self.held = 0
        self.on_disk = 0
        self._folder = folder
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def place(self) -> Path:
        """A new file, which goes when the budget is closed."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="posterhall-dedup-", dir=self._folder)
        self._files += 1
        return Path(self._directory.name) / f"{self._files}.bin"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._directory is not None:
            self._directory.cleanup()


class Spool:
    """Rows of numbers, appended in blocks and read as one array.

    Args:
        budget: the memory it counts against; past it, what comes goes to a file that is mapped when read.
        dtype: of the numbers.
        width: numbers in a row; None for a flat array.
    """

    def __init__(self, budget: Budget, dtype: DTypeLike, width: int | None = None) -> None:
        self._budget = budget
        self._dtype = np.dtype(dtype)
        self._shape = (-1,) if width is None else (-1, width)
        self._blocks: list[NDArray[Any]] = []
        self._path: Path | None = None
        self.rows = 0

    def append(self, block: NDArray[Any]) -> None:
        """Take rows; the array belongs to the spool from here on."""
        budget = self._budget
        self.rows += len(block)
        budget.held += block.nbytes
        self._blocks.append(block)
        if budget.limit is not None and budget.held > budget.limit:
            self._spill()

    def _spill(self) -> None:
        if self._path is None:
            self._path = self._budget.place()
        with self._path.open("ab") as file:
            for block in self._blocks:
                np.ascontiguousarray(block, self._dtype).tofile(file)
                self._budget.held -= block.nbytes
                self._budget.on_disk += block.nbytes
        self._blocks = []

    def array(self) -> NDArray[Any]:
        """All rows, (rows,) or (rows, width); of a file, as a map into it."""
        if self._path is None:
            if len(self._blocks) != 1:
                joined = [b.reshape(self._shape) for b in self._blocks]
                whole = np.concatenate(joined) if joined else np.empty(0, self._dtype).reshape(self._shape)
                self._blocks = [whole.astype(self._dtype, copy=False)]
            return self._blocks[0].reshape(self._shape)
        self._spill()
        return np.asarray(np.memmap(self._path, self._dtype, "r")).reshape(self._shape)

    def close(self) -> None:
        """Give back what is held; the file goes with it."""
        self._budget.held -= sum(block.nbytes for block in self._blocks)
        self._blocks = []
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None
        self.rows = 0
