"""Passes over rows shared among the threads that torch's matrix products use.

Numba's own threads would be a second set beside torch's: those wait for work by spinning, and on a machine
without cores to spare the two sets take turns at standing in each other's way. So a pass is handed to the
OpenMP library that torch has loaded, through `GOMP_parallel`, the entry point that compilers call (GNU's
library has it, and LLVM's offers it too). Where there is no such library, passes run on one thread.

Rows are taken in blocks of a fixed size, so results do not depend on the number of threads that share.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, types
from numba.extending import intrinsic

from posterhall.extras import torch
from posterhall.models import _kernels, _row_kernels, _text_kernels
from posterhall.models.mixers import _step_kernels

BLOCK = 16
"""Rows that a thread takes at a time."""
_LEAST = 1 << 15
"""Entries below which handing over costs more than it gains."""
_ENTRIES = 20
"""Numbers that a pass is told, the first and the last of which its threads count on."""

_Body = Callable[[Any], None]
_SIGNATURE = types.void(types.CPointer(types.int64))
_OPTIONS = {"cache": True, "nopython": True, "error_model": "numpy"}


def is_worth(entries: int) -> bool:
    """Whether a pass over so many entries is shared, here and now."""
    return entries >= _LEAST and torch.get_num_threads() > 1 and _library() is not None


def is_there() -> bool:
    """Whether passes can be shared at all."""
    return _library() is not None


def share(body: str, *arguments: Any) -> None:
    """Run one of the passes below.

    Args:
        body: its name.
        arguments: what it takes, in order: numbers, and contiguous arrays.
    """
    library, threads = _library(), torch.get_num_threads()
    if library is None or threads == 1:
        alone(body, *arguments)
    else:
        library(_address(body), _table(arguments), threads, 0)


def alone(body: str, *arguments: Any) -> None:
    """Run one of the passes below on this thread only."""
    _function(body)(_table(arguments))


def _table(arguments: Sequence[Any]) -> Any:
    told = (each.ctypes.data if isinstance(each, np.ndarray) else int(each) for each in arguments)
    return (ctypes.c_int64 * _ENTRIES)(0, *told)


@functools.cache
def _library() -> Any:
    """`GOMP_parallel` of the library that torch has loaded; None where there is none."""
    place = Path(torch.__file__).parent
    found = [*place.glob("lib/lib*omp*"), *place.parent.glob("torch.libs/lib*omp*")]
    for path in sorted(found):
        try:
            # Only one that is in use already: another copy would bring threads of its own.
            run = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | ctypes.RTLD_LOCAL).GOMP_parallel
        except (OSError, AttributeError):
            continue
        run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        run.restype = None
        return run
    return None


@functools.cache
def _address(body: str) -> int:
    return int(cfunc(_SIGNATURE, **_OPTIONS)(_BODIES[body]).address)


@functools.cache
def _function(body: str) -> Any:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_address(body))


@intrinsic
def _count(typing_context: Any, table: Any, entry: Any) -> Any:
    """An entry of the table, increased by one for all threads at once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]])
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(table, types.intp), codegen


@intrinsic
def _floats(typing_context: Any, address: Any) -> Any:
    """An address as a pointer to float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), codegen


@intrinsic
def _integers(typing_context: Any, address: Any) -> Any:
    """An address as a pointer to int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(64).as_pointer())

    return types.CPointer(types.int64)(types.int64), codegen


def _rms_norm(table: Any) -> None:
    """Rows, dim, eps' bits as an array of one, x, gain, out, inverse; see `_kernels.rms_norm`."""
    t = carray(table, (_ENTRIES,))
    rows, dim = t[1], t[2]
    eps = carray(_floats(t[3]), (1,))
    x, gain = carray(_floats(t[4]), (rows, dim)), carray(_floats(t[5]), (dim,))
    out, inverse = carray(_floats(t[6]), (rows, dim)), carray(_floats(t[7]), (rows,))
    while True:
        first = _count(table, 0) * BLOCK
        if first >= rows:
            return
        last = min(first + BLOCK, rows)
        _kernels.rms_norm(x[first:last], gain, eps[0], out[first:last], inverse[first:last])


def _rms_norm_backward(table: Any) -> None:
    """Rows, dim, x, gain, inverse, grad, grad_x, grad_gain (a row of it for each block, zeros)."""
    t = carray(table, (_ENTRIES,))
    rows, dim = t[1], t[2]
    x, gain = carray(_floats(t[3]), (rows, dim)), carray(_floats(t[4]), (dim,))
    inverse, grad = carray(_floats(t[5]), (rows,)), carray(_floats(t[6]), (rows, dim))
    grad_x = carray(_floats(t[7]), (rows, dim))
    grad_gain = carray(_floats(t[8]), ((rows + BLOCK - 1) // BLOCK, dim))
    while True:
        block = _count(table, 0)
        first = block * BLOCK
        if first >= rows:
            return
        last = min(first + BLOCK, rows)
        _kernels.rms_norm_backward(
            x[first:last], gain, inverse[first:last], grad[first:last], grad_x[first:last],
            grad_gain[block : block + 1], BLOCK,
        )  # fmt: skip


def _swiglu(table: Any) -> None:
    """Rows, width, gate_up, out; see `_kernels.swiglu`."""
    t = carray(table, (_ENTRIES,))
    rows, width = t[1], t[2]
    gate_up, out = carray(_floats(t[3]), (rows, 2 * width)), carray(_floats(t[4]), (rows, width))
    while True:
        first = _count(table, 0) * BLOCK
        if first >= rows:
            return
        last = min(first + BLOCK, rows)
        _kernels.swiglu(gate_up[first:last], out[first:last])


def _swiglu_backward(table: Any) -> None:
    """Rows, width, gate_up, grad, out; see `_kernels.swiglu_backward`."""
    t = carray(table, (_ENTRIES,))
    rows, width = t[1], t[2]
    gate_up, grad = carray(_floats(t[3]), (rows, 2 * width)), carray(_floats(t[4]), (rows, width))
    out = carray(_floats(t[5]), (rows, 2 * width))
    while True:
        first = _count(table, 0) * BLOCK
        if first >= rows:
            return
        last = min(first + BLOCK, rows)
        _kernels.swiglu_backward(gate_up[first:last], grad[first:last], out[first:last])


def _rotate(table: Any) -> None:
    """Batch, tokens, heads, size, turning, rows of angles, x, cos, sin, out; see `_kernels.rotate`."""
    t = carray(table, (_ENTRIES,))
    batch, tokens, heads, size, turning, angles = t[1], t[2], t[3], t[4], t[5], t[6]
    half = size // 2
    x = carray(_floats(t[7]), (batch, tokens, heads, size))
    cos, sin = carray(_floats(t[8]), (angles, tokens, half)), carray(_floats(t[9]), (angles, tokens, half))
    out = carray(_floats(t[10]), (batch, tokens, heads, size))
    blocks = (tokens + BLOCK - 1) // BLOCK
    while True:
        block = _count(table, 0)
        if block >= batch * blocks:
            return
        b, first = block // blocks, (block % blocks) * BLOCK
        last = min(first + BLOCK, tokens)
        a = 0 if angles == 1 else b
        _kernels.rotate(
            x[b : b + 1, first:last],
            cos[a : a + 1, first:last],
            sin[a : a + 1, first:last],
            turning,
            out[b : b + 1, first:last],
        )


def _attend(table: Any) -> None:
    """Texts, heads of keys and of queries, size, tokens, angles, stretches, a thread's entries of room, then
    texts (first and last stretch, trunk), stretches, room, qkv, cos, sin, out, logs; see
    `_text_kernels.attend`."""
    t = carray(table, (_ENTRIES,))
    count, kv_heads, heads, size, tokens, angles = t[1], t[2], t[3], t[4], t[5], t[6]
    texts, stretches = carray(_integers(t[9]), (count, 3)), carray(_integers(t[10]), (t[7], 2))
    # Each thread takes a part of the room.
    room = carray(_floats(t[11] + 4 * t[8] * _count(table, _ENTRIES - 1)), (t[8],))
    qkv = carray(_floats(t[12]), (tokens, heads + 2 * kv_heads, size))
    cos, sin = carray(_floats(t[13]), (angles, size // 2)), carray(_floats(t[14]), (angles, size // 2))
    out, logs = carray(_floats(t[15]), (tokens, heads, size)), carray(_floats(t[16]), (tokens, heads))
    while True:
        task = _count(table, 0)
        if task >= count * kv_heads:
            return
        text = texts[task // kv_heads]
        _text_kernels.attend(
            qkv, cos, sin, stretches[text[0] : text[1]], text[2], heads, task % kv_heads, room, out, logs
        )


def _attend_backward(table: Any) -> None:
    """As `_attend`, then grad and grad_qkv; see `_text_kernels.attend_backward`."""
    t = carray(table, (_ENTRIES,))
    count, kv_heads, heads, size, tokens, angles = t[1], t[2], t[3], t[4], t[5], t[6]
    texts, stretches = carray(_integers(t[9]), (count, 3)), carray(_integers(t[10]), (t[7], 2))
    # Each thread takes a part of the room.
    room = carray(_floats(t[11] + 4 * t[8] * _count(table, _ENTRIES - 1)), (t[8],))
    qkv = carray(_floats(t[12]), (tokens, heads + 2 * kv_heads, size))
    cos, sin = carray(_floats(t[13]), (angles, size // 2)), carray(_floats(t[14]), (angles, size // 2))
    out, logs = carray(_floats(t[15]), (tokens, heads, size)), carray(_floats(t[16]), (tokens, heads))
    grad = carray(_floats(t[17]), (tokens, heads, size))
    grad_qkv = carray(_floats(t[18]), (tokens, heads + 2 * kv_heads, size))
    while True:
        task = _count(table, 0)
        if task >= count * kv_heads:
            return
        text = texts[task // kv_heads]
        _text_kernels.attend_backward(
            qkv, cos, sin, stretches[text[0] : text[1]], text[2], heads, task % kv_heads, room, out, logs,
            grad, grad_qkv,
        )  # fmt: skip


def _multiply(table: Any) -> None:
    """Rows, outputs, inputs, whether weights are bfloat16, x, weight, out; see `_row_kernels`."""
    t = carray(table, (_ENTRIES,))
    rows, outputs, inputs, half = t[1], t[2], t[3], t[4]
    x, out = carray(_floats(t[5]), (rows, inputs)), carray(_floats(t[7]), (rows, outputs))
    weight = carray(_floats(t[6]), (outputs * inputs // 2 if half else outputs * inputs,))
    while True:
        first = _count(table, 0) * BLOCK
        if first >= outputs:
            return
        last = min(first + BLOCK, outputs)
        if half:
            _row_kernels.multiply_halves(x, weight, out, first, last)
        else:
            _row_kernels.multiply(x, weight, out, first, last)


def _mamba(table: Any) -> None:
    """Rows, channels, entries, taps, rank, whether weights are bfloat16, and arrays; see `_step_kernels`."""
    t = carray(table, (_ENTRIES,))
    rows, width, size, taps, rank, half = t[1], t[2], t[3], t[4], t[5], t[6]
    words = width // 2 if half else width
    _step_kernels.mamba(
        carray(_floats(t[7]), (rows, 2 * width)),
        carray(_floats(t[8]), (rows, taps - 1, width)),
        carray(_floats(t[9]), (taps + 3, width)),
        carray(_floats(t[10]), ((rank + 2 * size) * words,)),
        carray(_floats(t[11]), (rank * words,)),
        half != 0,
        carray(_floats(t[12]), (size, width)),
        carray(_floats(t[13]), (rows, size, width)),
        carray(_floats(t[14]), (rows, taps - 1, width)),
        carray(_floats(t[15]), (rows, size, width)),
        carray(_floats(t[16]), (rows, width)),
    )


_BODIES: dict[str, _Body] = {
    "rms_norm": _rms_norm,
    "rms_norm_backward": _rms_norm_backward,
    "swiglu": _swiglu,
    "swiglu_backward": _swiglu_backward,
    "rotate": _rotate,
    "attend": _attend,
    "attend_backward": _attend_backward,
    "multiply": _multiply,
    "mamba": _mamba,
}
