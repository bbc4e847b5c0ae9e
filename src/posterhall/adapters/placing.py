"""Which layers of a model get an adapter, and adapters as a whole: off, and their parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from posterhall.adapters.lora import LoraLinear, LoraSettings, Part, features
from posterhall.errors import DataError, did_you_mean
from posterhall.extras import nn
from posterhall.quantize.linear import QuantizedLinear, is_transposed

M = TypeVar("M", bound=nn.Module)

ALL_LINEAR = "all-linear"
"""Every linear layer but the head: what QLoRA needs to match full fine-tuning (Dettmers et al. 2023, §4)."""


@dataclass(frozen=True)
class Site:
    """A linear layer of a model."""

    path: str
    """In the model."""
    layer: nn.Module
    """Itself."""
    parts: tuple[Part, ...]
    """The projections of a checkpoint that it holds."""


def add_lora(
    model: M,
    *,
    rank: int = 64,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: str | Sequence[str] = ALL_LINEAR,
    rank_stabilized: bool = False,
    seed: int = 0,
) -> M:
    """Put adapters onto a model's linear layers and freeze everything else, in place.

    The model computes what it did before until the adapters are trained. A pass's dropout follows from the
    pass's seed where the model gives one (`posterhall.adapters.dropout`); else calls are counted.

    Args:
        model: a `Decoder`, a model of transformers, or any module with linear layers, quantised or not.
        rank, alpha, dropout, rank_stabilized, seed: see `LoraSettings`.
        targets: "all-linear" (all but the head), or names of projections as checkpoints have them: a last
            part ("q_proj"), several ("self_attn.q_proj"), or a whole path.

    Returns:
        The model.

    Raises:
        DataError: for a setting out of range, a name that fits no layer, a model without linear layers, or
            one that has adapters already.
    """
    settings = LoraSettings(rank, alpha, dropout, rank_stabilized, seed)
    for site in _chosen(sites(model), targets):
        put(model, site, settings)
    return freeze(model)


def put(model: nn.Module, site: Site, settings: LoraSettings) -> LoraLinear:
    """An adapter in a layer's place, for the site's parts."""
    adapted = LoraLinear(site.layer, settings, site.parts).train(site.layer.training)
    replace(model, site.path, adapted)
    return adapted


def freeze(model: M) -> M:
    """Let the adapters' parameters alone be trained."""
    model.requires_grad_(False)
    for parameter in lora_parameters(model):
        parameter.requires_grad_(True)
    return model


def replace(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Another module at a path."""
    above, _, name = path.rpartition(".")
    setattr(model.get_submodule(above), name, layer)


def sites(model: nn.Module) -> list[Site]:
    """The linear layers of a model but its head, each with the projections that it holds.

    A model whose layers are called otherwise in checkpoints, or hold several of their tensors, says so by
    `projections()`: by the path of each layer here, (path there, rows) from its first row to its last.

    Raises:
        DataError: if there are adapters already, or no linear layers.
    """
    if any(True for _ in adapters(model)):
        raise DataError("the model has adapters already; merge them, or load it anew")
    found = []
    known = _projections(model)
    for path, layer in linear_layers(model):
        _, outputs = features(layer)
        parts, first = [], 0
        for name, rows in known.get(path, ((path, outputs),)):
            parts.append(Part(name, first, first + rows))
            first += rows
        found.append(Site(path, layer, tuple(parts)))
    if not found:
        raise DataError(f"{type(model).__name__} has no linear layers that an adapter could be put on")
    return found


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Paths and linear layers but the head; of what has an adapter, the frozen layer."""
    heads = {id(_head(each)) for each in model.modules()}
    inside = {id(layer.base) for _, layer in adapters(model)}
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLinear):
            yield path, layer.base
        elif is_linear(layer) and id(layer) not in heads | inside:
            yield path, layer


def is_linear(layer: nn.Module) -> bool:
    """Whether it is a layer y = x W^T (+ b) that can be quantised or adapted."""
    if isinstance(layer, nn.Linear | QuantizedLinear) or is_transposed(layer):
        return True
    weight = getattr(layer, "weight", None)
    shaped = (getattr(layer, "out_features", None), getattr(layer, "in_features", None))
    return weight is not None and tuple(weight.shape) == shaped


def adapters(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Paths and adapted layers of a model."""
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLinear):
            yield path, layer


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """A and B of every adapter, in the order of the model's layers.

    Raises:
        DataError: if there are none.
    """
    found = [each for _, layer in adapters(model) for each in (layer.lora_A, layer.lora_B)]
    if not found:
        raise DataError("the model has no adapters; put them on with add_lora")
    return found


@contextlib.contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Within it the adapters take no part: the model is the one that they were put on.

    Raises:
        DataError: if there are none.
    """
    lora_parameters(model)
    layers = [(layer, layer.on) for _, layer in adapters(model)]
    try:
        for layer, _ in layers:
            layer.on = False
        yield
    finally:
        for layer, on in layers:
            layer.on = on


def _projections(model: nn.Module) -> Mapping[str, Sequence[tuple[str, int]]]:
    say = cast(
        "Callable[[], Mapping[str, Sequence[tuple[str, int]]]] | None", getattr(model, "projections", None)
    )
    return {} if say is None else say()


def _head(module: nn.Module) -> object:
    """The layer of a model of transformers that gives logits."""
    find = cast("Callable[[], object] | None", getattr(module, "get_output_embeddings", None))
    return None if find is None else find()


def _chosen(found: Sequence[Site], targets: str | Sequence[str]) -> list[Site]:
    if targets == ALL_LINEAR:
        return list(found)
    wanted = [targets] if isinstance(targets, str) else list(targets)
    names = [part.name for site in found for part in site.parts]
    for target in wanted:
        if not any(is_named(name, target) for name in names):
            ends = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
            raise DataError(
                f"no layer is called '{target}'; there are {', '.join(ends)}, or '{ALL_LINEAR}' for all."
                + did_you_mean(str(target), ends)
            )
    if not wanted:
        raise DataError(f"targets is empty; give '{ALL_LINEAR}', or names of layers")
    chosen = []
    for site in found:
        parts = tuple(part for part in site.parts if any(is_named(part.name, each) for each in wanted))
        if parts:
            chosen.append(Site(site.path, site.layer, parts))
    return chosen


def is_named(name: str, target: str) -> bool:
    """Whether a path is the target, or ends in it: PEFT's rule."""
    return name == target or name.endswith(f".{target}")


def target_names(model: nn.Module) -> list[str]:
    """The shortest names that say which projections have adapters: last parts of paths, or whole ones."""
    taken = {part.name for _, layer in adapters(model) for part in layer.parts}
    known = _projections(model)
    every = set(taken)
    for path, layer in linear_layers(model):
        every |= {name for name, _ in known.get(path, ((path, features(layer)[1]),))}
    ends = {name.rpartition(".")[2] for name in taken}
    reached = {name for name in every if any(is_named(name, end) for end in ends)}
    return sorted(ends if reached == taken else taken)
