"""Vectors as one safetensors file, which can be memory-mapped.

Tensors: `vectors` (V, d) float32; `words`, the words' UTF-8 joined, uint8; `offsets` (V + 1,) int64, where
each begins in it; `counts` (V,) int64 if known. Any safetensors reader can take it apart.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from posterhall.embeddings._search import FloatMatrix
from posterhall.embeddings.formats._source import Duplicates, EncodingErrors, assemble, open_file
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError, MissingExtra
from posterhall.runs import atomic_file


def read_tensors(
    path: Path,
    *,
    mmap: bool,
    limit: int | None,
    encoding_errors: EncodingErrors,
    duplicates: Duplicates,
    allow_nonfinite: bool,
) -> WordVectors:
    """Read the file; with `mmap` the matrix stays in it and only what is asked about is read."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise MissingExtra("train", f"reading {path}") from None
    open_file(path).close()
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            if not {"vectors", "words", "offsets"} <= names:
                raise DataError(
                    f"{path} holds the tensors {', '.join(sorted(names)) or 'none'}; word vectors need "
                    "'vectors', 'words' and 'offsets', as `posterhall embed convert` writes them"
                )
            words = _words(path, file.get_tensor("words"), file.get_tensor("offsets"), encoding_errors)
            counts = file.get_tensor("counts") if "counts" in names else None
            shape = tuple(file.get_slice("vectors").get_shape())
            kind = file.get_slice("vectors").get_dtype()
            if len(shape) != 2 or kind not in ("F16", "F32", "F64") or (mmap and kind != "F32"):
                raise DataError(
                    f"{path}: 'vectors' is {kind} of shape {shape}; word vectors are F32 (words, dimensions)"
                )
            if len(words) != shape[0] or (counts is not None and counts.shape != shape[:1]):
                raise DataError(
                    f"{path}: {len(words):,} words for {shape[0]:,} vectors; every word needs one"
                )
            matrix: FloatMatrix
            if mmap:
                matrix = _mapped(path, shape)
            else:
                matrix = file.get_slice("vectors")[: min(limit or shape[0], shape[0])].astype(
                    np.float32, copy=False
                )
    except SafetensorError as error:
        raise DataError(f"{path} is not a sound safetensors file ({error}); write it again") from None
    if limit is not None:
        words, matrix = words[:limit], matrix[:limit]
        counts = None if counts is None else counts[:limit]
    if not mmap and not allow_nonfinite and not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise DataError(
            f"{path}: the vector of '{words[row]}' (row {row + 1:,}) holds NaN or infinity; train again with "
            "a lower rate, or read with allow_nonfinite, which gives such words a cosine of 0"
        )
    return assemble(
        path, words, matrix, counts=counts, duplicates=duplicates, allow_nonfinite=allow_nonfinite
    )


def _words(
    path: Path, letters: npt.NDArray[Any], offsets: npt.NDArray[Any], errors: EncodingErrors
) -> list[str]:
    sound = (
        letters.dtype == np.uint8
        and letters.ndim == 1
        and offsets.dtype == np.int64
        and offsets.ndim == 1
        and offsets.size > 0
        and offsets[0] == 0
        and offsets[-1] == letters.size
        and bool((np.diff(offsets) >= 0).all())
    )
    if not sound:
        raise DataError(
            f"{path}: 'offsets' does not cut 'words' into words; it must rise from 0 to the number of bytes"
        )
    joined, ends = letters.tobytes(), offsets.tolist()
    try:
        return [joined[a:b].decode("utf-8", errors) for a, b in itertools.pairwise(ends)]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: the word {error.object[:60]!r} is not UTF-8; read it with encoding_errors 'replace', "
            "'ignore' or 'surrogateescape'"
        ) from None


def _mapped(path: Path, shape: tuple[int, ...]) -> FloatMatrix:
    # The library has checked the header; it gives no place to map, so that is read here.
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        begin = json.loads(file.read(size))["vectors"]["data_offsets"][0]
    if not shape[0]:
        return np.zeros(shape, np.float32)
    return np.memmap(path, dtype="<f4", mode="r", offset=8 + size + begin, shape=shape)


def write_tensors(
    path: Path, words: list[bytes], matrix: FloatMatrix, counts: npt.NDArray[np.int64] | None
) -> None:
    """Write the file. The library needs the whole matrix in memory once more."""
    try:
        from safetensors.numpy import save_file
    except ImportError:
        raise MissingExtra("train", f"writing {path}") from None
    offsets = np.zeros(len(words) + 1, np.int64)
    np.cumsum([len(word) for word in words], out=offsets[1:])
    tensors: dict[str, npt.NDArray[Any]] = {
        "vectors": np.ascontiguousarray(matrix),
        "words": np.frombuffer(b"".join(words), np.uint8),
        "offsets": offsets,
    }
    if counts is not None:
        tensors["counts"] = counts
    with atomic_file(path) as file:
        save_file(tensors, file.name, metadata={"format": "posterhall word vectors", "version": "1"})
