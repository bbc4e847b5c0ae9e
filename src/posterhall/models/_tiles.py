"""Products of small matrices inside numba kernels: one tile of the result at a time, held in registers.

LLVM does not find this form by itself. A tile is `ROWS` x `COLUMNS` float32: 16 registers of AVX-512, each of
which takes one multiplication and addition a step, fed by two loads and `ROWS` numbers spread over a vector.
That is enough to keep the multipliers busy from matrices that are in the nearest cache.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from posterhall.models.mixers._lanes import LANES, WIDTH

ROWS, COLUMNS = 8, 2 * WIDTH

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS = ir.VectorType(_FLOAT, WIDTH)
_ALL = ir.Constant(ir.VectorType(_INT, WIDTH), [0] * WIDTH)


def _tile(context: Any, builder: Any, signature: Any, args: Any, *, adding: bool) -> Any:
    a, a_at, a_row, a_step, b, b_at, b_row, depth, c, c_at, c_row = args
    kinds = signature.args

    def place(array: Any, kind: Any, at: Any) -> Any:
        return builder.gep(context.make_array(kind)(context, builder, value=array).data, [at])

    def vector(pointer: Any, half: int) -> Any:
        at = builder.gep(pointer, [ir.Constant(ir.IntType(64), half * WIDTH)])
        return builder.bitcast(at, _FLOATS.as_pointer())

    first, rows_b, rows_c = place(a, kinds[0], a_at), place(b, kinds[4], b_at), place(c, kinds[8], c_at)
    numbers = [ir.Constant(ir.IntType(64), row) for row in range(ROWS)]
    rows_a = [builder.gep(first, [builder.mul(a_row, row)]) for row in numbers]
    targets = [builder.gep(rows_c, [builder.mul(c_row, row)]) for row in numbers]
    sums = [[cgutils.alloca_once(builder, _FLOATS) for _ in range(2)] for _ in range(ROWS)]
    for target, pair in zip(targets, sums, strict=True):
        for half, each in enumerate(pair):
            begin = (
                builder.load(vector(target, half), align=4) if adding else ir.Constant(_FLOATS, [0.0] * WIDTH)
            )
            builder.store(begin, each)
    with cgutils.for_range(builder, depth) as loop:
        row = builder.gep(rows_b, [builder.mul(loop.index, b_row)])
        halves = [builder.load(vector(row, half), align=4) for half in range(2)]
        along = builder.mul(loop.index, a_step)
        for pointer, pair in zip(rows_a, sums, strict=True):
            number = builder.load(builder.gep(pointer, [along]))
            empty = ir.Constant(_FLOATS, ir.Undefined)
            spread = builder.shuffle_vector(builder.insert_element(empty, number, _INT(0)), empty, _ALL)
            for half, each in zip(halves, pair, strict=True):
                added = builder.fmul(spread, half, flags=("contract",))
                builder.store(builder.fadd(builder.load(each), added, flags=("contract",)), each)
    for target, pair in zip(targets, sums, strict=True):
        for half, each in enumerate(pair):
            builder.store(builder.load(each), vector(target, half), align=4)
    return context.get_dummy_value()


@intrinsic
def multiply(
    typing_context: Any, a: Any, a_at: Any, a_row: Any, a_step: Any, b: Any, b_at: Any, b_row: Any,
    depth: Any, c: Any, c_at: Any, c_row: Any,
) -> Any:  # fmt: skip
    """C = A B of A (ROWS, depth) and B (depth, COLUMNS).

    Args:
        a, b, c: contiguous float32 arrays of any shape.
        a_at, b_at, c_at: where the matrices begin, in numbers from the array's first.
        a_row, b_row, c_row: from a row to the next. b and c have neighbouring columns.
        a_step: from a column of A to the next.
        depth: columns of A and rows of B.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _tile(context, builder, signature, args, adding=False)

    return types.void(a, *[types.intp] * 3, b, *[types.intp] * 3, c, *[types.intp] * 2), codegen


@intrinsic
def multiply_add(
    typing_context: Any, a: Any, a_at: Any, a_row: Any, a_step: Any, b: Any, b_at: Any, b_row: Any,
    depth: Any, c: Any, c_at: Any, c_row: Any,
) -> Any:  # fmt: skip
    """C += A B; otherwise as `multiply`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _tile(context, builder, signature, args, adding=True)

    return types.void(a, *[types.intp] * 3, b, *[types.intp] * 3, c, *[types.intp] * 2), codegen


@intrinsic
def greater(typing_context: Any, x: Any, y: Any) -> Any:
    """The greater of two vectors' numbers, place by place; y's where one is not a number."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return LANES(LANES, LANES), codegen


@intrinsic
def greatest(typing_context: Any, lanes: Any) -> Any:
    """The greatest number of a vector."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_FLOAT, [_FLOATS])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.fmax.v16f32")
        return builder.call(function, args)

    return types.float32(LANES), codegen
