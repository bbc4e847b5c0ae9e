"""What mixers remember: a fixed number of entries a row, every token of a row, or several such things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from posterhall.extras import torch

if TYPE_CHECKING:
    from posterhall.models.mixers import Placement


class Rows:
    """A state of constant size: one entry a row.

    Attributes:
        kept: (R, ...), any type; its mixer replaces it.
    """

    def __init__(self, kept: torch.Tensor) -> None:
        self.kept = kept

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.kept.nbytes

    def select(self, rows: Sequence[int]) -> Rows:
        """A copy of some rows."""
        return Rows(self.kept[torch.tensor(rows, dtype=torch.int64, device=self.kept.device)])

    def join(self, other: Rows, rows: Sequence[int]) -> None:
        """Take copies of some rows of another."""
        self.kept = torch.cat((self.kept, other.select(rows).kept))

    def keep(self, rows: Sequence[int]) -> None:
        """Be only some rows."""
        self.kept = self.select(rows).kept

    def resize(self, max_length: int) -> None:
        """Nothing to do: the size does not depend on the length."""


class History:
    """All tokens of each row, for mixers that look back over all of them.

    Attributes:
        kept: (R, L, W), token t of a row at t; what is behind a row's last token means nothing.
    """

    def __init__(self, kept: torch.Tensor) -> None:
        self.kept = kept

    @property
    def nbytes(self) -> int:
        """Bytes of all that there is room for."""
        return self.kept.nbytes

    def extend(self, x: torch.Tensor, placement: Placement) -> torch.Tensor:
        """Write (B, T, W) where the tokens belong; return (B, S, W), all up to the placement's end."""
        self.resize(placement.end)
        start = placement.start
        if start is not None:
            self.kept[:, start : start + placement.tokens] = x
        else:
            rows = torch.arange(placement.batch, device=x.device)[:, None]
            self.kept[rows, placement.positions()] = x.to(self.kept.dtype)
        return self.kept[:, : placement.end]

    def select(self, rows: Sequence[int]) -> History:
        """A copy of some rows."""
        return History(self.kept[torch.tensor(rows, dtype=torch.int64, device=self.kept.device)])

    def join(self, other: History, rows: Sequence[int]) -> None:
        """Take copies of some rows of another."""
        self.resize(other.kept.shape[1])
        taken = other.select(rows)
        taken.resize(self.kept.shape[1])
        self.kept = torch.cat((self.kept, taken.kept))

    def keep(self, rows: Sequence[int]) -> None:
        """Be only some rows."""
        self.kept = self.select(rows).kept

    def resize(self, max_length: int) -> None:
        """Have room for so many tokens a row."""
        rows, length, width = self.kept.shape
        if max_length > length:
            # Zeros: what lies behind a row's last token is multiplied by zero, and must not be NaN.
            more = self.kept.new_zeros((rows, max_length - length, width))
            self.kept = torch.cat((self.kept, more), dim=1)

    def read(self, row: int, start: int, stop: int) -> torch.Tensor:
        """Some tokens of a row, (stop - start, W)."""
        return self.kept[row, start:stop].clone()

    def write(self, row: int, start: int, pieces: Sequence[torch.Tensor]) -> None:
        """Further tokens of a row."""
        stop = start + sum(len(each) for each in pieces)
        self.kept[row, start:stop] = torch.cat(list(pieces))


class Several:
    """The states of a mixer that has several.

    Attributes:
        parts: of the same rows; their mixer knows which is which.
    """

    def __init__(self, *parts: Any) -> None:
        self.parts: tuple[Any, ...] = parts

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)

    def select(self, rows: Sequence[int]) -> Several:
        """A copy of some rows."""
        return Several(*(part.select(rows) for part in self.parts))

    def join(self, other: Several, rows: Sequence[int]) -> None:
        """Take copies of some rows of another."""
        for part, theirs in zip(self.parts, other.parts, strict=True):
            part.join(theirs, rows)

    def keep(self, rows: Sequence[int]) -> None:
        """Be only some rows."""
        for part in self.parts:
            part.keep(rows)

    def resize(self, max_length: int) -> None:
        """Have room for so many tokens a row."""
        for part in self.parts:
            part.resize(max_length)


def right_aligned(x: torch.Tensor, placement: Placement) -> torch.Tensor:
    """(B, T, ...) with the padding behind each row's tokens moved in front of them, as zeros."""
    if placement.valid is None:
        return x
    valid = torch.tensor(placement.valid, device=x.device)
    source = torch.arange(placement.tokens, device=x.device) - (placement.tokens - valid)[:, None]  # (B, T)
    moved = x[torch.arange(placement.batch, device=x.device)[:, None], source.clamp(min=0)]
    return moved.masked_fill((source < 0).view(*source.shape, *[1] * (x.dim() - 2)), 0.0)


def blanked(x: torch.Tensor, placement: Placement) -> torch.Tensor:
    """(B, T, ...) with zeros for the padding behind each row's tokens."""
    if placement.valid is None:
        return x
    valid = torch.tensor(placement.valid, device=x.device)
    padding = torch.arange(placement.tokens, device=x.device) >= valid[:, None]
    return x.masked_fill(padding.view(*padding.shape, *[1] * (x.dim() - 2)), 0.0)
