"""The shape of a decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from posterhall.errors import DataError, did_you_mean

Positions = Literal["rotary", "learned", "none"]
"""How a decoder tells where a token stands."""
FeedForwardKind = Literal["dense", "monarch", "block_diagonal"]
"""What the matrices of feed-forward layers are; see `posterhall.models.monarch`."""
Scalar = bool | int | float | str | None
"""A value of a mixer's settings."""

_FFN_MULTIPLE = 64


@dataclass(frozen=True)
class DecoderConfig:
    """A pre-norm decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention (Llama's shape).

    Touvron et al. 2023 (arXiv 2302.13971), §2.2; grouped queries: Ainslie et al. 2023. With other mixers,
    without feed-forward layers (Mamba) or with other positions it is another architecture on the same
    residual stream.

    Raises:
        DataError: if a value is out of range or two do not fit together.
    """

    vocab_size: int
    """Tokens, >= 1."""
    dim: int = 256
    """Width D of the residual stream, a multiple of 2 x heads (of the heads without rotary positions)."""
    layers: int = 4
    """Blocks of a mixer and a feed-forward layer, >= 1."""
    heads: int = 4
    """Query heads; each has dim / heads entries, an even number with rotary positions."""
    kv_heads: int | None = None
    """Key and value heads, a divisor of `heads`; None: as many as `heads`."""
    ffn_dim: int | None = None
    """Width of the feed-forward layer; None: 8/3 dim (as many parameters as 4 dim without a gate),
    rounded up to a multiple of 64; 0: blocks have none."""
    ffn: FeedForwardKind = "dense"
    """Matrices of the feed-forward layer: dense ones, Monarch's (two block-diagonal factors and a
    permutation between; Dao et al. 2022), or block-diagonal ones (M2-BERT; Fu et al. 2023)."""
    ffn_blocks: int = 4
    """Blocks of its matrices where they are not dense, >= 2 (M2-BERT: 4): a divisor of dim and ffn_dim, and
    for monarch its square one of the lesser of the two."""
    max_length: int = 1024
    """Longest sequence, in tokens."""
    positions: Positions = "rotary"
    """Attention turns queries and keys by their positions (rotary); each position has a vector that is
    added to the embedding (learned); or nothing tells where a token stands but the mixers' own order
    (none)."""
    rope_theta: float = 10000.0
    """Base of the rotary wavelengths (Su et al. 2021, eq. 15), > 0."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm, > 0."""
    tie_embeddings: bool = True
    """One matrix for the embedding and the head."""
    mixers: tuple[str, ...] = ("attention",)
    """The sequence mixer of every layer: one name for all, or one a layer; see
    `posterhall.models.mixers.MIXERS`."""
    mixer_settings: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict, hash=False)
    """Settings of mixers by their name, {"mamba": {"state": 32}}; what is left out keeps its default."""
    dropout: float = 0.0
    """Share of entries dropped after the embedding, each mixer and each feed-forward layer, in [0, 1)."""
    init_std: float = 0.02
    """Standard deviation of the initial weights; those that write into the residual stream get it divided
    by sqrt(2 layers) (GPT-2)."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim", "layers", "heads", "max_length"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, least in (("kv_heads", 1), ("ffn_dim", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise DataError(f"{name} is {value}; it must be at least {least}, or left out")
        if self.positions not in get_args(Positions):
            raise DataError(
                f"positions is {self.positions!r}; it must be one of: {', '.join(get_args(Positions))}"
            )
        for name in ("rope_theta", "norm_eps", "init_std"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise DataError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.positions == "rotary" and self.dim % (2 * self.heads):
            raise DataError(
                f"dim is {self.dim} with {self.heads} heads; it must be a multiple of {2 * self.heads} "
                "(twice the heads: rotary positions turn pairs of entries)"
            )
        if self.dim % self.heads:
            raise DataError(f"dim is {self.dim} with {self.heads} heads; it must be a multiple of them")
        if self.heads % self.key_value_heads:
            raise DataError(f"kv_heads is {self.kv_heads}; it must divide the {self.heads} heads")
        self._check_feed_forward()
        if not 0 <= self.dropout < 1:
            raise DataError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if len(self.mixers) not in (1, self.layers) or not all(self.mixers):
            raise DataError(
                f"mixers has {len(self.mixers)} names for {self.layers} layers; give one for all of them, "
                "or one a layer"
            )
        for name, given in self.mixer_settings.items():
            if name not in self.mixers:
                raise DataError(
                    f"mixer_settings has '{name}'; the model mixes by "
                    f"{', '.join(dict.fromkeys(self.mixers))}." + did_you_mean(name, self.mixers)
                )
            if not isinstance(given, Mapping):
                raise DataError(f"mixer_settings of {name} are {given!r}; give its settings by name")
        # Lists as they come from files, and copies that nobody else changes.
        object.__setattr__(self, "mixers", tuple(self.mixers))
        object.__setattr__(
            self, "mixer_settings", {name: dict(each) for name, each in self.mixer_settings.items()}
        )

    def _check_feed_forward(self) -> None:
        if self.ffn not in get_args(FeedForwardKind):
            raise DataError(f"ffn is {self.ffn!r}; it must be one of: {', '.join(get_args(FeedForwardKind))}")
        if self.ffn == "dense":
            return
        if not self.feed_forward_dim:
            raise DataError(f"ffn is {self.ffn}, and with ffn_dim 0 there are no feed-forward layers")
        fitting = blocks_that_fit(self.ffn, self.feed_forward_shapes)
        if self.ffn_blocks not in fitting:
            rule = "divide both" + (", and its square the lesser" if self.ffn == "monarch" else "")
            raise DataError(
                f"ffn_blocks is {self.ffn_blocks} with dim {self.dim} and ffn_dim {self.feed_forward_dim}; "
                f"for {self.ffn} it must {rule}: "
                + (f"{', '.join(map(str, fitting))} would" if fitting else "no number does; take other sizes")
            )

    @property
    def head_dim(self) -> int:
        """Entries of a head."""
        return self.dim // self.heads

    @property
    def key_value_heads(self) -> int:
        """`kv_heads`, resolved."""
        return self.kv_heads or self.heads

    @property
    def feed_forward_dim(self) -> int:
        """`ffn_dim`, resolved; 0: there are no feed-forward layers."""
        if self.ffn_dim is not None:
            return self.ffn_dim
        return -(-8 * self.dim // (3 * _FFN_MULTIPLE)) * _FFN_MULTIPLE

    @property
    def feed_forward_shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(inputs, outputs) of its two matrices: gate and up together, and down."""
        return (self.dim, 2 * self.feed_forward_dim), (self.feed_forward_dim, self.dim)

    @property
    def layer_mixers(self) -> tuple[str, ...]:
        """The name of each layer's mixer."""
        return self.mixers if len(self.mixers) == self.layers else self.mixers * self.layers


def blocks_that_fit(kind: FeedForwardKind, shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Numbers of blocks, from 2 on, that all matrices (inputs, outputs) of a kind can have."""
    common = math.gcd(*(size for shape in shapes for size in shape))
    inner = math.gcd(*(min(shape) for shape in shapes))
    return [
        blocks
        for blocks in range(2, common + 1)
        if common % blocks == 0 and (kind != "monarch" or inner % blocks**2 == 0)
    ]


def parsed_mixers(arm: str) -> tuple[list[str], dict[str, dict[str, Scalar]]]:
    """The mixers that a model of a comparison has, and their settings by mixer: of `mamba`,
    `based:feature_dim=8:window=32`, or several such with + between, which take turns over the layers.

    Raises:
        DataError: for another form.
    """
    names, entries = [], []
    for part in arm.split("+"):
        name, *given = (each.strip() for each in part.split(":"))
        if not name or not all("=" in each for each in given):
            raise DataError(
                f"'{arm}' among the mixers; write a name, name:setting=value:setting=value, or several such "
                "with + between"
            )
        names.append(name)
        entries += [f"{name}.{each}" for each in given]
    return names, mixer_settings(entries)


def mixer_settings(entries: Sequence[str]) -> dict[str, dict[str, Scalar]]:
    """What `mixer_settings` is where settings are flat: `mamba.state=32` says {"mamba": {"state": "32"}}.

    Raises:
        DataError: for an entry of another form, or a setting given twice.
    """
    found: dict[str, dict[str, Scalar]] = {}
    for entry in entries:
        place, equals, value = entry.partition("=")
        mixer, dot, name = place.strip().partition(".")
        if not (equals and dot and mixer and name):
            raise DataError(f"mixer_settings has '{entry}'; write mixer.setting=value, as mamba.state=32")
        if name in found.setdefault(mixer, {}):
            raise DataError(f"mixer_settings gives {mixer}.{name} twice; keep one of the two")
        found[mixer][name] = value.strip()
    return found
