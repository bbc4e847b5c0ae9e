"""RWKV-4's time mixing: an average of all values so far, weighted by their keys and by how long ago.

Peng et al. 2023 (arXiv 2305.13048), eq. 11 to 16. What the paper calls channel mixing is a feed-forward
layer; the decoder's own stands in its place.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from posterhall.extras import nn, torch
from posterhall.models._ops import _is_fused, _is_plain
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, NoSettings, Placement, initial, settings_of
from posterhall.models.mixers import _wkv_kernels as kernels
from posterhall.models.mixers.documents import apart
from posterhall.models.mixers.states import Rows
from posterhall.models.mixers.time_invariant import FullPrecision, working

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig

_NEVER = 1e30


def make(config: DecoderConfig, layer: int) -> Rwkv:
    """The time mixing of a decoder's layer; how it begins depends on the layer."""
    settings_of(config, "rwkv", NoSettings)
    return Rwkv(config, layer)


class Rwkv(nn.Module):
    """out = W_o (sigmoid(r) * wkv(k, v)), r, k, v from each token mixed with the one before it.

    The decay of a channel in one token is exp(-exp(decay)): in (0, 1) whatever is learnt. Positions do not
    enter. The state is four numbers a channel: the last token, and sums of weighted values and of
    weights with their common exponent.

    Attributes:
        mix: (3, D), the share of the token itself, against the one before it, in r, k and v.
    """

    causal = True
    growth: Growth = "constant"

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self._config = config
        self.receptance, self.keys, self.values = (Linear(config.dim, config.dim) for _ in range(3))
        self.out = Linear(config.dim, config.dim)
        # The authors' beginnings: channels decay at different rates, deeper layers more slowly, and deeper
        # layers take more of the token itself.
        depth = layer / max(config.layers - 1, 1)
        along = torch.arange(config.dim) / max(config.dim - 1, 1)
        decay = -5.0 + 8.0 * along ** (0.7 + 1.3 * depth)
        bonus = math.log(0.3) + 0.5 * ((torch.arange(config.dim) + 1) % 3 - 1)
        self.average = Average(decay, bonus)
        channel = torch.arange(config.dim) / config.dim
        share = channel ** (1.0 - layer / config.layers)
        self.mix = nn.Parameter(torch.stack((share**0.5, share, share + 0.3 * depth)))
        self.mix.no_decay = True  # type: ignore[attr-defined]

    def initialise(self, generator: torch.Generator) -> None:
        """Projections as attention's; the authors set those of r, k and the output to zero."""
        initial.projections(self, self._config, generator)

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """(B, 4, D), in at least float32: the last token; weighted values, weights, and their exponent."""
        kept = torch.zeros((batch, 4, self._config.dim), dtype=working(dtype), device=device)
        kept[:, 3] = -_NEVER
        return Rows(kept)

    def forward(self, x: torch.Tensor, placement: Placement, state: Rows | None = None) -> torch.Tensor:
        """See `Mixer`."""
        if placement.segments is not None:
            return apart(self, x, placement.segments)
        before = x.new_zeros((len(x), 1, x.shape[2])) if state is None else state.kept[:, :1].to(x.dtype)
        earlier = torch.cat((before, x), dim=1)
        shifted = earlier[:, :-1]
        shares = self.mix.to(x.dtype)
        r, k, v = (
            layer(torch.lerp(shifted, x, share))
            for layer, share in zip((self.receptance, self.keys, self.values), shares, strict=True)
        )
        sums = None if state is None else state.kept[:, 1:]
        mixed, sums = self.average(k, v, sums, placement.valid)
        if state is not None:
            ends = torch.tensor(placement.valid or (placement.tokens,) * placement.batch, device=x.device)
            last = earlier[torch.arange(placement.batch, device=x.device), ends]
            state.kept = torch.cat((last[:, None].to(sums.dtype), sums), dim=1)
        result: torch.Tensor = self.out(torch.sigmoid(r) * mixed.to(x.dtype))
        return result


class Average(FullPrecision):
    """The weights of `wkv`.

    Attributes:
        decay: (D,), the logarithm of the decay's rate a token.
        bonus: (D,), added to the key of the token itself.
    """

    def __init__(self, decay: torch.Tensor, bonus: torch.Tensor) -> None:
        super().__init__()
        self.decay, self.bonus = nn.Parameter(decay), nn.Parameter(bonus)

    def forward(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        sums: torch.Tensor | None,
        valid: tuple[int, ...] | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `wkv`."""
        return wkv(torch.exp(self.decay), self.bonus, keys, values, sums=sums, valid=valid)


def wkv(
    decay: torch.Tensor,
    bonus: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    sums: torch.Tensor | None = None,
    valid: tuple[int, ...] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """sum_{i<t} e^(-(t-1-i) w + k_i) v_i + e^(u + k_t) v_t, divided by the same without v (eq. 14).

    One pass of numba each way in float32 on a CPU, elsewhere a loop of torch over the tokens.

    Args:
        decay, bonus: (D,), w > 0 and u.
        keys, values: (B, T, D); half precision is computed in float32.
        sums: (B, 3, D), what the tokens before left: numerator and denominator divided by e^p, and p. None:
            there are none.
        valid: real tokens of each row; those after them leave nothing.

    Returns:
        (B, T, D), and the sums after the tokens.
    """
    decay, bonus, keys, values = (each.to(working(keys.dtype)) for each in (decay, bonus, keys, values))
    fresh = sums is None
    if sums is None:
        sums = keys.new_zeros((len(keys), 3, keys.shape[2]))
        sums[:, 2] = -_NEVER
    plain = _is_plain(decay, bonus, keys, values, sums) and _is_fused(decay, bonus, keys, values, sums)
    wants = torch.is_grad_enabled() and any(each.requires_grad for each in (decay, bonus, keys, values))
    # The backward pass goes over padding too: it comes last, and nobody reads what would come of it.
    if plain and (fresh or not wants):
        return cast("tuple[torch.Tensor, torch.Tensor]", _Wkv.apply(decay, bonus, keys, values, sums, valid))  # type: ignore[no-untyped-call]
    a, b, p = sums.to(keys.dtype).unbind(1)
    mixed = []
    for t in range(keys.shape[1]):
        k, v = keys[:, t], values[:, t]
        most = torch.maximum(p, bonus + k)
        old, new = torch.exp(p - most), torch.exp(bonus + k - most)
        mixed.append((old * a + new * v) / (old * b + new))
        most = torch.maximum(p - decay, k)
        old, new = torch.exp(p - decay - most), torch.exp(k - most)
        after = (old * a + new * v, old * b + new, most)
        if valid is None:
            a, b, p = after
        else:
            real = torch.tensor([t < each for each in valid], device=keys.device)[:, None]
            a, b, p = (torch.where(real, now, was) for now, was in zip(after, (a, b, p), strict=True))
    return torch.stack(mixed, dim=1), torch.stack((a, b, p), dim=1)


class _Wkv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        decay: torch.Tensor,
        bonus: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        sums: torch.Tensor,
        valid: tuple[int, ...] | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, tokens, _ = keys.shape
        result = torch.zeros_like(keys, memory_format=torch.contiguous_format)
        lengths = np.full(rows, tokens) if valid is None else np.array(valid)
        after = sums.contiguous().clone()
        ctx.save_for_backward(decay, bonus, keys, values)
        kernels.forward(*_arrays(decay, bonus, keys, values), lengths, after.numpy(), result.numpy())
        ctx.mark_non_differentiable(after)
        return result, after

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        decay, bonus, keys, values = ctx.saved_tensors
        to_decay, to_bonus = (keys.new_zeros((len(keys), len(decay))) for _ in range(2))
        to_keys, to_values = (torch.empty(keys.shape) for _ in range(2))
        slopes = (to_decay, to_bonus, to_keys, to_values)
        kernels.backward(*_arrays(decay, bonus, keys, values, grads[0]), *(each.numpy() for each in slopes))
        return to_decay.sum(0), to_bonus.sum(0), to_keys, to_values, None, None


def _arrays(*tensors: torch.Tensor) -> list[Any]:
    """Memory as arrays; vectors are copied, since what numpy has seen cannot be resized, as FSDP2 must."""
    return [
        each.detach().clone().numpy() if each.dim() == 1 else each.detach().contiguous().numpy()
        for each in tensors
    ]
