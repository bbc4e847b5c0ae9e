"""Quantisation: codebooks, blocks with a scale each, quantised scales, bitsandbytes' state, 4-bit layers.

    q = quantize(weights, "nf4", double=True)   # arrays or tensors, any shape
    q.dequantize(out=buffer);  q.bits_per_parameter
    print(measure(weights, q))

Names and modules are imported on first use; only layers and tensors need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterhall import lazy

if TYPE_CHECKING:
    from posterhall.quantize.blockwise import Quantized, bits_per_parameter, quantize
    from posterhall.quantize.codebooks import NAMES, Codebook, codebook
    from posterhall.quantize.linear import QuantizedLinear
    from posterhall.quantize.report import ErrorReport, measure

_MODULES = ("blockwise", "codebooks", "double", "linear", "report", "state")
_NAMES = {
    "NAMES": "codebooks",
    "Codebook": "codebooks",
    "ErrorReport": "report",
    "Quantized": "blockwise",
    "QuantizedLinear": "linear",
    "bits_per_parameter": "blockwise",
    "codebook": "codebooks",
    "measure": "report",
    "quantize": "blockwise",
}

__all__ = [
    "NAMES",
    "Codebook",
    "ErrorReport",
    "Quantized",
    "QuantizedLinear",
    "bits_per_parameter",
    "codebook",
    "measure",
    "quantize",
]

__getattr__, __dir__ = lazy.attributes(__name__, names=_NAMES, modules=_MODULES)
