"""Convolutions as long as a sequence whose kernels are learned as they are, or written by a small network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posterhall import seeds
from posterhall.adapters import dropout
from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, _fft, documents, settings_of
from posterhall.models.mixers.states import History, blanked
from posterhall.models.mixers.time_invariant import (
    FullPrecision,
    check_length,
    exactly,
    refuse_streaming,
    working,
)

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


class Long(FullPrecision):
    """y = K * u + bias u, channel by channel, with a kernel of a given length.

    It steps by looking back over all it has seen, so its state grows with the tokens.

    Args:
        channels: H.
        limit: tokens that the kernel covers. Longer sequences are an error, never cut.

    Attributes:
        bias: (H,), weight of each token itself beside the kernel's.
    """

    def __init__(self, channels: int, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.bias = nn.Parameter(torch.zeros(channels))
        self._kept = _fft.Kept()

    def kernel(self, length: int) -> torch.Tensor:
        """(R, H, L): R = 1, or 2 with the kernel that looks ahead."""
        raise TypeError(f"{type(self).__name__} has no kernel")

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> History:
        """Room for `max_length` tokens of all channels."""
        return History(torch.zeros((batch, max_length, len(self.bias)), dtype=dtype, device=device))

    def forward(self, u: torch.Tensor, placement: Placement, state: History | None = None) -> torch.Tensor:
        """(B, T, H) to the same."""
        check_length(placement.end, self.limit)
        dtype = working(u.dtype)
        with exactly(u.device):
            if state is None:
                y = self._whole(u.to(dtype))
            elif u.shape[1] == 1:
                y = self._step(state.extend(u, placement).to(dtype), placement)
            else:
                y = self._whole(state.extend(u, placement).to(dtype))
                rows = torch.arange(len(u), device=u.device)[:, None]
                y = y[rows, placement.starts()[:, None] + torch.arange(u.shape[1], device=u.device)]
        return (y + self.bias.to(dtype) * u).to(u.dtype)

    def _whole(self, u: torch.Tensor) -> torch.Tensor:
        tokens = u.shape[1]
        size = _fft.good_length(2 * tokens - 1)

        def spectrum() -> torch.Tensor:
            kernels = self.kernel(tokens).to(u.dtype)
            return _fft.spectrum(kernels[0], size, kernels[1, :, : tokens - 1] if len(kernels) > 1 else None)

        transform = self._kept.get(self, (tokens, u.dtype), spectrum)
        return _fft.multiply(u.transpose(1, 2), transform, size).transpose(1, 2)

    def _step(self, seen: torch.Tensor, placement: Placement) -> torch.Tensor:
        """Of the newest token of each row of (B, S, H): (B, 1, H)."""
        kernel = self._kept.get(self, ("step", seen.dtype), lambda: self.kernel(self.limit)[0].to(seen.dtype))
        past = placement.past or (0,) * placement.batch
        result = seen.new_empty((len(seen), seen.shape[2]))
        for count in sorted(set(past)):  # rows of a length look back by the same weights
            rows = [row for row, each in enumerate(past) if each == count]
            weights = kernel[:, : count + 1].flip(-1)
            result[rows] = torch.einsum("bsh,hs->bh", seen[rows, : count + 1], weights)
        return result[:, None]


class Free(Long):
    """A kernel that is learned entry by entry, pressed towards zeros (Fu et al. 2023, arXiv 2302.06646).

    Args:
        channels: H.
        limit: tokens L.
        outputs: 2 with a kernel that looks ahead.
        threshold: entries are moved towards zero by so much, and not past it (eq. 3: squash).
        share: of entries dropped in training.
        name: tells what is dropped here from what is dropped elsewhere.

    Attributes:
        weights: (outputs, H, L).
    """

    def __init__(
        self, channels: int, limit: int, *, outputs: int = 1, threshold: float, share: float, name: int
    ) -> None:
        super().__init__(channels, limit)
        self.threshold, self.share, self.name = threshold, share, name
        self.weights = nn.Parameter(torch.zeros(outputs, channels, limit))

    def initialise(self, generator: torch.Generator) -> None:
        """Entries N(0, 0.002^2), biases N(0, 1)."""
        with torch.no_grad():
            self.weights.copy_(torch.empty(self.weights.shape).normal_(0.0, 0.002, generator=generator))
            self.bias.copy_(torch.empty(self.bias.shape).normal_(generator=generator))

    def kernel(self, length: int) -> torch.Tensor:
        """(outputs, H, L)."""
        kernel = functional.softshrink(self.weights[..., :length], self.threshold)
        seed = dropout.current()
        if not self.training or self.share == 0.0 or seed is None:
            return kernel
        mask = dropout.drop(torch.ones_like(kernel), self.share, seeds.derive(seed, "kernel", self.name))
        return kernel * mask


class LongConv(nn.Module):
    """y = GLU(W gelu(K * u + D u)) with a free kernel K (Fu et al. 2023, arXiv 2302.06646, §3)."""

    growth: Growth = "linear"

    def __init__(self, dim: int, convolution: Free) -> None:
        super().__init__()
        self.causal = len(convolution.weights) == 1
        self.convolution = convolution
        self.out = Linear(dim, 2 * dim)

    def initialise(self, generator: torch.Generator) -> None:
        """As the convolution has it; W uniform in +-1 / sqrt(dim)."""
        self.convolution.initialise(generator)
        spread(self.out, generator)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> History:
        """Room for `max_length` tokens.

        Raises:
            DataError: for a layer that looks ahead.
        """
        refuse_streaming(self)
        return self.convolution.new_state(batch, max_length, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, placement: Placement, state: History | None = None) -> torch.Tensor:
        """(B, T, D) to the same; see `Mixer`."""
        if placement.segments is not None:
            return documents.apart(self, x, placement.segments)
        if not self.causal:
            x = blanked(x, placement)
        return functional.glu(self.out(functional.gelu(self.convolution(x, placement, state))))


def spread(module: Any, generator: torch.Generator) -> None:
    """Weights (and biases) of a linear layer uniform in +-1 / sqrt(inputs), as `torch.nn.Linear` begins."""
    bound = 1 / math.sqrt(module.weight.shape[1])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))


@dataclass(frozen=True)
class LongConvSettings:
    """Settings of long convolutions (Fu et al. 2023, arXiv 2302.06646)."""

    threshold: float = 0.003
    """Entries of the kernel are moved towards zero by so much, >= 0: 0.003 for CIFAR, 0.001 for Path-X."""
    kernel_dropout: float = 0.2
    """Share of the kernel's entries dropped in training, in [0, 1): 0.2 or 0.3."""
    bidirectional: bool = False
    """Look ahead with a second kernel; no streaming then."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < math.inf:
            raise DataError(f"threshold is {self.threshold}; it must be at least 0")
        if not 0 <= self.kernel_dropout < 1:
            raise DataError(f"kernel_dropout is {self.kernel_dropout}; it must be at least 0 and below 1")


def make(config: DecoderConfig, layer: int) -> LongConv:
    """The long convolution of a decoder's layer; its kernel is as long as the decoder's longest sequence."""
    settings = settings_of(config, "long_conv", LongConvSettings)
    convolution = Free(
        config.dim,
        config.max_length,
        outputs=2 if settings.bidirectional else 1,
        threshold=settings.threshold,
        share=settings.kernel_dropout,
        name=layer,
    )
    return LongConv(config.dim, convolution)
