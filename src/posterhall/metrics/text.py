"""Scores of generated text against targets: exact match, edit distances, overlap, numbers.

Every function takes n predictions and n targets and answers with one number a pair. "Tokens" are
sequences of any hashable things (numbers of a tokeniser, words); a distance in tokens means something
only if both sides were cut by the same tokeniser.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Tokens = Sequence[Hashable]

_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(
    r"[-+\N{MINUS SIGN}]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d)\.?)(?:[eE][-+]?\d+)?"
)


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits of any script.

    On ASCII the same as the tokens of the rouge-score package without stemming; that package drops
    every other letter.
    """
    return _WORD.findall(text.lower())


def normalised(text: str) -> str:
    """SQuAD's normal form: lower case, no punctuation, no English articles, single spaces."""
    kept = "".join(c for c in text.lower() if c.isalnum() or c.isspace())
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", kept).split())


def _pairs(predictions: Sequence[Any], targets: Sequence[Any]) -> int:
    for name, given in (("predictions", predictions), ("targets", targets)):
        if isinstance(given, str | bytes):
            raise DataError(f"{name} are one text; give a list of them, one an item")
    if len(predictions) != len(targets):
        raise DataError(f"{len(predictions)} predictions for {len(targets)} targets; give one an item")
    return len(predictions)


def exact_match(
    predictions: Sequence[Any],
    targets: Sequence[Any],
    *,
    normalise: Callable[[str], str] | None = None,
) -> Floats:
    """1 where prediction and target are equal, 0 elsewhere, (n,).

    For tokens: no insertion, no deletion, all positions equal. A list of strings as the target of a
    text means that any of them will do.

    Args:
        predictions: n texts or token sequences.
        targets: n texts, lists of acceptable texts, or token sequences.
        normalise: applied to both sides of texts first, for example `normalised` or `str.strip`.
    """
    n = _pairs(predictions, targets)
    clean = normalise or (lambda text: text)
    scores = np.zeros(n)
    for i, (said, wanted) in enumerate(zip(predictions, targets, strict=True)):
        if isinstance(said, str):
            accepted = [wanted] if isinstance(wanted, str) else wanted
            scores[i] = any(clean(said) == clean(each) for each in accepted)
        else:
            scores[i] = len(said) == len(wanted) and all(a == b for a, b in zip(said, wanted, strict=True))
    return scores


def position_matches(predictions: Sequence[Tokens], targets: Sequence[Tokens]) -> Floats:
    """1 where a prediction has the target's token in its place, 0 where not, NaN beyond the target; (n, L).

    For generated tokens, or for the likeliest token at each place of the true text (teacher-forced).
    Column means are the accuracy at each place; their product is what exact match would be if errors
    were independent, which they are not.
    """
    n = _pairs(predictions, targets)
    known: dict[Hashable, int] = {}
    said, wanted = _numbered(predictions, known, "predictions"), _numbered(targets, known, "targets")
    matches = np.full((n, max(map(len, wanted), default=0)), np.nan)
    for row, ours, theirs in zip(matches, said, wanted, strict=True):
        row[: len(theirs)] = 0.0
        shared = min(len(ours), len(theirs))
        row[:shared] = np.equal(ours[:shared], theirs[:shared])
    return matches


def _numbered(sequences: Sequence[Tokens], known: dict[Hashable, int], name: str) -> list[list[int]]:
    """Tokens as integers, equal ones alike. rapidfuzz compares hashes, which may collide."""
    result = []
    for i, sequence in enumerate(sequences):
        if isinstance(sequence, str | bytes):
            raise DataError(
                f"{name}[{i}] is a text, not a sequence of tokens; split it (metrics.text.words), or use "
                "char_edit_distance for characters"
            )
        plain = sequence.tolist() if hasattr(sequence, "tolist") else sequence  # numpy's integers hash slowly
        result.append([known.setdefault(token, len(known)) for token in plain])
    return result


def _distances(a: Sequence[Any], b: Sequence[Any], scorer: Any) -> Counts:
    from rapidfuzz import process

    if not len(a):
        return np.zeros(0, np.int64)
    return np.asarray(process.cpdist(a, b, scorer=scorer, dtype=np.int64, workers=1))


def token_edit_distance(a: Sequence[Tokens], b: Sequence[Tokens]) -> Counts:
    """Levenshtein distance of n pairs of token sequences: insertions + deletions + substitutions, (n,).

    Schaeffer et al. 2023, §3. For fixed length L and independent errors with probability ε a token,
    its expectation is about L ε (their eq. 10 prints L (1 - ε), against their main text).

    Raises:
        DataError: for texts in place of token sequences, or unequal numbers of them.
    """
    from rapidfuzz.distance import Levenshtein

    _pairs(a, b)
    known: dict[Hashable, int] = {}
    return _distances(_numbered(a, known, "a"), _numbered(b, known, "b"), Levenshtein.distance)


def char_edit_distance(a: Sequence[str], b: Sequence[str]) -> Counts:
    """Levenshtein distance of n pairs of texts in Unicode code points, (n,)."""
    from rapidfuzz.distance import Levenshtein

    _pairs(a, b)
    return _distances(a, b, Levenshtein.distance)


def lcs_length(a: Sequence[Tokens], b: Sequence[Tokens]) -> Counts:
    """Length of the longest common subsequence (gaps allowed) of n pairs of token sequences, (n,)."""
    from rapidfuzz.distance import LCSseq

    _pairs(a, b)
    known: dict[Hashable, int] = {}
    return _distances(_numbered(a, known, "a"), _numbered(b, known, "b"), LCSseq.similarity)


class Overlap(NamedTuple):
    """Shared tokens of n pairs, each (n,) in [0, 1]; all 0 where a side is empty."""

    precision: Floats
    recall: Floats
    f1: Floats


def _overlap(hits: npt.ArrayLike, said: npt.ArrayLike, wanted: npt.ArrayLike) -> Overlap:
    h, p, r = (np.asarray(each, np.float64) for each in (hits, said, wanted))
    precision = np.divide(h, p, out=np.zeros_like(h), where=p > 0)
    recall = np.divide(h, r, out=np.zeros_like(h), where=r > 0)
    both = p + r
    return Overlap(
        precision, recall, np.divide(2 * h, both, out=np.zeros_like(h), where=(both > 0) & (h > 0))
    )


def rouge_l(predictions: Sequence[str], targets: Sequence[str]) -> Overlap:
    """ROUGE-L (Lin 2004): longest common subsequence of words, over the words of either side."""
    _pairs(predictions, targets)
    said, wanted = [words(t) for t in predictions], [words(t) for t in targets]
    return _overlap(lcs_length(said, wanted), [len(s) for s in said], [len(w) for w in wanted])


def rouge_l_sum(predictions: Sequence[str], targets: Sequence[str]) -> Overlap:
    """Summary-level ROUGE-L (Lin 2004, §3.2): for each target sentence the union of its common
    subsequences with all sentences of the prediction. Sentences are lines.

    A word counts at most as often as it occurs on either side. Where a longest common subsequence is
    not unique the union depends on which is taken (Lin leaves it open).
    """
    _pairs(predictions, targets)
    hits, said, wanted = [], [], []
    for prediction, target in zip(predictions, targets, strict=True):
        ours = [words(line) for line in prediction.splitlines()]
        theirs = [words(line) for line in target.splitlines()]
        hits.append(_union_hits(ours, theirs))
        said.append(sum(map(len, ours)))
        wanted.append(sum(map(len, theirs)))
    return _overlap(hits, said, wanted)


def _union_hits(ours: list[list[str]], theirs: list[list[str]]) -> int:
    from rapidfuzz.distance import LCSseq

    left = Counter(word for sentence in ours for word in sentence)
    known: dict[Hashable, int] = {}
    numbered = _numbered(ours, known, "predictions")
    found = 0
    for sentence, numbers in zip(theirs, _numbered(theirs, known, "targets"), strict=True):
        covered = np.zeros(len(numbers), dtype=np.bool_)
        for other in numbered:
            for step in LCSseq.opcodes(numbers, other):
                if step.tag == "equal":
                    covered[step.src_start : step.src_end] = True
        for i in np.flatnonzero(covered):
            if left[sentence[i]]:
                left[sentence[i]] -= 1
                found += 1
    return found


def _ngrams(tokens: Tokens, n: int) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def rouge_n(predictions: Sequence[str], targets: Sequence[str], n: int = 2) -> Overlap:
    """ROUGE-N (Lin 2004): shared n-grams of words, each counted as often as both sides have it.

    Args:
        n: words a gram, >= 1.
    """
    _pairs(predictions, targets)
    if n < 1:
        raise DataError(f"n is {n}; an n-gram has one word or more")
    grams = [
        (_ngrams(words(prediction), n), _ngrams(words(target), n))
        for prediction, target in zip(predictions, targets, strict=True)
    ]
    return _overlap(
        [(said & wanted).total() for said, wanted in grams],
        [said.total() for said, _ in grams],
        [wanted.total() for _, wanted in grams],
    )


def bleu(predictions: Sequence[Tokens], references: Sequence[Sequence[Tokens]], max_n: int = 4) -> float:
    """Corpus BLEU (Papineni et al. 2002) of tokenised texts, in [0, 1], without smoothing.

    Counts are added over the corpus before dividing; the brevity penalty uses for each prediction the
    reference length nearest to its own (the shorter of two equally near).

    Args:
        predictions: n token sequences.
        references: n lists of one or more token sequences.
        max_n: longest n-gram.

    Raises:
        DataError: if an item has no reference, or lengths differ.
    """
    _pairs(predictions, references)
    hits, totals = np.zeros(max_n), np.zeros(max_n)
    said, wanted = 0, 0
    for i, (prediction, given) in enumerate(zip(predictions, references, strict=True)):
        if not len(given) or any(isinstance(each, str) for each in (prediction, *given)):
            raise DataError(f"item {i}: give a list of references, and tokens rather than text")
        said += len(prediction)
        wanted += min((abs(len(each) - len(prediction)), len(each)) for each in given)[1]
        for n in range(1, max_n + 1):
            grams = _ngrams(prediction, n)
            most: Counter[tuple[Hashable, ...]] = Counter()
            for each in given:
                most |= _ngrams(each, n)
            hits[n - 1] += (grams & most).total()
            totals[n - 1] += grams.total()
    if not hits.all():
        return 0.0
    brevity = min(0.0, 1 - wanted / said)
    return float(np.exp(brevity + np.mean(np.log(hits / totals))))


def parse_number(text: str, which: Literal["first", "last"] = "first") -> float | None:
    """The first or last number in a text, or None: 1,234.5 and -3e8 are read, words are not."""
    found = [match for match in _NUMBER.findall(text) if match]
    if not found:
        return None
    return float(found[0 if which == "first" else -1].replace(",", "").replace("\N{MINUS SIGN}", "-"))


@dataclass(frozen=True)
class NumericError:
    """Distances of n predicted numbers from their targets; NaN where no number was predicted.

    Attributes:
        absolute: |p - t|.
        relative: |p - t| / |t|; 0 for 0 against 0, inf for anything else against 0.
        log10: |log10(p / t)|, orders of magnitude; inf where signs differ or one of them is 0.
        parsed: whether a number was found.
    """

    absolute: Floats
    relative: Floats
    log10: Floats
    parsed: npt.NDArray[np.bool_]

    @property
    def unparsable(self) -> int:
        """Predictions without a number. A mean over the others alone rewards silence: report both."""
        return int((~self.parsed).sum())


def numeric_error(
    predictions: Sequence[str | float],
    targets: Sequence[str | float],
    *,
    which: Literal["first", "last"] = "first",
) -> NumericError:
    """How far predicted numbers are from the right ones, as partial credit for 37 where 38 is right.

    Args:
        predictions, targets: n numbers, or texts from which one is read.
        which: number of a text that counts.

    Raises:
        DataError: if a target holds no finite number.
    """
    _pairs(predictions, targets)
    p = _read(predictions, which)
    t = _read(targets, which)
    bad = np.flatnonzero(~np.isfinite(t))
    if bad.size:
        raise DataError(f"target {bad[0]} ({targets[bad[0]]!r}) is no finite number; numeric error needs one")
    with np.errstate(divide="ignore", invalid="ignore"):
        absolute = np.abs(p - t)
        relative = np.where(absolute == 0, 0.0, absolute / np.abs(t))
        log10 = np.abs(np.log10(np.abs(p)) - np.log10(np.abs(t)))
        log10 = np.where(p == t, 0.0, np.where(np.sign(p) * np.sign(t) > 0, log10, np.inf))
    parsed = ~np.isnan(p)
    return NumericError(
        np.where(parsed, absolute, np.nan),
        np.where(parsed, relative, np.nan),
        np.where(parsed, log10, np.nan),
        parsed,
    )


def _read(given: Iterable[str | float], which: Literal["first", "last"]) -> Floats:
    numbers = [parse_number(each, which) if isinstance(each, str) else float(each) for each in given]
    return np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
