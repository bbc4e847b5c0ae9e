"""A decoder's weights on their way from files into it: as they are, quantised there, or quantised here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterhall.adapters.placing import replace
from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.models import _layouts, quantized
from posterhall.models._llama import HEAD
from posterhall.models.mixers.time_invariant import FullPrecision
from posterhall.models.quantized import Quantization
from posterhall.quantize import blockwise
from posterhall.quantize.blockwise import Quantized
from posterhall.quantize.linear import QuantizedLinear

if TYPE_CHECKING:
    from posterhall.models.decoder import Decoder


class Filling:
    """Takes a checkpoint's tensors one by one.

    Args:
        model: without weights.
        names: of all tensors that will come.
        how: to quantise linear layers on the way; None: as they come.
    """

    def __init__(self, model: Decoder, names: Iterable[str], how: Quantization | None) -> None:
        self._model, self._how = model, how
        self._needed = {piece.name: piece for piece in _layouts.pieces(model)}
        self._left = dict(self._needed)
        self._kinds: set[Any] = set()
        self._parameters = model.state_dict(keep_vars=True)
        self._reading = quantized.Reading(names)
        self._quantised: dict[str, Quantized] = {}
        layers = self._layers = _layouts.projections(model)
        self._linear = {f"{name}.weight" for parts in layers.values() for name, _ in parts}
        self._kept = {
            piece.name
            for piece in self._needed.values()
            if isinstance(model.get_submodule(piece.parameter.rpartition(".")[0]), FullPrecision)
        }
        if how is not None:
            if not self._linear & self._needed.keys():
                raise DataError(
                    "of this architecture no linear layers are known that could be quantised; Llama's, "
                    "Mamba's and Mamba-2's are"
                )
            quantized.check_skip(how, (name.removesuffix(".weight") for name in self._linear))

    def take(self, name: str, tensor: Any, file: Path) -> None:
        """Take a tensor up.

        Raises:
            DataError: if it is none of the model's, or of another shape.
        """
        if _is_redundant(name, tied=self._model.config.tie_embeddings):
            return
        if name in self._reading:
            self._reading.take(name, tensor)
            return
        if name not in self._needed:
            raise DataError(f"{file}: tensor {name} is none of the model that config.json describes")
        piece, how = self._left.pop(name, self._needed[name]), self._how
        place = self._parameters[piece.parameter].detach()[slice(*piece.rows)]
        if place.shape != tensor.shape:
            raise DataError(
                f"{file}: {name} is {tuple(tensor.shape)}; config.json makes it {tuple(place.shape)}"
            )
        if not tensor.is_floating_point():
            raise DataError(
                f"{file}: {name} is {tensor.dtype}; only floating-point weights and bitsandbytes' are read"
            )
        if how is None or name not in self._linear or how.skips(name.removesuffix(".weight")):
            # What a model keeps in float32 says nothing of the others.
            if name not in self._kept or tensor.dtype != torch.float32:
                self._kinds.add(tensor.dtype)
            place.copy_(tensor)
            return
        try:
            self._quantised[name] = blockwise.quantize(tensor, how.code, block=how.block, double=how.double)
        except DataError as error:
            raise DataError(f"{file}: {name}: {error}") from None

    @property
    def dtype(self) -> Any:
        """The type of the tensors that are not quantised; float32 where there are several."""
        return next(iter(self._kinds)) if len(self._kinds) == 1 else torch.float32

    def finish(self, directory: Path) -> Decoder:
        """The model, with quantised layers in their places.

        Raises:
            DataError: if something is missing, or does not fit together.
        """
        for name, found in self._reading.results(self._limit).items():
            self._quantised[name] = found
            self._left.pop(name, None)
        if self._left:
            raise DataError(
                f"{directory}: {len(self._left)} tensors of {len(self._needed)} are missing, first "
                f"{next(iter(self._left))}; the config describes another model, or a file is missing"
            )
        for path, parts in self._layers.items():
            named = [f"{name}.weight" for name, _ in parts]
            whole = [self._quantised[name] for name in named if name in self._quantised]
            if not whole:
                continue
            if len(whole) < len(parts):
                raise DataError(
                    f"{directory}: of {' and '.join(name for name, _ in parts)} some are quantised and some "
                    "are not; they are one matrix here"
                )
            for each, (name, rows) in zip(whole, parts, strict=True):
                columns = self._parameters[f"{path}.weight"].shape[1]
                if each.shape != (rows, columns):
                    raise DataError(
                        f"{directory}: {name} is {each.shape}; config.json makes it {(rows, columns)}"
                    )
            layer = self._model.get_submodule(path)
            replace(self._model, path, QuantizedLinear.like(layer, whole))
        for layer in self._model.modules():
            if isinstance(layer, FullPrecision):  # they look at what they load: whether it is stable
                layer.load_state_dict(layer.state_dict())
        return self._model

    def _limit(self, name: str) -> int:
        if name not in self._linear:
            raise DataError(f"{name} is quantised; only linear layers are so")
        piece = self._needed[name]
        return (piece.rows[1] - piece.rows[0]) * int(self._parameters[piece.parameter].shape[1])


def _is_redundant(name: str, *, tied: bool) -> bool:
    """Tensors that some files hold beside the weights: a tied head, rotary frequencies."""
    return name.endswith("rotary_emb.inv_freq") or (name == HEAD and tied)
