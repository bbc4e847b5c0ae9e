"""Scores that come from log-probabilities: the chain from likelihood to accuracy, item by item.

One pass of a model over a multiple-choice item gives log p of each option, and every score of the
chain NLL → p over the vocabulary → p over the choices → Brier or accuracy follows from it (Schaeffer
et al. 2024, arXiv 2406.04391). All functions take n items at once and answer with one number an item,
so that means, intervals and correlations can be taken afterwards; log-probabilities are natural.

Options: shape (n, K), float. An item with fewer than K options is padded with -inf, or the options
come as a list of n lists. Right options: one index an item (n,), a list of indices an item where
several are right, or a mask (n, K). Probabilities of several right options are *added* (logsumexp):
averaging their logs would punish an item for having more than one answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Options: TypeAlias = npt.ArrayLike | Sequence[Sequence[float]]
Correct: TypeAlias = npt.ArrayLike | Sequence[int] | Sequence[Sequence[int]]


def padded(rows: Options, fill: float = -math.inf, name: str = "log-probabilities") -> Floats:
    """Rows of different length as one array, filled up at the end.

    Args:
        rows: shape (n, K), or n lists.
        fill: what stands where a row has ended.
        name: of the values, for the message.

    Raises:
        DataError: if there are no rows, or rows are not flat lists of numbers.
    """
    try:
        array = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError):
        pieces = _pieces(rows, name)
        array = np.full((len(pieces), max(piece.size for piece in pieces)), fill)
        for row, piece in zip(array, pieces, strict=True):
            row[: piece.size] = piece
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{name} have shape {array.shape}; give (items, options), with one of each at least")
    return array


def _pieces(rows: Any, name: str) -> list[Floats]:
    try:
        pieces = [np.asarray(row, dtype=np.float64) for row in rows]
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} hold something that is no number: {error}") from None
    for i, piece in enumerate(pieces):
        if piece.ndim != 1:
            raise DataError(f"{name}: item {i} has shape {piece.shape}; give a flat list of its options")
    return pieces


def right_options(correct: Correct, n: int, k: int) -> Mask:
    """The right options as a mask, shape (n, k), with at least one an item.

    Raises:
        DataError: for another number of items, an index outside 0..k-1, or an item without a right option.
    """
    try:
        given = np.asarray(correct)
    except ValueError:  # several right options, not equally many
        given = np.empty(0, dtype=object)
    mask = np.zeros((n, k), dtype=np.bool_)
    if given.dtype == np.bool_ and given.shape == (n, k):
        mask[:] = given
    else:
        per_item: Any = given if given.ndim == 1 and given.dtype != object else correct
        if len(per_item) != n:
            raise DataError(
                f"right options for {len(per_item)} items, log-probabilities for {n}; give one an item"
            )
        pieces = [given] if per_item is given else [np.atleast_1d(np.asarray(each)) for each in per_item]
        counts = [1] * n if per_item is given else [piece.size for piece in pieces]
        items, options = np.repeat(np.arange(n), counts), np.concatenate(pieces)
        bad = np.flatnonzero(~np.isin(options, np.arange(k)) | (options.dtype == np.bool_))
        if bad.size:
            i = bad[0]
            raise DataError(
                f"item {items[i]}: right option {options[i]!s} is no index among {k} options; count from 0"
            )
        mask[items, options.astype(np.intp)] = True
    empty = np.flatnonzero(~mask.any(axis=1))
    if empty.size:
        raise DataError(f"item {empty[0]} has no right option; leave it out, or say which is right")
    return mask


def _checked(logps: Options) -> Floats:
    array = padded(logps)
    bad = np.argwhere(np.isnan(array) | (array == np.inf))
    if bad.size:
        i, j = bad[0]
        raise DataError(f"item {i}, option {j}: log-probability {array[i, j]}; it must be a number or -inf")
    return array


def _logsumexp(array: Floats) -> Floats:
    """Over the last axis; -inf where every entry is."""
    top = array.max(axis=-1, keepdims=True)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):  # log 0 is -inf, which is meant
        return np.asarray(np.log(np.exp(array - safe).sum(axis=-1)) + safe[..., 0])


def combined(logp: Options) -> Floats:
    """log p of the right answer, shape (n,): log-probabilities of several right targets added up.

    Args:
        logp: shape (n,), one target an item; or (n, T) or n lists, where any of several targets is right.

    Raises:
        DataError: for NaN, or a log-probability above 0 by more than rounding.
    """
    try:
        flat = np.asarray(logp, dtype=np.float64)
    except (TypeError, ValueError):
        flat = np.empty((0, 0))
    array = _checked(flat[:, None] if flat.ndim == 1 and flat.size else logp)
    high = np.argwhere(array > 1e-4)
    if high.size:
        i, j = high[0]
        raise DataError(
            f"item {i}: log-probability {array[i, j]:.4g} is above 0. Are these probabilities, or "
            "negative log-likelihoods, rather than log-probabilities?"
        )
    return np.minimum(_logsumexp(array), 0.0)


def nll(logp: Options) -> Floats:
    """Negative log-likelihood of the right target in nats, shape (n,), >= 0; inf where p is 0.

    Args:
        logp: log p of the right target, (n,), or of several that are right, (n, T).
    """
    return -combined(logp)


def p_vocab(logp_correct: Options) -> Floats:
    """Probability of the right target among everything that the model could say, (n,), in [0, 1].

    Args:
        logp_correct: log p of the right target, (n,), or of several that are right, (n, T).
    """
    return np.exp(combined(logp_correct))


def distribution(logps: Options) -> Floats:
    """Probabilities renormalised over the options: p_k = exp(l_k) / Σ_j exp(l_j), shape (n, K).

    Raises:
        DataError: for NaN, or an item none of whose options has any probability (log 0 throughout).
    """
    array = _checked(logps)
    total = _logsumexp(array)
    void = np.flatnonzero(np.isneginf(total))
    if void.size:
        raise DataError(
            f"item {void[0]}: every option has log-probability -inf, so shares among them do not exist; "
            "leave the item out, or score in a wider number format"
        )
    return np.asarray(np.exp(array - total[:, None]))


def p_choices(logps: Options, correct: Correct) -> Floats:
    """Probability of the right option, renormalised over the options, (n,), in [0, 1].

    Several right options count together.

    Raises:
        DataError: as `distribution` and `right_options`.
    """
    p = distribution(logps)
    share = (p * right_options(correct, *p.shape)).sum(axis=1)
    return np.asarray(np.minimum(share, 1.0))


def brier_single(p_correct: npt.ArrayLike) -> Floats:
    """(1 - p)² of the right option alone, (n,), in [0, 1], lower is better.

    What Schaeffer et al. 2023 call Brier score. It does not see how the rest is spread over the wrong
    options; `brier` does.
    """
    p = _probabilities(p_correct)
    return np.asarray(np.square(1.0 - p))


def brier(p_choices: npt.ArrayLike, correct: Correct) -> Floats:
    """Brier 1950 over K classes: Σ_k (p_k - y_k)², (n,), in [0, 2], lower is better.

    Several right options are one class, so that the score of a forecast does not depend on how the
    right answer is divided up.

    Args:
        p_choices: distribution over the options, (n, K), from `distribution`.
        correct: the right options.

    Raises:
        DataError: if a row does not sum to 1.
    """
    p = _probabilities(p_choices)
    if p.ndim != 2:
        raise DataError(f"p_choices have shape {p.shape}; the K-class Brier score needs (items, options)")
    off = np.flatnonzero(np.abs(p.sum(axis=1) - 1) > 1e-4)
    if off.size:
        raise DataError(
            f"item {off[0]}: the options' probabilities sum to {p[off[0]].sum():.4g}, not 1; "
            "renormalise them over the options first (metrics.probability.distribution)"
        )
    right = right_options(correct, *p.shape)
    return np.asarray(np.square(1.0 - (p * right).sum(axis=1)) + np.square(p * ~right).sum(axis=1))


def _probabilities(values: npt.ArrayLike) -> Floats:
    p = np.asarray(values, dtype=np.float64)
    bad = np.argwhere(~((p >= -1e-9) & (p <= 1 + 1e-9)))
    if bad.size:
        at = tuple(bad[0])
        raise DataError(
            f"{list(map(int, at))} is {p[at]}, no probability. Are these log-probabilities or per cent?"
        )
    return p


def accuracy(logps: Options, correct: Correct, *, ties: Literal["share", "first"] = "share") -> Floats:
    """1 where the likeliest option is right, 0 where it is not, (n,); also called multiple-choice grade.

    Args:
        logps: log-probabilities of the options, (n, K); any other score that is high for good will do.
        correct: the right options.
        ties: of several likeliest options, ``share`` gives the share of them that are right (what
            guessing among them would score); ``first`` takes the first, as argmax does in most
            harnesses, which favours a right answer in first place.

    Raises:
        DataError: as `distribution` and `right_options`.
    """
    array = _checked(logps)
    right = right_options(correct, *array.shape)
    top = array.max(axis=1)
    if ties == "first":
        return np.asarray(right[np.arange(len(array)), array.argmax(axis=1)], np.float64)
    if ties != "share":
        raise DataError(f"ties {ties!r}; allowed are share and first")
    best = (array == top[:, None]) & np.isfinite(array)
    best[np.isneginf(top)] = True  # nothing told the options apart, padding included: as by chance
    return np.asarray((best & right).sum(axis=1) / best.sum(axis=1))


def accuracy_norm(
    logps: Options, lengths: Options, correct: Correct, *, ties: Literal["share", "first"] = "share"
) -> Floats:
    """`accuracy` of log-probabilities divided by the options' lengths, (n,).

    Undoes the advantage of short options. The unit of length is the caller's and changes results:
    lm-evaluation-harness's acc_norm divides by characters.

    Args:
        logps: (n, K), natural.
        lengths: length of each option, same shape, > 0 where there is an option.
        correct: the right options.
        ties: as in `accuracy`.

    Raises:
        DataError: if shapes differ or a length is not positive.
    """
    array, size = padded(logps), padded(lengths, fill=1.0, name="lengths")
    if array.shape != size.shape:
        raise DataError(
            f"log-probabilities have shape {array.shape}, lengths {size.shape}; they must be equal"
        )
    bad = np.argwhere(~((size > 0) | np.isneginf(array)))
    if bad.size:
        i, j = bad[0]
        raise DataError(f"item {i}, option {j} has length {size[i, j]:g}; lengths must be positive")
    return accuracy(array / np.where(size > 0, size, 1.0), correct, ties=ties)


def bits_per_byte(logp: npt.ArrayLike, n_bytes: npt.ArrayLike) -> float:
    """-Σ log p / (ln 2 · Σ bytes): what it costs to write the texts down, lower is better.

    Summed before dividing, so that long texts weigh as much as they hold; it compares models with
    different tokenisers, which perplexity a token cannot.

    Args:
        logp: log p of each whole text (summed over its tokens), natural, (n,).
        n_bytes: its length in UTF-8 bytes, (n,).

    Raises:
        DataError: if lengths differ or the texts hold no byte.
    """
    total, size = np.atleast_1d(np.asarray(logp, np.float64)), np.atleast_1d(np.asarray(n_bytes, np.float64))
    if total.shape != size.shape:
        raise DataError(f"{total.size} log-probabilities for {size.size} lengths; give one of each a text")
    if not size.sum() > 0:
        raise DataError("the texts hold no byte; bits a byte do not exist")
    return float(-total.sum() / (math.log(2) * size.sum()))


def rescaled(score: npt.ArrayLike, chance: npt.ArrayLike) -> Floats:
    """(score - chance) / (1 - chance): 0 at chance, 1 if all is right; negative below chance.

    Args:
        score: fraction in [0, 1].
        chance: what guessing scores, in [0, 1); 1/K for K options of which one is right.

    Raises:
        DataError: for a score or a chance outside its range (a percentage, as a rule).
    """
    y, c = np.asarray(score, np.float64), np.asarray(chance, np.float64)
    if not ((y >= 0) & (y <= 1)).all() or not ((c >= 0) & (c < 1)).all():
        raise DataError(
            f"score {_shown(y)} and chance {_shown(c)} must be fractions, from 0 to 1 and below 1. "
            "Are they in per cent?"
        )
    return np.asarray((y - c) / (1 - c))


def _shown(values: Floats) -> str:
    return f"{float(values):g}" if values.ndim == 0 else f"{values.min():g} to {values.max():g}"


def chain(logps: Options, correct: Correct, *, lengths: Options | None = None) -> dict[str, Floats]:
    """Every score of the chain for each item, from one matrix of log-probabilities.

    Returns:
        ``nll``, ``p_vocab``, ``p_choices``, ``brier_single``, ``brier``, ``accuracy`` and, with
        lengths, ``accuracy_norm``; each (n,).
    """
    array = _checked(logps)
    right = right_options(correct, *array.shape)
    targets = np.where(right, array, -np.inf)
    p = distribution(array)
    share = p_choices(array, right)
    scores = {
        "nll": nll(targets),
        "p_vocab": p_vocab(targets),
        "p_choices": share,
        "brier_single": brier_single(share),
        "brier": brier(p, right),
        "accuracy": accuracy(array, right),
    }
    if lengths is not None:
        scores["accuracy_norm"] = accuracy_norm(array, lengths, right)
    return scores
