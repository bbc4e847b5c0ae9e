"""The shape of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from posterhall.errors import DataError
from posterhall.models.config import DecoderConfig, Positions, Scalar

RECURRENT = ("lstm", "gru")
"""Baselines that are no mixers: a stack of torch's own layers, without norms and residuals."""
BOTH_WAYS = ("s4", "s4d", "s5", "long_conv", "mega", "performer")
"""Mixers with a setting `bidirectional`."""
WHOLE = ("s4", "s4d", "s5", "long_conv", "mamba", "mamba2")
"""Mixers that mix channels by a gate of their own, and are stacked without feed-forward layers in their
papers."""


@dataclass(frozen=True)
class ClassifierConfig:
    """The shape of a classifier. Give `vocab` for tokens, or `channels` for samples.

    Raises:
        DataError: if a value is out of range or two do not fit together.
    """

    classes: int
    """Classes, >= 2."""
    channels: int | None = None
    """Numbers at each position, >= 1, of samples; None: rows are tokens."""
    vocab: int | None = None
    """Tokens, padding (0) included, >= 2; None: rows are samples."""
    pairs: bool = False
    """Classify two rows at a time, by their means u and v as [u, v, u - v, u * v] (the Long Range Arena's
    retrieval)."""
    max_length: int = 1024
    """Longest row; longer ones are an error, never cut."""
    dim: int = 64
    """Width D."""
    layers: int = 2
    """Layers, >= 1."""
    heads: int = 4
    """Heads, of mixers that have them."""
    mixers: tuple[str, ...] = ("s4d",)
    """One of `posterhall.models.mixers.MIXERS` for all layers, or one a layer; or lstm or gru alone."""
    mixer_settings: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict, hash=False)
    """See `DecoderConfig`."""
    both_ways: bool = False
    """Let see what comes after each position what can: `BOTH_WAYS`, attention, lstm, gru."""
    positions: Positions = "rotary"
    """Of attention and windows: rotary; a vector for each position, for all mixers (learned); or none."""
    feed_forward: float | None = None
    """Width of feed-forward layers (SwiGLU) by the model's; 0: there are none; None: 2, and none after
    `WHOLE`."""
    dropout: float = 0.0
    """Share of entries dropped after the input, each mixer and each feed-forward layer, in [0, 1)."""

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise DataError(f"classes is {self.classes}; it must be at least 2")
        if (self.channels is None) == (self.vocab is None):
            raise DataError(
                f"channels is {self.channels} and vocab {self.vocab}; give one of them: channels of samples, "
                "or the number of tokens"
            )
        for name, least in (("channels", 1), ("vocab", 2), ("dim", 1), ("layers", 1), ("max_length", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise DataError(f"{name} is {value}; it must be at least {least}")
        if self.feed_forward is not None and not 0 <= self.feed_forward <= 64:
            raise DataError(f"feed_forward is {self.feed_forward}; it must be from 0 to 64, or none")
        if not 0 <= self.dropout < 1:
            raise DataError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        among = [name for name in self.mixers if name in RECURRENT]
        if among and (len(self.mixers) > 1 or self.mixer_settings):
            raise DataError(
                f"{among[0]} stands with {', '.join(self.mixers)} or has settings; it is a model by itself "
                "and has none"
            )
        object.__setattr__(self, "mixers", tuple(self.mixers))
        object.__setattr__(
            self, "mixer_settings", {name: dict(each) for name, each in self.mixer_settings.items()}
        )
        if not among:
            self.shape(0)

    @property
    def recurrent(self) -> bool:
        """Whether it is an LSTM or a GRU."""
        return self.mixers[0] in RECURRENT

    @property
    def layer_mixers(self) -> tuple[str, ...]:
        """The name of each layer's mixer."""
        return self.mixers if len(self.mixers) == self.layers else self.mixers * self.layers

    def shape(self, layer: int) -> DecoderConfig:
        """What a layer's mixer and block are made from; weights begin as N(0, 1 / D)."""
        given = {name: dict(each) for name, each in self.mixer_settings.items()}
        if self.both_ways:
            for name in set(self.mixers) & set(BOTH_WAYS):
                given[name] = {"bidirectional": True, **given.get(name, {})}
        factor = self.feed_forward
        if factor is None:
            factor = 0.0 if self.layer_mixers[layer % len(self.layer_mixers)] in WHOLE else 2.0
        return DecoderConfig(
            vocab_size=1,
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            ffn_dim=max(1, round(factor * self.dim)) if factor else 0,
            max_length=self.max_length,
            positions=self.positions,
            mixers=self.mixers,
            mixer_settings=given,
            dropout=self.dropout,
            init_std=self.dim**-0.5,
        )
