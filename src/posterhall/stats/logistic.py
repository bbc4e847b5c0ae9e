"""Logistic regression on counts: so many of so many right, by what was varied, and which of it matters.

    cells = Cells.of({"graph": graphs, "temperature": temperatures}, right)
    for step in deviance_table(cells, ["graph", "temperature", "graph:temperature"]):
        print(step.term, step.df, step.chi2, step.p)

Rows that are alike in all factors are one binomial cell, so that the work does not grow with their number.
Where a combination of factors tells right from wrong without exception (*separation*), the maximum of the
likelihood lies at infinity; `separated` finds that out exactly, and Firth's penalised likelihood is taken.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize, special

from posterhall.errors import DataError, did_you_mean
from posterhall.stats.design import INTERCEPT, Cells, Coding, Design, Factor, contrasts, design
from posterhall.stats.estimates import Floats, Interval, checked_level
from posterhall.stats.multiple import holm

__all__ = [
    "Cells",
    "Coding",
    "Design",
    "Factor",
    "Fit",
    "Pair",
    "Step",
    "contrasts",
    "design",
    "deviance_table",
    "fit",
    "log_chi2_tail",
    "pairwise",
    "separated",
]

_ROUNDS = 500
_LONGEST = 5.0
"""Most that a coefficient changes in one round: on the logit scale, from 1 % to nearly 60 %."""
_FLAT = 1e-10
"""Share of the largest eigenvalue of a Gram matrix below which one counts as 0."""
_CLOSE = 1e-13
"""Newton decrement, by the log-likelihood, at which a fit is done: about twice what could be gained still."""


# -- fitting ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """A model with its coefficients."""

    cells: Cells
    design: Design
    coefficients: Floats
    """On the logit scale, shape (p,)."""
    information: Floats
    """At the coefficients, shape (p, p)."""
    log_likelihood: float
    """Without the binomial constants; with firth, plus the penalty."""
    firth: bool
    """Whether the likelihood is Firth's penalised one."""

    @functools.cached_property
    def covariance(self) -> Floats:
        """Of the coefficients, shape (p, p): the inverse of the information."""
        inverse: Floats = linalg.inv(self.information)
        return inverse

    @property
    def deviance(self) -> float:
        """Twice what the log-likelihood, without a penalty, lacks of that of a model with a share of its own
        for each cell."""
        k, n = self.cells.successes, self.cells.trials
        best = special.xlogy(k, k / n) + special.xlogy(n - k, (n - k) / n)
        return max(0.0, 2 * float(best.sum() - _log_likelihood(self.design.matrix @ self.coefficients, k, n)))

    def wald(self, name: str, level: float = 0.95) -> Interval:
        """A coefficient with its interval by the normal approximation."""
        at = self._place(name)
        z = float(special.ndtri(0.5 + checked_level(level) / 2))
        value, half = float(self.coefficients[at]), z * math.sqrt(self.covariance[at, at])
        return Interval(value, value - half, value + half, level, self._n, "Wald")

    def profile(self, name: str, level: float = 0.95) -> Interval:
        """A coefficient with its interval by the likelihood: all values that a likelihood-ratio test at this
        level does not reject. Better than Wald's near 0 and 1, and not symmetric; an end is infinite where no
        value is rejected."""
        at = self._place(name)
        value = float(self.coefficients[at])
        most = float(special.chdtri(1, 1 - checked_level(level)))
        spread = math.sqrt(self.covariance[at, at])

        def over(candidate: float) -> float:
            held = _maximise(
                self.design.matrix,
                self.cells,
                firth=self.firth,
                start=self.coefficients,
                held={at: candidate},
            )
            return 2 * (self.log_likelihood - held[1]) - most

        ends = []
        for side in (-1, 1):
            step = 2 * spread
            while over(value + side * step) < 0 and step < 2**10 * spread:
                step *= 2
            reached = over(value + side * step) >= 0
            ends.append(
                float(optimize.brentq(over, value, value + side * step, xtol=1e-9))
                if reached
                else side * math.inf
            )
        return Interval(value, ends[0], ends[1], level, self._n, "profile likelihood")

    def test(self, term: str) -> Step:
        """The likelihood-ratio test of one term: all else stays, its coefficients are 0.

        With firth, both maxima are of the same penalised likelihood (Heinze & Schemper 2002).
        """
        at = self.design.columns(term)
        if not len(at):
            raise DataError(
                f"the model has no term {term!r}; it has {', '.join(dict.fromkeys(self.design.terms))}"
            )
        held = _maximise(
            self.design.matrix,
            self.cells,
            firth=self.firth,
            start=self.coefficients,
            held=dict.fromkeys(map(int, at), 0.0),
        )
        return _step(term, len(at), 2 * (self.log_likelihood - held[1]), firth=self.firth)

    @property
    def _n(self) -> int:
        return int(self.cells.trials.sum())

    def _place(self, name: str) -> int:
        if name not in self.design.names:
            raise DataError(
                f"no coefficient {name!r}; there are {', '.join(self.design.names[:20])}."
                f"{did_you_mean(name, self.design.names)}"
            )
        return self.design.names.index(name)


def fit(cells: Cells, terms: Sequence[str], *, coding: Coding = "sum", firth: bool | None = None) -> Fit:
    """Fit a model by iteratively reweighted least squares, with steps halved until the likelihood grows.

    Args:
        cells: what was counted.
        terms, coding: see `design`.
        firth: whether to maximise Firth's penalised likelihood (1993), log L + 1/2 log |information|, whose
            maximum is always finite and less biased; None: where the cells are separated.

    Raises:
        DataError: see `design`; or if the cells are separated and firth is False.
    """
    made = design(cells, terms, coding=coding)
    apart = separated(made.matrix, cells.successes, cells.trials) if not firth else False
    if apart and firth is False:
        raise DataError(
            "a combination of factors tells right from wrong without exception: no finite coefficients are "
            "the most likely; leave firth to None or True"
        )
    return _fitted(cells, made, firth=bool(firth) or apart)


def _fitted(cells: Cells, made: Design, *, firth: bool, start: Floats | None = None) -> Fit:
    coefficients, best, information = _maximise(made.matrix, cells, firth=firth, start=start)
    return Fit(cells, made, coefficients, information, best, firth)


def separated(matrix: npt.ArrayLike, successes: npt.ArrayLike, trials: npt.ArrayLike) -> bool:
    """Whether the likelihood has no finite maximum (Albert & Anderson 1984, complete or quasi-complete).

    That is so if some direction of coefficients raises only cells in which all succeed, lowers only cells in
    which none do, and leaves all others: a linear programme, solved in the directions that leave the others.

    Args:
        matrix: shape (m, p), of full column rank.
        successes, trials: shape (m,).
    """
    x = np.asarray(matrix, dtype=np.float64)
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    mixed = (k > 0) & (k < n)
    if mixed.all():
        return False
    # The directions that leave the mixed cells: those of their Gram matrix, which is small.
    sizes, directions = linalg.eigh(x[mixed].T @ x[mixed])
    free = directions[:, sizes <= _FLAT * max(1.0, float(sizes[-1]))]
    signed = np.where(k > 0, 1.0, -1.0)[~mixed, None] * (x[~mixed] @ free)
    if not signed.size:
        return False
    found = optimize.linprog(
        -signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1), method="highs"
    )
    return bool(found.status == 0 and -found.fun > 1e-6)


def _log_likelihood(eta: Floats, k: Floats, n: Floats) -> float:
    return float(k @ eta - n @ np.logaddexp(0.0, eta))


def _maximise(
    x: Floats,
    cells: Cells,
    *,
    firth: bool,
    start: Floats | None = None,
    held: Mapping[int, float] | None = None,
) -> tuple[Floats, float, Floats]:
    """Coefficients at the maximum of the likelihood, its value there and the information.

    `held` keeps some coefficients at given values; the penalty stays that of the whole model.
    """
    k, n = cells.successes, cells.trials
    beta = np.zeros(x.shape[1]) if start is None else start.copy()
    for place, value in (held or {}).items():
        beta[place] = value
    free = np.array([i for i in range(x.shape[1]) if i not in (held or {})], dtype=np.int64)
    value, score, information = _at(beta, x, k, n, firth)
    if not np.isfinite(value):  # a start from elsewhere may lie where nothing is left of the information
        beta[free] = 0.0
        value, score, information = _at(beta, x, k, n, firth)
    for _ in range(_ROUNDS):
        if not len(free):
            break
        step = linalg.solve(information[np.ix_(free, free)], score[free], assume_a="pos")
        decrement = float(step @ score[free])
        done = decrement < _CLOSE * max(1.0, abs(value))
        step *= min(1.0, _LONGEST / max(float(np.abs(step).max()), 1e-300))
        least = value - 1e-14 * abs(value)  # a last step changes the sum by rounding alone
        for _ in range(40):
            tried = beta.copy()
            tried[free] += step
            there = _at(tried, x, k, n, firth)
            if there[0] >= least:
                break
            step /= 2
        else:
            break
        beta, (value, score, information) = tried, there
        if done:  # after its step, which squares what is still wrong
            break
    else:
        raise DataError(
            f"no maximum of the likelihood in {_ROUNDS} rounds; are there terms with more levels than data?"
        )
    return beta, value, information


def _at(beta: Floats, x: Floats, k: Floats, n: Floats, firth: bool) -> tuple[float, Floats, Floats]:
    """Log-likelihood, its gradient and the information at some coefficients."""
    eta = x @ beta
    share = special.expit(eta)
    weights = n * share * special.expit(-eta)
    information = x.T @ (weights[:, None] * x)
    value, residual = _log_likelihood(eta, k, n), k - n * share
    if firth:
        try:
            factor = linalg.cholesky(information, lower=True)
        except linalg.LinAlgError:
            return -math.inf, x.T @ residual, information
        value += float(np.log(np.diag(factor)).sum())  # 1/2 log |I|
        half = linalg.solve_triangular(factor, x.T, lower=True)
        leverage = weights * np.einsum("pm,pm->m", half, half)
        residual = residual + leverage * (0.5 - share)  # Firth 1993; Heinze & Schemper 2002, eq. 2
    return value, x.T @ residual, information


# -- tests ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What one term adds to those before it."""

    term: str
    df: int
    """Columns that it adds; 0 if it follows from the terms before it."""
    chi2: float
    """Twice the gain in log-likelihood."""
    p: float
    """Of as large a gain by chance; 0 where it is too small for a double."""
    log10_p: float
    """Its logarithm, also there."""
    firth: bool
    """Whether it is of Firth's penalised likelihood, the cells being separated with this term."""
    p_holm: float = math.nan
    """p adjusted for all tests of the table (Holm 1979)."""
    deviance: float | None = field(default=None)
    """What is left unexplained with the term; None with Firth's penalised likelihood."""
    df_left: int = 0
    """Cells without a column of their own."""


def deviance_table(cells: Cells, terms: Sequence[str], *, coding: Coding = "sum") -> list[Step]:
    """Sequential likelihood-ratio tests (analysis of deviance): each term against those before it.

    Where the cells are separated with a term, and so with all that follow, its test is of Firth's penalised
    likelihood, under the penalty of the larger model; else the chi-squares of the terms are differences of
    deviances, and add up.

    Args:
        cells: what was counted.
        terms: in the order in which they are added; see `design`.
        coding: of no influence on the tests without Firth's penalty.

    Raises:
        DataError: see `design`.
    """
    whole = design(cells, terms, coding=coding)
    steps: list[Step] = []
    current = _fitted(cells, _upto(whole, []), firth=False) if _mixed(cells) else None
    for number, term in enumerate(terms, 1):
        made = _upto(whole, terms[:number])
        added = len(whole.columns(term))
        left = len(cells.trials) - made.matrix.shape[1]
        if not added:
            steps.append(Step(term, 0, 0.0, 1.0, 0.0, False, df_left=left))
            continue
        if current is not None and not separated(made.matrix, cells.successes, cells.trials):
            start = np.concatenate([current.coefficients, np.zeros(added)])
            now = _fitted(cells, made, firth=False, start=start)
            gain = 2 * (now.log_likelihood - current.log_likelihood)
            steps.append(_step(term, added, gain, firth=False, deviance=now.deviance, left=left))
            current = now
        else:
            current = None  # separation does not go away with more terms
            tested = _fitted(cells, made, firth=True).test(term)
            steps.append(_step(term, tested.df, tested.chi2, firth=True, left=left))
    adjusted = iter(holm([step.p for step in steps if step.df]))
    return [_adjusted(step, float(next(adjusted))) if step.df else step for step in steps]


def _mixed(cells: Cells) -> bool:
    return bool(0 < cells.successes.sum() < cells.trials.sum())


def _upto(whole: Design, terms: Sequence[str]) -> Design:
    """The columns of some terms; what follows from earlier columns has been left out of the whole."""
    kept = [i for i, term in enumerate(whole.terms) if term == INTERCEPT or term in terms]
    return Design(
        whole.matrix[:, kept],
        tuple(whole.names[i] for i in kept),
        tuple(whole.terms[i] for i in kept),
        whole.coding,
    )


def _step(
    term: str, df: int, chi2: float, *, firth: bool, deviance: float | None = None, left: int = 0
) -> Step:
    chi2 = max(0.0, chi2)
    log_p = log_chi2_tail(chi2, df)
    return Step(term, df, chi2, math.exp(log_p), log_p / math.log(10), firth, math.nan, deviance, left)


def _adjusted(step: Step, p: float) -> Step:
    return Step(
        step.term, step.df, step.chi2, step.p, step.log10_p, step.firth, p, step.deviance, step.df_left
    )


def log_chi2_tail(x: float, df: float) -> float:
    """Natural logarithm of the probability that a chi-square exceeds x, also where that underflows.

    Args:
        x: >= 0.
        df: degrees of freedom, > 0.
    """
    a, z = df / 2, x / 2
    if z < a + 10:
        return float(np.log(special.gammaincc(a, z)))
    # Gamma(a, z) = exp(-z) z^a / (z + 1 - a - 1 (1 - a) / (z + 3 - a - ...)), by Lentz's method.
    b = z + 1 - a
    c, d = math.inf, 1 / b
    fraction = d
    for i in range(1, 1000):
        numerator = -i * (i - a)
        b += 2
        d = 1 / (numerator * d + b)
        c = b + numerator / c
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return float(-z + a * math.log(z) - special.gammaln(a) + math.log(fraction))


@dataclass(frozen=True)
class Pair:
    """Two levels of a factor compared."""

    a: object
    b: object
    log_odds: Interval
    """Logarithm of how many times greater the odds are with a than with b, all else equal (Wald)."""
    p: float
    """That they are the same."""
    p_holm: float
    """p adjusted for all pairs."""


def pairwise(model: Fit, factor: str, level: float = 0.95) -> list[Pair]:
    """All pairs of a factor's levels, tested for a difference (Wald), and adjusted for their number.

    Raises:
        DataError: if the model has no such factor, or its effects follow in part from those of others.
    """
    at = model.design.columns(factor)
    levels = model.cells.factors[factor].levels if factor in model.cells.factors else ()
    if not levels or len(at) != len(levels) - 1:
        raise DataError(
            f"the levels of {factor!r} cannot be compared: it is no term of the model, or nested in another"
        )
    effects = contrasts(len(levels), model.design.coding)
    z = float(special.ndtri(0.5 + checked_level(level) / 2))
    n = int(model.cells.trials.sum())
    found = []
    for a, b in combinations(range(len(levels)), 2):
        row = effects[a] - effects[b]
        value = float(row @ model.coefficients[at])
        spread = math.sqrt(float(row @ model.covariance[np.ix_(at, at)] @ row))
        p = float(2 * special.ndtr(-abs(value / spread)))
        found.append((a, b, Interval(value, value - z * spread, value + z * spread, level, n, "Wald"), p))
    adjusted = holm([p for *_, p in found])
    return [
        Pair(levels[a], levels[b], interval, p, float(q))
        for (a, b, interval, p), q in zip(found, adjusted, strict=True)
    ]
