"""Convolutions as long as the sequence, by the fast Fourier transform.

Transforms are real to complex, of lengths without prime factors above 5 that just hold a linear
convolution: 2T - 1 entries, not the next power of two. (A triangular matrix for each channel is slower
even at 16 tokens, since it has to be made first.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from scipy.fft import next_fast_len

from posterhall.extras import functional, nn, torch


def convolve(u: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """y_t = sum over s <= t of kernel_{t - s} u_s.

    Args:
        u: (B, H, T), real, of the kernel's type.
        kernel: (H, L) or (B, H, L); what is beyond T plays no part, and what is missing counts as zeros.

    Returns:
        (B, H, T).
    """
    tokens = u.shape[-1]
    kernel = kernel[..., :tokens]
    size = good_length(tokens + kernel.shape[-1] - 1)
    return multiply(u, spectrum(kernel, size), size)


def good_length(least: int) -> int:
    """The smallest length of at least so many entries that transforms take in their stride."""
    return int(next_fast_len(max(least, 1), real=True))


def spectrum(kernel: torch.Tensor, size: int, behind: torch.Tensor | None = None) -> torch.Tensor:
    """The transform of a kernel (..., L), for `multiply`.

    Args:
        kernel: weights of u_t, u_{t-1}, and so on.
        size: of the transform.
        behind: weights of u_{t+1}, u_{t+2}, and so on, for what is not causal. (The original's reversed
            kernel begins at the same distance, 1.)
    """
    found: torch.Tensor = torch.fft.rfft(kernel, n=size)
    if behind is None:
        return found
    # Laid at the end and read round the corner: entry -j is what u_{t+j} gets.
    length = behind.shape[-1]
    turned = functional.pad(behind.flip(-1), (size - length, 0))
    both: torch.Tensor = found + torch.fft.rfft(turned, n=size)
    return both


def multiply(u: torch.Tensor, transform: torch.Tensor, size: int) -> torch.Tensor:
    """The first T entries of u (..., T) convolved with what has this spectrum, of transforms of `size`."""
    product: torch.Tensor = torch.fft.rfft(u, n=size) * transform
    result: torch.Tensor = torch.fft.irfft(product, n=size)
    return result[..., : u.shape[-1]]


class Kept:
    """Something computed from a module's parameters, kept while they stay as they are.

    Only where no gradient is asked for: then a kernel or its spectrum is the same in every call.
    """

    def __init__(self) -> None:
        self._key: Any = None
        self._values: dict[Any, Any] = {}

    def get(self, given: nn.Module | Sequence[torch.Tensor], name: Any, make: Callable[[], Any]) -> Any:
        """The value called `name` (with all it depends on besides these parameters), or make it."""
        parameters = list(given.parameters()) if isinstance(given, nn.Module) else given
        if torch.is_grad_enabled() or any(each.is_inference() for each in parameters):
            self._key = None  # parameters may change now in ways that their version does not tell of
            return make()
        key = [(each.data_ptr(), each._version, each.dtype) for each in parameters]
        if key != self._key or len(self._values) > 16:
            self._key, self._values = key, {}
        if name not in self._values:
            self._values[name] = make()
        return self._values[name]
