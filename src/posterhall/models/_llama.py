"""Llama's checkpoints: the names of tensors and settings there, and here.

Nothing here reads or writes files; `hub` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from posterhall.errors import DataError
from posterhall.models.config import DecoderConfig

ARCHITECTURE = "LlamaForCausalLM"
MODEL_TYPE = "llama"
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class Piece:
    """A tensor of a checkpoint, and the rows of a parameter that it is."""

    name: str
    """In the checkpoint."""
    parameter: str
    """Here."""
    rows: tuple[int, int]
    """The first of its rows there and the one after the last."""


def pieces(config: DecoderConfig) -> Iterator[Piece]:
    """Every tensor of a checkpoint of this shape."""
    dim, width = config.dim, config.feed_forward_dim
    keys = config.key_value_heads * config.head_dim
    yield Piece(EMBEDDING, "embedding", (0, config.vocab_size))
    for layer in range(config.layers):
        there, here = f"model.layers.{layer}", f"blocks.{layer}"
        yield Piece(f"{there}.input_layernorm.weight", f"{here}.mixer_norm.weight", (0, dim))
        start = 0
        for part, rows in (("q", dim), ("k", keys), ("v", keys)):
            yield Piece(
                f"{there}.self_attn.{part}_proj.weight", f"{here}.mixer.qkv.weight", (start, start + rows)
            )
            start += rows
        yield Piece(f"{there}.self_attn.o_proj.weight", f"{here}.mixer.out.weight", (0, dim))
        yield Piece(f"{there}.post_attention_layernorm.weight", f"{here}.feed_forward_norm.weight", (0, dim))
        fused = f"{here}.feed_forward.gate_up.weight"
        yield Piece(f"{there}.mlp.gate_proj.weight", fused, (0, width))
        yield Piece(f"{there}.mlp.up_proj.weight", fused, (width, 2 * width))
        yield Piece(f"{there}.mlp.down_proj.weight", f"{here}.feed_forward.down.weight", (0, dim))
    yield Piece("model.norm.weight", "norm.weight", (0, dim))
    if not config.tie_embeddings:
        yield Piece(HEAD, "head", (0, config.vocab_size))


def projections(config: DecoderConfig) -> dict[str, tuple[tuple[str, int], ...]]:
    """By the path of each linear layer of a decoder: (path in a checkpoint, rows) of the matrices that are
    one here, from the first row to the last. Of mixers other than attention there is none."""
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for piece in pieces(config):
        here, _, kind = piece.parameter.rpartition(".")
        layer = here.split(".")
        if kind != "weight" or layer[0] != "blocks" or layer[-1].endswith("norm"):
            continue
        if layer[2] == "mixer" and config.layer_mixers[int(layer[1])] != "attention":
            continue
        first, last = piece.rows
        found[here] = (*found.get(here, ()), (piece.name.removesuffix(".weight"), last - first))
    return found


def write_config(
    config: DecoderConfig, *, dtype: str, bos: int | None, eos: int | None, pad: int | None
) -> dict[str, Any]:
    """config.json of a decoder.

    Raises:
        DataError: if it is not of Llama's architecture.
    """
    others = sorted({name for name in config.mixers if name != "attention"})
    if others:
        raise DataError(
            f"cannot save a decoder with the mixers {', '.join(others)} as a Llama checkpoint; only attention"
        )
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.feed_forward_dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_length,
        "initializer_range": config.init_std,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        # transformers 5 reads the second, those before it the first.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def read_config(given: Mapping[str, Any], place: str) -> DecoderConfig:
    """The shape that a config.json describes.

    Args:
        given: what it holds.
        place: its path, for messages.

    Raises:
        DataError: for another architecture, or a variant of this one that is not supported.
    """
    kind = given.get("model_type")
    if kind != MODEL_TYPE:
        architectures = given.get("architectures")
        raise DataError(
            f"{place}: model_type {kind!r} (architectures {architectures!r}); supported is '{MODEL_TYPE}' "
            f"({ARCHITECTURE})"
        )

    def number(name: str, default: float | None = None) -> Any:
        value = given.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"{place}: {name} is {value!r}; it must be a number")
        return value

    def whole(name: str, default: int | None = None) -> int:
        value = number(name, default)
        if not isinstance(value, int):
            raise DataError(f"{place}: {name} is {value!r}; it must be a whole number")
        return value

    for name in ("attention_bias", "mlp_bias"):
        if given.get(name):
            raise DataError(f"{place}: {name} is {given[name]!r}; only Llamas without biases are supported")
    if given.get("hidden_act", "silu") != "silu":
        raise DataError(f"{place}: hidden_act is {given['hidden_act']!r}; only silu is supported")
    dim, heads = whole("hidden_size"), whole("num_attention_heads")
    head_dim = whole("head_dim", dim // heads if heads > 0 else 0)
    if head_dim * heads != dim:
        raise DataError(
            f"{place}: head_dim {head_dim} x {heads} heads is not the hidden_size {dim}; "
            "only heads that share it evenly are supported"
        )
    try:
        return DecoderConfig(
            vocab_size=whole("vocab_size"),
            dim=dim,
            layers=whole("num_hidden_layers"),
            heads=heads,
            kv_heads=whole("num_key_value_heads", heads),
            ffn_dim=whole("intermediate_size"),
            max_length=whole("max_position_embeddings", 2048),
            rope_theta=_theta(given, number("rope_theta", 10000.0), place),
            norm_eps=float(number("rms_norm_eps", 1e-6)),
            tie_embeddings=bool(given.get("tie_word_embeddings", False)),
            init_std=float(number("initializer_range", 0.02)),
        )
    except DataError as error:
        text = str(error)
        raise error if text.startswith(place) else DataError(f"{place}: {text}") from None


def _theta(given: Mapping[str, Any], plain: float, place: str) -> float:
    """The base of the rotary wavelengths; scaled ones are refused."""
    theta = plain
    for name in ("rope_parameters", "rope_scaling"):
        found = given.get(name)
        if found is None:
            continue
        kind = found.get("rope_type", found.get("type", "default")) if isinstance(found, dict) else found
        if kind != "default":
            raise DataError(
                f"{place}: {name} scales the rotary positions ({kind!r}); only plain ones are supported, "
                "whose rope_type is 'default'"
            )
        theta = found.get("rope_theta", theta)
    if isinstance(theta, bool) or not isinstance(theta, int | float):
        raise DataError(f"{place}: rope_theta is {theta!r}; it must be a number")
    return float(theta)
