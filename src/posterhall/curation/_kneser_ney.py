"""Counting and smoothing: word numbers to the n-grams of a modified Kneser-Ney model.

Chen & Goodman 1998 (TR-10-98), section 3: three discounts an order from counts of counts, interpolated
with the lower order, which counts distinct words to the left instead of occurrences. As usual (lmplz,
SRILM), n-grams that begin with <s> keep their occurrences, because nothing can stand to their left, and
unigrams are interpolated with the uniform distribution over all words but <s>.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.curation import _counting_kernels as kernels
from posterhall.curation._ngram_kernels import BEGIN, END

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where the counts of counts of a small corpus give none (lmplz's --discount_fallback)."""

_NEVER = -99 * np.log(10)  # ARPA's log10 of zero, for <s>, which is never predicted


@dataclass(frozen=True)
class Trie:
    """The n-grams of a model.

    Attributes:
        children, words, probabilities, backoffs: see `_ngram_kernels.log_probabilities`.
        levels: number of n-grams of each length.
        discounts: D1, D2, D3+ of each length.
        fallback: for each length, whether its discounts are `FALLBACK`.
    """

    children: NDArray[np.int64]
    words: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    backoffs: NDArray[np.float32]
    levels: tuple[int, ...]
    discounts: tuple[tuple[float, float, float], ...] = ()
    fallback: tuple[bool, ...] = ()

    @property
    def order(self) -> int:
        """Longest n-gram."""
        return len(self.levels)

    def parents(self) -> NDArray[np.int64]:
        """For each n-gram of two words or more, the n-gram without its last word."""
        return np.repeat(np.arange(len(self.children) - 1), np.diff(self.children))


@dataclass
class _Level:
    """N-grams of one length.

    Attributes:
        counts: (m,) int64 occurrences.
        suffix: (m,) int64, the n-gram without its first word, within the level below.
        begins: (m,) bool, whether the first word is <s>.
        context: (m,) int64 within the level below.
        words: (m,) int64.
    """

    counts: NDArray[Any]
    suffix: NDArray[np.int64]
    begins: NDArray[np.bool_]
    context: NDArray[np.int64]
    words: NDArray[np.int64]


def estimate(ids: NDArray[np.int32], words: int, order: int) -> Trie:
    """Train a model.

    Args:
        ids: (n,) sentences that end with END, n > 0.
        words: vocabulary, the three special words included.
        order: longest n-gram, >= 1.
    """
    levels = _count(ids, words, order)
    counts = [level.counts for level in levels]
    for n in range(order - 1):  # all but the longest count words to the left
        left = np.bincount(levels[n + 1].suffix, minlength=len(counts[n]))
        counts[n] = np.where(levels[n].begins, levels[n].counts, left)
    counts[0] = counts[0].copy()
    counts[0][BEGIN] = 0
    found = [_discounts(each) for each in counts]

    total, discounted, mass = _discount(counts[0], np.zeros(words, np.int64), 1, found[0][0])
    below = discounted / total[0] + mass[0] / (words - 1)
    below[BEGIN] = 0.0
    probabilities, backoffs, starts = [below], [], []
    first = words
    for n in range(1, order):
        level = levels[n]
        above = len(counts[n - 1])
        total, discounted, mass = _discount(counts[n], level.context, above, found[n][0])
        below = discounted / total[level.context] + mass[level.context] * below[level.suffix]
        probabilities.append(below)
        backoffs.append(np.where(total > 0, mass, 1.0))  # never seen as a context: nothing to discount
        starts.append(first + np.searchsorted(level.context, np.arange(above)))
        first += len(level.words)
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(np.concatenate(probabilities)), _NEVER)
        down = np.log(np.concatenate(backoffs)) if backoffs else np.zeros(0)
    return Trie(
        children=np.concatenate([*starts, [first]]).astype(np.int64),
        words=np.concatenate([level.words for level in levels]).astype(np.int32),
        probabilities=logs.astype(np.float32),
        backoffs=np.maximum(down, _NEVER).astype(np.float32),
        levels=tuple(len(each) for each in counts),
        discounts=tuple(each[0] for each in found),
        fallback=tuple(each[1] for each in found),
    )


def _count(ids: NDArray[np.int32], words: int, order: int) -> list[_Level]:
    ended = np.flatnonzero(ids == END)
    stream = np.insert(ids, np.concatenate([[0], ended[:-1] + 1]), BEGIN).astype(np.int32)
    shift = max(int(words - 1).bit_length(), 1)
    every = np.arange(words)
    nothing = np.zeros(words, np.int64)
    occurrences = np.bincount(stream, minlength=words)
    levels = [_Level(occurrences, nothing, np.zeros(words, bool), nothing, every)]
    numbers, after = stream, np.zeros(len(stream), np.int32)  # of the n-gram that ends at each place
    begins = every == BEGIN
    keys, keys_too = np.empty((2, len(stream)), np.int64)
    places, places_too = np.empty((2, len(stream)), np.int32)
    firsts = np.empty(len(stream) + 1, np.int64)
    for length in range(2, order + 1):
        many = kernels.pack(stream, numbers, length, shift, keys, places)
        bits = shift + max(int(len(levels[-1].words) - 1).bit_length(), 1)
        if kernels.sort(keys, places, keys_too, places_too, many, bits):
            keys, keys_too, places, places_too = keys_too, keys, places_too, places
        distinct = kernels.rank(keys, places, many, after, firsts)
        at = firsts[:distinct]
        context, last = keys[at] >> shift, keys[at] & ((1 << shift) - 1)
        suffix = numbers[places[at]].astype(np.int64)
        begins = begins[context]
        levels.append(_Level(np.diff(firsts[: distinct + 1]), suffix, begins, context, last))
        numbers, after = after, (np.zeros(len(stream), np.int32) if numbers is stream else numbers)
    return levels


def _discounts(counts: NDArray[Any]) -> tuple[tuple[float, float, float], bool]:
    """D1, D2, D3+ = j - (j + 1) Y n_(j+1) / n_j with Y = n1 / (n1 + 2 n2), and whether they fell back."""
    n = np.bincount(counts[counts <= 4].astype(np.int64), minlength=5).astype(float)
    if (n[1:] == 0).any():
        return FALLBACK, True
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(float(j - (j + 1) * y * n[j + 1] / n[j]) for j in (1, 2, 3))
    if any(not 0 <= d <= j for j, d in enumerate(found, 1)):
        return FALLBACK, True
    return (found[0], found[1], found[2]), False


def _discount(
    counts: NDArray[Any], context: NDArray[np.int64], contexts: int, discounts: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Total of each context, discounted counts, and the share of each context that was taken off."""
    taken = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    total = np.bincount(context, weights=counts, minlength=contexts).astype(np.float64)
    off = np.bincount(context, weights=taken, minlength=contexts)
    mass: NDArray[np.float64] = np.divide(off, total, out=np.zeros(contexts), where=total > 0)
    return total, counts - taken, mass
