"""Mamba's and Mamba-2's checkpoints: the names of tensors and settings there, and here.

Nothing here reads or writes files; `hub` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from posterhall.errors import DataError
from posterhall.models._llama import HEAD, Piece
from posterhall.models.config import DecoderConfig
from posterhall.models.mixers import settings_of
from posterhall.models.mixers.mamba import MambaSettings
from posterhall.models.mixers.mamba2 import Mamba2Settings

ARCHITECTURES = {"mamba": "MambaForCausalLM", "mamba2": "Mamba2ForCausalLM"}
"""By the name of the mixer, which is the model_type too."""
LONGEST = 1 << 20
"""max_length of what is read: files name none, since no state grows."""

_SHARED = {
    "conv.weight": "conv1d.weight",
    "conv.bias": "conv1d.bias",
    "rates.a_log": "A_log",
    "rates.skip": "D",
    "into.weight": "in_proj.weight",
    "out.weight": "out_proj.weight",
}
_NAMES = {
    "mamba": {
        **_SHARED,
        "select.weight": "x_proj.weight",
        "steps.weight": "dt_proj.weight",
        "rates.step_bias": "dt_proj.bias",
    },
    "mamba2": {**_SHARED, "rates.step_bias": "dt_bias", "gain": "norm.weight"},
}


def is_one(config: DecoderConfig) -> bool:
    """Whether a decoder is a Mamba or a Mamba-2 as their checkpoints have it."""
    mixers = set(config.layer_mixers)
    alike = len(mixers) == 1 and mixers <= ARCHITECTURES.keys()
    return alike and config.feed_forward_dim == 0 and config.positions != "learned"


def pieces(config: DecoderConfig, shapes: Mapping[str, Any]) -> Iterator[Piece]:
    """Every tensor of a checkpoint.

    Args:
        config: of the decoder.
        shapes: its parameters by name.
    """
    names = _NAMES[config.layer_mixers[0]]
    around = {
        "embedding": "backbone.embeddings.weight",
        "norm.weight": "backbone.norm_f.weight",
        "head": HEAD,
    }
    for name, parameter in shapes.items():
        there = around.get(name)
        if there is None:
            _, layer, rest = name.split(".", 2)
            inner = "norm.weight" if rest == "mixer_norm.weight" else f"mixer.{names[rest.partition('.')[2]]}"
            there = f"backbone.layers.{layer}.{inner}"
        yield Piece(there, name, (0, parameter.shape[0]))


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """What of config.json is Mamba's own."""
    kind = config.layer_mixers[0]
    settings: Any
    if kind == "mamba":
        settings = settings_of(config, kind, MambaSettings)
        own = {"time_step_rank": settings.rank or -(-config.dim // 16), "time_step_init_scheme": "random"}
    else:
        settings = settings_of(config, kind, Mamba2Settings)
        own = {
            "num_heads": settings.expand * config.dim // settings.head_dim,
            "head_dim": settings.head_dim,
            "n_groups": settings.groups,
            "chunk_size": settings.chunk,
        }
        if (settings.step_low, settings.step_high) != (0.0, math.inf):
            own["time_step_limit"] = [settings.step_low, settings.step_high]
    return {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "state_size": settings.state,
        "expand": settings.expand,
        "conv_kernel": settings.conv,
        "use_conv_bias": settings.conv_bias,
        "use_bias": False,
        "hidden_act": "silu",
        "initializer_range": config.init_std,
        "layer_norm_epsilon": config.norm_eps,
        "residual_in_fp32": True,
        "time_step_min": settings.step_min,
        "time_step_max": settings.step_max,
        "time_step_floor": settings.step_floor,
        "tie_word_embeddings": config.tie_embeddings,
        **own,
    }


def read_config(given: Mapping[str, Any], place: str) -> DecoderConfig:
    """The shape that a config.json describes.

    Args:
        given: what it holds; its model_type is one of `ARCHITECTURES`.
        place: its path, for messages.

    Raises:
        DataError: for a variant that is not supported, or values that do not fit.
    """
    kind = given["model_type"]

    def number(name: str, default: float) -> Any:
        value = given.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"{place}: {name} is {value!r}; it must be a number")
        return value

    if given.get("use_bias"):
        raise DataError(f"{place}: use_bias is true; only projections without biases are supported")
    if given.get("hidden_act", "silu") != "silu":
        raise DataError(f"{place}: hidden_act is {given['hidden_act']!r}; only silu is supported")
    dim = number("hidden_size", 768 if kind == "mamba" else 4096)
    settings: dict[str, Any] = {
        "state": number("state_size", 16 if kind == "mamba" else 128),
        "expand": number("expand", 2),
        "conv": number("conv_kernel", 4),
        "conv_bias": bool(given.get("use_conv_bias", True)),
        "step_min": number("time_step_min", 0.001),
        "step_max": number("time_step_max", 0.1),
        "step_floor": number("time_step_floor", 1e-4),
    }
    if kind == "mamba":
        rank = given.get("time_step_rank", "auto")
        settings["rank"] = None if rank == "auto" else number("time_step_rank", 0)
    else:
        settings |= {
            "head_dim": number("head_dim", 64),
            "groups": number("n_groups", 8),
            "chunk": min(number("chunk_size", 256), Mamba2Settings.chunk),  # the sum is the same
        }
        low, high = _limit(given.get("time_step_limit"), place)
        settings |= {"step_low": low, "step_high": high}
    try:
        return DecoderConfig(
            vocab_size=number("vocab_size", 50280 if kind == "mamba" else 32768),
            dim=dim,
            layers=number("num_hidden_layers", 32 if kind == "mamba" else 64),
            heads=1,
            ffn_dim=0,
            max_length=LONGEST,
            positions="none",
            norm_eps=float(number("layer_norm_epsilon", 1e-5)),
            tie_embeddings=bool(given.get("tie_word_embeddings", kind == "mamba")),
            mixers=(kind,),
            mixer_settings={kind: settings},
            init_std=float(number("initializer_range", 0.1)),
        )
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


def _limit(given: Any, place: str) -> tuple[float, float]:
    """The bounds of the steps; JSON has no infinity, so files write it in several ways."""
    if given is None:
        return 0.0, math.inf
    try:
        low, high = (float(each["__float__"] if isinstance(each, dict) else each) for each in given)
    except (TypeError, ValueError, KeyError):
        raise DataError(f"{place}: time_step_limit is {given!r}; it must be two numbers") from None
    return low, high
