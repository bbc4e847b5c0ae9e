"""Checkpoints of any causal architecture of `transformers`, read into its own classes.

Models whose layers are quantised get layers of ours: neither bitsandbytes nor an accelerator is needed.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posterhall.adapters import placing
from posterhall.adapters.lora import features
from posterhall.errors import DataError
from posterhall.extras import nn, require
from posterhall.models import hub, quantized
from posterhall.quantize.linear import QuantizedLinear

_PURPOSE = "a model of an architecture that is not Llama's"


def read(directory: Path, dtype: Any) -> Any:
    """An `AutoModelForCausalLM` with all its weights.

    Raises:
        DataError: if transformers cannot make one of what is there.
    """
    return _read("AutoModelForCausalLM", directory, dtype, "a causal model")


def read_classifier(directory: Path, dtype: Any) -> Any:
    """An `AutoModelForSequenceClassification` with all its weights, whose head `score` works on states.

    Raises:
        DataError: if transformers cannot make one of what is there.
    """
    model = _read("AutoModelForSequenceClassification", directory, dtype, "a classifier")
    if not _has_score(model):
        raise DataError(
            f"{directory}: {type(model).__name__} does not read its logits off the last token's state; "
            "name it classifier:DIR"
        )
    return model.eval()


def classifier(model: Any) -> Any:
    """A causal model as the sequence classifier with one label of its architecture; weights are shared, and
    the head is yet to be given.

    Raises:
        DataError: if transformers has none, or one that is made otherwise.
    """
    transformers = require("transformers", "hf", _PURPOSE)
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    refused = DataError(
        f"transformers has no classifier of {type(model).__name__}'s states, as which a reward model could "
        "be saved; train an adapter on it: --lora-rank 64"
    )
    try:
        with _quiet(transformers), _without_weights():
            made = transformers.AutoModelForSequenceClassification.from_config(config)
    except ValueError:  # it knows none for such a config
        raise refused from None
    prefix = made.base_model_prefix
    below = getattr(model, prefix, None)
    if not _has_score(made) or type(below) is not type(getattr(made, prefix, None)):
        raise refused
    setattr(made, prefix, below)
    return made.eval()


def write(model: Any, directory: Path) -> None:
    """Save a model of transformers in its own form, without a word."""
    with _quiet(require("transformers", "hf", _PURPOSE)):
        model.save_pretrained(directory)


def _has_score(model: Any) -> bool:
    return isinstance(getattr(model, "score", None), nn.Linear) and model.score.bias is None


def _read(kind: str, directory: Path, dtype: Any, what: str) -> Any:
    transformers = require("transformers", "hf", _PURPOSE)
    with _quiet(transformers):
        try:
            model, told = getattr(transformers, kind).from_pretrained(
                str(directory),
                dtype=dtype or "auto",
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # of many kinds: its own, those of torch, safetensors, the system
            raise _unreadable(directory, error, what) from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise DataError(
            f"{directory}: {len(missing)} tensors are missing, first {missing[0]}; the config describes "
            "another model, or a file is missing"
        )
    return model


def skeleton(directory: Path, dtype: Any = None) -> Any:
    """The same without weights, whatever its config says of quantisation: parameters are on torch's "meta".

    Raises:
        DataError: as `read`.
    """
    transformers = require("transformers", "hf", _PURPOSE)
    with _quiet(transformers), _without_weights():
        try:
            config = transformers.AutoConfig.from_pretrained(
                str(directory), trust_remote_code=False, local_files_only=True
            )
            if hasattr(config, quantized.KEY):
                delattr(config, quantized.KEY)
            kind = {} if dtype is None else {"dtype": dtype}
            return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False, **kind)
        except Exception as error:  # see above
            raise _unreadable(directory, error) from error


def read_quantized(directory: Path, dtype: Any) -> Any:
    """A model whose files hold quantised linear layers.

    Args:
        directory: where it is.
        dtype: of its other tensors; None keeps the files'.

    Raises:
        DataError: for a tensor that is missing, or does not fit.
    """
    model = skeleton(directory, dtype)
    reading, rest = quantized.Reading(hub.tensor_names(directory)), {}
    for _, name, tensor in hub.tensors(directory):
        if name in reading:
            reading.take(name, tensor)
        else:
            rest[name] = tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
    layers = {f"{path}.weight": (path, layer) for path, layer in placing.linear_layers(model)}

    def limit(name: str) -> int:
        if name not in layers:
            raise DataError(f"{directory}: {name} is quantised, and no linear layer of this architecture")
        inputs, outputs = features(layers[name][1])
        return inputs * outputs

    for name, found in reading.results(limit).items():
        path, layer = layers[name]
        inputs, outputs = features(layer)
        if found.shape != (outputs, inputs):
            raise DataError(f"{directory}: {name} is {found.shape}; config.json makes it {(outputs, inputs)}")
        bias = rest.pop(f"{path}.bias", None)
        if bias is None and getattr(layer, "bias", None) is not None:
            raise DataError(f"{directory}: {path}.bias is missing; a file is missing")
        placing.replace(model, path, QuantizedLinear.like(layer, found, bias))
    model.load_state_dict(rest, strict=False, assign=True)
    model.tie_weights()
    empty = [name for name, each in model.named_parameters() if each.device.type == "meta"]
    if empty:
        raise DataError(
            f"{directory}: {len(empty)} tensors are missing, first {empty[0]}; the config describes another "
            "model, or a file is missing"
        )
    return model


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without its messages and bars: what matters of them is said by us."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _without_weights() -> Iterator[None]:
    """Modules made within it have parameters without memory. Buffers are real: they follow from the config
    (rotary frequencies, masks), and no file has them."""
    register = nn.Module.register_parameter

    def empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None:
            held = module._parameters[name]
            module._parameters[name] = nn.Parameter(held.to("meta"), held.requires_grad)  # type: ignore[union-attr]

    nn.Module.register_parameter = empty  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _unreadable(directory: Path, error: Exception, what: str = "a causal model") -> DataError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return DataError(f"{directory}: transformers cannot read this as {what}: {reason}")
