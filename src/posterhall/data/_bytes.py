"""Two machine operations that numba does not offer: an unaligned 8-byte load and a count of trailing zeros.

For use inside `@njit` code only. Both assume a little-endian machine (every one numba supports).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def load8(typing_context: Any, array: Any, offset: Any) -> Any:
    """The uint64 whose lowest byte is array[offset]; array[offset : offset + 8] must exist (unchecked)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(64).as_pointer())
        value = builder.load(pointer)
        value.align = 1
        return value

    return types.uint64(array, types.int64), codegen


@intrinsic
def trailing_zeros(typing_context: Any, value: Any) -> Any:
    """Number of zero bits below the lowest set bit of a uint64 (64 for zero), as int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen
