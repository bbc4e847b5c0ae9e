"""Shapes of well-known language models and of checkpoints, as far as memory depends on them.

    find("LLaMA-65B").parameters
    find("checkpoint/")                 # or its config.json, a run, or an id on the Hugging Face hub

Sizes of LLaMA are those of Touvron et al. 2023a (table 2) and 2023b (Llama 2, §2.2), of GPT-2 those of
Radford et al. 2019 (table 2), of Pythia those of Biderman et al. 2023 (table 1), and of OPT those of
Zhang et al. 2022 (table 1); the rest (vocabularies, widths of feed-forward layers) is that of the released
config.json files.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posterhall.errors import DataError, MissingExtra, did_you_mean
from posterhall.extras import require

Family = Literal["llama", "gpt2", "gpt_neox", "opt"]

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LARGEST_JSON = 1 << 24


@dataclass(frozen=True)
class Projection:
    """A linear layer of each block, as checkpoints have it."""

    name: str
    """Last part of its path."""
    outputs: int
    inputs: int


@dataclass(frozen=True)
class Architecture:
    """A decoder's shape.

    Raises:
        DataError: if a size is below 1, or the heads do not share the width.
    """

    name: str
    """For people."""
    family: Family
    """How its blocks are made: of Llama (gated feed-forward, no biases), GPT-2, GPT-NeoX (Pythia) or OPT."""
    vocab_size: int
    """Rows of the embedding."""
    dim: int
    """Width D of the residual stream."""
    layers: int
    """Blocks."""
    heads: int
    """Query heads."""
    ffn_dim: int
    """Width F of the feed-forward layer."""
    kv_heads: int | None = None
    """Key and value heads; None: as many as `heads`."""
    head_dim: int | None = None
    """Entries of a head; None: dim / heads."""
    tied: bool = False
    """Whether the head is the embedding."""
    positions: int = 0
    """Rows of a table of learned positions; 0: there is none."""
    biases: bool = False
    """Llama: whether queries, keys and values have biases (Qwen 2)."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim", "layers", "heads", "ffn_dim", "key_value_heads", "head_size"):
            if getattr(self, name) < 1:
                raise DataError(f"{self.name}: {name} is {getattr(self, name)}; it must be at least 1")
        if self.heads % self.key_value_heads:
            raise DataError(
                f"{self.name}: {self.key_value_heads} heads of keys for {self.heads} of queries; the first "
                "must divide the second"
            )

    @property
    def key_value_heads(self) -> int:
        """`kv_heads`, resolved."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_size(self) -> int:
        """`head_dim`, resolved."""
        return self.dim // self.heads if self.head_dim is None else self.head_dim

    @property
    def query_dim(self) -> int:
        """Entries of all query heads."""
        return self.heads * self.head_size

    @property
    def key_dim(self) -> int:
        """Entries of all key heads, and of all value heads."""
        return self.key_value_heads * self.head_size

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layer has a gate: three matrices instead of two."""
        return self.family == "llama"

    @functools.cached_property
    def projections(self) -> tuple[Projection, ...]:
        """The linear layers of one block."""
        dim, width, queries, keys = self.dim, self.ffn_dim, self.query_dim, self.key_dim
        apart = (
            Projection("q_proj", queries, dim),
            Projection("k_proj", keys, dim),
            Projection("v_proj", keys, dim),
        )
        if self.family == "llama":
            return (
                *apart,
                Projection("o_proj", dim, queries),
                Projection("gate_proj", width, dim),
                Projection("up_proj", width, dim),
                Projection("down_proj", dim, width),
            )
        if self.family == "opt":
            return (
                *apart,
                Projection("out_proj", dim, queries),
                Projection("fc1", width, dim),
                Projection("fc2", dim, width),
            )
        names = {
            "gpt2": ("c_attn", "c_proj", "c_fc", "c_proj"),
            "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
        }[self.family]
        sizes = ((queries + 2 * keys, dim), (dim, queries), (width, dim), (dim, width))
        return tuple(Projection(name, *size) for name, size in zip(names, sizes, strict=True))

    @property
    def linear_parameters(self) -> int:
        """Of the linear layers of all blocks: what is quantised."""
        return self.layers * sum(each.outputs * each.inputs for each in self.projections)

    @property
    def embedding_parameters(self) -> int:
        """Of embedding, learned positions, and an untied head."""
        return (self.vocab_size * (1 if self.tied else 2) + self.positions) * self.dim

    @property
    def vector_parameters(self) -> int:
        """Gains and biases."""
        dim = self.dim
        if self.family == "llama":
            block = 2 * dim + (self.query_dim + 2 * self.key_dim if self.biases else 0)
            return self.layers * block + dim
        return self.layers * (4 * dim + sum(each.outputs for each in self.projections)) + 2 * dim

    @property
    def parameters(self) -> int:
        """All of them, a tied matrix once."""
        return self.linear_parameters + self.embedding_parameters + self.vector_parameters

    def adapter_parameters(self, rank: int) -> int:
        """Of LoRA on all linear layers: rank (inputs + outputs) each."""
        return self.layers * sum(rank * (each.inputs + each.outputs) for each in self.projections)


def _llama(name: str, dim: int, layers: int, heads: int, width: int, **others: Any) -> Architecture:
    return Architecture(name, "llama", others.pop("vocab_size", 32_000), dim, layers, heads, width, **others)


def _gpt2(name: str, dim: int, layers: int, heads: int) -> Architecture:
    return Architecture(name, "gpt2", 50_257, dim, layers, heads, 4 * dim, tied=True, positions=1024)


def _pythia(name: str, dim: int, layers: int, heads: int, vocab_size: int = 50_304) -> Architecture:
    return Architecture(name, "gpt_neox", vocab_size, dim, layers, heads, 4 * dim)


def _opt(name: str, dim: int, layers: int, heads: int) -> Architecture:
    # Its positions are counted from 2.
    return Architecture(name, "opt", 50_272, dim, layers, heads, 4 * dim, tied=True, positions=2050)


KNOWN: dict[str, Architecture] = {
    each.name: each
    for each in (
        _llama("LLaMA-7B", 4096, 32, 32, 11_008),
        _llama("LLaMA-13B", 5120, 40, 40, 13_824),
        _llama("LLaMA-33B", 6656, 60, 52, 17_920),
        _llama("LLaMA-65B", 8192, 80, 64, 22_016),
        _llama("Llama-2-7B", 4096, 32, 32, 11_008),
        _llama("Llama-2-13B", 5120, 40, 40, 13_824),
        _llama("Llama-2-70B", 8192, 80, 64, 28_672, kv_heads=8),
        _llama("Llama-3-8B", 4096, 32, 32, 14_336, kv_heads=8, vocab_size=128_256),
        _llama("Llama-3-70B", 8192, 80, 64, 28_672, kv_heads=8, vocab_size=128_256),
        _llama("Mistral-7B", 4096, 32, 32, 14_336, kv_heads=8),
        _gpt2("GPT-2", 768, 12, 12),
        _gpt2("GPT-2-medium", 1024, 24, 16),
        _gpt2("GPT-2-large", 1280, 36, 20),
        _gpt2("GPT-2-XL", 1600, 48, 25),
        _pythia("Pythia-70M", 512, 6, 8),
        _pythia("Pythia-160M", 768, 12, 12),
        _pythia("Pythia-410M", 1024, 24, 16),
        _pythia("Pythia-1B", 2048, 16, 8),
        _pythia("Pythia-1.4B", 2048, 24, 16),
        _pythia("Pythia-2.8B", 2560, 32, 32),
        _pythia("Pythia-6.9B", 4096, 32, 32, 50_432),
        _pythia("Pythia-12B", 5120, 36, 40, 50_688),
        _opt("OPT-125M", 768, 12, 12),
        _opt("OPT-1.3B", 2048, 24, 32),
        _opt("OPT-2.7B", 2560, 32, 32),
        _opt("OPT-6.7B", 4096, 32, 32),
        _opt("OPT-13B", 5120, 40, 40),
        _opt("OPT-30B", 7168, 48, 56),
        _opt("OPT-66B", 9216, 64, 72),
    )
}
"""By name. Upper and lower case, and hyphens, do not matter to `find`."""
_ALIASES = {"llama30b": "LLaMA-33B", "gpt2small": "GPT-2"}


def find(name: str | Path) -> Architecture:
    """An architecture by its name, or that of a checkpoint.

    Args:
        name: one of `KNOWN`; a directory with a config.json, that file, or a training run; or an id on the
            Hugging Face hub, of which the config.json alone is fetched.

    Raises:
        DataError: if there is no such thing, or its architecture is not known here.
        MissingExtra: for an id of the hub without huggingface_hub.
    """
    text, path = str(name), Path(name)
    known = {_plain(each): architecture for each, architecture in KNOWN.items()}
    known |= {alias: KNOWN[each] for alias, each in _ALIASES.items()}
    if _plain(text) in known and not path.exists():
        return known[_plain(text)]
    if path.is_file():
        return _read(path)
    if path.is_dir():
        from posterhall.models import hub

        return _read(hub.locate(path) / hub.CONFIG)
    if _ID.fullmatch(text):
        return _read(_fetched(text), text)
    raise DataError(
        f"no architecture '{text}', and no such directory; there are {', '.join(KNOWN)}."
        f"{did_you_mean(text, KNOWN)} Or give a checkpoint's directory, its config.json, or an id of the hub "
        "(owner/name)"
    )


def of_config(given: Mapping[str, Any], place: str, name: str | None = None) -> Architecture:
    """The shape that a config.json describes.

    Args:
        given: what it holds.
        place: its path, for messages.
        name: of the architecture; None: its place.

    Raises:
        DataError: for a kind of model that is not known here, or a size that is not there.
    """
    kind = given.get("model_type")
    readers = {
        "llama": _of_llama,
        "mistral": _of_llama,
        "qwen2": _of_llama,
        "gpt2": _of_gpt2,
        "gpt_neox": _of_neox,
        "opt": _of_opt,
    }
    if kind not in readers:
        raise DataError(
            f"{place}: model_type is {kind!r}; memory can be planned for {', '.join(readers)}, or for a "
            f"known name ({', '.join(list(KNOWN)[:4])}, ...)"
        )

    def number(key: str, default: int | None = None) -> int:
        value = given.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int):
            raise DataError(f"{place}: {key} is {value!r}; it must be a whole number")
        return value

    fields = readers[kind](given, number)
    return Architecture(name or place, vocab_size=number("vocab_size"), **fields)


def _of_llama(given: Mapping[str, Any], number: Any) -> dict[str, Any]:
    heads = number("num_attention_heads")
    return {
        "family": "llama",
        "dim": number("hidden_size"),
        "layers": number("num_hidden_layers"),
        "heads": heads,
        "ffn_dim": number("intermediate_size"),
        "kv_heads": number("num_key_value_heads", heads),
        "head_dim": number("head_dim", number("hidden_size") // max(1, heads)),
        "tied": bool(given.get("tie_word_embeddings", False)),
        "biases": bool(given.get("attention_bias", given["model_type"] == "qwen2")),
    }


def _of_gpt2(given: Mapping[str, Any], number: Any) -> dict[str, Any]:
    return {
        "family": "gpt2",
        "dim": number("n_embd"),
        "layers": number("n_layer"),
        "heads": number("n_head"),
        "ffn_dim": number("n_inner", 4 * number("n_embd")),
        "tied": bool(given.get("tie_word_embeddings", True)),
        "positions": number("n_positions", 1024),
    }


def _of_neox(given: Mapping[str, Any], number: Any) -> dict[str, Any]:
    return {
        "family": "gpt_neox",
        "dim": number("hidden_size"),
        "layers": number("num_hidden_layers"),
        "heads": number("num_attention_heads"),
        "ffn_dim": number("intermediate_size"),
        "tied": bool(given.get("tie_word_embeddings", False)),
    }


def _of_opt(given: Mapping[str, Any], number: Any) -> dict[str, Any]:
    if given.get("word_embed_proj_dim") not in (None, given.get("hidden_size")):
        raise DataError("OPT-350M has an embedding narrower than its blocks, which is not planned for")
    return {
        "family": "opt",
        "dim": number("hidden_size"),
        "layers": number("num_hidden_layers"),
        "heads": number("num_attention_heads"),
        "ffn_dim": number("ffn_dim"),
        "tied": bool(given.get("tie_word_embeddings", True)),
        "positions": number("max_position_embeddings") + 2,
    }


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def _read(path: Path, name: str | None = None) -> Architecture:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes; that is no config.json")
        given = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); give a model's config.json") from None
    if not isinstance(given, dict):
        raise DataError(f"{path}: a {type(given).__name__}; a model's config.json holds an object")
    return of_config(
        given, str(path), name or (path.parent.name if path.name == "config.json" else path.stem)
    )


def _fetched(name: str) -> Path:
    try:
        hub = require("huggingface_hub", "hf", f"fetching {name}")
    except MissingExtra as error:
        raise MissingExtra("hf", f"there is no directory {name}, and fetching it from the hub") from error
    try:
        return Path(hub.hf_hub_download(name, "config.json"))
    except Exception as error:  # its own errors, requests', the system's: all mean the same here
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"there is no directory {name}, and the hub has none to give: {reason}") from error
