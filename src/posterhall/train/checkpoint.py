"""Weights, optimiser and progress in one safetensors file, from which training goes on to the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posterhall.errors import DataError
from posterhall.extras import nn, require, torch
from posterhall.runs import atomic_file
from posterhall.train.distributed import like, whole

_MODEL, _OPTIMISER = "model/", "optimiser/"
_STATE = "state"
"""Key of the header's metadata under which the progress stands, as JSON."""


def _named(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and those buffers that are part of the model (not caches), each once.

    Frozen parameters are left out: whoever froze them has them elsewhere, and they are the larger part.
    """
    kept = model.state_dict().keys()
    buffers = {name: tensor for name, tensor in model.named_buffers() if name in kept}
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    return {**trained, **buffers}


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """All trained parameters, and buffers, by name, whole, each once; all processes must ask."""
    return {name: whole(tensor.detach()) for name, tensor in _named(model).items()}


def set_weights(model: nn.Module, values: dict[str, torch.Tensor]) -> None:
    """Put back what `weights` gave."""
    with torch.no_grad():
        for name, tensor in _named(model).items():
            tensor.copy_(like(values[name].to(tensor.device), tensor))


def save(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer | None,
    state: dict[str, Any],
    *,
    write: bool = True,
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: the file.
        model: its trained parameters and buffers are kept.
        optimiser: its tensors are kept, if given.
        state: what else there is to know; JSON.
        write: False in all processes but the first, which only help to gather.
    """
    safetensors = require("safetensors.torch", "train", "writing a checkpoint")
    tensors = {_MODEL + name: tensor for name, tensor in weights(model).items()}
    if optimiser is not None:
        for name, parameter in model.named_parameters():
            for key, value in optimiser.state.get(parameter, {}).items():
                # bitsandbytes counts steps in an int.
                tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
                tensors[f"{_OPTIMISER}{key}/{name}"] = whole(tensor)
    if write:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        with atomic_file(path) as file:
            safetensors.save_file(tensors, file.name, {_STATE: json.dumps(state)})


def load(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Put a checkpoint's tensors into a model and its optimiser; returns the state.

    Raises:
        DataError: if it is damaged, or belongs to another model.
    """
    safetensors = require("safetensors", "train", "reading a checkpoint")
    try:
        with safetensors.safe_open(path, "pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()[_STATE])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise DataError(f"{path}: damaged checkpoint ({error}); delete it to start anew") from None
    named = dict(model.named_parameters())
    wanted = {_MODEL + name: tuple(t.shape) for name, t in _named(model).items()}
    found = {name: tuple(t.shape) for name, t in tensors.items() if name.startswith(_MODEL)}
    if wanted != found:
        different = sorted(wanted.items() ^ found.items())
        raise DataError(f"{path}: a checkpoint of another model (first difference: {different[0]})")
    set_weights(model, {name.removeprefix(_MODEL): t for name, t in tensors.items() if name in wanted})
    if optimiser is not None:
        for full, tensor in tensors.items():
            if full.startswith(_OPTIMISER):
                key, _, name = full.removeprefix(_OPTIMISER).partition("/")
                _restore(optimiser, named[name], key, tensor)
    return state


def _restore(
    optimiser: torch.optim.Optimizer, parameter: torch.Tensor, key: str, tensor: torch.Tensor
) -> None:
    """One of the optimiser's tensors for a parameter; where it has pages for it, into these."""
    state = optimiser.state[parameter]
    there = state.get(key)
    if isinstance(there, torch.Tensor) and there.shape == tensor.shape and tensor.dim() > 0:
        there.copy_(tensor)
    elif tensor.dim() > 0 and hasattr(optimiser, "get_state_buffer"):  # bitsandbytes'
        state[key] = optimiser.get_state_buffer(parameter, dtype=tensor.dtype).copy_(tensor)
    elif tensor.dim() == 0:
        state[key] = tensor if tensor.is_floating_point() else int(tensor)
    else:
        state[key] = like(tensor.to(parameter.device), parameter)
