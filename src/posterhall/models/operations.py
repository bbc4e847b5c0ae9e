"""Operations of a decoder's parts, in closed form: what `posterhall model profile` sets beside the seconds.

    work = of_parts(model, tokens=2048)
    work["mixer"].total / work["feed_forward"].total

What is counted is what the algorithms of this package carry out over whole sequences:

- products: 2 m n k for matrices (m, k) and (k, n), attention among them; what `torch.utils.flop_counter`
  counts, but for the half that causality hides from attention and its kernel leaves out;
- others: 5/2 n log2 n for a transform of n real numbers (half of Cooley and Tukey's 5 n log2 n), 6 for a
  complex product, and 1 for each addition, product, quotient, comparison, root, exponential, logarithm and
  sine in a recurrence, a short convolution, a softmax, a norm or an activation.

Copies and lookups count nothing. Kernels of convolutions depend on no token: they are made once a pass where
gradients are wanted, and kept where they are not (Mega's are made each time). A step's gradients count twice
what its forward pass does, as in 6 N D; what is computed anew to save memory is not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any, cast

from posterhall.errors import DataError
from posterhall.models.layers import Linear
from posterhall.models.mixers import _fft, _vandermonde
from posterhall.models.mixers.attention import Attention
from posterhall.models.mixers.base_conv import BaseConv
from posterhall.models.mixers.diagonal import Diagonal
from posterhall.models.mixers.h3 import H3
from posterhall.models.mixers.hyena import Hyena, Implicit
from posterhall.models.mixers.linear_attention import LinearAttention, Taylor
from posterhall.models.mixers.linformer import Linformer
from posterhall.models.mixers.long_conv import LongConv
from posterhall.models.mixers.mamba import Mamba
from posterhall.models.mixers.mamba2 import Mamba2
from posterhall.models.mixers.mega import Mega
from posterhall.models.mixers.performer import Favor, Performer
from posterhall.models.mixers.preceded import Preceded
from posterhall.models.mixers.rwkv import Rwkv
from posterhall.models.mixers.s4 import LowRank
from posterhall.models.mixers.s5 import Joint
from posterhall.models.mixers.short_conv import ShortConv
from posterhall.models.mixers.sliding_window import SlidingWindow
from posterhall.models.mixers.time_invariant import StateSpace
from posterhall.models.monarch import matrix_size
from posterhall.quantize.linear import QuantizedLinear

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig
    from posterhall.models.decoder import Decoder

PARTS = ("mixer", "feed_forward", "norms", "embedding")
"""Of a decoder. Norms: with the residual stream's additions; embedding: with the head, and in training the
loss."""

_SIGMOID, _SILU, _GELU, _SOFTPLUS, _GLU, _SWIGLU = 3, 4, 5, 2, 4, 5
_SOFTMAX = 5
"""An entry: scaled, compared, lessened, exponentiated, added up."""
_NORM = 4
"""An entry: squared, added up, scaled, times its gain."""
_TURN = 3
"""An entry that is turned by its position: four products and two sums a pair."""
_TRAINING = 3
"""Forward and backward, by the forward pass."""


@dataclass(frozen=True)
class Work:
    """Operations."""

    products: float = 0.0
    """Of matrix products."""
    others: float = 0.0
    """The rest."""

    @property
    def total(self) -> float:
        """Both."""
        return self.products + self.others

    def __add__(self, other: Work) -> Work:
        return Work(self.products + other.products, self.others + other.others)

    def __mul__(self, times: float) -> Work:
        return Work(times * self.products, times * self.others)


def of_parts(model: Decoder, tokens: int, *, batch: int = 1, training: bool = False) -> dict[str, Work]:
    """Operations of one pass, by the names of `PARTS`; the head gives logits to all tokens.

    Args:
        model: neither its lengths nor its weights matter here.
        tokens: of a row, >= 1.
        batch: rows, >= 1.
        training: a step, forward and backward, with its loss; the optimiser is not in it.

    Raises:
        DataError: for a mixer whose operations nobody has written down (see `of_row`).
    """
    config = model.config
    if tokens < 1 or batch < 1:
        raise DataError(f"{batch} rows of {tokens} tokens; there must be at least 1 of each")
    mixers = [of_mixer(block.mixer, tokens, batch=batch, training=training) for block in model.blocks]
    count, times = batch * tokens, _TRAINING if training else 1
    layers, norms = config.layers, 2 if config.feed_forward_dim else 1
    loss = _SOFTMAX * config.vocab_size if training else 0
    learned = config.dim if config.positions == "learned" else 0
    return {
        "mixer": sum(mixers, Work()),
        "feed_forward": of_feed_forward(config) * (layers * count * times),
        "norms": Work(others=(layers * norms * (_NORM + 1) + _NORM) * config.dim) * (count * times),
        "embedding": Work(2 * config.vocab_size * config.dim, learned + loss) * (count * times),
    }


def of_feed_forward(config: DecoderConfig) -> Work:
    """Of one layer, for one token, forward: 2 a weight, and the activation."""
    sizes = [matrix_size(config.ffn, *shape, config.ffn_blocks) for shape in config.feed_forward_shapes]
    return Work(2 * sum(sizes), _SWIGLU * config.feed_forward_dim)


def of_mixer(mixer: Any, tokens: int, *, batch: int = 1, training: bool = False) -> Work:
    """Of one layer's mixer over whole rows; arguments as of `of_parts`."""
    linear = [each for each in mixer.modules() if isinstance(each, Linear | QuantizedLinear)]
    projected = Work(2 * tokens * sum(each.in_features * each.out_features for each in linear))
    work = (projected + of_row(mixer, tokens)) * batch
    if training or not _keeps_kernels(mixer):
        work += _once(mixer, tokens)
    return work * _TRAINING if training else work


@singledispatch
def of_row(mixer: Any, tokens: int) -> Work:
    """Of a mixer over one row, forward, without its projections (`Linear` layers) and without kernels that
    depend on no token. For a mixer of one's own: `of_row.register(Mine)(lambda mixer, tokens: Work(...))`.

    Raises:
        DataError: for a mixer that is not known.
    """
    raise DataError(
        f"nobody has written down the operations of {type(mixer).__name__}; do so with "
        "posterhall.models.operations.of_row.register"
    )


@singledispatch
def _once(mixer: Any, tokens: int) -> Work:
    """Of kernels that depend on no token, and their spectra."""
    return Work()


def _keeps_kernels(mixer: Any) -> bool:
    """Whether they are kept from pass to pass where no gradients are wanted."""
    return not isinstance(mixer.mixer if isinstance(mixer, Preceded) else mixer, Mega)


# -- attention --------------------------------------------------------------------------------------


@of_row.register
def _(mixer: Attention, tokens: int) -> Work:
    return _attended(mixer, tokens * (tokens + 1) / 2, tokens)


@of_row.register
def _(mixer: SlidingWindow, tokens: int) -> Work:
    if tokens <= mixer.window:
        return _attended(mixer, tokens * (tokens + 1) / 2, tokens)
    # A block of queries meets the window before it and itself, and a mask hides what is out of sight.
    return _attended(mixer, 2 * mixer.window**2 * -(-tokens // mixer.window), tokens)


def _attended(mixer: Attention | SlidingWindow, pairs: float, tokens: int) -> Work:
    turned = 0 if mixer.theta is None else _TURN * tokens * (mixer.heads + mixer.kv_heads) * mixer.head_dim
    return Work(4 * pairs * mixer.heads * mixer.head_dim, _SOFTMAX * pairs * mixer.heads + turned)


@of_row.register
def _(mixer: Linformer, tokens: int) -> Work:
    rank, dim = mixer.mixtures.shape[2], mixer.out.in_features
    # Mixtures of keys and of values, scores, and sums of mixed values.
    return Work(4 * 2 * tokens * rank * dim, _SOFTMAX * tokens * rank * mixer.heads)


@of_row.register
def _(mixer: LinearAttention, tokens: int) -> Work:
    return _chunked(mixer.feature, mixer.head_dim, tokens, mixer.chunk) * mixer.heads


@of_row.register
def _(mixer: Performer, tokens: int) -> Work:
    width, feature = mixer.head_dim, mixer.feature
    if mixer.causal:
        return _chunked(feature, width, tokens, mixer.chunk) * mixer.heads
    summed = Work(4 * tokens * feature.size * (width + 1), tokens * width)
    return (_features(feature, 2 * tokens) + summed) * mixer.heads


def _chunked(feature: Any, width: int, tokens: int, chunk: int) -> Work:
    """Of one head: within a chunk all pairs, from chunk to chunk a sum of features by values."""
    count = -(-tokens // chunk)
    last = tokens - (count - 1) * chunk
    pairs = (count - 1) * chunk**2 + last**2
    read, told = tokens - min(chunk, tokens), tokens - last  # from the sum, into it
    summed = Work(2 * (read + told) * feature.size * (width + 1), read * (width + 1))
    grown = Work(others=max(0, count - 2) * feature.size * (width + 1))
    values = Work(2 * pairs * (width + 1), tokens * width)  # and numerators by denominators
    if isinstance(feature, Taylor):
        within = Work(2 * pairs * feature.entries, 5 * pairs)
    else:
        within = Work(2 * pairs * feature.size) + _features(feature, 2 * tokens)
    return within + values + _features(feature, read + told) + summed + grown


def _features(feature: Any, size: int) -> Work:
    """phi of so many queries and keys."""
    if isinstance(feature, Favor):
        count, entries = feature.directions.shape
        return Work(2 * size * count * entries, size * (3 * count + 3 * entries))
    return Work(others=2 * size * feature.size)  # Taylor: a product and a factor; Elu: exponential and sum


@of_row.register
def _(mixer: Mega, tokens: int) -> Work:
    dim, _, shared, values = mixer.widths
    size = min(mixer.chunk or tokens, tokens)
    pairs = size**2 * -(-tokens // size)  # a mask hides what comes later
    gates = _SILU * (dim + shared + 2 * values) + _SIGMOID * dim
    entry = sum(mixer.widths) + 2 * values + 4 * shared + 3 * dim + gates
    averaged = _convolved(dim, tokens) + Work(others=(2 + _SILU) * dim * tokens)
    attended = Work(2 * pairs * (shared + values), (_SOFTMAX + 1) * pairs)
    return averaged + attended + Work(others=entry * tokens)


@_once.register
def _(mixer: Mega, tokens: int) -> Work:
    rows, dim, count = mixer.average.alpha.shape
    return (_powers(1, dim, count, tokens) + _spectra(dim, tokens)) * rows


# -- recurrences ------------------------------------------------------------------------------------


@of_row.register
def _(mixer: Mamba, tokens: int) -> Work:
    # A state: decay, what it keeps and gets, and what it gives; a channel: step, push, skip, gate.
    channel = 7 * mixer.size + 1 + _SOFTPLUS + 1 + 1 + _SILU + 1
    return of_row(mixer.conv, tokens) + Work(others=tokens * mixer.width * channel)


@of_row.register
def _(mixer: Mamba2, tokens: int) -> Work:
    given, heads, width = mixer.settings, mixer.heads, mixer.width
    size = min(given.chunk, tokens)
    count = -(-tokens // size)
    within = Work(2 * size**2 * (mixer.shared + width), 3 * size**2 * heads)  # C B^T and it by X; its decays
    between = Work(4 * size * given.state * width, 2 * given.state * width + 4 * size * width)
    entry = 2 * width + (_SILU + 1 + _NORM) * width + (2 + _SOFTPLUS) * heads
    return of_row(mixer.conv, tokens) + (within + between) * count + Work(others=entry * tokens)


@of_row.register
def _(mixer: Rwkv, tokens: int) -> Work:
    # Each of r, k and v lies between two tokens; two running sums with their common exponent (eq. 14 to 16).
    return Work(others=(3 * 3 + 23 + _SIGMOID + 1) * mixer.out.in_features * tokens)


@of_row.register
def _(mixer: Preceded, tokens: int) -> Work:
    return of_row(mixer.conv, tokens) + of_row(mixer.mixer, tokens)


@_once.register
def _(mixer: Preceded, tokens: int) -> Work:
    return _once(mixer.mixer, tokens)


# -- convolutions -----------------------------------------------------------------------------------


@of_row.register
def _(mixer: ShortConv, tokens: int) -> Work:
    biased = 1 if mixer.bias is not None else 0
    entry = 2 * mixer.taps - 1 + biased + (_SILU if mixer.silu else 0)
    return Work(others=entry * len(mixer.weight) * tokens)


@of_row.register
def _(mixer: StateSpace, tokens: int) -> Work:
    dim, system = len(mixer.skip), mixer.system
    entry = Work(others=(2 + _GELU + _GLU) * dim * tokens)
    if not isinstance(system, Joint):
        return _convolved(dim, tokens) + entry
    pairs, outputs = len(system.turn), len(system.weights)
    # B u of all channels, and for each direction x = a x + B u and C x.
    scanned = Work(4 * tokens * dim * pairs, 8 * pairs * tokens) * outputs
    return Work(4 * tokens * dim * pairs) + scanned + entry


@_once.register
def _(mixer: StateSpace, tokens: int) -> Work:
    system = mixer.system
    if isinstance(system, Joint):
        return Work()
    kernel = _low_rank(system, tokens) if isinstance(system, LowRank) else _diagonal(system, tokens)
    outputs = int(cast("Any", system).weights.shape[0])
    return kernel + _spectra(len(mixer.skip), tokens) * outputs


@of_row.register
def _(mixer: H3, tokens: int) -> Work:
    dim, channels = mixer.dim, mixer.dim * mixer.head_dim
    entry = Work(others=(2 * dim + (1 + 2 + 2) * channels) * tokens)
    return of_row(mixer.shift, tokens) + _convolved(channels, tokens) + entry


@_once.register
def _(mixer: H3, tokens: int) -> Work:
    return _diagonal(mixer.system, tokens) + _spectra(mixer.system.channels, tokens)


@of_row.register
def _(mixer: LongConv, tokens: int) -> Work:
    dim = mixer.out.in_features
    return _convolved(dim, tokens) + Work(others=(2 + _GELU + _GLU) * dim * tokens)


@_once.register
def _(mixer: LongConv, tokens: int) -> Work:
    rows, dim, _ = mixer.convolution.weights.shape
    return (Work(others=2 * dim * tokens) + _spectra(dim, tokens)) * rows


@of_row.register
def _(mixer: Hyena, tokens: int) -> Work:
    turn = _convolved(mixer.dim, tokens) + Work(others=3 * mixer.dim * tokens)
    return of_row(mixer.short, tokens) + turn * (mixer.order - 1) + Work(others=mixer.dim * tokens)


@_once.register
def _(mixer: Hyena, tokens: int) -> Work:
    return sum((_written(each, tokens) for each in mixer.convolutions), Work())


@of_row.register
def _(mixer: BaseConv, tokens: int) -> Work:
    dim, convolution = len(mixer.bias), mixer.convolution
    gated = Work(others=3 * dim * tokens)
    if isinstance(convolution, ShortConv):
        return of_row(convolution, tokens) + gated
    return _convolved(dim, tokens) + Work(others=2 * dim * tokens) + gated


@_once.register
def _(mixer: BaseConv, tokens: int) -> Work:
    long = isinstance(mixer.convolution, Implicit)
    return _written(mixer.convolution, tokens) if long else Work()


def _convolved(channels: int, tokens: int) -> Work:
    """There and back, and a product of spectra between."""
    size = _fft.good_length(2 * tokens - 1)
    return Work(others=channels * (2 * _transform(size) + 6 * (size // 2 + 1)))


def _spectra(channels: int, tokens: int) -> Work:
    """Of kernels."""
    return Work(others=channels * _transform(_fft.good_length(2 * tokens - 1)))


def _transform(size: int) -> float:
    return 2.5 * size * math.log2(size) if size > 1 else 0.0


def _written(convolution: Any, tokens: int) -> Work:
    """A kernel that a network writes, with its window and spectrum."""
    layers = (convolution.first, *convolution.inner, convolution.last)
    width, channels = len(convolution.frequency), len(convolution.bias)
    products = sum(2 * each.in_features * each.out_features for each in layers)
    others = 3 * width * (len(layers) - 1) + 3 * channels
    return Work(products, others) * tokens + _spectra(channels, tokens)


def _diagonal(system: Any, tokens: int) -> Work:
    rows, channels, poles = system.weights.shape[:3]
    kernel = _powers(rows, channels, poles, tokens)
    if isinstance(system, Diagonal) and system.limit is not None:  # dss: the poles that grow, backwards
        kernel += _powers(rows, channels, poles, system.limit)
    return kernel


def _powers(rows: int, channels: int, poles: int, length: int) -> Work:
    """Sums of powers by two tables and their product; see `_vandermonde`."""
    block = _vandermonde.block_size(length)
    count = -(-length // block)
    tables = 6 * poles * (block + count + rows * count)
    return Work(2 * rows * count * 2 * poles * block, tables) * channels


def _low_rank(system: Any, tokens: int) -> Work:
    """By the generating function: fractions at all nodes, C A^T by squaring, and a transform."""
    rank, outputs = len(system.coupling), len(system.weights)
    pairs = system.turn.shape[1]
    nodes, sums, size = tokens // 2 + 1, (outputs + rank) * (1 + rank), 2 * pairs
    squared = 2 * size**3 * (tokens.bit_length() - 1) + 2 * outputs * size**2 * tokens.bit_count()
    fractions = pairs * nodes * (13 + 10 * sums) + outputs * _transform(tokens)
    work = Work(squared, fractions)
    return work * int(system.channels)
