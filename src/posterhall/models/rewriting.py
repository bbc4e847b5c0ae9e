"""Checkpoints turned into others file by file: no more than one file's tensors are in memory at a time."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posterhall.adapters import placing
from posterhall.adapters.lora import features
from posterhall.errors import DataError
from posterhall.extras import require
from posterhall.models import _layouts, _llama, foreign_files, hub
from posterhall.progress import Progress
from posterhall.quantize.linear import is_transposed
from posterhall.runs.files import write_atomic

if TYPE_CHECKING:
    from posterhall.extras import torch

_COPIED = (".json", ".txt", ".model", ".jinja", ".md")
_NOT_COPIED = (hub.CONFIG, hub.INDEX)


@dataclass(frozen=True)
class Linear:
    """A linear layer of a checkpoint."""

    path: str
    """In the model that transformers makes of it."""
    inputs: int
    """Entries that it takes."""
    outputs: int
    """Entries that it gives."""
    transposed: bool
    """Whether the file has the weight as (inputs, outputs)."""


@dataclass(frozen=True)
class Layout:
    """What the tensors of a checkpoint are."""

    linear: dict[str, Linear]
    """Linear layers but the head, by the name of the weight in the files."""
    heads: tuple[str, ...]
    """Paths of the layers that give logits."""
    fixed: tuple[str, ...]
    """Names of layers that transformers keeps in float32."""
    prefix: str
    """What stands before the names in transformers and not in the files."""

    def name(self, tensor: str) -> str:
        """A tensor's name in transformers."""
        return self.prefix + tensor


def layout(directory: Path) -> Layout:
    """Find a checkpoint's linear layers; nothing of their weights is read.

    Raises:
        DataError: for an architecture that has none, or whose files name them otherwise.
        MissingExtra: without transformers, for an architecture that is not Llama's.
    """
    names = set(hub.tensor_names(directory))
    try:
        config = hub.read_config(directory)
        plain = _layouts.is_llama(config)
    except DataError:
        plain = False
    if not plain:
        return _of_another(directory, names)
    linear = {}
    for parts in _llama.projections(config).values():
        for path, outputs in parts:
            inputs = config.feed_forward_dim if path.endswith("down_proj") else config.dim
            linear[f"{path}.weight"] = Linear(path, inputs, outputs, transposed=False)
    return Layout(linear, (_llama.HEAD.removesuffix(".weight"),), (), "")


def _of_another(directory: Path, names: set[str]) -> Layout:
    model = foreign_files.skeleton(directory)
    layers = dict(placing.linear_layers(model))
    prefix = f"{model.base_model_prefix}."
    bare = not any(f"{path}.weight" in names for path in layers)
    cut = prefix if bare else ""
    linear = {}
    for path, layer in layers.items():
        inputs, outputs = features(layer)
        linear[f"{path.removeprefix(cut)}.weight"] = Linear(path, inputs, outputs, is_transposed(layer))
    absent = sorted(linear.keys() - names)
    if absent or not linear:
        raise DataError(
            f"{directory}: {f'has no tensor {absent[0]}' if absent else 'has no linear layers'}; its files "
            "do not name layers as transformers does now. Load it with transformers and save it anew "
            "(save_pretrained), and take that"
        )
    head = model.get_output_embeddings()
    heads = tuple(path for path, layer in model.named_modules() if layer is head)
    return Layout(linear, heads, tuple(getattr(model, "_keep_in_fp32_modules", None) or ()), cut)


def rewrite(
    directory: Path,
    out: Path,
    convert: Callable[[str, torch.Tensor], Mapping[str, Any]],
    *,
    config: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    label: str,
    quiet: bool = True,
    others: Iterable[Path] = (),
) -> Path:
    """Write a checkpoint like another, tensor by tensor; it appears whole or not at all.

    Args:
        directory: the other.
        out: where; it must be empty, or not there.
        convert: gives the tensors to be written for one that is read, by name.
        config: config.json.
        metadata: written beside the tensors.
        label: what is done, for the progress shown.
        quiet: show none.
        others: further directories, whose files beside the weights go before those of `directory`.

    Raises:
        DataError: if `out` is not empty or cannot be written, and what `convert` raises.
    """
    safetensors = require("safetensors.torch", "train", "writing a model")
    check_free(out)
    sources = sorted(set(hub.weight_files(directory).values()))
    beside = out.with_name(f".{out.name[:60]}.{os.urandom(6).hex()}.tmp")
    mapped: dict[str, str] = {}
    total = 0
    progress = Progress(len(hub.tensor_names(directory)), label=label, unit="tensors", quiet=quiet)
    try:
        beside.mkdir(parents=True)
        with progress:
            for source in sources:
                made: dict[str, Any] = {}
                for name, tensor in hub.tensors_of(source):
                    made |= convert(name, tensor)
                    progress.update(progress.done + 1)
                whole = {name: tensor.contiguous() for name, tensor in made.items()}
                said = {"format": "pt", **(metadata or {})}
                safetensors.save_file(whole, beside / source.name, metadata=said)
                hub.sync(beside / source.name)
                mapped |= dict.fromkeys(made, source.name)
                total += sum(each.nbytes for each in made.values())
        if hub.WEIGHTS not in mapped.values():
            index = {"metadata": {"total_size": total}, "weight_map": mapped}
            write_atomic(beside / hub.INDEX, json.dumps(index, indent=2) + "\n")
        for source in (directory, *others):
            for file in sorted(source.iterdir()):
                if file.is_file() and file.suffix in _COPIED and not _is_own(file):
                    shutil.copyfile(file, beside / file.name)
        write_atomic(beside / hub.CONFIG, json.dumps(config, indent=2) + "\n")
        hub.move(beside, out)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}; choose another place") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def check_free(out: Path) -> None:
    """Refuse a place where something is already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already; choose another place, or remove it")


def _is_own(file: Path) -> bool:
    """Files that say what only the one checkpoint is."""
    return file.name in _NOT_COPIED or file.name.startswith(("adapter_", "README", "."))
