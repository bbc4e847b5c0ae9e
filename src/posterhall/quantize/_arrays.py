"""Arrays of numpy and tensors of torch as rows of float32, whatever they hold and however they lie."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError
from posterhall.quantize import _kernels

FLOATS = ("float32", "bfloat16", "float16", "float64")


def is_tensor(value: Any) -> bool:
    """Whether it is one of torch's."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


class Source:
    """What is to be quantised, in row-major order.

    Attributes:
        shape: its own.
        dtype: the name of its type.
        flat: (N,), of that type; of bfloat16 the bits as uint16.
    """

    def __init__(self, value: Any) -> None:
        if is_tensor(value):
            self.shape = tuple(value.shape)
            self.dtype = str(value.dtype).removeprefix("torch.")
            self._check(value.layout is not sys.modules["torch"].strided)
            if value.device.type == "meta":
                raise DataError("there is nothing to quantise in a tensor on 'meta'; load its weights first")
            flat = value.detach().to("cpu").reshape(-1)
            if self.dtype == "bfloat16":
                flat = flat.view(sys.modules["torch"].uint16)
            array = flat.numpy()
        else:
            try:
                array = np.asarray(value)
            except ValueError:
                raise DataError("cannot quantise rows of different lengths; give an array") from None
            self.shape = array.shape
            self.dtype = array.dtype.name
            self._check()
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        # A file mapped to memory may hold numbers at any address; kernels want them aligned.
        self.flat: NDArray[Any] = np.require(array, requirements=["C", "A"]).reshape(-1)

    def _check(self, sparse: bool = False) -> None:
        if self.dtype not in FLOATS or sparse:
            kind = "sparse" if sparse else self.dtype
            raise DataError(
                f"cannot quantise {kind} numbers; give dense {', '.join(FLOATS[:-1])} or {FLOATS[-1]}"
            )
        if 0 in self.shape:
            raise DataError(f"there is nothing to quantise in an array of shape {self.shape}")

    def floats(self, begin: int, end: int) -> NDArray[np.float32]:
        """Entries of that range; no copy of float32."""
        piece = self.flat[begin:end]
        if self.dtype == "float32":
            return piece
        if self.dtype == "bfloat16":
            return (piece.astype(np.uint32) << np.uint32(16)).view(np.float32)
        with np.errstate(over="ignore"):  # infinities are refused by who reads them
            return piece.astype(np.float32)

    def refuse(self, begin: int, end: int) -> DataError:
        """The error that names the first number in the range that is not finite."""
        at = begin + int(np.flatnonzero(~np.isfinite(self.floats(begin, end)))[0])
        place = ", ".join(str(int(i)) for i in np.unravel_index(at, self.shape)) if self.shape else ""
        value = float(self.flat[at]) if self.dtype != "bfloat16" else float(self.floats(at, at + 1)[0])
        why = "is too large for float32" if math.isfinite(value) else f"is {value}"
        return DataError(
            f"the weight at [{place}] of shape {self.shape} {why}; a block with it cannot be quantised. "
            "Was the model saved while its training diverged?"
        )


class Target:
    """Where numbers are written, in row-major order.

    Args:
        value: a contiguous, writable array or CPU tensor of a floating-point type.
        shape: that it must have.
    """

    def __init__(self, value: Any, shape: tuple[int, ...]) -> None:
        if is_tensor(value):
            torch = sys.modules["torch"]
            self.dtype = str(value.dtype).removeprefix("torch.")
            good = value.device.type == "cpu" and value.is_contiguous()
            array = None
            if good and self.dtype in FLOATS:
                flat = value.detach().reshape(-1)
                array = (flat.view(torch.uint16) if self.dtype == "bfloat16" else flat).numpy()
        elif isinstance(value, np.ndarray):
            self.dtype = value.dtype.name
            good = value.flags.carray and value.dtype.isnative  # contiguous, aligned, writable
            array = value.reshape(-1) if good else None
        else:
            raise DataError(f"out is a {type(value).__name__}; it must be an array or a CPU tensor")
        if tuple(value.shape) != shape or array is None or self.dtype not in FLOATS:
            lies = "" if good else ", not contiguous or not writable here"
            raise DataError(
                f"out is {self.dtype} of shape {tuple(value.shape)}{lies}; it must be contiguous in this "
                f"machine's memory, of shape {shape}, and one of {', '.join(FLOATS)}"
            )
        self.flat: NDArray[Any] = array

    def write(self, begin: int, values: NDArray[np.float32]) -> None:
        """Put values from that entry on, rounded to nearest."""
        piece = self.flat[begin : begin + len(values)]
        if self.dtype == "bfloat16":
            _kernels.round_to_bfloat16(values, piece)
        else:
            with np.errstate(over="ignore"):  # beyond float16 is infinity, as torch has it
                piece[:] = values
