"""Files of tensors (safetensors) without their tensors: what they hold, and which weights they are.

A file is 8 bytes of length, so many of JSON, and the numbers. Only that is read here, with samples of the
numbers where two models are to be told apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from posterhall.errors import DataError

LARGEST_HEADER = 64 << 20
_PIECES, _PIECE = 16, 4096
"""Samples of a tensor, and bytes of each."""


def header(file: Path) -> dict[str, dict[str, Any]]:
    """The tensors that a file says it has: by name, `dtype`, `shape` and `data_offsets`.

    Raises:
        DataError: if it is no such file, or not a whole one.
    """
    return _read(file)[0]


def metadata(file: Path) -> dict[str, str]:
    """What was written down beside the tensors.

    Raises:
        DataError: as `header`.
    """
    return _read(file)[1]


def fingerprint(files: Iterable[Path]) -> str:
    """32 hexadecimal digits that tell a model's weights from others, however they are cut into files.

    They follow from the tensors' names, types and shapes and from up to 64 KiB of each: training changes
    them, and reading them takes no longer for a large model than opening it does. They are no proof against
    somebody who wants two models to look alike.

    Raises:
        DataError: as `header`.
    """
    parts: dict[str, bytes] = {}
    for file in files:
        tensors, _, begin = _read(file)
        with file.open("rb") as opened:
            for name, tensor in tensors.items():
                first, last = tensor["data_offsets"]
                digest = hashlib.blake2b(f"{tensor['dtype']} {tensor['shape']}".encode(), digest_size=16)
                step = max(_PIECE, (last - first - _PIECE) // (_PIECES - 1))
                for at in range(first, last, step):
                    opened.seek(begin + at)
                    digest.update(opened.read(min(_PIECE, last - at)))
                parts[name] = digest.digest()
    whole = hashlib.blake2b(digest_size=16, person=b"posterhall.model")
    for name in sorted(parts):
        whole.update(name.encode() + b"\0" + parts[name])
    return whole.hexdigest()


def _read(file: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str], int]:
    """Tensors, what is beside them, and where the numbers begin."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            size = file.stat().st_size - 8 - length
            if not 2 <= length <= LARGEST_HEADER or size < 0:
                raise ValueError(f"its header would have {length} bytes")
            found = json.loads(opened.read(length))
        said = found.pop("__metadata__", None) or {}
        for tensor in found.values():
            first, last = tensor["data_offsets"]
            if not all(isinstance(each, int) for each in tensor["shape"]) or "dtype" not in tensor:
                raise ValueError("its header does not give shapes and types")
            if not 0 <= first <= last <= size:
                raise ValueError("its header promises more than there is")
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: not a whole safetensors file: {error}; fetch it again") from error
    return dict(found), {str(key): str(value) for key, value in said.items()}, 8 + length
