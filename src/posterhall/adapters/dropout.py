"""Which pass of a training it is, for layers that drop inputs but are not told, and what they drop.

A model that knows says so around its layers (`passing`); what a layer then drops follows from the pass's
seed and the layer's name alone: a resumed training drops the same, and so does a block that is computed
again in the backward pass (`again`, a `context_fn` of `torch.utils.checkpoint`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np

from posterhall.adapters import _kernels
from posterhall.extras import torch

_here = threading.local()


@contextlib.contextmanager
def passing(seed: int | None) -> Iterator[None]:
    """Within it, layers drop what this pass's seed says; None: what was said outside holds."""
    before = current()
    _here.seed = before if seed is None else seed
    try:
        yield
    finally:
        _here.seed = before


def current() -> int | None:
    """The seed of the pass that is going on in this thread; None: nobody has said."""
    found: int | None = getattr(_here, "seed", None)
    return found


def again() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """Contexts of a checkpointed block's computation and of its repetition, which is of the same pass."""
    return contextlib.nullcontext(), passing(current())


def drop(x: torch.Tensor, share: float, key: int, *, in_place: bool = False) -> torch.Tensor:
    """Dropout (Srivastava et al. 2014): a share of the entries is 0, and the others divided by 1 - share.

    The same key drops the same places of the same shape on the same kind of device and number; called with
    a gradient it is its own backward pass.

    Args:
        x: any shape, any float type.
        share: in [0, 1).
        key: in [0, 2^63); see `posterhall.seeds.derive`.
        in_place: write to x, which is then contiguous.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling():
        source = x.detach().contiguous()
        out = source if in_place else torch.empty_like(source)
        bound = min((1 << 32) - 1, round((1.0 - share) * (1 << 32)))
        _kernels.drop(
            source.view(-1).numpy(), np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32), np.uint32(bound),
            np.float32(1.0 / (1.0 - share)), out.view(-1).numpy(),
        )  # fmt: skip
        return out
    generator = torch.Generator(device=x.device).manual_seed(key)
    kept = torch.empty_like(x).bernoulli_(1.0 - share, generator=generator).div_(1.0 - share)
    return x.mul_(kept) if in_place else x * kept
