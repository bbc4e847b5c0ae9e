"""Models with quantised linear layers: what is said of them in config.json, and how their layers are made.

NF4 and FP4 are said as bitsandbytes' (`quantization_config` of transformers), so that plain transformers
reads such a model where bitsandbytes is installed. Other codes are said in words of our own, which
transformers refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.adapters import placing
from posterhall.errors import DataError
from posterhall.extras import nn
from posterhall.quantize import state
from posterhall.quantize.blockwise import Quantized
from posterhall.quantize.codebooks import codebook
from posterhall.quantize.linear import QuantizedLinear

KEY = "quantization_config"
_THEIRS, _OURS = "bitsandbytes", "posterhall"


@dataclass(frozen=True)
class Quantization:
    """How linear layers are quantised. Defaults are QLoRA's (Dettmers et al. 2023, §3)."""

    code: str = "nf4"
    """Name of a codebook; see `posterhall.quantize.codebook`."""
    block: int = 64
    """Weights that share a scale, a multiple of 8."""
    double: bool = True
    """Quantise the scales too, where a tensor's scales bear it."""
    skip: tuple[str, ...] = ()
    """Layers that stay as they are, beside the head: last parts of their paths, or whole ones."""

    def __post_init__(self) -> None:
        codebook(self.code)
        if not 8 <= self.block <= 1 << 16 or self.block % 8:
            raise DataError(f"block is {self.block}; it must be a multiple of 8 from 8 to 65,536")

    @property
    def is_theirs(self) -> bool:
        """Whether bitsandbytes has the code and the block, so that transformers can read the result."""
        return self.code in state.TYPES and self.block in state.BLOCKS

    def skips(self, name: str) -> bool:
        """Whether a layer stays as it is."""
        return any(placing.is_named(name, each) for each in self.skip)


def of(given: str | Quantization | None) -> Quantization | None:
    """A quantisation by its code's name, with QLoRA's settings; others as they are."""
    return Quantization(given) if isinstance(given, str) else given


def write_config(how: Quantization, *, skipped: Iterable[str], dtype: str) -> dict[str, Any]:
    """What config.json says of a quantised model.

    Args:
        how: it is quantised.
        skipped: paths of linear layers that are not, the head's included.
        dtype: of the model's other tensors, in which it computes.
    """
    listed = sorted(skipped)
    if not how.is_theirs:
        return {
            "quant_method": _OURS,
            "code": how.code,
            "block": how.block,
            "double": how.double,
            "skip": listed,
        }
    return {
        "quant_method": _THEIRS,
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": how.code,
        "bnb_4bit_use_double_quant": how.double,
        "bnb_4bit_compute_dtype": dtype,
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": listed,
    }


def read_config(given: Mapping[str, Any], place: str) -> Quantization | None:
    """What config.json says of quantisation; None if nothing.

    The block of bitsandbytes' is not said there, but with each tensor.

    Raises:
        DataError: for a kind that is not known here.
    """
    said = given.get(KEY)
    if said is None:
        return None
    if not isinstance(said, dict):
        raise DataError(f"{place}: {KEY} is a {type(said).__name__}; it must be an object")
    method = said.get("quant_method", _THEIRS)
    if method == _OURS:
        names = ("code", "block", "double")
        code, block, double = (said.get(name) for name in names)
        if not (isinstance(code, str) and type(block) is int and isinstance(double, bool)):
            raise DataError(f"{place}: {KEY} must give code, block and double; it is {said!r:.200}")
        return Quantization(code, block, double)
    if method == _THEIRS and said.get("load_in_4bit"):
        code, double = said.get("bnb_4bit_quant_type", "fp4"), bool(said.get("bnb_4bit_use_double_quant"))
        if code not in state.TYPES:
            raise DataError(
                f"{place}: bnb_4bit_quant_type is {code!r}; it must be {' or '.join(state.TYPES)}"
            )
        return Quantization(code, double=double)
    eight = " with 8 bits" if method == _THEIRS else ""
    raise DataError(
        f"{place}: the model is quantised by {method}{eight}; only bitsandbytes' 4-bit types are read here. "
        "Take the model as it was before, and `posterhall model quantize` it"
    )


def quantize_layers(model: nn.Module, how: Quantization) -> nn.Module:
    """Quantise the linear layers of a model but its head, in place; each projection of a checkpoint apart.

    Raises:
        DataError: for a layer quantised or adapted already, a weight that is not finite, or a name in `skip`
            that no layer has.
    """
    found = placing.sites(model)
    check_skip(how, (part.name for site in found for part in site.parts))
    for site in found:
        skipped = [how.skips(part.name) for part in site.parts]
        if all(skipped):
            continue
        if any(skipped):
            raise DataError(
                f"{' and '.join(part.name for part in site.parts)} are one matrix here; skip all of them "
                "or none"
            )
        if isinstance(site.layer, QuantizedLinear):
            raise DataError(f"{site.parts[0].name} is quantised already; quantise the original model")
        rows = [part.last - part.first for part in site.parts]
        try:
            made = QuantizedLinear.of(site.layer, how.code, rows=rows, block=how.block, double=how.double)
        except DataError as error:
            raise DataError(f"{site.parts[0].name}: {error}") from None
        placing.replace(model, site.path, made)
    return model


def check_skip(how: Quantization, names: Iterable[str]) -> None:
    """Refuse names in `skip` that no layer has."""
    known = list(names)
    for each in how.skip:
        if not any(placing.is_named(name, each) for name in known):
            ends = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in known))
            raise DataError(f"skip has '{each}', which no linear layer is called; there are {ends}")


def describe(model: nn.Module) -> Quantization | None:
    """How a model's layers are quantised; None if none is."""
    layer = next(_layers(model), None)
    return None if layer is None else Quantization(**layer.scheme())


def numbers(model: Any) -> int:
    """Numbers of a model, those of quantised weights included."""
    frozen = sum(layer.in_features * layer.out_features for layer in _layers(model))
    return frozen + sum(int(each.numel()) for each in model.parameters())


def frozen_bytes(model: Any) -> Iterator[bytes | NDArray[Any]]:
    """Codes and scales of a model's quantised layers, in the order of the layers."""
    for layer in _layers(model):
        for part in layer.parts:
            for name, array in sorted(state.write(part).items()):
                yield name.encode()
                yield np.ascontiguousarray(array)


def _layers(model: Any) -> Iterator[QuantizedLinear]:
    return (layer for layer in model.modules() if isinstance(layer, QuantizedLinear))


class Reading:
    """Quantised weights of a checkpoint, gathered from its files: a weight's tensors may be in several."""

    def __init__(self, marked: Iterable[str]) -> None:
        self._names = set(state.names(marked))
        self._held: dict[str, dict[str, Any]] = {name: {} for name in self._names}

    def __contains__(self, tensor: str) -> bool:
        """Whether a tensor of a file belongs to a quantised weight."""
        return self._owner(tensor) is not None

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._names)

    def take(self, tensor: str, value: Any) -> None:
        """Take up a tensor of which that is so."""
        owner = self._owner(tensor)
        assert owner is not None  # noqa: S101 - asked before
        self._held[owner][tensor] = value

    def results(self, limit: Callable[[str], int]) -> dict[str, Quantized]:
        """The weights by name.

        Args:
            limit: entries that a weight may have at most, by its name.

        Raises:
            DataError: for what is missing or does not fit together.
        """
        return {name: state.read(held, name, limit=limit(name)) for name, held in sorted(self._held.items())}

    def _owner(self, tensor: str) -> str | None:
        if tensor in self._names:
            return tensor
        name, found, _ = tensor.partition(".weight.")
        owner = f"{name}.weight"
        return owner if found and owner in self._names else None
