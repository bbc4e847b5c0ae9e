"""Sixteen table look-ups at once: a codebook of 4 bits fits one AVX-512 register, and so do its bounds.

For use inside `@njit` code, only where `HERE` is true. Arrays are one-dimensional and contiguous, offsets
count elements, nothing is bounds-checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from posterhall.simd import LANES

HERE = LANES == 16
"""Whether this machine has the instructions."""

_i8, _i32, _f32 = ir.IntType(8), ir.IntType(32), ir.FloatType()
_bytes, _ints, _floats = (ir.VectorType(each, 16) for each in (_i8, _i32, _f32))
_EVEN, _ODD = list(range(0, 32, 2)), list(range(1, 32, 2))
_MIX_LOW = [i // 2 + 16 * (i % 2) for i in range(16)]
_MIX_HIGH = [8 + each for each in _MIX_LOW]


def _pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any, vector: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset], inbounds=True), vector.as_pointer())


def _load(builder: Any, pointer: Any, align: int) -> Any:
    value = builder.load(pointer)
    value.align = align
    return value


def _constant(value: int) -> Any:
    return ir.Constant(_ints, [value] * 16)


def _shuffle(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_i32, 16), lanes))


def _splat(builder: Any, scalar: Any) -> Any:
    empty = ir.Constant(_floats, ir.Undefined)
    return _shuffle(builder, builder.insert_element(empty, scalar, _i32(0)), empty, [0] * 16)


def _look_up(builder: Any, table: Any, indices: Any) -> Any:
    """table[indices & 15], lane by lane."""
    kind = ir.FunctionType(_floats, [_floats, _ints])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.sf.512")
    return builder.call(function, [table, indices])


@intrinsic
def encode32(typing_context: Any, x: Any, offset: Any, inverse: Any, bounds: Any, out: Any, at: Any) -> Any:
    """Ranks of the 32 float32 x[offset:] times `inverse`, two to a byte, into out[at : at + 16].

    bounds: at least 18 float32, of which the first 15 increase. The first of a pair is the higher half.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        source = _pointer(context, builder, kinds[0], args[0], args[1], _floats)
        first, second = _load(builder, source, 4), _load(builder, builder.gep(source, [_i32(1)]), 4)
        scale = _splat(builder, args[2])

        def bound(skip: int) -> Any:
            place = context.get_constant(types.intp, skip)
            return _load(builder, _pointer(context, builder, kinds[3], args[3], place, _floats), 4)

        # A rank is built from its highest bit; the bound for the next bit b of a rank r so far is
        # bounds[r + b - 1], so each step reads the same sixteen numbers, moved by b - 1.
        tables = [(4, bound(3)), (2, bound(1)), (1, bound(0))]
        root = _shuffle(builder, bound(0), ir.Constant(_floats, ir.Undefined), [7] * 16)

        def ranks(value: Any) -> Any:
            value = builder.fmul(value, scale)
            above = builder.fcmp_ordered(">", value, root)
            rank = builder.select(above, _constant(8), _constant(0))
            for bit, table in tables:
                above = builder.fcmp_ordered(">", value, _look_up(builder, table, rank))
                rank = builder.select(above, builder.or_(rank, _constant(bit)), rank)
            return rank

        high = ranks(_shuffle(builder, first, second, _EVEN))
        low = ranks(_shuffle(builder, first, second, _ODD))
        both = builder.trunc(builder.or_(builder.shl(high, _constant(4)), low), _bytes)
        builder.store(both, _pointer(context, builder, kinds[4], args[4], args[5], _bytes), align=1)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.float32, bounds, out, types.intp), codegen


@intrinsic
def decode32(typing_context: Any, packed: Any, at: Any, scale: Any, table: Any, out: Any, offset: Any) -> Any:
    """out[offset : offset + 32] = the values of the 16 bytes packed[at:], times `scale`.

    table: 16 float32.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        source = _pointer(context, builder, kinds[0], args[0], args[1], _bytes)
        codes = builder.zext(_load(builder, source, 1), _ints)
        zero = context.get_constant(types.intp, 0)
        table = _load(builder, _pointer(context, builder, kinds[3], args[3], zero, _floats), 4)
        scale = _splat(builder, args[2])
        high = builder.fmul(_look_up(builder, table, builder.lshr(codes, _constant(4))), scale)
        low = builder.fmul(_look_up(builder, table, codes), scale)
        target = _pointer(context, builder, kinds[4], args[4], args[5], _floats)
        builder.store(_shuffle(builder, high, low, _MIX_LOW), target, align=4)
        builder.store(_shuffle(builder, high, low, _MIX_HIGH), builder.gep(target, [_i32(1)]), align=4)
        return context.get_dummy_value()

    return types.void(packed, types.intp, types.float32, table, out, types.intp), codegen
