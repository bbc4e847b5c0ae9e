"""Vectors of 16 float32 for numba kernels: arithmetic on 16 neighbouring channels at a time.

Numba leaves it to LLVM to find out that a loop can be vectorised, and with a dozen arrays in its body LLVM
gives up. Here a kernel says so itself: a value of type `LANES` is 16 numbers, `load` and `store` move them,
`+ - *` and the functions below work on all at once. LLVM cuts them into what the processor has: one register
with AVX-512, two with AVX2, four with NEON or SSE.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 16
"""Numbers in a vector."""

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_INT, WIDTH)
# Products and sums contracted to one operation; NaN and infinity keep their meaning, order its own.
_FLAGS = ("contract", "nsz")
# 2^f on |f| <= 1/2, relatively to 8.1e-8: the least largest error of what is 1 at 0. What is 1.00000007 there
# would be a bit more accurate elsewhere, and a state that hardly decays would grow.
_POWER = (1.3274558e-3, 9.6719581e-3, 5.5506786e-2, 2.4022235e-1, 6.9314706e-1, 1.0)
_LOG2E = 1.4426950408889634
# 1.5 * 2^23: adding it rounds to a whole number, which then stands in the lowest bits.
_ROUND = 12582912.0
_LEAST = -126.0


class _Lanes(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="Lanes")


LANES = _Lanes()
"""The numba type of 16 numbers."""


@register_model(_Lanes)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, frontend: Any) -> None:
        super().__init__(manager, frontend, _FLOATS)


def _constant(number: float) -> Any:
    return ir.Constant(_FLOATS, [number] * WIDTH)


def _splat(builder: Any, number: Any) -> Any:
    empty = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(_INTS, [0] * WIDTH))


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Where entry `index` of an array's memory is."""
    data = context.make_array(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """16 numbers of a float32 array's memory, from the index-th number on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1])
        return builder.load(place, align=4)

    return LANES(array, types.intp), codegen


@intrinsic
def store(typing_context: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Write 16 numbers to a float32 array's memory, from the index-th number on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature.args[0], args[0], args[1]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES), codegen


@intrinsic
def splat(typing_context: Any, number: Any) -> Any:
    """One float32, 16 times."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return LANES(types.float32), codegen


@intrinsic
def spread(typing_context: Any, array: Any, index: Any) -> Any:
    """The index-th number of a float32 array's memory, 16 times."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        return _splat(builder, builder.load(builder.gep(data, [args[1]])))

    return LANES(array, types.intp), codegen


@intrinsic
def total(typing_context: Any, lanes: Any) -> Any:
    """The sum of the 16, in pairs."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_FLOAT, [_FLOAT, _FLOATS])
        reduce = builder.module.globals.get("llvm.vector.reduce.fadd.v16f32") or ir.Function(
            builder.module, kind, "llvm.vector.reduce.fadd.v16f32"
        )
        return builder.call(reduce, [ir.Constant(_FLOAT, -0.0), args[0]], fastmath=("reassoc", "nsz"))

    return types.float32(LANES), codegen


@intrinsic
def fold(typing_context: Any, a: Any, b: Any) -> Any:
    """Neighbouring fours added up: lanes 0 to 7 of the result are a's, the others b's.

    Of two such results it gives four sums of four lanes each, in the order of what they came of.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def fours(*which: int) -> Any:
            lanes = [4 * four + lane for four in which for lane in range(4)]
            return builder.shuffle_vector(*args, ir.Constant(_INTS, lanes))

        return builder.fadd(fours(0, 2, 4, 6), fours(1, 3, 5, 7), flags=_FLAGS)

    return LANES(LANES, LANES), codegen


def _power(builder: Any, x: Any) -> Any:
    """2^x for x <= 0, to 1e-7; below 2^-126 it is that."""
    # Ordered comparison: NaN stays.
    x = builder.select(builder.fcmp_ordered("<", x, _constant(_LEAST)), _constant(_LEAST), x)
    shifted = builder.fadd(x, _constant(_ROUND))
    whole = builder.fsub(shifted, _constant(_ROUND))
    f = builder.fsub(x, whole)
    p = _constant(_POWER[0])
    for each in _POWER[1:]:
        p = builder.fadd(builder.fmul(p, f, flags=_FLAGS), _constant(each), flags=_FLAGS)
    raised = builder.shl(builder.bitcast(shifted, _INTS), ir.Constant(_INTS, [23] * WIDTH))
    return builder.bitcast(builder.add(builder.bitcast(p, _INTS), raised), _FLOATS)


def _minus_size(builder: Any, x: Any) -> Any:
    """-|x|: the sign bit set."""
    sign = ir.Constant(_INTS, [-(1 << 31)] * WIDTH)
    return builder.bitcast(builder.or_(builder.bitcast(x, _INTS), sign), _FLOATS)


@intrinsic
def power(typing_context: Any, lanes: Any) -> Any:
    """2^x for x <= 0, to 1e-7; what would be below 2^-126 is that."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _power(builder, args[0])

    return LANES(LANES), codegen


def _sigmoid(builder: Any, x: Any) -> tuple[Any, Any]:
    """1 / (1 + exp(-x)) without overflow, and exp(-|x|)."""
    e = _power(builder, builder.fmul(_minus_size(builder, x), _constant(_LOG2E)))
    top = builder.select(builder.fcmp_ordered("<", x, _constant(0.0)), e, _constant(1.0))
    return builder.fdiv(top, builder.fadd(e, _constant(1.0))), e


@intrinsic
def sigmoid(typing_context: Any, lanes: Any) -> Any:
    """1 / (1 + exp(-x)), to 3e-7."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _sigmoid(builder, args[0])[0]

    return LANES(LANES), codegen


def _softplus(builder: Any, x: Any) -> tuple[Any, Any]:
    """log(1 + exp(x)) = max(x, 0) + log(1 + e) with e = exp(-|x|), and its slope."""
    rise, e = _sigmoid(builder, x)
    # log(1 + e) = 2 artanh(s), s = e / (2 + e) <= 1/3: s + s^3 / 3 + ...
    s = builder.fdiv(e, builder.fadd(e, _constant(2.0)))
    square = builder.fmul(s, s)
    p = _constant(1 / 15)
    for odd in (13, 11, 9, 7, 5, 3, 1):
        p = builder.fadd(builder.fmul(p, square, flags=_FLAGS), _constant(1 / odd), flags=_FLAGS)
    log = builder.fmul(builder.fmul(s, _constant(2.0)), p)
    # Ordered: NaN is not below 0, and stays.
    positive = builder.select(builder.fcmp_ordered("<", x, _constant(0.0)), _constant(0.0), x)
    return builder.fadd(positive, log), rise


@intrinsic
def softplus(typing_context: Any, lanes: Any) -> Any:
    """log(1 + exp(x)), relatively to 1e-6 down to x = -80."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _softplus(builder, args[0])[0]

    return LANES(LANES), codegen


@intrinsic
def softplus_slope(typing_context: Any, lanes: Any) -> Any:
    """log(1 + exp(x)), and its slope 1 / (1 + exp(-x)), of one exponential."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, signature.return_type, _softplus(builder, args[0]))

    return types.UniTuple(LANES, 2)(LANES), codegen


def _define(function: Any, instruction: str) -> None:
    """Let an operator work on vectors, and on a vector and a number."""

    @intrinsic
    def both(typing_context: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, y = (
                each if kind == LANES else _splat(builder, each)
                for kind, each in zip(signature.args, args, strict=True)
            )
            return getattr(builder, instruction)(x, y, flags=_FLAGS)

        kinds = [LANES if each == LANES else types.float32 for each in (a, b)]
        return LANES(*kinds), codegen

    @overload(function)
    def on_lanes(a: Any, b: Any) -> Any:
        if LANES not in (a, b) or any(each not in (LANES, types.float32) for each in (a, b)):
            return None

        def work(a: Any, b: Any) -> Any:
            return both(a, b)

        return work


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
