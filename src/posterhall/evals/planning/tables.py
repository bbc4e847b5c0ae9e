"""Conversations counted by cell: accuracy with its interval, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from posterhall.evals.planning.scoring import OUTCOMES
from posterhall.stats import wilson


def cells(table: pa.Table, by: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each combination of the columns `by` that occurs, in the order of first occurrence.

    Returns:
        Dicts of: the values of `by`; n; correct; accuracy, low, high (Wilson, 95 %); failures, a count for
        each outcome but the right one that occurred; first and hub, the accuracy of what was asked before, or
        None; cut, how many replies ended at the limit of tokens.
    """
    if not by:
        keys = np.zeros(len(table), dtype=np.int64)
        values: list[tuple[Any, ...]] = [()]
    else:
        keys, values = grouped(table, by)
    outcome = pa.compute.index_in(table["failure"], pa.array(OUTCOMES)).to_numpy()
    counts = np.zeros((len(values), len(OUTCOMES)), dtype=np.int64)
    np.add.at(counts, (keys, outcome), 1)
    extra = {name: _shares(table[f"{name}_correct"], keys, len(values)) for name in ("first", "hub")}
    extra["literal"] = _shares(table["correct_literal"], keys, len(values))
    cut = np.bincount(keys, weights=table["cut"].to_numpy(zero_copy_only=False), minlength=len(values))
    found = []
    for place, value in enumerate(values):
        n, right = int(counts[place].sum()), int(counts[place, 0])
        if not n:
            continue
        interval = wilson(right, n)
        found.append(
            {
                **dict(zip(by, value, strict=True)),
                "n": n,
                "correct": right,
                "accuracy": right / n,
                "low": interval.low,
                "high": interval.high,
                "failures": {
                    name: int(count)
                    for name, count in zip(OUTCOMES[1:], counts[place, 1:], strict=True)
                    if count
                },
                **{name: each[place] for name, each in extra.items()},
                "cut": int(cut[place]),
            }
        )
    return found


def grouped(table: pa.Table, by: Sequence[str]) -> tuple[npt.NDArray[np.int64], list[tuple[Any, ...]]]:
    """The cell of each row, shape (n,), and what the columns `by` are in each, in the order of occurrence."""
    codes = np.zeros(len(table), dtype=np.int64)
    lists: list[list[Any]] = []
    for name in by:
        encoded = table[name].combine_chunks().dictionary_encode(null_encoding="encode")
        lists.append(encoded.dictionary.to_pylist())
        codes = codes * max(1, len(lists[-1])) + encoded.indices.to_numpy()
    seen, first, keys = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    values = []
    for code in seen[order]:
        value: list[Any] = []
        for each in reversed(lists):
            code, place = divmod(code, max(1, len(each)))
            value.append(each[place])
        values.append(tuple(reversed(value)))
    return rank[keys], values


def _shares(column: pa.ChunkedArray, keys: npt.NDArray[np.int64], groups: int) -> list[float | None]:
    """Share of the true ones among those that are not null, by group."""
    known = column.is_valid().to_numpy()
    true = column.fill_null(False).to_numpy()
    n = np.bincount(keys, weights=known, minlength=groups)
    right = np.bincount(keys, weights=true, minlength=groups)
    return [float(r / each) if each else None for r, each in zip(right, n, strict=True)]
