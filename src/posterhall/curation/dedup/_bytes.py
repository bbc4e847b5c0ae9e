"""Two machine operations that numba does not offer: an unaligned 8-byte store and a count of bits.

For use inside `@njit` code only; `posterhall.data._bytes` has the load that goes with the store.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def store8(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write the uint64 to array[offset : offset + 8], lowest byte first; the place must exist (unchecked)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(64).as_pointer())
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), codegen


@intrinsic
def count_ones(typing_context: Any, value: Any) -> Any:
    """Number of bits set in a uint64, as int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen
