"""What the mixers of a decoder remember of the tokens so far, for all rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from posterhall.errors import DataError

if TYPE_CHECKING:
    from posterhall.models.mixers import State


class Cache:
    """The states of all layers, made by `Decoder.new_cache` and filled by `Decoder.hidden(cache=...)`.

    Attributes:
        states: one a layer.
        lengths: tokens seen by each row, B of them.
        max_length: tokens a row has room for.
    """

    def __init__(self, states: list[State], lengths: Sequence[int], max_length: int) -> None:
        self.states = states
        self.lengths = list(lengths)
        self.max_length = max_length

    @property
    def batch(self) -> int:
        """Rows B."""
        return len(self.lengths)

    def select(self, rows: Sequence[int]) -> Cache:
        """A copy of some rows, in this order; a row may be taken several times.

        Many continuations of one prompt: fill a cache of one row with the prompt, then
        `cache.select([0] * n)`.
        """
        if any(not 0 <= row < self.batch for row in rows):
            raise DataError(f"rows {list(rows)} of a cache with {self.batch} rows")
        return Cache(
            [state.select(rows) for state in self.states],
            [self.lengths[row] for row in rows],
            self.max_length,
        )

    def join(self, other: Cache, rows: Sequence[int]) -> None:
        """Take copies of some rows of another cache of the same model, behind one's own."""
        for own, state in zip(self.states, other.states, strict=True):
            own.join(state, rows)
        self.lengths += [other.lengths[row] for row in rows]
        self.max_length = max(self.max_length, other.max_length)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, each at most once, in this order.

        It costs least when those that stay keep their place, and gaps are filled from the end.
        """
        for state in self.states:
            state.keep(rows)
        self.lengths = [self.lengths[row] for row in rows]

    def resize(self, max_length: int) -> None:
        """Make room for rows of up to so many tokens; more than the model's longest serve nobody."""
        self.max_length = max(max_length, *self.lengths)
        for state in self.states:
            state.resize(max_length)

    def forget(self, lengths: Sequence[int]) -> None:
        """Let each row be only so many of its tokens, at most those it has seen; for states that hold each
        token apart (`Recall`), which write over what is behind a row's length."""
        self.lengths = [min(each, now) for each, now in zip(lengths, self.lengths, strict=True)]

    def room(self, tokens: Sequence[int]) -> None:
        """Check that every row has room for so many tokens more.

        Raises:
            DataError: if one has not.
        """
        for before, new in zip(self.lengths, tokens, strict=True):
            if before + new > self.max_length:
                raise DataError(
                    f"{new} tokens after {before} exceed the {self.max_length} that the cache has room for; "
                    "make it longer: new_cache(batch, max_length)"
                )
