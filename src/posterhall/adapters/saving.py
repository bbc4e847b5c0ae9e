"""Adapters as files, as PEFT has them: adapter_config.json and adapter_model.safetensors.

`peft.PeftModel.from_pretrained(base, directory)` opens what `save` writes, and `load` what PEFT writes of
LoRA. Which weights an adapter was trained on is noted beside its tensors, where PEFT does not look: on
others it would compute nonsense without a word.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from posterhall.adapters import placing
from posterhall.adapters.lora import LoraLinear, LoraSettings, Part, features
from posterhall.data import tensor_files
from posterhall.errors import DataError
from posterhall.extras import nn, require, torch
from posterhall.quantize.linear import QuantizedLinear, is_transposed
from posterhall.runs.files import atomic_file, write_atomic

M = TypeVar("M", bound=nn.Module)

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CAUSAL, CLASSIFIER = "CAUSAL_LM", "SEQ_CLS"
"""PEFT's names of what an adapter is for: to write, or to judge texts by a head that was trained with it."""
_PREFIX, _SUFFIXES = "base_model.model.", (".lora_A.weight", ".lora_B.weight")
_NOTE = "posterhall.base"
_LARGEST_JSON = 1 << 24
_HEADS = {"score", "classifier"}
"""Modules that PEFT always saves whole of a classifier, whether it has them or not."""
_REFUSED = {
    "use_dora": "DoRA",
    "use_qalora": "QA-LoRA",
    "bias": "trained biases",
    "modules_to_save": "modules trained whole",
    "rank_pattern": "ranks of their own for some layers",
    "alpha_pattern": "alphas of their own for some layers",
    "trainable_token_indices": "trained tokens",
    "target_parameters": "adapters on bare parameters",
    "lora_bias": "biases of B",
    "layer_replication": "replicated layers",
}
"""Entries of PEFT's configuration that change what is computed, and are not supported."""


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter's files say of it."""

    base: str
    """The model that it was trained on: a directory, or an id of the Hugging Face hub."""
    settings: LoraSettings
    """Rank, alpha, dropout."""
    targets: tuple[str, ...]
    """Names of the layers that it is on."""
    fingerprint: str | None
    """Of the weights that it was trained on; None: not noted."""
    quantization: Mapping[str, Any] | None
    """code, block and double of the layers that it was trained on; None: not noted, or not quantised."""
    classifies: bool
    """Whether it judges texts, by a head beside it."""
    note: Mapping[str, Any]
    """All that is noted beside its tensors."""


def save(
    model: nn.Module,
    directory: Path | str,
    *,
    base: Path | str,
    files: Path | None = None,
    allow_empty: bool = False,
    heads: Mapping[str, torch.Tensor] | None = None,
    note: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model's adapters.

    Args:
        model: with adapters.
        directory: where; other files in it are left alone.
        base: where the model's weights are: a directory, or an id of the hub. Files say so.
        files: the directory of these weights, where `base` is none.
        allow_empty: write an adapter that changes nothing, too.
        heads: of a model that judges texts: what was trained whole beside the adapters, by the name of the
            tensor (score.weight).
        note: what is to be noted beside the tensors, in JSON; PEFT does not look there.

    Returns:
        The directory.

    Raises:
        DataError: if there are no adapters, one was not trained (B is zero) or is not finite, or nothing can
            be written there.
        MissingExtra: without safetensors.
    """
    safetensors = require("safetensors.torch", "train", "saving an adapter")
    placing.lora_parameters(model)
    layers = [layer for _, layer in placing.adapters(model)]
    _check_trained(layers, allow_empty)
    settings = layers[0].settings
    if any(layer.settings.rank != settings.rank for layer in layers):
        raise DataError("adapters of several ranks cannot be saved as one; give all the same rank")
    tensors = {}
    for layer in layers:
        for part, a, b in layer.pairs():
            for suffix, tensor in zip(_SUFFIXES, (a, b), strict=True):
                tensors[f"{_PREFIX}{part.name}{suffix}"] = tensor.detach().cpu().contiguous().clone()
    heads = heads or {}
    tensors |= {_PREFIX + name: each.detach().cpu().contiguous().clone() for name, each in heads.items()}
    config = {
        "peft_type": "LORA",
        "task_type": CLASSIFIER if heads else CAUSAL,
        "base_model_name_or_path": str(base),
        "inference_mode": True,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rank_stabilized,
        "target_modules": placing.target_names(model),
        "bias": "none",
        "fan_in_fan_out": any(_is_transposed(layer.base) for layer in layers),
        "init_lora_weights": True,
        "modules_to_save": [name.removesuffix(".weight") for name in heads] or None,
    }
    noted = {"fingerprint": _fingerprint(files or Path(base)), "quantization": _quantization(layers)}
    noted |= note or {}
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {directory}: {error.strerror}; choose another place") from error
    with atomic_file(directory / WEIGHTS) as beside:
        safetensors.save_file(tensors, beside.name, metadata={"format": "pt", _NOTE: json.dumps(noted)})
    write_atomic(directory / CONFIG, json.dumps(config, indent=2) + "\n")
    return directory


def load(model: M, directory: Path | str, *, fingerprint: str | None = None, classifies: bool = False) -> M:
    """Put saved adapters onto a model, in place, and freeze everything else.

    Args:
        model: their base; quantised or not.
        directory: of `save`, or of PEFT.
        fingerprint: of the base's weights (`posterhall.models.hub.fingerprint`), to be compared with what
            is noted; None compares shapes alone.
        classifies: whether it must be one that judges texts, or none such; see `read_head`.

    Returns:
        The model.

    Raises:
        DataError: for files that are missing, damaged or pickled, a kind that is not LoRA's plain one, or an
            adapter for another base.
    """
    directory = Path(directory)
    config = read_config(directory)
    if config.classifies and not classifies:
        raise judging(directory)
    found = {part.name: (site, part) for site in placing.sites(model) for part in site.parts}
    shapes = {name: (features(site.layer)[0], part.last - part.first) for name, (site, part) in found.items()}
    pairs = read_pairs(directory, config, shapes, fingerprint=fingerprint)
    chosen: dict[str, list[Part]] = {}
    for name in pairs:
        site, part = found[name]
        chosen.setdefault(site.path, []).append(part)
    sites = {site.path: site for site, _ in found.values()}
    for path, parts in chosen.items():
        parts.sort(key=lambda part: part.first)
        site = placing.Site(path, sites[path].layer, tuple(parts))
        layer = placing.put(model, site, config.settings)
        for part, a, b in layer.pairs():
            a.detach().copy_(pairs[part.name][0])
            b.detach().copy_(pairs[part.name][1])
    return placing.freeze(model)


def read_config(directory: Path) -> AdapterConfig:
    """What a directory says of its adapter.

    Raises:
        DataError: if there is none, it is a pickle, or of a kind that is not supported.
    """
    file = directory / CONFIG
    given = _json(file)
    if given.get("peft_type") != "LORA":
        raise DataError(f"{file}: peft_type is {given.get('peft_type')!r}; only LORA is supported")
    classifies = given.get("task_type") == CLASSIFIER
    for name, what in _REFUSED.items():
        if name == "modules_to_save" and classifies and set(given.get(name) or ()) <= _HEADS:
            continue
        if given.get(name) not in (None, False, {}, [], "none"):
            raise DataError(
                f"{file}: {name} is {given[name]!r:.80}; adapters with {what} are not supported. Merge it "
                "into its base with PEFT (merge_and_unload)"
            )
    base, targets = given.get("base_model_name_or_path"), given.get("target_modules") or ()
    try:
        settings = LoraSettings(
            rank=_number(given, "r", int),
            alpha=float(_number(given, "lora_alpha", float)),
            dropout=float(_number(given, "lora_dropout", float, 0.0)),
            rank_stabilized=bool(given.get("use_rslora")),
        )
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    _check_files(directory)
    written = tensor_files.metadata(directory / WEIGHTS).get(_NOTE, "{}")
    try:
        note = json.loads(written)
        noted, quantization = note.get("fingerprint"), note.get("quantization")
    except (ValueError, AttributeError):
        raise DataError(f"{directory / WEIGHTS}: the note of its base is damaged; fetch it again") from None
    return AdapterConfig(
        base=str(base or ""),
        settings=settings,
        targets=(targets,) if isinstance(targets, str) else tuple(str(each) for each in targets),
        fingerprint=noted if isinstance(noted, str) else None,
        quantization=quantization if isinstance(quantization, dict) else None,
        classifies=classifies,
        note=note,
    )


def judging(directory: Path) -> DataError:
    """What is said of an adapter that judges texts where one that writes them is needed."""
    return DataError(
        f"{directory} is the adapter of a reward model (task_type {CLASSIFIER}), which writes no text; "
        "give it as a reward (--reward, --score), or merge it: posterhall model merge"
    )


def read_head(directory: Path, name: str) -> torch.Tensor | None:
    """A tensor that was trained whole beside an adapter, by its name (score.weight); None if it is not there.

    Raises:
        DataError: for a damaged file.
    """
    safetensors = require("safetensors", "train", "loading an adapter")
    _check_files(directory)
    try:
        with safetensors.safe_open(directory / WEIGHTS, framework="pt") as opened:
            key = _PREFIX + name
            return opened.get_tensor(key) if key in opened.keys() else None  # noqa: SIM118 - not a mapping
    except safetensors.SafetensorError as error:
        raise DataError(f"{directory / WEIGHTS}: not a whole safetensors file: {error}") from error


def read_pairs(
    directory: Path,
    config: AdapterConfig,
    shapes: Mapping[str, tuple[int, int]],
    *,
    fingerprint: str | None = None,
) -> dict[str, tuple[Any, Any]]:
    """A (rank, inputs) and B (outputs, rank) of each projection that has an adapter.

    Args:
        directory: of the adapter.
        config: what it says of itself.
        shapes: inputs and outputs of the model's projections by name.
        fingerprint: see `load`.

    Raises:
        DataError: as `load`.
    """
    if None not in (fingerprint, config.fingerprint) and fingerprint != config.fingerprint:
        raise DataError(
            f"{directory}: the adapter was trained on other weights than these ({config.base}, fingerprint "
            f"{config.fingerprint}; these have {fingerprint}). Give the model that it was trained on"
        )
    pairs = _read(directory, config)
    for name, (a, b) in pairs.items():
        if name not in shapes:
            raise DataError(
                f"{directory}: the adapter has {name}, which the model has not; it is for another model "
                f"({config.base})"
            )
        inputs, outputs = shapes[name]
        if (a.shape[1], b.shape[0]) != (inputs, outputs):
            raise DataError(
                f"{directory}: {name} is adapted from {a.shape[1]} inputs to {b.shape[0]} outputs; the "
                f"model's layer has {inputs} and {outputs}. The adapter is for another model ({config.base})"
            )
    return pairs


def _check_trained(layers: list[LoraLinear], allow_empty: bool) -> None:
    for layer in layers:
        for part, a, b in layer.pairs():
            if not (math.isfinite(float(a.detach().sum())) and math.isfinite(float(b.detach().sum()))):
                raise DataError(f"the adapter of {part.name} is not finite; the training has diverged")
    if allow_empty:
        return
    empty = [part.name for layer in layers for part, _, b in layer.pairs() if not b.detach().any()]
    if empty:
        rest = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise DataError(
            f"the adapter of {empty[0]}{rest} was not trained: B is zero, so it changes nothing. Were the "
            "adapters' parameters given to the optimiser? (allow_empty=True saves it all the same)"
        )


def _fingerprint(base: Path) -> str | None:
    files = sorted(base.glob("*.safetensors")) if base.is_dir() else []
    return tensor_files.fingerprint(files) if files else None


def _is_transposed(base: nn.Module) -> bool:
    return base.was_transposed if isinstance(base, QuantizedLinear) else is_transposed(base)


def _quantization(layers: list[LoraLinear]) -> dict[str, Any] | None:
    for layer in layers:
        if isinstance(layer.base, QuantizedLinear):
            return layer.base.scheme()
    return None


def _check_files(directory: Path) -> None:
    if (directory / WEIGHTS).is_file():
        return
    pickled = sorted([*directory.glob("*.bin"), *directory.glob("*.pt"), *directory.glob("*.pth")])
    if pickled:
        raise DataError(
            f"{pickled[0]} is a pickle, which can run any code when it is opened, so it is not. Save the "
            "adapter anew with PEFT, where that does no harm: save_pretrained(...) writes safetensors"
        )
    raise DataError(f"{directory} has no {WEIGHTS}; fetch the adapter again")


def _read(directory: Path, config: AdapterConfig) -> dict[str, tuple[Any, Any]]:
    """A (rank, inputs) and B (outputs, rank) of each projection."""
    safetensors = require("safetensors", "train", "loading an adapter")
    file, rank = directory / WEIGHTS, config.settings.rank
    heads = {f"{_PREFIX}{name}.weight" for name in _HEADS} if config.classifies else set()
    halves: dict[str, dict[str, Any]] = {}
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a mapping
                if key in heads:
                    continue
                suffix = next((each for each in _SUFFIXES if key.endswith(each)), None)
                if suffix is None or not key.startswith(_PREFIX):
                    raise DataError(
                        f"{file}: tensor {key} is none of plain LoRA; only {_PREFIX}…{_SUFFIXES[0]} and "
                        f"…{_SUFFIXES[1]} are"
                    )
                name = key[len(_PREFIX) : -len(suffix)]
                halves.setdefault(name, {})[suffix] = opened.get_tensor(key)
    except safetensors.SafetensorError as error:
        raise DataError(f"{file}: not a whole safetensors file: {error}; fetch it again") from error
    pairs = {}
    for name, both in halves.items():
        a, b = (both.get(suffix) for suffix in _SUFFIXES)
        if a is None or b is None:
            raise DataError(f"{file}: of {name} one of A and B is missing; fetch it again")
        if a.dim() != 2 or b.dim() != 2 or a.shape[0] != rank or b.shape[1] != rank:
            raise DataError(
                f"{file}: A and B of {name} are {tuple(a.shape)} and {tuple(b.shape)}; with the rank {rank} "
                f"of {CONFIG} they must be ({rank}, inputs) and (outputs, {rank})"
            )
        if not (a.isfinite().all() and b.isfinite().all()):
            raise DataError(f"{file}: the adapter of {name} is not finite")
        pairs[name] = (a, b)
    if not pairs:
        raise DataError(f"{file} ({os.path.getsize(file)} bytes) holds no adapter; it was saved empty")
    return pairs


def _number(given: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    value = given.get(name, default)
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    if not fine or (kind is int and not isinstance(value, int)):
        raise DataError(f"{name} is {value!r}; it must be a {'whole ' if kind is int else ''}number")
    return value


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LARGEST_JSON:
            raise DataError(f"{file} has {file.stat().st_size} bytes; that is no settings file")
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; give the directory of an adapter") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{file}: holds a {type(found).__name__}; it must be an object")
    return found
