"""What makes a table of runs implausible: refused where it cannot be right, flagged where it may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError

Array = npt.NDArray[np.float64]
Columns = Mapping[str, Array]

SMALLEST = 1000.0
"""Parameters or tokens; fewer are a number in millions or billions."""
WIDEST = 1e4
"""Factor between neighbours of one column, sorted; more is two units in one column."""
PERPLEXITY = 15.0
"""Nats a token; a median above it (a guess among 3 million tokens) is a perplexity."""
COMPUTE = 2.0
"""Factor between the table's compute and 6 N D that is worth a word."""
FEWEST = 6
"""Runs for any fit: five constants and something to miss by."""


def some(bad: npt.NDArray[np.bool_], names: Sequence[str], most: int = 3) -> str:
    """The names of some rows, and how many there are."""
    rows = [names[i] for i in np.flatnonzero(bad)[:most]]
    more = int(bad.sum()) - len(rows)
    return ", ".join(rows) + (f" and {more} more" if more else "")


def finished(loss: Array, names: Sequence[str], column: str, drop: bool) -> npt.NDArray[np.bool_]:
    """Mask of the runs that have a loss.

    Raises:
        DataError: on losses that stand for unfinished runs (0, NaN, empty) unless they may be dropped;
            on infinite and negative ones, always.
    """
    negative = loss < 0
    if negative.any():
        raise DataError(
            f"{column} is negative in {some(negative, names)}; a loss in nats is positive. Is it a "
            "log-likelihood (change its sign) or the wrong column?"
        )
    infinite = np.isinf(loss)
    if infinite.any():
        raise DataError(f"{column} is infinite in {some(infinite, names)}; leave out runs that diverged")
    unfinished = np.isnan(loss) | (loss == 0)
    if unfinished.any() and not drop:
        raise DataError(
            f"{column} is 0 or missing in {some(unfinished, names)}, which usually stands for a run that "
            "has not finished; a fit would take it for a perfect model. Leave it out with --drop-unfinished"
        )
    return np.asarray(~unfinished)


def amounts(numbers: Columns, names: Sequence[str]) -> None:
    """Refuse counts that are not positive, or not in one unit.

    Raises:
        DataError: naming the rows and the likely unit.
    """
    for what in ("params", "tokens", "unique_tokens", "epochs", "flops"):
        if what not in numbers:
            continue
        values = numbers[what]
        bad = ~(np.isfinite(values) & (values > 0))
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{what} is {values[i]:g} in {some(bad, names)}; it must be a finite number above 0"
            )
        if what in ("epochs", "flops"):
            continue
        order = np.argsort(values)
        steps = values[order][1:] / values[order][:-1]
        if steps.size and steps.max() > WIDEST:
            cut = int(steps.argmax())
            below, above = values[order][cut], values[order][cut + 1]
            few = values <= below if cut + 1 <= len(values) / 2 else values > below
            raise DataError(
                f"{what} jumps from {below:.4g} to {above:.4g} with nothing between: two units in one "
                f"column, as billions beside ones? See {some(few, names)}"
            )
        if values.max() < SMALLEST:
            raise DataError(
                f"{what} is {values.max():g} at most, which no run has: it seems to be in millions or "
                f"billions. Say so: --units {what}=billions"
            )


def unique(numbers: Columns, names: Sequence[str], chosen: Mapping[str, str]) -> None:
    """Refuse more unique tokens than tokens.

    Raises:
        DataError: with the likely cause (swapped columns, or some bad rows).
    """
    u, d = numbers["unique_tokens"], numbers["tokens"]
    above = u > d * (1 + 1e-6)
    if not above.any():
        return
    i = int(np.flatnonzero(above)[0])
    first = (
        f"{names[i]} has {u[i]:.4g} unique tokens among {d[i]:.4g}; a run cannot see more unique tokens than "
        f"it trains on ({int(above.sum())} of {len(u)} rows)"
    )
    if "unique_tokens" in chosen and above.mean() >= 0.25:
        ours = f"tokens={chosen['unique_tokens']},unique_tokens={chosen['tokens']}"
        raise DataError(f"{first}. The two columns seem to be swapped: --columns {ours}")
    raise DataError(f"{first}. Correct these rows: {some(above, names)}")


def suspicions(numbers: Columns, names: Sequence[str]) -> list[str]:
    """What is odd but may be right, a sentence each.

    Raises:
        DataError: on compute in another unit.
    """
    found: list[str] = []
    loss, n, d, u = (numbers[k] for k in ("loss", "params", "tokens", "unique_tokens"))
    if np.median(loss) > PERPLEXITY:
        found.append(
            f"the median loss is {np.median(loss):.4g}, more than {PERPLEXITY:g} nats a token: are these "
            "perplexities? Then give their natural logarithms"
        )
    if "flops" in numbers:
        found += _compute(numbers["flops"] / (6 * n * d))
    if "epochs" in numbers and "unique_tokens" in numbers:
        off = np.abs(np.log(numbers["epochs"] * u / d)) > math.log(1.05)
        if off.any() and not (numbers["epochs"][off] < 1).all():
            found.append(f"epochs differ from tokens / unique_tokens in {some(off, names)}; tokens are used")
    found += _duplicates(numbers)
    found += _bits(numbers)
    return found


def _compute(ratio: Array) -> list[str]:
    middle = float(np.median(ratio))
    if not 1e-2 < middle < 1e2:
        raise DataError(
            f"the table's compute is {middle:.3g} times 6 x params x tokens; one of the three columns is in "
            "another unit. Say so with --units, as --units tokens=billions"
        )
    off = int((np.abs(np.log(ratio)) > math.log(COMPUTE)).sum())
    if not off:
        return []
    return [
        f"compute differs from 6 x params x tokens by more than {COMPUTE:g} times in {off} runs (median "
        f"ratio {middle:.2f}); the fit uses params and tokens: do params leave out "
        "embeddings, or tokens padding?"
    ]


def _duplicates(numbers: Columns) -> list[str]:
    keys = np.stack([numbers[k] for k in ("params", "tokens", "unique_tokens")], axis=1)
    counts = np.unique(keys, axis=0, return_counts=True)[1]
    if counts.max() == 1:
        return []
    inside = int(counts[counts > 1].sum())
    whole = np.column_stack([keys, numbers["loss"]])
    same = len(whole) - len(np.unique(whole, axis=0))
    said = (
        f"{inside} runs share parameters, tokens and unique tokens with another (seeds?); each counts, so "
        "those settings weigh more; resampling keeps them together"
    )
    return [said + (f". {same} of them repeat a row exactly" if same else "")]


def _bits(numbers: Columns) -> list[str]:
    """Losses near 1 / ln 2 times those that C4's law gives, throughout."""
    from posterhall.scaling.constants import PUBLISHED

    v: Any = PUBLISHED["c4"].values
    fresh = numbers["tokens"] / numbers["unique_tokens"] < 5
    large = fresh & (numbers["params"] > 1e7) & (numbers["tokens"] > 1e8)
    if large.sum() < FEWEST:
        return []
    n, d = numbers["params"][large], numbers["tokens"][large]
    expected = v["E"] + v["A"] / n ** v["alpha"] + v["B"] / d ** v["beta"]
    middle = float(np.median(numbers["loss"][large] / expected))
    if not 1.33 < middle < 1.56:
        return []
    return [
        f"losses are {middle:.2f} times those of published models of the same size, and 1 / ln 2 is 1.44: "
        "are they in bits? Then give --units loss=bits"
    ]


def enough(count: int) -> None:
    """Refuse to fit a law to fewer than six points.

    Raises:
        DataError: with the number given and needed.
    """
    if count < FEWEST:
        raise DataError(f"{count} runs; a fit needs at least {FEWEST}. Add runs of other sizes")


def varied(n: Array, d: Array) -> None:
    """Refuse to fit exponents where parameters or tokens do not vary.

    Raises:
        DataError: naming the column.
    """
    for what, values, letter in (("params", n, "alpha"), ("tokens", d, "beta")):
        if np.unique(values).size == 1:
            raise DataError(
                f"all runs have the same {what} ({values[0]:.4g}), so {letter} cannot be seen; add runs with "
                f"other {what}, or freeze the constants of a published law (--frozen paper)"
            )
