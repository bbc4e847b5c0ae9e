"""One metric of one model family on one task over scale: what the rows of a score table are made into.

Everything a table can get wrong is found here, with the place where it stands: two families in one
series, per cent among fractions, scores that are missing or infinite, seeds that do not match.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError
from posterhall.metrics.emergence import Duplicates

Floats = npt.NDArray[np.float64]
Unit = Literal["fraction", "percent"]

BINARY = frozenset(
    {"acc", "acc_bytes", "acc_norm", "accuracy", "accuracy_norm", "em", "exact", "exact_match"}
    | {"exact_str_match", "full", "multiple_choice_grade", "pass@1", "quasi_exact_match"}
)
"""Metrics that are right or wrong for each item, so that a score is a count over n."""

FRACTIONS = BINARY | {
    "brier_single",
    "f1",
    "p_choices",
    "p_vocab",
    "rouge_1",
    "rouge_2",
    "rouge_l",
    "rouge_l_sum",
}
"""Metrics between 0 and 1, for which per cent can be told from fractions."""

ENOUGH_SEEDS = 5
"""With three, p-values come out under 0.05 in 11 of 100 series that improve straight."""

CHOICE = frozenset({"acc", "acc_norm", "accuracy", "accuracy_norm", "multiple_choice_grade", "p_choices"})
"""Metrics that guessing scores on: a chance level belongs to them."""

_LOWER = re.compile(
    r"(?:^|_)(?:nll|loss|cross_entropy|perplexity|ppl|brier(?:_single|_score)?|error|distance|ted|mse|mae|rmse|wer|cer"
    r"|ece|bits_per_byte|bits_per_character)(?:$|_)"
)


@dataclass(frozen=True, slots=True)  # there may be millions
class Row:
    """A score as it stood in a file.

    Attributes:
        where: file and line, for messages.
        family, task, metric: what it belongs to; data, never used as a path.
        scale: parameters or FLOP of the model, > 0.
        score: the metric's value.
        n: test items behind it.
        seed, item, shots: which of several; empty if there is one. Numbers of examples (shots) are averaged.
        cluster: what items that are not independent have in common; empty if they are.
        chance: what guessing scores.
        higher_is_better: None if the file does not say.
        stderr: standard error of the score.
        preferred: whether the task's author names this metric first (BIG-bench).
    """

    where: str
    family: str
    task: str
    metric: str
    scale: float
    score: float
    n: float | None = None
    seed: str = ""
    item: str = ""
    shots: str = ""
    cluster: str = ""
    chance: float | None = None
    higher_is_better: bool | None = None
    stderr: float | None = None
    preferred: bool = False


@dataclass(frozen=True)
class Series:
    """Scores of one family on one task in one metric, in order of scale.

    Attributes:
        family, task, metric: which.
        scales, scores: (n,), scales rising; scores are means over seeds and items.
        higher_is_better: whether a larger score is better.
        binary: items are right or wrong, so scores are counts over `n`.
        fraction: scores lie in [0, 1].
        items: score of each item, (n, items), where every scale has the same items.
        clusters: the cluster of each item, numbered, (items,); None if every item is its own.
        by_seed: score of each seed, (n, seeds), where every scale has the same two or more.
        n: test items behind each score, (n,).
        stderr: standard error of each score as the file gives it, (n,).
        chance: what guessing scores.
        flags: ``percent``, ``chance-unknown``, ``chance-varies``, ``scales-averaged``, ``seeds-unequal``,
            ``few-seeds`` (below five), ``items-differ``, ``shots-differ``, ``acc-and-acc_norm-split``.
    """

    family: str
    task: str
    metric: str
    scales: Floats
    scores: Floats
    higher_is_better: bool
    binary: bool
    fraction: bool
    items: Floats | None
    clusters: npt.NDArray[np.intp] | None
    by_seed: Floats | None
    n: Floats | None
    stderr: Floats | None
    chance: float | None
    flags: tuple[str, ...]

    @property
    def sign(self) -> int:
        """1, or -1 where lower is better."""
        return 1 if self.higher_is_better else -1

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Between which the scores must lie, if that is known."""
        return (0.0, 1.0) if self.fraction else None

    @property
    def errors(self) -> Floats | None:
        """Standard error of each score, (n,), from seeds, items, counts or the file; None if unknown.

        For counts (y n + 1/2) / (n + 1) stands for the rate: a score of 0 of 100 is not without error.
        """
        if self.by_seed is not None:
            return np.asarray(self.by_seed.std(axis=1, ddof=1) / math.sqrt(self.by_seed.shape[1]))
        if self.binary and self.n is not None and self.clusters is None:
            rate = (self.scores * self.n + 0.5) / (self.n + 1)
            return np.asarray(np.sqrt(rate * (1 - rate) / self.n))
        units = self.units()
        if units is not None:
            sums, sizes = units
            # Of a ratio of sums over clusters (items, where every item is its own): linearised.
            apart = sums - self.scores[:, None] * sizes
            return np.asarray(apart.std(axis=1, ddof=1) / (math.sqrt(sizes.size) * sizes.mean()))
        return self.stderr

    def units(self) -> tuple[Floats, Floats] | None:
        """Sums of scores over each cluster of items, (n, units), and its items, (units,); None below two."""
        if self.items is None:
            return None
        if self.clusters is None:
            sums, sizes = self.items, np.ones(self.items.shape[1])
        else:
            sums = np.stack([np.bincount(self.clusters, weights=row) for row in self.items])
            sizes = np.bincount(self.clusters).astype(np.float64)
        return (sums, sizes) if sizes.size > 1 else None

    @property
    def above_chance(self) -> int | None:
        """Scales whose score exceeds chance by more than twice its standard error; None if unknown."""
        errors = self.errors
        if self.chance is None or errors is None:
            return None
        return int((self.scores - self.chance > 2 * errors).sum())


def plain_metric(name: str) -> str:
    """A metric's name without the filter that lm-evaluation-harness appends: acc,none -> acc."""
    return name.partition(",")[0].strip().lower()


def lower_is_better(metric: str) -> bool:
    """Whether a metric's name says that less is better: losses, distances, errors, Brier scores."""
    return _LOWER.search(plain_metric(metric)) is not None


def grouped(
    rows: Iterable[Row],
    *,
    unit: Unit | None = None,
    duplicates: Duplicates = "refuse",
    drop_missing: bool = False,
    chance: float | None = None,
    items: int | None = None,
) -> list[Series]:
    """Rows sorted into series, every family, task and metric by itself.

    Args:
        rows: in any order.
        unit: of metrics between 0 and 1; None finds out (all at most 1: fractions; none between 0 and 1,
            or percent said: per cent) and refuses what could be either.
        duplicates: several scores at one scale that neither seed nor item tells apart: refuse, or mean.
        drop_missing: leave out rows whose score is NaN instead of refusing.
        chance: for series whose file does not give it, of metrics that guessing scores on.
        items: test items behind each score where the file does not say.

    Raises:
        DataError: naming file and line, for a scale that is not positive, a score that is missing or
            infinite, duplicates, mixed units or contradictory directions.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if not (math.isfinite(row.scale) and row.scale > 0):
            raise DataError(
                f"{row.where}: scale {row.scale}; it must be a positive number (parameters or FLOP)"
            )
        if math.isnan(row.score) and drop_missing:
            continue
        if not math.isfinite(row.score):
            said = "is missing" if math.isnan(row.score) else f"is {row.score}, as log 0 gives"
            raise DataError(
                f"{row.where}: the score of {_name(row)} {said}; drop missing ones, or use a bounded metric"
            )
        groups.setdefault((row.family, row.task, row.metric), []).append(row)
    found = [_build(group, unit, duplicates, chance, items) for group in groups.values()]
    return _split_flagged(found)


def _name(row: Row) -> str:
    return " / ".join(part for part in (row.family, row.task, row.metric) if part)


def _build(
    rows: list[Row], unit: Unit | None, duplicates: Duplicates, chance: float | None, items: int | None
) -> Series:
    first = rows[0]
    metric = plain_metric(first.metric)
    flags: list[str] = []
    scores = np.array([row.score for row in rows])
    factor = 1.0
    if metric in FRACTIONS and _percent(rows, scores, unit):
        factor = 0.01
        flags.append("percent")
    scales, where = np.unique([row.scale for row in rows], return_inverse=True)
    table = _cells(rows, where, scales.size, duplicates, flags)
    names, by_item = _matrix(table, 1, "items-differ", flags)
    _, by_seed = _matrix(table, 0, "seeds-unequal", flags)
    if by_seed is not None and by_seed.shape[1] < ENOUGH_SEEDS:
        flags.append("few-seeds")
    _matrix(table, 2, "shots-differ", flags)
    means = factor * np.array([np.mean(list(each.values())) for each in table])
    n = _per_scale(rows, where, scales.size, [row.n for row in rows])
    if by_item is not None:
        n = np.full(scales.size, float(by_item.shape[1]))
        if by_seed is None:
            means = factor * by_item.mean(axis=1)
    elif n is None and items is not None:
        n = np.full(scales.size, float(items))
    if n is not None and not (n >= 1).all():
        raise DataError(
            f"{first.where}: {n.min():g} test items behind a score of {_name(first)}; one or more"
        )
    stderr = _per_scale(rows, where, scales.size, [row.stderr for row in rows])
    level, more = _chance(rows, metric, factor, chance)
    inside = bool(((means >= 0) & (means <= 1)).all())
    if metric in FRACTIONS and not inside:
        worst = rows[int(np.abs(scores).argmax())]
        raise DataError(
            f"{worst.where}: {_name(worst)} scores {worst.score:g}; this metric lies between 0 and 1, or in "
            "per cent between 0 and 100"
        )
    # Means over seeds or numbers of examples are not right or wrong any more.
    whole = by_item is None or bool(np.isin(factor * by_item, (0.0, 1.0)).all())
    counts = inside and n is not None and bool((np.abs(means * n - np.round(means * n)) < 1e-6 * n).all())
    return Series(
        first.family,
        first.task,
        first.metric,
        np.asarray(scales, np.float64),
        means,
        _direction(rows),
        inside and whole and (metric in BINARY or counts),
        inside and (metric in FRACTIONS or counts),
        None if by_item is None else factor * by_item,
        None if by_item is None else _clusters(rows, names),
        None if by_seed is None else factor * by_seed,
        n,
        None if stderr is None else factor * stderr,
        level,
        tuple(flags + more),
    )


def _percent(rows: list[Row], scores: Floats, unit: Unit | None) -> bool:
    if unit is not None:
        return unit == "percent"
    high = scores > 1
    if not high.any():
        return False
    between = np.flatnonzero((scores > 0) & (scores < 1))
    if between.size:
        a, b = rows[int(high.argmax())], rows[int(between[0])]
        raise DataError(
            f"{a.where}: {_name(a)} scores {a.score:g}, but {b.score:g} at {b.where}: per cent and fractions "
            "in one series? Say which it is (--unit percent or --unit fraction), or mend the file"
        )
    return True


def _cells(
    rows: list[Row], where: npt.NDArray[np.intp], n: int, duplicates: Duplicates, flags: list[str]
) -> list[dict[tuple[str, ...], float]]:
    """Scores of each scale by (seed, item, shots)."""
    cells: list[dict[tuple[str, ...], list[Row]]] = [{} for _ in range(n)]
    for row, at in zip(rows, where.tolist(), strict=True):
        cells[at].setdefault((row.seed, row.item, row.shots), []).append(row)
    for cell in cells:
        for same in cell.values():
            if len(same) > 1 and duplicates == "refuse":
                raise DataError(
                    f"{same[1].where}: {_name(same[1])} has a second score at scale {same[1].scale:g} (the "
                    f"first: {same[0].where}). Two families in one series? Give a family, seed, item or "
                    "shots column, or average them (--duplicates mean)"
                )
    if any(len(same) > 1 for cell in cells for same in cell.values()):
        flags.append("scales-averaged")
    return [{key: float(np.mean([r.score for r in same])) for key, same in cell.items()} for cell in cells]


def _matrix(
    table: list[dict[tuple[str, ...], float]], part: int, flag: str, flags: list[str]
) -> tuple[list[str], Floats | None]:
    """Names of one part of the key, and means over the others, (scales, names), if all scales share them."""
    names = [sorted({key[part] for key in cell}) for cell in table]
    if any(each != names[0] for each in names):
        flags.append(flag)
        return [], None
    if len(names[0]) < 2:
        return [], None
    sums = np.zeros((2, len(table), len(names[0])))
    at = {name: j for j, name in enumerate(names[0])}
    for i, cell in enumerate(table):
        for key, score in cell.items():
            sums[:, i, at[key[part]]] += (score, 1.0)
    return names[0], np.asarray(sums[0] / sums[1])


def _clusters(rows: list[Row], items: list[str]) -> npt.NDArray[np.intp] | None:
    """The cluster of each item, numbered; None where every item stands alone."""
    of = {row.item: row.cluster for row in rows}
    known = [of[item] for item in items]
    if not any(known) or len(set(known)) == len(items):
        return None
    named = [
        f"cluster {cluster}" if cluster else f"item {item}"
        for cluster, item in zip(known, items, strict=True)
    ]
    return np.unique(named, return_inverse=True)[1].astype(np.intp)


def _per_scale(
    rows: list[Row], where: npt.NDArray[np.intp], n: int, values: Sequence[float | None]
) -> Floats | None:
    """Mean of a column at each scale; None unless every row has it."""
    if any(value is None for value in values):
        return None
    given = np.array(values, dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
    if bad.size:
        raise DataError(
            f"{rows[bad[0]].where}: {given[bad[0]]} items or standard error; it must be 0 or more"
        )
    return np.asarray(np.bincount(where, given, n) / np.bincount(where, minlength=n))


def _direction(rows: list[Row]) -> bool:
    said = {row.higher_is_better for row in rows} - {None}
    if len(said) > 1:
        other = next(row for row in rows if row.higher_is_better not in (None, rows[0].higher_is_better))
        raise DataError(
            f"{other.where}: {_name(other)} is said to be better high here and low elsewhere; mend one"
        )
    return said.pop() is True if said else not lower_is_better(rows[0].metric)


def _chance(
    rows: list[Row], metric: str, factor: float, default: float | None
) -> tuple[float | None, list[str]]:
    said = {row.chance for row in rows if row.chance is not None}
    if len(said) > 1:
        return None, ["chance-varies"]
    if not said:
        if metric not in CHOICE:
            return None, []
        return (default, []) if default is not None else (None, ["chance-unknown"])
    level = said.pop()
    # A chance of 25 beside scores in per cent is in per cent too.
    return level * factor if level > 1 else level, []


def _split_flagged(found: list[Series]) -> list[Series]:
    """Flag a task that is scored by acc at some scales and by acc_norm at others."""
    scales: dict[tuple[str, str], dict[str, set[float]]] = {}
    for each in found:
        metric = plain_metric(each.metric)
        if metric in ("acc", "acc_norm"):
            scales.setdefault((each.family, each.task), {})[metric] = set(each.scales.tolist())
    split = {key for key, both in scales.items() if len(both) == 2 and both["acc"] != both["acc_norm"]}
    return [
        replace(each, flags=(*each.flags, "acc-and-acc_norm-split"))
        if (each.family, each.task) in split and plain_metric(each.metric) in ("acc", "acc_norm")
        else each
        for each in found
    ]
