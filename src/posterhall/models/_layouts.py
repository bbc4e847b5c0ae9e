"""How a decoder lies in a directory: as a Llama, a Mamba or a Mamba-2 where it is one, so that transformers
reads it, and otherwise under its own names.

Nothing here reads or writes files; `hub` does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from posterhall.config import finite, plain
from posterhall.errors import DataError, did_you_mean
from posterhall.models import _llama, _mamba_files
from posterhall.models._llama import Piece
from posterhall.models.config import DecoderConfig
from posterhall.models.mixers import MIXERS

if TYPE_CHECKING:
    from posterhall.models.decoder import Decoder

MODEL_TYPE = "posterhall_decoder"
"""Of decoders that are no one else's architecture."""
_FIELDS = {field.name: field for field in dataclasses.fields(DecoderConfig)}


def is_llama(config: DecoderConfig) -> bool:
    """Whether a decoder is a Llama."""
    return (
        set(config.mixers) == {"attention"}
        and config.positions == "rotary"
        and config.feed_forward_dim > 0
        and config.ffn == "dense"
    )


def pieces(model: Decoder) -> list[Piece]:
    """Every tensor of a model's checkpoint."""
    if is_llama(model.config):
        return list(_llama.pieces(model.config))
    held = model.state_dict()
    if _mamba_files.is_one(model.config):
        return list(_mamba_files.pieces(model.config, held))
    return [Piece(name, name, (0, each.shape[0])) for name, each in held.items()]


def projections(model: Decoder) -> dict[str, tuple[tuple[str, int], ...]]:
    """By the path of each linear layer: (path in a checkpoint, rows) of the matrices that are one here; of
    checkpoints under our own names, and of other mixers beside attention, there is none."""
    if not _mamba_files.is_one(model.config):
        return _llama.projections(model.config)
    from posterhall.models.layers import Linear

    linear = {path: each.weight for path, each in model.named_modules() if isinstance(each, Linear)}
    there = {piece.parameter: piece.name.removesuffix(".weight") for piece in pieces(model)}
    return {path: ((there[f"{path}.weight"], len(weight)),) for path, weight in linear.items()}


def write_config(
    model: Decoder, *, dtype: str, bos: int | None, eos: int | None, pad: int | None
) -> dict[str, Any]:
    """config.json of a decoder.

    Raises:
        DataError: if it has mixers of the caller's own, which nobody could make again.
    """
    config = model.config
    others = sorted(set(config.mixers) - MIXERS.keys())
    if others:
        raise DataError(
            f"cannot save a decoder with the mixers {', '.join(others)}: who reads it does not know "
            "them; save its state_dict() yourself"
        )
    if is_llama(config):
        return _llama.write_config(config, dtype=dtype, bos=bos, eos=eos, pad=pad)
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    if _mamba_files.is_one(config):
        written = _mamba_files.write_config(config)
    else:
        own = plain({name: getattr(config, name) for name in _FIELDS})
        for name, block in zip(config.layer_mixers, model.blocks, strict=True):
            # In full: defaults may be others one day.
            settings = getattr(block.mixer, "settings", None)
            if dataclasses.is_dataclass(settings):
                own["mixer_settings"][name] = plain(settings)
        written = {"architectures": ["PosterhallDecoder"], "model_type": MODEL_TYPE, **finite(own, str)}
    return {**written, **ids, "use_cache": True, "dtype": dtype, "torch_dtype": dtype}


def read_config(given: Mapping[str, Any], place: str) -> DecoderConfig:
    """The shape that a config.json describes.

    Args:
        given: what it holds.
        place: its path, for messages.

    Raises:
        DataError: for another architecture, or a variant of one that is not supported.
    """
    kind = given.get("model_type")
    if kind in _mamba_files.ARCHITECTURES:
        return _mamba_files.read_config(given, place)
    if kind != MODEL_TYPE:
        return _llama.read_config(given, place)
    known = {name: given[name] for name in _FIELDS if name in given}
    others = {
        "architectures", "model_type", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "dtype",
        "torch_dtype", "transformers_version",
        "id2label", "label2id", "reward_offset",  # of a reward model
    }  # fmt: skip
    strange = sorted(given.keys() - known.keys() - others)
    if strange:
        raise DataError(f"{place}: unknown setting '{strange[0]}'.{did_you_mean(strange[0], _FIELDS)}")
    try:
        return DecoderConfig(**known)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    except (TypeError, AttributeError) as error:
        raise DataError(f"{place}: does not describe a decoder: {error}") from None
