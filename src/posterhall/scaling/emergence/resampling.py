"""Emergence scores of resampled data: what noise alone does to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from posterhall import seeds
from posterhall.metrics.emergence import emergence_scores
from posterhall.scaling.emergence.series import Floats, Series

Method = Literal["seeds", "items", "clusters", "counts", "standard errors"]


@dataclass
class Resampler:
    """Draws resamples; multinomial weights are drawn once for each number of units and used again.

    Attributes:
        seed: everything follows from it, and from the name of the series: neither the order of series
            nor which others there are changes a result.
        resamples: how many, >= 100.
    """

    seed: int = 0
    resamples: int = 1000
    _weights: dict[int, Floats] = field(default_factory=dict, repr=False)

    def weights(self, units: int) -> Floats:
        """How much each of `units` counts in each resample, (B, units), rows summing to 1."""
        if units not in self._weights:
            generator = seeds.generator(self.seed, "emergence", "weights", units)
            drawn = generator.multinomial(units, np.full(units, 1 / units), size=self.resamples)
            self._weights[units] = drawn / units
        return self._weights[units]

    def method(self, series: Series) -> Method | None:
        """What a series can be resampled over, seeds before items before counts; None if nothing."""
        if series.by_seed is not None:
            return "seeds"
        if series.units() is not None:
            return "items" if series.clusters is None else "clusters"
        if series.binary and series.n is not None:
            return "counts"
        return None if series.stderr is None else "standard errors"

    def scores(self, series: Series) -> Floats | None:
        """Scores of resampled tests, (B, n): seeds, clusters or items drawn again, the same at every scale.

        Items are shared by the models, so that drawing them together keeps what is common to all scales
        from looking like change. Counts and standard errors are drawn independently at each scale.
        """
        method = self.method(series)
        if method == "seeds" and series.by_seed is not None:
            return np.asarray(self.weights(series.by_seed.shape[1]) @ series.by_seed.T)
        units = series.units()
        if units is not None:
            sums, sizes = units
            weights = self.weights(sizes.size)
            return np.asarray((weights @ sums.T) / (weights @ sizes)[:, None])
        if method is None:
            return None
        return self.noisy(series, series.scores, "interval")

    def noisy(self, series: Series, curve: Floats, purpose: str) -> Floats | None:
        """A curve as a test like that of the series would measure it, (B, n); None if its noise is unknown.

        Right-or-wrong items: binomial with the curve as rate and the series' n. Other metrics: what
        resampled seeds, items or clusters deviate from their mean, or normal with the standard errors.
        """
        generator = seeds.generator(
            self.seed, "emergence", purpose, series.family, series.task, series.metric
        )
        size = (self.resamples, curve.size)
        independent = series.by_seed is None and series.clusters is None
        if series.binary and series.n is not None and independent:
            trials = np.round(series.n).astype(np.int64)
            return np.asarray(generator.binomial(trials, np.clip(curve, 0, 1), size=size) / trials)
        units = series.units()
        if series.by_seed is not None:
            apart = series.by_seed - series.by_seed.mean(axis=1, keepdims=True)
        elif units is not None:
            sums, sizes = units
            apart = (sums - series.scores[:, None] * sizes) / sizes.mean()
        else:
            apart = None
        if apart is not None:
            m = apart.shape[1]
            # Resampled means of m units spread by (m - 1) / m too little.
            return np.asarray(curve + self.weights(m) @ apart.T * np.sqrt(m / (m - 1)))
        if series.stderr is None:
            return None
        return np.asarray(curve + series.stderr * generator.standard_normal(size))


def straight(series: Series) -> Floats:
    """The null curve: a straight line in log scale by least squares, within bounds if there are any."""
    t = np.log(series.scales)
    slope, level = np.polyfit(t - t.mean(), series.scores, 1)
    line = level + slope * (t - t.mean())
    return np.asarray(line if series.bounds is None else np.clip(line, *series.bounds))


def p_value(series: Series, score: float, resampler: Resampler) -> float | None:
    """Chance that a straight line with this test's noise has an emergence score as large.

    Small says: sharper than a straight improvement in log scale can look by chance, under this metric.
    It does not say that there is a break (see `curves`). Counts are drawn independently at each scale,
    which makes it cautious where all models get the same items right. None where the noise is unknown.
    """
    drawn = resampler.noisy(series, straight(series), "null")
    if drawn is None:
        return None
    as_large = int((emergence_scores(series.sign * drawn) >= score).sum())
    return (1 + as_large) / (1 + resampler.resamples)
