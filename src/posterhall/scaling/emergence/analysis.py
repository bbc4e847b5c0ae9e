"""All that can be said of many series at once: scores, intervals, tests, verdicts, predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from posterhall import stats
from posterhall.errors import DataError
from posterhall.metrics.emergence import ENOUGH_SCALES, emergence_score, emergence_scores, linearity
from posterhall.scaling.emergence.correlation import per_sample
from posterhall.scaling.emergence.curves import Comparison, Prediction, compare, predict_largest
from posterhall.scaling.emergence.resampling import Method, Resampler, p_value
from posterhall.scaling.emergence.series import Row, Series, grouped

NOTABLE = 100.0
"""The emergence score from which the paper's figures count a task as emergent; the text gives none."""


@dataclass(frozen=True)
class Finding:
    """What is found of one series.

    Attributes:
        series: the data.
        score: emergence score ES; ±inf where resolution does not suffice.
        normalised: ES / (n - 1), 1 for a straight line.
        linearity: BIG-bench's.
        low, high: 95 % interval of ES; None where there is nothing to resample.
        method: what was resampled.
        p: chance of as large a score if the improvement were straight in log scale; None if the noise
            is unknown or there are fewer than four scales.
        q: p adjusted for all series tested (Benjamini–Hochberg).
        significant: q is at most the false-discovery rate asked for; None if not tested.
        comparison: smooth against break.
        prediction: of the largest scale from the others; None below five scales.
        correlation: per-item Spearman correlation with log scale, its median and the shares above 1/2 and
            of items that never change; None without items or below three scales.
        flags: of the series and of its score; ``noise-unknown``; ``largest-above-prediction`` or ``-below-``
            where the largest model lies outside the interval foretold from the others.
    """

    series: Series
    score: float
    normalised: float
    linearity: float
    low: float | None
    high: float | None
    method: Method | None
    p: float | None
    q: float | None
    significant: bool | None
    comparison: Comparison | None
    prediction: Prediction | None
    correlation: dict[str, float] | None
    flags: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Smooth, break, undecided or too few scales."""
        return "too few scales" if self.comparison is None else self.comparison.verdict

    def to_dict(self) -> dict[str, Any]:
        """What `posterhall scale emergence --json` prints of it, which has null for an infinity."""
        s = self.series
        smooth = None if self.comparison is None else self.comparison.best("smooth")
        broken = None if self.comparison is None else self.comparison.best("break")
        return {
            "family": s.family,
            "task": s.task,
            "metric": s.metric,
            "scales": s.scales.tolist(),
            "scores": s.scores.tolist(),
            "higher_is_better": s.higher_is_better,
            "score": self.score,
            "normalised": self.normalised,
            "linearity": self.linearity,
            "interval": None if self.low is None else [self.low, self.high],
            "resampled": self.method,
            "p": self.p,
            "q": self.q,
            "significant": self.significant,
            "chance": s.chance,
            "above_chance": s.above_chance,
            "verdict": self.verdict,
            "break_p": None if self.comparison is None else self.comparison.p,
            "held_out": None
            if smooth is None or broken is None
            else {
                "smooth": {"model": smooth.name, "error": smooth.held_out, "aicc": smooth.aicc},
                "break": {"model": broken.name, "error": broken.held_out, "aicc": broken.aicc},
            },
            "prediction": None
            if self.prediction is None
            else {
                "predicted": self.prediction.predicted,
                "interval": [self.prediction.low, self.prediction.high],
                "actual": self.prediction.actual,
                "surprise": self.prediction.surprise,
            },
            "correlation": self.correlation,
            "flags": list(self.flags),
        }


def analyse(
    scores: Iterable[Row] | Iterable[Series],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
    fdr: float = 0.05,
    watch: Callable[[int], None] | None = None,
) -> list[Finding]:
    """Analyse every series: each family, task and metric by itself.

    Args:
        scores: rows as `readers.read` gives them, or series.
        seed: of everything drawn.
        resamples: for intervals and p-values, >= 100.
        level: of intervals, percentile bootstrap. Resampling adds noise to noise, which makes curves
            look rougher and scores smaller: the interval of a very sharp score may lie below it.
        fdr: share of false discoveries tolerated among all that are called significant.
        watch: called with the number of series done.

    Returns:
        One finding a series of two scales or more, in the order of first appearance.

    Raises:
        DataError: for settings outside their range, no series, or as `series.grouped`.
    """
    if resamples < 100:
        raise DataError(f"{resamples} resamples cannot show an interval; use 100 or more (1000 is usual)")
    if not (0 < fdr < 1 and 0 < level < 1):
        raise DataError(f"fdr {fdr} and level {level} must lie between 0 and 1")
    given: list[Any] = list(scores)
    known: list[Series] = given if all(isinstance(each, Series) for each in given) else grouped(given)
    usable = [each for each in known if each.scales.size >= 2]
    if not usable:
        raise DataError(
            f"none of {len(known)} series has two scales or more; are the models of one family called by "
            "different family names?"
        )
    resampler = Resampler(seed, resamples)
    findings = []
    for i, each in enumerate(usable):
        findings.append(_find(each, resampler, level))
        if watch is not None:
            watch(i + 1)
    return _corrected(findings, fdr)


def _find(series: Series, resampler: Resampler, level: float) -> Finding:
    better = series.higher_is_better
    found = emergence_score(series.scales, series.scores, higher_is_better=better)
    low = high = p = None
    drawn = resampler.scores(series)
    if drawn is not None:
        replicates = emergence_scores(series.sign * drawn)
        # Order statistics: between an infinite score and a finite one there is nothing to interpolate.
        low, high = np.quantile(
            replicates, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf"
        ).tolist()
    if series.scales.size >= ENOUGH_SCALES:
        p = p_value(series, found.score, resampler)
    flags = [*series.flags, *found.flags]
    if drawn is None:
        flags.append("noise-unknown")
    options: dict[str, Any] = {"noise": series.errors, "bounds": series.bounds, "seed": resampler.seed}
    n = series.scales.size
    prediction = predict_largest(series.scales, series.scores, **options) if n >= 5 else None
    if prediction is not None and prediction.surprise != "none":
        flags.append(f"largest-{prediction.surprise}-prediction")
    return Finding(
        series,
        found.score,
        found.normalised,
        linearity(series.scales, series.scores, higher_is_better=better),
        low,
        high,
        resampler.method(series),
        p,
        None,
        None,
        compare(series.scales, series.scores, **options) if n >= ENOUGH_SCALES else None,
        prediction,
        _correlation(series),
        tuple(flags),
    )


def _correlation(series: Series) -> dict[str, float] | None:
    if series.items is None or series.scales.size < 3 or not np.isfinite(series.items).all():
        return None
    each = per_sample(series.sign * series.items, series.scales)
    filled = np.nan_to_num(each, nan=0.0)  # an item that never changes follows nothing
    return {
        "median": float(np.median(filled)),
        "above_half": float((filled > 0.5).mean()),
        "constant": float(np.isnan(each).mean()),
    }


def _corrected(findings: Sequence[Finding], fdr: float) -> list[Finding]:
    tested = [finding.p for finding in findings if finding.p is not None]
    adjusted = iter(stats.benjamini_hochberg(tested).tolist())
    result = []
    for finding in findings:
        if finding.p is None:
            result.append(finding)
        else:
            q = next(adjusted)
            result.append(replace(finding, q=q, significant=q <= fdr))
    return result


Part = Literal["metric", "task", "family"]


def tally(
    findings: Iterable[Finding], by: Part = "metric", *, notable: float = NOTABLE
) -> list[dict[str, Any]]:
    """How many series of each metric (task, family) look emergent: the paper's meta-analysis.

    Returns:
        One dictionary a metric with ``name``, ``series``, ``notable`` (ES above the threshold, infinite
        ones included), ``infinite``, ``significant``, ``breaks``; most notable first.
    """
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(getattr(finding.series, by), []).append(finding)
    rows = [
        {
            "name": name,
            "series": len(group),
            "notable": sum(each.score > notable for each in group),
            "infinite": sum(bool(np.isposinf(each.score)) for each in group),
            "significant": sum(each.significant is True for each in group),
            "breaks": sum(each.verdict == "break" for each in group),
        }
        for name, group in groups.items()
    ]
    return sorted(rows, key=lambda row: (-int(row["notable"]), -int(row["breaks"]), str(row["name"])))
