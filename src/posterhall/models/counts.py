"""Parameters and floating-point operations of a decoder, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

from posterhall.errors import DataError
from posterhall.models.config import DecoderConfig
from posterhall.models.mixers import factory
from posterhall.models.monarch import matrix_size


@dataclass(frozen=True)
class Parameters:
    """How many parameters a decoder has, by part."""

    embedding: int
    """The token embedding, V D."""
    attention: int
    """Projections of queries, keys, values and outputs, of the layers that mix by attention."""
    mixers: int
    """Of the layers that mix otherwise, everything in their mixers."""
    feed_forward: int
    """Gate, up and down projections."""
    norms: int
    """Gains, two a layer and the last one."""
    positions: int
    """Learned vectors of the positions, if there are any."""
    head: int
    """An untied head's matrix, V D; 0 if it is the embedding."""

    @property
    def total(self) -> int:
        """All, a tied matrix once."""
        return self.embedding + self.non_embedding + self.head

    @property
    def non_embedding(self) -> int:
        """Without embedding and head: the N of Kaplan et al. 2020."""
        return self.attention + self.mixers + self.feed_forward + self.norms + self.positions


def parameters_count(config: DecoderConfig) -> Parameters:
    """Parameters of a decoder of this shape.

    Raises:
        DataError: if it has a mixer that is none of `posterhall.models.mixers.MIXERS`.
    """
    attending = config.layer_mixers.count("attention")
    dim = config.dim
    keys = config.key_value_heads * config.head_dim
    return Parameters(
        embedding=config.vocab_size * dim,
        attention=attending * (2 * dim * dim + 2 * dim * keys),
        mixers=sum(_mixer_size(config, name) for name in config.layer_mixers if name != "attention"),
        feed_forward=config.layers
        * sum(
            matrix_size(config.ffn, inputs, outputs, config.ffn_blocks)
            for inputs, outputs in config.feed_forward_shapes
        ),
        norms=((2 if config.feed_forward_dim else 1) * config.layers + 1) * dim,
        positions=config.max_length * dim if config.positions == "learned" else 0,
        head=0 if config.tie_embeddings else config.vocab_size * dim,
    )


def flops_per_token(config: DecoderConfig, context: int) -> float:
    """Operations to train on one token: forward and backward, matrix products only.

    A parameter of a matrix product costs 2 forward and 4 backward; the head's product counts (tied or
    not), looking up an embedding does not. Attention costs 12 D (context + 1) / 2 a layer: a token sees
    half the context on average. Other mixers count as their parameters do, without their recurrence or
    convolution (which `posterhall.models.operations` counts). Hoffmann et al. 2022 (app. F) count the full
    square. The usual `6 N D` is `6 * parameters_count(config).total` a token.

    Args:
        config: the shape.
        context: tokens of a training sequence, >= 1.

    Raises:
        DataError: as `parameters_count`; for a context below 1.
    """
    if context < 1:
        raise DataError(f"context is {context}; it must be at least 1 token")
    parts = parameters_count(config)
    products = parts.attention + parts.mixers + parts.feed_forward + config.vocab_size * config.dim
    attending = config.layer_mixers.count("attention")
    return 6.0 * products + attending * 12.0 * config.dim * (context + 1) / 2


def _mixer_size(config: DecoderConfig, name: str) -> int:
    mixer = factory(name)(config, 0)
    return sum(parameter.numel() for parameter in mixer.parameters())
