"""Explicit SIMD for numba kernels: a vector of `LANES` float32 and the few operations on it.

LLVM's loop vectoriser gives up on kernels that read and write many rows of one matrix, because it
cannot prove that the rows do not overlap. Kernels written with these operations say what they mean
instead. LLVM lowers them to whatever the machine has (AVX-512, AVX2, SSE, NEON), so no compiler is
needed beside numba.

All functions are for use inside `@njit` code. `array` is a one-dimensional contiguous float32 array
and `offset` counts elements; nothing is bounds-checked.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16 if llvm.get_host_cpu_features().get("avx512f") else 8
"""float32 lanes in one vector: one register's worth on the widest unit of this machine."""


class _VectorType(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, ir.VectorType(ir.FloatType(), LANES))


_vector = _VectorType()
_ir_float = ir.FloatType()
_ir_vector = ir.VectorType(_ir_float, LANES)
_ir_words = ir.VectorType(ir.IntType(32), LANES)
_FAST = ("contract", "reassoc", "nsz")


def _element_pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset], inbounds=True)


def _splat(builder: Any, scalar: Any) -> Any:
    first = builder.insert_element(ir.Constant(_ir_vector, ir.Undefined), scalar, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(_ir_vector, ir.Undefined), mask)


@intrinsic
def load(typing_context: Any, array: Any, offset: Any) -> Any:
    """Vector of array[offset : offset + LANES]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _element_pointer(context, builder, signature.args[0], args[0], args[1])
        value = builder.load(builder.bitcast(pointer, _ir_vector.as_pointer()))
        value.align = 4
        return value

    return _vector(array, types.intp), codegen


@intrinsic
def low_halves(typing_context: Any, array: Any, offset: Any) -> Any:
    """Vector of the bfloat16 in the lower halves of array[offset : offset + LANES]: where the lowest byte
    comes first, the earlier ones of two neighbours."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = _words(context, builder, signature.args[0], args[0], args[1])
        return builder.bitcast(builder.shl(words, ir.Constant(_ir_words, [16] * LANES)), _ir_vector)

    return _vector(array, types.intp), codegen


@intrinsic
def high_halves(typing_context: Any, array: Any, offset: Any) -> Any:
    """Vector of the bfloat16 in the upper halves of array[offset : offset + LANES]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = _words(context, builder, signature.args[0], args[0], args[1])
        return builder.bitcast(builder.and_(words, ir.Constant(_ir_words, [-1 << 16] * LANES)), _ir_vector)

    return _vector(array, types.intp), codegen


def _words(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    pointer = _element_pointer(context, builder, array_type, array, offset)
    value = builder.load(builder.bitcast(pointer, _ir_words.as_pointer()))
    value.align = 4
    return value


@intrinsic
def store(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    """array[offset : offset + LANES] = value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _element_pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, _ir_vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), codegen


@intrinsic
def splat(typing_context: Any, scalar: Any) -> Any:
    """Vector with the float32 scalar in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return _vector(types.float32), codegen


@intrinsic
def zero(typing_context: Any) -> Any:
    """Vector of zeros."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_ir_vector, [0.0] * LANES)

    return _vector(), codegen


@intrinsic
def add(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1])

    return _vector(_vector, _vector), codegen


@intrinsic
def mul(typing_context: Any, a: Any, b: Any) -> Any:
    """a * b, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(args[0], args[1])

    return _vector(_vector, _vector), codegen


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, lane by lane; fused where the machine can."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # fmuladd, not fma: on a machine without the instruction it stays two cheap operations.
        kind = ir.FunctionType(_ir_vector, [_ir_vector] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
        return builder.call(function, args)

    return _vector(_vector, _vector, _vector), codegen


@intrinsic
def total(typing_context: Any, a: Any) -> Any:
    """Sum of the lanes, a float32 (added pairwise)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_ir_float, [_ir_float, _ir_vector])
        function = cgutils.get_or_insert_function(
            builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32"
        )
        return builder.call(function, [ir.Constant(_ir_float, -0.0), args[0]], fastmath=_FAST)

    return types.float32(_vector), codegen


@intrinsic
def totals(typing_context: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
    """Vector whose lanes 0 to 5 are the sums of the lanes of a to f; the other lanes are 0.

    A transposing tree of shuffles: half the work of six separate sums and six insertions.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def shuffle(left: Any, right: Any, lanes: list[int]) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
            return builder.shuffle_vector(left, right, mask)

        def join(left: Any, right: Any, first: list[int], second: list[int]) -> Any:
            return builder.fadd(shuffle(left, right, first), shuffle(left, right, second))

        eights = list(args)
        if LANES == 16:
            eights = [join(v, v, list(range(8)), list(range(8, 16))) for v in eights]
        none = ir.Constant(ir.VectorType(_ir_float, 8), [0.0] * 8)
        by_two = ([0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15])
        by_four = ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15])
        by_eight = ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
        ab, cd, ef = (join(eights[i], eights[i + 1], *by_two) for i in (0, 2, 4))
        result = join(join(ab, cd, *by_four), join(ef, none, *by_four), *by_eight)
        if LANES == 16:
            result = shuffle(result, none, list(range(16)))
        return result

    return _vector(*[_vector] * 6), codegen


@intrinsic
def first(typing_context: Any, scalar: Any, filler: Any) -> Any:
    """Vector with the float32 `scalar` in lane 0 and the float32 `filler` in the others."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.insert_element(_splat(builder, args[1]), args[0], ir.IntType(32)(0))

    return _vector(types.float32, types.float32), codegen


@intrinsic
def keep_six(typing_context: Any, value: Any, filler: Any) -> Any:
    """Lanes 0 to 5 of `value`, the float32 `filler` in the others."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [j < 6 for j in range(LANES)])
        return builder.select(lanes, args[0], _splat(builder, args[1]))

    return _vector(_vector, types.float32), codegen


@intrinsic
def spread6(typing_context: Any, value: Any) -> Any:
    """Six vectors, the j-th with lane j of `value` in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def one(j: int) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [j] * LANES)
            return builder.shuffle_vector(args[0], ir.Constant(_ir_vector, ir.Undefined), mask)

        return context.make_tuple(builder, signature.return_type, [one(j) for j in range(6)])

    return types.UniTuple(_vector, 6)(_vector), codegen


@intrinsic
def softplus_parts(typing_context: Any, z: Any) -> Any:
    """(1 - sigmoid(z), max(-z, 0), 1 + exp(-|z|)), lane by lane, from one exponential.

    The first is the gradient of -log sigmoid(z) up to its sign; the loss itself is the second plus the
    logarithm of the third, which lies in (1, 2], so that a product of up to 100 of them can be taken
    before one logarithm. Relative error below 3e-7; a NaN lane stays NaN.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def const(value: float) -> Any:
            return ir.Constant(_ir_vector, [value] * LANES)

        int_vector = ir.VectorType(ir.IntType(32), LANES)
        (z,) = args
        negative = builder.fcmp_ordered("<", z, const(0.0))
        flipped = builder.fneg(z)
        minus_magnitude = builder.select(negative, z, flipped)
        floor = builder.fcmp_ordered("<", minus_magnitude, const(-87.0))  # exp(-87) is still normal
        x = builder.select(floor, const(-87.0), minus_magnitude)
        # exp(x) = 2^n exp(r), n = round(x / ln 2) (x <= 0, so truncating x / ln 2 - 1/2 rounds)
        scaled = builder.fsub(builder.fmul(x, const(1.4426950408889634)), const(0.5))
        n = builder.fptosi(scaled, int_vector)
        n_float = builder.sitofp(n, _ir_vector)
        r = builder.fsub(x, builder.fmul(n_float, const(0.693359375)))  # ln 2 in two parts: exact, small
        r = builder.fadd(r, builder.fmul(n_float, const(2.12194440e-4)))
        value = const(1.0 / 720.0)
        for coefficient in (1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0):
            value = builder.fadd(builder.fmul(value, r, flags=_FAST), const(coefficient), flags=_FAST)
        bias = ir.Constant(int_vector, [127] * LANES)
        shift = ir.Constant(int_vector, [23] * LANES)
        power = builder.bitcast(builder.shl(builder.add(n, bias), shift), _ir_vector)
        e = builder.fmul(value, power)
        one_plus = builder.fadd(const(1.0), e)
        tail = builder.fdiv(builder.select(negative, const(1.0), e), one_plus)
        hinge = builder.select(negative, flipped, const(0.0))
        return context.make_tuple(builder, signature.return_type, [tail, hinge, one_plus])

    return types.UniTuple(_vector, 3)(_vector), codegen


@intrinsic
def prefetch(typing_context: Any, array: Any, offset: Any) -> Any:
    """Ask for the cache line of array[offset], soon to be read and written."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.bitcast(
            _element_pointer(context, builder, signature.args[0], args[0], args[1]),
            ir.IntType(8).as_pointer(),
        )
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, i32(1), i32(3), i32(1)])  # write, keep in all levels, data
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


def padded(width: int) -> int:
    """The smallest multiple of `LANES` that is at least `width`: row stride of a kernel's matrix."""
    return -(-width // LANES) * LANES
