"""Mega: attention with one head over exponential moving averages, and gates around it.

Ma et al. 2022 (arXiv 2209.10655), eq. 3 to 15. With `chunk` it is their Mega-chunk: the averages reach all
the way back, attention only to the beginning of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models.layers import Linear
from posterhall.models.mixers import Growth, Placement, _fft, _vandermonde, initial, settings_of
from posterhall.models.mixers.diagonal import recur
from posterhall.models.mixers.documents import apart
from posterhall.models.mixers.states import History, Rows, Several, blanked
from posterhall.models.mixers.time_invariant import (
    FullPrecision,
    check_length,
    refuse_streaming,
    working,
)

if TYPE_CHECKING:
    from posterhall.models.config import DecoderConfig


@dataclass(frozen=True)
class MegaSettings:
    """What determines Mega, beside the decoder's width and length."""

    average: int = 16
    """Averages a channel, h, >= 1 (app. D: 16)."""
    shared: int = 64
    """Entries z of queries and keys, >= 1 (app. D, Long Range Arena: 64 to 128)."""
    values: int | None = None
    """Entries v of values, >= 1; none: twice the width (§3.4)."""
    chunk: int | None = None
    """Tokens of a chunk, >= 1 (Mega-chunk: 128); none: attention reaches as far as the row."""
    bidirectional: bool = False
    """See what comes after each token too (the Long Range Arena); no streaming then."""

    def __post_init__(self) -> None:
        for name in ("average", "shared", "values", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")


def make(config: DecoderConfig, layer: int) -> Mega:
    """The Mega of a decoder's layer; it is the same in all."""
    del layer
    return Mega(config, settings_of(config, "mega", MegaSettings))


class Mega(nn.Module):
    """update (candidate - x), both from averages of x and gated attention over them (eq. 9 to 15).

    The paper's layer returns x + this with x before the norm where norms come first, and so does the
    decoder's residual stream; inside the bracket stands the normed x, all that a mixer sees. Softmax with a
    learned bias a lag; the authors' Laplace function in its place is not offered.

    Attributes:
        turn: (2, 2, z): factors and addends that make queries and keys of one shared projection.
        bias: (limit,) or (2 limit - 1,), added to scores by lag.
    """

    def __init__(self, config: DecoderConfig, settings: MegaSettings) -> None:
        super().__init__()
        self._config = config
        self.causal = not settings.bidirectional
        self.chunk = settings.chunk
        self.growth: Growth = "linear" if settings.chunk is None else "constant"
        self.limit = config.max_length if settings.chunk is None else settings.chunk
        dim, shared, values = config.dim, settings.shared, settings.values or 2 * config.dim
        self.widths = [dim, dim, shared, values]
        self.average = Averages(dim, settings.average, bidirectional=settings.bidirectional)
        self.read = Linear(
            dim, sum(self.widths)
        )  # of the averages: update gate, candidate, shared, reset gate
        self.values = Linear(dim, values)
        self.gated = Linear(values, dim)
        self.read_offset = nn.Parameter(torch.zeros(sum(self.widths)))
        self.values_offset = nn.Parameter(torch.zeros(values))
        self.turn = nn.Parameter(torch.zeros(2, 2, shared))
        self.bias = nn.Parameter(torch.zeros(self.limit if self.causal else 2 * self.limit - 1))

    def initialise(self, generator: torch.Generator) -> None:
        """Projections as attention's; factors and biases N(0, .02^2), addends 0, as the authors'."""
        initial.projections(self, self._config, generator)
        self.average.initialise(generator)
        with torch.no_grad():
            for parameter in (self.turn[0], self.bias):
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, 0.02, generator=generator))

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> Several:
        """The averages, and keys and values: of all tokens, or of a chunk's.

        Raises:
            DataError: for one that looks ahead.
        """
        refuse_streaming(self)
        width = self.widths[2] + self.widths[3]
        room = torch.zeros((batch, self.chunk or max_length, width), dtype=dtype, device=device)
        told: Any = History(room) if self.chunk is None else Rows(room)
        return Several(self.average.new_state(batch, dtype=dtype, device=device), told)

    def forward(self, x: torch.Tensor, placement: Placement, state: Several | None = None) -> torch.Tensor:
        """See `Mixer`."""
        if placement.segments is not None:
            return apart(self, x, placement.segments)
        if self.chunk is None:
            check_length(placement.end, self.limit)
        if not self.causal:
            x = blanked(x, placement)
        averaged = self.average(x, placement, None if state is None else state.parts[0])
        read = self.read(averaged) + self.read_offset
        update, candidate, shared, reset = torch.split(read, self.widths, dim=-1)
        values = functional.silu(self.values(x) + self.values_offset)
        shared = functional.silu(shared)
        queries, keys = (shared * factor + addend for factor, addend in zip(*self.turn, strict=True))
        if state is None:
            mixed = self._whole(queries, keys, values, placement)
        else:
            mixed = self._continued(queries, torch.cat((keys, values), dim=-1), placement, state.parts[1])
        candidate = functional.silu(candidate + self.gated(mixed * functional.silu(reset)))
        return torch.sigmoid(update) * (candidate - x)

    def _whole(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, placement: Placement
    ) -> torch.Tensor:
        """Attention over whole rows (B, T, ...), folded to chunks where there are."""
        batch, tokens = queries.shape[:2]
        size = min(self.chunk or tokens, tokens)
        count = -(-tokens // size)
        pad = (0, 0, 0, count * size - tokens)
        queries, keys, values = (
            functional.pad(each, pad).view(batch * count, size, -1) for each in (queries, keys, values)
        )
        along = torch.arange(size, device=queries.device)
        lag = along[:, None] - along
        if self.causal:
            seen = (lag >= 0)[None]
        else:
            ends = torch.tensor(placement.valid or (tokens,) * batch, device=queries.device)
            places = torch.arange(count * size, device=queries.device).view(count, size)
            # A row of padding sees padding, so that no softmax is empty; nobody reads what comes of it.
            real = places < ends[:, None, None]
            seen = (real[..., None, :] | ~real[..., :, None]).flatten(0, 1)
        mixed = self._attend(queries, keys, values, lag[None], seen)
        return mixed.view(batch, count * size, -1)[:, :tokens]

    def _continued(
        self, queries: torch.Tensor, told: torch.Tensor, placement: Placement, state: Any
    ) -> torch.Tensor:
        """Attention to what a state remembers and to the tokens (B, T, z + v) that it takes up."""
        shared = self.widths[2]
        starts = placement.starts()[:, None]
        places = starts + torch.arange(placement.tokens, device=told.device)
        if self.chunk is None:
            seen = state.extend(told, placement).to(told.dtype)
            theirs = torch.arange(placement.end, device=told.device)[None]
            lag = places[..., None] - theirs[:, None]
            return self._attend(queries, seen[..., :shared], seen[..., shared:], lag, lag >= 0)
        longer = torch.cat((state.kept.to(told.dtype), told), dim=1)
        parts = []
        for first in range(0, placement.tokens, self.chunk):
            here = places[:, first : first + self.chunk]
            seen = longer[:, first : first + self.chunk + here.shape[1]]
            theirs = starts + first - self.chunk + torch.arange(seen.shape[1], device=told.device)
            lag = here[..., None] - theirs[:, None]
            same = (here // self.chunk)[..., None] == torch.div(theirs, self.chunk, rounding_mode="floor")[
                :, None
            ]
            parts.append(
                self._attend(
                    queries[:, first : first + self.chunk],
                    seen[..., :shared],
                    seen[..., shared:],
                    lag,
                    same & (lag >= 0),
                )
            )
        ends = torch.tensor(placement.valid or (placement.tokens,) * placement.batch, device=told.device)
        at = ends[:, None] + torch.arange(self.chunk, device=told.device)
        state.kept = longer[torch.arange(placement.batch, device=told.device)[:, None], at].to(
            state.kept.dtype
        )
        return torch.cat(parts, dim=1)

    def _attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        lag: torch.Tensor,
        seen: torch.Tensor,
    ) -> torch.Tensor:
        """softmax(Q K^T / sqrt(z) + bias) V where `seen` (B or 1, T, S) by lags of that shape."""
        place = lag.clamp(0, self.limit - 1) if self.causal else lag + self.limit - 1
        mask = self.bias.to(queries.dtype)[place].masked_fill(~seen, float("-inf"))
        return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)


class Averages(FullPrecision):
    """silu(sum over j of eta_j h_j + omega x), h_j <- alpha_j beta_j x + (1 - alpha_j delta_j) h_j.

    The damped moving average of eq. 3 to 5, several for each channel. alpha and delta are logistic functions
    of what is learned, so a decay is in (0, 1) whatever that becomes. As in the authors' code, and not in
    the paper: the sum is divided by sqrt(h), x has a direct way, and a silu follows.

    Attributes:
        alpha, delta, beta, eta: (R, D, h), R = 1, or 2 with the averages of what comes after.
        omega: (D,).
    """

    def __init__(self, dim: int, count: int, *, bidirectional: bool) -> None:
        super().__init__()
        shape = (2 if bidirectional else 1, dim, count)
        self.alpha, self.delta, self.beta, self.eta = (nn.Parameter(torch.zeros(shape)) for _ in range(4))
        self.omega = nn.Parameter(torch.zeros(dim))
        for parameter in self.parameters():
            parameter.no_decay = True  # type: ignore[attr-defined]

    def initialise(self, generator: torch.Generator) -> None:
        """The authors': N(0, .2^2) for alpha and delta, 1, -1, 1, ... and N(0, .02^2) for beta, N(0, 1)."""
        with torch.no_grad():
            for parameter, std in ((self.alpha, 0.2), (self.delta, 0.2), (self.beta, 0.02), (self.eta, 1.0)):
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))
            self.beta.add_(1.0 - 2.0 * (torch.arange(self.beta.shape[2]) % 2))
            self.omega.copy_(torch.empty(self.omega.shape).normal_(generator=generator))

    def new_state(self, batch: int, *, dtype: torch.dtype, device: torch.device) -> Rows:
        """The averages of each channel, (B, D, h) zeros, held as complex numbers as all recurrences are."""
        kind = torch.complex128 if dtype == torch.float64 else torch.complex64
        return Rows(torch.zeros((batch, *self.alpha.shape[1:]), dtype=kind, device=device))

    def forward(self, x: torch.Tensor, placement: Placement, state: Rows | None) -> torch.Tensor:
        """(B, T, D) to the same."""
        u = x.transpose(1, 2).to(working(x.dtype))
        alpha, delta = torch.sigmoid(self.alpha), torch.sigmoid(self.delta)
        z = torch.log1p(-alpha * delta) + 0j
        # Half of it, since a kernel is 2 Re of its sum.
        c = alpha * self.beta * self.eta / (2 * self.alpha.shape[2] ** 0.5) + 0j
        if state is not None:
            y = recur(u, z[0], c, placement, state)
        else:
            tokens = u.shape[-1]
            size = _fft.good_length(2 * tokens - 1)
            ahead = _vandermonde.kernel(c[:1], z[0], tokens)[0].to(u.dtype)
            behind = None
            if not self.causal:
                # From the next token on: the token itself is among the first.
                behind = _vandermonde.kernel(c[1:], z[1], tokens)[0].to(u.dtype)[:, : tokens - 1]
            y = _fft.multiply(u, _fft.spectrum(ahead, size, behind), size)
        return functional.silu(y + self.omega.to(u.dtype)[:, None] * u).transpose(1, 2).to(x.dtype)

    @property
    def causal(self) -> bool:
        """Whether there are no averages of what comes after."""
        return len(self.alpha) == 1
