"""A checkpoint with its linear layers quantised, as a directory that `transformers` reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterhall.errors import DataError
from posterhall.models import hub, quantized, rewriting
from posterhall.models.quantized import Quantization
from posterhall.quantize import state
from posterhall.quantize.blockwise import quantize
from posterhall.quantize.linear import as_tensor
from posterhall.quantize.report import ErrorReport, measure

if TYPE_CHECKING:
    from posterhall.extras import torch


@dataclass(frozen=True)
class Layer:
    """What became of a linear layer."""

    name: str
    """Its path in the checkpoint."""
    parameters: int
    """Weights."""
    report: ErrorReport
    """Errors, and bits held."""

    @property
    def fell_back(self) -> bool:
        """Whether its scales were to be quantised and did not bear it."""
        return self.report.double_error is not None and not self.report.double_kept


@dataclass(frozen=True)
class Quantized:
    """What became of a checkpoint."""

    directory: Path
    """Where it is now."""
    layers: tuple[Layer, ...]
    """Those that are quantised."""
    skipped: tuple[str, ...]
    """Paths of linear layers that stay as they were."""
    bytes_before: int
    """Of the weight files."""
    bytes_after: int
    """The same."""
    parameters: int
    """All numbers of the model."""

    @property
    def bits_per_parameter(self) -> float:
        """Bits held for a weight of the quantised layers."""
        bits = sum(each.parameters * each.report.bits_per_parameter for each in self.layers)
        return bits / max(1, sum(each.parameters for each in self.layers))

    @property
    def relative_rmse(self) -> float:
        """Root of the mean of the layers' squared relative errors, each weighted by its parameters."""
        squares = sum(each.parameters * each.report.relative_rmse**2 for each in self.layers)
        return float((squares / max(1, sum(each.parameters for each in self.layers))) ** 0.5)


def quantize_checkpoint(
    path: Path | str,
    out: Path,
    how: Quantization,
    *,
    quiet: bool = True,
) -> Quantized:
    """Write a checkpoint whose linear layers but the head are quantised, each weight by itself.

    Of NF4 and FP4 the result is what transformers and bitsandbytes write and read; of other codes, what
    only this package reads. Embeddings, norms, biases and the head stay as they are.

    Args:
        path: a model's directory, a run, or an id of the hub.
        out: where; it must be empty, or not there.
        how: the code, its block, what is skipped.
        quiet: show no progress.

    Raises:
        DataError: for a model that is no whole one or is quantised already, a weight that is not finite (with
            its place), a name in `skip` that no layer has; nothing is written then.
    """
    directory = hub.locate(path)
    if hub.is_adapter(directory):
        raise DataError(
            f"{directory} is an adapter; quantise its base, or `posterhall model merge` it first (which says "
            "what quantising would leave of it)"
        )
    rewriting.check_free(out)
    hub.check_quantized_once(directory, how)
    layout = rewriting.layout(directory)
    quantized.check_skip(how, (each.path for each in layout.linear.values()))
    skipped = sorted(
        each.path
        for each in layout.linear.values()
        if how.skips(each.path) or any(name in each.path.split(".") for name in layout.fixed)
    )
    left = set(skipped)
    layers: list[Layer] = []

    def convert(name: str, tensor: torch.Tensor) -> dict[str, Any]:
        linear, kept = layout.linear.get(name), layout.name(name)
        if linear is None or linear.path in left:
            _check_finite(directory, name, tensor)
            return {kept: tensor}
        weight = tensor.t().contiguous() if linear.transposed else tensor
        if tuple(weight.shape) != (linear.outputs, linear.inputs):
            raise DataError(
                f"{directory}: {name} is {tuple(tensor.shape)}; {hub.CONFIG} makes it "
                f"{linear.outputs} x {linear.inputs}"
            )
        try:
            found = quantize(weight, how.code, block=how.block, double=how.double)
        except DataError as error:
            raise DataError(f"{directory}: {name}: {error}") from None
        layers.append(Layer(linear.path, found.size, measure(weight, found)))
        return {key: as_tensor(array) for key, array in state.write(found, kept).items()}

    config = hub.read_json(directory / hub.CONFIG)
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    said = quantized.write_config(how, skipped=[*layout.heads, *skipped], dtype=dtype)
    parameters, _, before = hub.stored(directory)
    rewriting.rewrite(
        directory, out, convert, config={**config, quantized.KEY: said}, label="quantise", quiet=quiet
    )
    return Quantized(out, tuple(layers), tuple(skipped), before, hub.stored(out)[2], parameters)


def _check_finite(directory: Path, name: str, tensor: torch.Tensor) -> None:
    if not tensor.is_floating_point():
        return
    bad = (~tensor.isfinite()).nonzero()
    if len(bad):
        place = tuple(bad[0].tolist())
        raise DataError(
            f"{directory}: {name}[{', '.join(map(str, place))}] is {float(tensor[place])}; the weights are "
            "damaged"
        )
