"""Which tokens of a text could be recalled from it, and how much of a gap in perplexity they explain.

Arora et al. 2023 (Zoology), §3 and app. C: a token is a hit of associative recall if it ends a pair of
neighbours that was there before in the same context, and that is too rare in the training text to be known
by heart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

PAPERS_CAP, PAPERS_TOKENS = 1250, 10e9
"""The paper's threshold, and the tokens of training text that it belongs to."""
_FEWEST = 10
"""Threshold below which even a pair seen a few times counts as known by heart."""
_BATCH = 1 << 22  # pairs sorted at once


@dataclass(frozen=True)
class Bigrams:
    """How often pairs of neighbours occur in a text.

    Attributes:
        tokens: of the text.
        pairs: the pairs that occur, packed as first * 2^32 + second, sorted.
        counts: of each.
    """

    tokens: int
    pairs: NDArray[np.int64]
    counts: Ints

    @property
    def cap(self) -> int:
        """The paper's threshold for a training text of this size: 1250 for 10^10 tokens; at least 10."""
        return max(_FEWEST, round(PAPERS_CAP * self.tokens / PAPERS_TOKENS))

    def of(self, packed: Ints) -> Ints:
        """How often each of these pairs occurs."""
        if not len(self.pairs):
            return np.zeros(packed.shape, np.int64)
        at = np.minimum(np.searchsorted(self.pairs, packed), len(self.pairs) - 1)
        return np.where(self.pairs[at] == packed, self.counts[at], 0)


def count(documents: Iterable[Ints]) -> Bigrams:
    """Count the pairs of neighbours of documents, none of which reaches from one into the next.

    Memory is that of the different pairs, 16 bytes each, and of some millions of tokens at a time.
    """
    tokens, waiting, held = 0, 0, 0
    parts: list[Ints] = []
    pairs, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for document in documents:
        tokens += len(document)
        parts.append(pack(document[:-1], document[1:]))
        waiting += len(parts[-1])
        if waiting > max(_BATCH, held):
            pairs, counts = _merged(pairs, counts, parts)
            parts, waiting, held = [], 0, len(pairs)
    pairs, counts = _merged(pairs, counts, parts)
    return Bigrams(tokens, pairs, counts)


def pack(first: Ints, second: Ints) -> Ints:
    """Pairs as one number each."""
    return (np.asarray(first, np.int64) << 32) | np.asarray(second, np.int64)


def earlier(context: Ints) -> tuple[Ints, Ints]:
    """For each token of a context, where its pair with the token before it occurred first, and how often.

    Args:
        context: (T,) tokens.

    Returns:
        (T,) place of the pair's second token at its first earlier occurrence, -1 where there is none; and
        (T,) number of earlier occurrences.
    """
    first, times = np.full(len(context), -1, np.int64), np.zeros(len(context), np.int64)
    if len(context) < 3:
        return first, times
    packed = pack(context[:-1], context[1:])
    order = np.argsort(packed, kind="stable")
    ranked = packed[order]
    fresh = np.ones(len(ranked), bool)
    fresh[1:] = ranked[1:] != ranked[:-1]
    starts = np.maximum.accumulate(np.where(fresh, np.arange(len(ranked)), 0))
    times[order + 1] = np.arange(len(ranked)) - starts
    first[order + 1] = np.where(fresh, -1, order[starts] + 1)
    return first, times


def hits(context: Ints, known: Bigrams | None = None, cap: int | None = None) -> Mask:
    """Which tokens of a context are hits of associative recall.

    Args:
        context: (T,) tokens.
        known: pairs of the training text; None: every repeated pair is a hit.
        cap: most occurrences there; None: `Bigrams.cap`.

    Returns:
        (T,) bool; never true for the first two.
    """
    found = earlier(context)[1] > 0
    if known is not None:
        limit = known.cap if cap is None else cap
        found[1:] &= known.of(pack(context[:-1], context[1:])) <= limit
    return found


@dataclass(frozen=True)
class Slice:
    """Tokens and what they cost a model."""

    tokens: int
    nll: float
    """Sum of -log p, nats."""

    @property
    def perplexity(self) -> float | None:
        """exp of the mean; None of no tokens."""
        return math.exp(self.nll / self.tokens) if self.tokens else None


def cut(nll: Floats, chosen: Mask) -> tuple[Slice, Slice, Slice]:
    """All tokens, those chosen, and the others."""
    total, inside = float(nll.sum()), float(nll[chosen].sum())
    picked = int(chosen.sum())
    return Slice(len(nll), total), Slice(picked, inside), Slice(len(nll) - picked, total - inside)


def gap_share(worse: Sequence[Slice], better: Sequence[Slice]) -> float:
    """The share of a gap between two models that lies in chosen tokens, |AR| d log ppl_AR / (|T| d log ppl).

    Args:
        worse, better: `cut` of the same tokens for two models on one tokenizer.

    Returns:
        The share; above 1 where the worse model is the better one on the other tokens, below 0 where it is
        the better one on the chosen ones. It is not clipped.

    Raises:
        DataError: for other tokens, none chosen, or a gap that is zero or negative: then there is nothing
            to have a share of.
    """
    if [each.tokens for each in worse] != [each.tokens for each in better]:
        raise DataError(
            f"the models scored {worse[0].tokens:,} and {better[0].tokens:,} tokens, {worse[1].tokens:,} and "
            f"{better[1].tokens:,} of them hits; a gap is between models on the same tokens"
        )
    if worse[1].tokens == 0:
        raise DataError(
            "no token is a hit, so there is no slice to have a share; take a longer context, a higher cap, "
            "or a text that repeats rare pairs"
        )
    gap = worse[0].nll - better[0].nll
    if gap <= 0:
        raise DataError(
            f"the gap is {gap / worse[0].tokens:.3g} nats a token, which is not above 0: a share of it means "
            "nothing. Name the model with the higher perplexity first"
        )
    return (worse[1].nll - better[1].nll) / gap


def _merged(pairs: Ints, counts: Ints, parts: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Counts with those of further pairs."""
    if not parts:
        return pairs, counts
    fresh, times = np.unique(np.concatenate(parts), return_counts=True)
    both, where = np.unique(np.concatenate((pairs, fresh)), return_inverse=True)
    sums = np.zeros(len(both), np.int64)
    np.add.at(sums, where, np.concatenate((counts, times)))
    return both, sums
