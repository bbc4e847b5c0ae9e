"""Counts by what was varied, and the columns of a model of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError, did_you_mean
from posterhall.stats.estimates import Floats

Coding = Literal["sum", "treatment"]
Ints = npt.NDArray[np.int64]

INTERCEPT = "(intercept)"
_ALIASED = 1e-9
"""Share of a column's length below which what is left of it counts as rounding."""


@dataclass(frozen=True)
class Factor:
    """One thing that was varied: which of its levels each row has."""

    levels: tuple[object, ...]
    """Its values, at least one."""
    codes: Ints
    """Places in `levels`, shape (m,)."""

    @classmethod
    def of(cls, values: Sequence[object]) -> Factor:
        """The levels of some values, in the order in which they first occur."""
        places: dict[object, int] = {}
        codes = [places.setdefault(value, len(places)) for value in values]
        return cls(tuple(places), np.array(codes, dtype=np.int64))


@dataclass(frozen=True)
class Cells:
    """Counts of right ones by all combinations of factors that occur."""

    factors: Mapping[str, Factor]
    successes: Floats
    """Shape (m,), each from 0 to its trials."""
    trials: Floats
    """Shape (m,), each above 0."""

    def __post_init__(self) -> None:
        size = len(self.trials)
        if size == 0:
            raise DataError("no rows: there is nothing to be analysed")
        for name, factor in self.factors.items():
            if ":" in name or factor.codes.shape != (size,):
                raise DataError(
                    f"factor {name!r}: a name without colon, and one code for each of {size} rows"
                )
        if not ((self.trials > 0) & (self.successes >= 0) & (self.successes <= self.trials)).all():
            raise DataError("each cell needs a trial or more, and from none to all of them may succeed")

    @classmethod
    def of(
        cls,
        factors: Mapping[str, Factor | Sequence[object]],
        successes: npt.ArrayLike,
        trials: npt.ArrayLike | None = None,
    ) -> Cells:
        """Count rows that are alike.

        Args:
            factors: for each name its values, n of them, or a `Factor`. Levels that do not occur are left
                out, and so is their order otherwise kept.
            successes: shape (n,), true or false, or how many of `trials`.
            trials: shape (n,); None: 1 each.

        Raises:
            DataError: for no rows, lists of different lengths, or more successes than trials.
        """
        won = np.asarray(successes, dtype=np.float64)
        tried = np.ones_like(won) if trials is None else np.asarray(trials, dtype=np.float64)
        made = {name: each if isinstance(each, Factor) else Factor.of(each) for name, each in factors.items()}
        key = np.zeros(len(won), dtype=np.int64)
        for name, factor in made.items():
            if factor.codes.shape != key.shape or tried.shape != key.shape:
                raise DataError(f"factor {name!r} has {len(factor.codes)} rows, and there are {len(won)}")
            # Renumbered after each factor: a number of combinations never overflows.
            key = np.unique(key * len(factor.levels) + factor.codes, return_inverse=True)[1]
        _, first, key = np.unique(key, return_index=True, return_inverse=True)
        kept = {}
        for name, factor in made.items():
            present, codes = np.unique(factor.codes[first], return_inverse=True)
            kept[name] = Factor(tuple(factor.levels[int(i)] for i in present), codes.astype(np.int64))
        right, all_of_them = np.bincount(key, weights=won), np.bincount(key, weights=tried)
        return cls(kept, right.astype(np.float64), all_of_them.astype(np.float64))


# -- the design -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """Columns for some terms; those that follow from earlier ones are left out, as factors may be nested."""

    matrix: Floats
    """Shape (m, p), the intercept first."""
    names: tuple[str, ...]
    """Of the columns: "graph[B]", "graph[B]:domain[socialTies]"."""
    terms: tuple[str, ...]
    """The term that each column belongs to."""
    coding: Coding

    def columns(self, term: str) -> Ints:
        """Where the columns of a term are."""
        return np.array([i for i, each in enumerate(self.terms) if each == term], dtype=np.int64)


def design(cells: Cells, terms: Sequence[str], *, coding: Coding = "sum") -> Design:
    """The columns of a model.

    Args:
        cells: what was counted.
        terms: names of factors, and interactions of some, joined by colons, after the factors in them.
        coding: sum: the effects of a factor's levels add up to 0, so that each is a difference from the mean
            over levels; treatment: each is a difference from the first level.

    Raises:
        DataError: for a term that there is not, is there twice, or comes before its factors.
    """
    blocks, names, owners = [np.ones((len(cells.trials), 1))], [INTERCEPT], [INTERCEPT]
    mains: dict[str, tuple[Floats, list[str]]] = {}
    for number, term in enumerate(terms):
        parts = term.split(":")
        for part in parts:
            if part not in cells.factors:
                raise DataError(
                    f"term {term!r}: no factor {part!r}; there are {', '.join(cells.factors)}."
                    f"{did_you_mean(part, cells.factors)}"
                )
            if len(parts) > 1 and part not in terms[:number]:
                raise DataError(f"term {term!r}: give {part!r} before it, which it is an interaction of")
        if term in terms[:number] or len(set(parts)) < len(parts):
            raise DataError(f"term {term!r}: give each once")
        block, said = np.ones((len(cells.trials), 1)), [""]
        for part in parts:
            if part not in mains:
                mains[part] = _coded(part, cells.factors[part], coding)
            columns, labels = mains[part]
            block = (block[:, :, None] * columns[:, None, :]).reshape(len(block), -1)
            said = [f"{a}:{b}" if a else b for a in said for b in labels]
        blocks.append(block)
        names += said
        owners += [term] * len(said)
    whole = np.hstack(blocks)
    kept = _independent(whole)
    return Design(whole[:, kept], tuple(names[i] for i in kept), tuple(owners[i] for i in kept), coding)


def contrasts(levels: int, coding: Coding) -> Floats:
    """What each level adds, shape (levels, levels - 1): effects are this times a factor's coefficients."""
    if coding == "sum":
        return np.vstack([np.eye(levels - 1), -np.ones((1, levels - 1))])
    return np.vstack([np.zeros((1, levels - 1)), np.eye(levels - 1)])


def _coded(name: str, factor: Factor, coding: Coding) -> tuple[Floats, list[str]]:
    shown = factor.levels[:-1] if coding == "sum" else factor.levels[1:]
    return contrasts(len(factor.levels), coding)[factor.codes], [f"{name}[{level}]" for level in shown]


def _independent(matrix: Floats) -> list[int]:
    """The columns that do not follow from those before them (Gram-Schmidt, twice for rounding)."""
    basis = np.empty((len(matrix), 0))
    kept = []
    for place, column in enumerate(matrix.T):
        left = column - basis @ (basis.T @ column)
        left -= basis @ (basis.T @ left)
        size = float(np.linalg.norm(left))
        if size > _ALIASED * max(1.0, float(np.linalg.norm(column))):
            basis = np.column_stack([basis, left / size])
            kept.append(place)
    return kept
