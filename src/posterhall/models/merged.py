"""An adapter merged into its base, file by file, as a checkpoint that plain `transformers` reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterhall.adapters import saving
from posterhall.adapters.merging import Erased, Sums
from posterhall.data import tensor_files
from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.models import causal, hub, quantized, reward_files, rewriting
from posterhall.models.quantized import Quantization
from posterhall.quantize.blockwise import Quantized, quantize

if TYPE_CHECKING:
    from posterhall.models.rewriting import Layout, Linear

_NOTE = "posterhall.merged"


@dataclass(frozen=True)
class Merged:
    """What became of an adapter."""

    directory: Path
    """Where the merged model is."""
    base: Path
    """Where the base is."""
    quantization: Quantization | None
    """How the base's layers were quantised when the adapter was trained; they were restored."""
    dtype: str
    """Of the merged model."""
    layers: int
    """Layers that had an adapter."""
    parameters: int
    """Numbers of the adapter."""
    requantized: Quantization
    """To what the change was measured: the base's own quantisation, else QLoRA's."""
    erased: Erased
    """What quantising the merged model so would leave of the adapter."""


def merge_checkpoint(
    path: Path | str,
    out: Path,
    *,
    base: Path | str | None = None,
    dtype: str | None = None,
    quiet: bool = True,
) -> Merged:
    """Write W + s B A for every adapted weight W, restored where it was quantised; all else as it is.

    The adapter of a reward model comes out as the reward model, with its head.

    Args:
        path: the directory of an adapter, or a run that trained one.
        out: where; it must be empty, or not there.
        base: where the base is; None: where the adapter says.
        dtype: of the merged model; None: of the base's own, where that has 16 bits, else bfloat16.
        quiet: show no progress.

    Raises:
        DataError: if there is no adapter, its base is not there or is another one, it is merged into this
            one already, or it changes nothing.
    """
    directory = hub.locate(path)
    if not hub.is_adapter(directory):
        raise DataError(
            f"{directory} is a whole model; there is no adapter to merge (it may have been merged already)"
        )
    rewriting.check_free(out)
    below, how = causal.base_of(directory, base=base)
    _check_not_merged(directory, below)
    config = hub.read_json(below / hub.CONFIG)
    kind = _dtype(dtype, config)
    layout = rewriting.layout(below)
    job = _Job(directory, below, layout, how, kind)
    head: dict[str, Any] = {}
    if saving.read_config(directory).classifies:
        more, weight = reward_files.merged(directory, below)
        config, head = config | more, {reward_files.HEAD: weight.to(job.dtype)}

    def convert(name: str, tensor: torch.Tensor) -> dict[str, Any]:
        made = {**job.convert(name, tensor), **head}
        head.clear()  # once
        return made

    note = {"adapter": tensor_files.fingerprint([directory / saving.WEIGHTS]), "base": hub.fingerprint(below)}
    kept = {name: value for name, value in config.items() if name != quantized.KEY}
    rewriting.rewrite(
        below,
        out,
        convert,
        config={**kept, "dtype": kind, "torch_dtype": kind},
        metadata={_NOTE: json.dumps(note)},
        label="merge",
        quiet=quiet,
        others=[directory],
    )
    return Merged(
        directory=out,
        base=below,
        quantization=job.was,
        dtype=kind,
        layers=len(job.pairs),
        parameters=sum(a.numel() + b.numel() for a, b in job.pairs.values()),
        requantized=job.again,
        erased=job.sums.result(),
    )


class _Job:
    """Takes the base's tensors one by one.

    Args:
        directory: of the adapter.
        below: of its base.
        layout: of that.
        how: to quantise the base first, as it was when the adapter was trained.
        dtype: of what comes out.
    """

    def __init__(
        self, directory: Path, below: Path, layout: Layout, how: Quantization | None, dtype: str
    ) -> None:
        said = saving.read_config(directory)
        shapes = {each.path: (each.inputs, each.outputs) for each in layout.linear.values()}
        self.pairs = saving.read_pairs(directory, said, shapes, fingerprint=hub.fingerprint(below))
        if not any(b.any() for _, b in self.pairs.values()):
            raise DataError(f"{directory}: the adapter changes nothing (B is zero); train it first")
        self.scaling = said.settings.scaling
        self.layout, self.how, self.dtype = layout, how, getattr(torch, dtype)
        reading = quantized.Reading(hub.tensor_names(below))
        for _, name, tensor in hub.tensors(below) if reading else ():
            if name in reading:
                reading.take(name, tensor)
        self.reading = reading
        self.stored = reading.results(lambda name: self._linear(name).inputs * self._linear(name).outputs)
        self.was = how or _scheme(self.stored)
        self.again = self.was or Quantization()
        self.sums = Sums(self.again.code, self.again.block, self.again.double)

    def convert(self, name: str, tensor: torch.Tensor) -> dict[str, Any]:
        """The merged tensor, or the same in another type; none for what only restores another."""
        if name in self.reading and name not in self.stored:
            return {}
        linear = self.layout.linear.get(name)
        kept = self.layout.name(name)
        if linear is None:
            return {kept: tensor.to(self.dtype) if tensor.is_floating_point() else tensor}
        weight = self._weight(name, tensor, linear)
        if linear.path in self.pairs:
            a, b = (each.float() for each in self.pairs[linear.path])
            delta = (b @ a).mul_(self.scaling)
            self.sums.add(weight, delta)
            weight = weight + delta
        weight = weight.to(self.dtype)
        return {kept: weight.t().contiguous() if linear.transposed else weight}

    def _weight(self, name: str, tensor: torch.Tensor, linear: Linear) -> torch.Tensor:
        """The weight that the adapter was trained on, (outputs, inputs) float32."""
        if name in self.stored:
            return self.stored[name].tensor(torch.float32)
        weight = (tensor.t().contiguous() if linear.transposed else tensor).float()
        if self.how is None or self.how.skips(linear.path):
            return weight
        own = quantize(weight, self.how.code, block=self.how.block, double=self.how.double)
        return own.tensor(torch.float32)

    def _linear(self, name: str) -> Linear:
        if name not in self.layout.linear:
            raise DataError(f"{name} is quantised, and no linear layer of this architecture")
        return self.layout.linear[name]


def _scheme(stored: dict[str, Quantized]) -> Quantization | None:
    for each in stored.values():
        return Quantization(each.code.name, each.block, not hasattr(each.scales, "dtype"))
    return None


def _check_not_merged(directory: Path, below: Path) -> None:
    adapter = tensor_files.fingerprint([directory / saving.WEIGHTS])
    for file in sorted(set(hub.weight_files(below).values())):
        note = tensor_files.metadata(file).get(_NOTE, "")
        if adapter in note:
            raise DataError(f"{below} has this adapter ({directory}) merged into it already")


def _dtype(wanted: str | None, config: dict[str, Any]) -> str:
    if wanted is not None:
        hub.dtype_of(wanted)
        return wanted
    own = str(config.get("dtype") or config.get("torch_dtype"))
    return own if own in ("bfloat16", "float16") else "bfloat16"
