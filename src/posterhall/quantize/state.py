"""bitsandbytes' 4-bit state: the tensors by which `transformers` finds a quantised layer in a checkpoint.

For a layer `name` they are

    name.weight                                  (ceil(N / 2), 1) uint8, two codes to a byte
    name.weight.absmax                           scales: (blocks,) float32, or uint8 with double quantisation
    name.weight.quant_map                        (16,) float32: the codebook by code
    name.weight.nested_absmax                    (ceil(blocks / 256),) float32   } with double
    name.weight.nested_quant_map                 (256,) float32                  } quantisation
    name.weight.quant_state.bitsandbytes__nf4    uint8: JSON of the type, block, dtype, shape (and offset)

`write` gives these as arrays, for `safetensors.numpy.save_file`; `read` takes them from any file. A file is
not trusted: every size is checked against the shape it claims before anything is allocated, and unknown names
are refused. Codebooks that bitsandbytes does not have are written as `posterhall__NAME` instead.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError
from posterhall.quantize._arrays import is_tensor
from posterhall.quantize.blockwise import LARGEST_BLOCK, Quantized
from posterhall.quantize.codebooks import NAMES, Codebook, codebook
from posterhall.quantize.double import BLOCK, DoubleScales

DTYPES = ("float32", "bfloat16", "float16")
"""Types of a weight that bitsandbytes knows."""
STORAGE = ("uint8", "bfloat16", "float16", "float32")
"""Types in which bitsandbytes stores codes."""
BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Blocks that bitsandbytes knows."""
TYPES = ("nf4", "fp4")
"""Codebooks that bitsandbytes knows."""

_MARK = re.compile(r"\.quant_state\.(bitsandbytes|posterhall)__([a-z0-9]+)")
_LONGEST_JSON = 1 << 14
_MOST_DIMENSIONS = 8
_LARGEST = float(np.finfo(np.float32).max)
_NESTED = ("nested_absmax", "nested_quant_map")


def write(quantized: Quantized, name: str = "weight") -> dict[str, NDArray[Any]]:
    """The tensors of a quantised weight.

    Args:
        quantized: with a codebook of `NAMES`; a float64 array is recorded as float32.
        name: of the weight: `model.layers.0.mlp.up_proj.weight`.

    Returns:
        Arrays by name, in bitsandbytes' layout bit for bit where it has the codebook and the block.

    Raises:
        DataError: for a codebook of your own, which a file cannot name.
    """
    book = quantized.code
    if book.name not in NAMES:
        raise DataError(
            "a codebook of your own has no name to be written under; use one of " + ", ".join(NAMES)
        )
    foreign = book.name in TYPES and quantized.block in BLOCKS
    tensors: dict[str, NDArray[Any]] = {name: quantized.packed.reshape(-1, 1)}
    facts: dict[str, Any] = {
        "quant_type": book.name,
        "blocksize": quantized.block,
        "dtype": quantized.dtype if quantized.dtype in DTYPES else "float32",
        "shape": list(quantized.shape),
    }
    scales = quantized.scales
    if isinstance(scales, DoubleScales):
        tensors[f"{name}.absmax"] = scales.packed
        tensors[f"{name}.nested_absmax"] = scales.scales
        tensors[f"{name}.nested_quant_map"] = scales.code.table.copy()
        facts |= {
            "nested_blocksize": scales.block,
            "nested_dtype": "float32",
            "nested_offset": float(np.float32(scales.offset)),
        }
    else:
        tensors[f"{name}.absmax"] = scales
    tensors[f"{name}.quant_map"] = book.table.copy()
    mark = f"{name}.quant_state.{'bitsandbytes' if foreign else 'posterhall'}__{book.name}"
    tensors[mark] = np.frombuffer(json.dumps(facts).encode(), np.uint8).copy()
    return tensors


def names(keys: Any) -> list[str]:
    """The quantised weights among the names of a file's tensors."""
    return sorted({match.string[: match.start()] for key in keys if (match := _MARK.search(key))})


def read(tensors: Mapping[str, Any], name: str = "weight", *, limit: int = 1 << 40) -> Quantized:
    """A quantised weight from the tensors of a file.

    Args:
        tensors: arrays or CPU tensors by name (others may be among them).
        name: of the weight.
        limit: entries that are allowed at most.

    Raises:
        DataError: if something is missing, of an unknown kind, or not of the size that the shape demands.
    """
    marks = [key for key in tensors if key.startswith(f"{name}.quant_state.")]
    if len(marks) != 1:
        found = f"{len(marks)} of them" if marks else "none"
        raise DataError(f"{name}: a quantised weight has one tensor '{name}.quant_state.…'; there is {found}")
    match = _MARK.fullmatch(marks[0][len(name) :])
    if match is None or match[2] not in NAMES or (match[1] == "bitsandbytes" and match[2] not in TYPES):
        raise DataError(f"{marks[0]}: unknown kind; known are {_kinds()}")
    facts = _facts(marks[0], _array(tensors, marks[0], np.uint8))
    book = codebook(match[2])
    _require(facts.get("quant_type") == book.name, marks[0], "quant_type", facts.get("quant_type"), book.name)
    block = _whole(marks[0], facts, "blocksize", 8, LARGEST_BLOCK)
    _require(block % 8 == 0, marks[0], "blocksize", block, "a multiple of 8")
    dtype = facts.get("dtype")
    _require(dtype in DTYPES, marks[0], "dtype", dtype, "one of " + ", ".join(DTYPES))
    shape = _shape(marks[0], facts.get("shape"), limit)
    size = math.prod(shape)

    packed = _bytes(tensors, name)
    width = -(-size * book.bits // 8)
    if len(packed) != width:
        raise DataError(
            f"{name}: {len(packed)} bytes of codes, but shape {shape} with {book.bits} bits needs {width}; "
            "the file is damaged or its shape is wrong"
        )
    _check_map(tensors, f"{name}.quant_map", book)
    blocks = -(-size // block)
    return Quantized(packed, _scales(tensors, name, facts, marks[0], blocks), shape, str(dtype), block, book)


def _scales(
    tensors: Mapping[str, Any], name: str, facts: Mapping[str, Any], mark: str, blocks: int
) -> NDArray[np.float32] | DoubleScales:
    nested = [f"{name}.{each}" in tensors for each in _NESTED]
    if any(nested) != all(nested) or all(nested) != ("nested_blocksize" in facts):
        raise DataError(f"{name}: {', '.join(_NESTED)} and nested_blocksize must all be there, or none")
    if not all(nested):
        scales = _array(tensors, f"{name}.absmax", np.float32).reshape(-1)
        _check_scales(f"{name}.absmax", scales, blocks)
        return scales
    block = _whole(mark, facts, "nested_blocksize", BLOCK, BLOCK)
    _require(
        facts.get("nested_dtype") == "float32", mark, "nested_dtype", facts.get("nested_dtype"), "float32"
    )
    offset = facts.get("nested_offset")
    fine = isinstance(offset, int | float) and not isinstance(offset, bool) and abs(offset) < _LARGEST
    _require(fine, mark, "nested_offset", offset, "a finite number")
    codes = _array(tensors, f"{name}.absmax", np.uint8).reshape(-1)
    _require(len(codes) == blocks, f"{name}.absmax", "length", len(codes), f"{blocks}, a scale a block")
    tops = _array(tensors, f"{name}.nested_absmax", np.float32).reshape(-1)
    _check_scales(f"{name}.nested_absmax", tops, -(-blocks // block))
    book = codebook("dynamic8")
    _check_map(tensors, f"{name}.nested_quant_map", book)
    return DoubleScales(codes, tops, float(np.float32(offset)), book, block)


def _array(tensors: Mapping[str, Any], key: str, dtype: Any) -> NDArray[Any]:
    if key not in tensors:
        raise DataError(f"{key} is missing; a quantised weight cannot be read without it")
    value = tensors[key]
    array = np.asarray(value.detach().cpu().numpy() if is_tensor(value) else value)
    # Aligned too: a file mapped to memory may hold numbers at any address.
    array = np.require(array, requirements=["C", "A"])
    if array.dtype != dtype:
        raise DataError(f"{key} is {array.dtype}; it must be {np.dtype(dtype)}")
    return array


def _bytes(tensors: Mapping[str, Any], key: str) -> NDArray[np.uint8]:
    """Codes, which bitsandbytes also stores as if they were floats (for FSDP, which wants one type)."""
    value = tensors.get(key)
    kind = str(getattr(value, "dtype", "")).removeprefix("torch.")
    if value is not None and kind in STORAGE[1:]:
        whole = value.detach().cpu().contiguous() if is_tensor(value) else np.ascontiguousarray(value)
        value = whole.view(sys.modules["torch"].uint8) if is_tensor(value) else whole.view(np.uint8)
        tensors = {key: value}
    return _array(tensors, key, np.uint8).reshape(-1)


def _facts(mark: str, data: NDArray[np.uint8]) -> dict[str, Any]:
    if data.size > _LONGEST_JSON:
        raise DataError(f"{mark} has {data.size:,} bytes; it is at most {_LONGEST_JSON:,} bytes of JSON")
    try:
        facts = json.loads(data.tobytes())
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise DataError(f"{mark} is not a JSON object")
    return facts


def _require(fine: Any, where: str, what: str, given: Any, allowed: str) -> None:
    if not fine:
        raise DataError(f"{where}: {what} is {given!r:.60}; it must be {allowed}")


def _whole(where: str, facts: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = facts.get(key)
    fine = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    _require(
        fine, where, key, value, f"a whole number from {least} to {most}" if least < most else f"{least}"
    )
    assert isinstance(value, int)  # noqa: S101 - checked above
    return value


def _shape(where: str, shape: Any, limit: int) -> tuple[int, ...]:
    fine = (
        isinstance(shape, list)
        and len(shape) <= _MOST_DIMENSIONS
        and all(isinstance(each, int) and not isinstance(each, bool) and each > 0 for each in shape)
    )
    _require(fine, where, "shape", shape, f"a list of at most {_MOST_DIMENSIONS} whole numbers above 0")
    _require(math.prod(shape) <= limit, where, "shape", shape, f"at most {limit:,} entries")
    return tuple(shape)


def _check_map(tensors: Mapping[str, Any], key: str, book: Codebook) -> None:
    """A map that differs from the codebook by more than rounding is another code, however it is called."""
    table = _array(tensors, key, np.float32).reshape(-1)
    if table.shape != book.table.shape or not np.allclose(table, book.table, rtol=0, atol=1e-6):
        raise DataError(f"{key} is not the codebook {book.name}; its codes mean something else")


def _check_scales(key: str, scales: NDArray[np.float32], blocks: int) -> None:
    _require(len(scales) == blocks, key, "length", len(scales), f"{blocks}, a scale a block")
    bad = np.flatnonzero(~(np.isfinite(scales) & (scales >= 0)))
    if len(bad):
        raise DataError(f"{key}[{bad[0]}] is {scales[bad[0]]}; scales are finite and not negative")


def _kinds() -> str:
    return ", ".join([f"bitsandbytes__{each}" for each in TYPES] + [f"posterhall__{each}" for each in NAMES])
