"""Bradley-Terry ratings: P(i beats j) = 1 / (1 + exp(b_j - b_i)), by Newton on counts of pairs.

The likelihood depends on the games through W alone, W_ij how often i beat j (a tie is half a win for each),
so a fit takes as long for a million games as for a hundred. The maximum exists if and only if every player
can be reached from every other along wins or ties (Ford 1957). Where it does not, the limit is reported: a
player who beats the others without ever losing to them is infinitely better, and the rest is rated without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, ndtri

from posterhall.errors import DataError, PosterhallError
from posterhall.evals.arena.verdicts import FIRST, TIE, Verdicts
from posterhall.seeds import generator
from posterhall.stats.estimates import checked_level

Floats = npt.NDArray[np.float64]
_STEPS = 100
_TIGHT = 1e-10
_CELLS = 1 << 24  # numbers of a batch of resamples


@dataclass(frozen=True)
class BradleyTerry:
    """Ratings in the order of the players; points are `scale` for odds of `base` to 1."""

    players: tuple[str, ...]
    rating: Floats
    """Shape (P,), points; infinite for who is beyond comparison, NaN for who cannot be compared."""
    covariance: Floats
    """Shape (P, P), points squared: the inverse information of the ratings as anchored. NaN where a rating is
    not finite. Games count as independent in it, and a tie as two halves."""
    wins: Floats
    """Shape (P, P): how often row beat column, ties half."""
    replicates: Floats
    """Shape (B, P): ratings of resamples of the prompts; (0, P) without."""
    per_point: float
    """Logits a point: ln(base) / scale."""

    @property
    def error(self) -> Floats:
        """Standard error of each rating, from `covariance`; 0 for the anchor."""
        return np.sqrt(np.maximum(0.0, np.diag(self.covariance)))

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Low and high of each rating.

        From the resamples of prompts, by their percentiles, if there are any; they respect that the games of
        a prompt belong together, and are infinite where a player may turn out undefeated. Else rating ± z
        standard errors.
        """
        checked_level(level)
        tail = (1 - level) / 2
        if len(self.replicates):
            ends = [_ends(column, tail) for column in self.replicates.T]
            return np.array([low for low, _ in ends]), np.array([high for _, high in ends])
        half = float(ndtri(1 - tail)) * self.error
        return self.rating - half, self.rating + half

    def difference(self, a: int, b: int, level: float = 0.95) -> tuple[float, float, float]:
        """Rating of a over b, with low and high: what the intervals of the two alone do not tell."""
        checked_level(level)
        tail = (1 - level) / 2
        with np.errstate(invalid="ignore"):
            gap = float(self.rating[a] - self.rating[b])
        if len(self.replicates):
            with np.errstate(invalid="ignore"):
                gaps = self.replicates[:, a] - self.replicates[:, b]
            return gap, *_ends(gaps, tail)
        c = self.covariance
        half = float(ndtri(1 - tail) * np.sqrt(max(0.0, c[a, a] + c[b, b] - 2 * c[a, b])))
        return gap, gap - half, gap + half

    def probability(self) -> Floats:
        """Shape (P, P): how probably row beats column, a tie counted as half; NaN where it is not known."""
        with np.errstate(invalid="ignore"):
            return np.asarray(expit(self.per_point * (self.rating[:, None] - self.rating[None, :])))


def rate(
    verdicts: Verdicts,
    *,
    anchor: tuple[str, float] | None = None,
    mean: float = 1000.0,
    base: float = 10.0,
    scale: float = 400.0,
    ridge: float = 0.0,
    resamples: int = 1000,
    seed: int = 0,
) -> BradleyTerry:
    """Rate the players.

    Args:
        verdicts: games; those without a verdict do not count.
        anchor: a player and its rating; None: the mean of all finite ratings is `mean`.
        mean: points.
        base, scale: a difference of `scale` points is odds of `base` to 1.
        ridge: lambda >= 0 of a penalty lambda/2 sum (b - mean b)^2, in logits; above 0, all are finite.
        resamples: of the prompts, for intervals; 0 for none, and none are made of fewer than two prompts.
        seed: of the resamples.

    Raises:
        DataError: for no game, players in groups that never met, an unknown or infinite anchor, or a value
            out of range.
    """
    if not (ridge >= 0 and base > 1 and scale > 0 and resamples >= 0 and math.isfinite(ridge)):
        raise DataError(
            f"ridge {ridge}, base {base}, scale {scale}, resamples {resamples}: ridge must be 0 or above, "
            "base above 1, scale above 0, resamples at least 0"
        )
    games = verdicts.judged()
    if not len(games):
        raise DataError("no game with a verdict: there is nothing to rate")
    pivot = None if anchor is None else verdicts.player(anchor[0])
    pairs, cells, each = _counts(games, len(verdicts.players), by_prompt=resamples > 0)
    wins = _table(each.sum(axis=0)[None], pairs, cells, len(verdicts.players))[0]
    if ridge == 0:
        _check_connected(wins, verdicts.players)
    per_point = math.log(base) / scale
    logits = fit(wins, ridge)
    if pivot is not None and not math.isfinite(logits[pivot]):
        raise DataError(
            f"{verdicts.players[pivot]} cannot be the anchor: it won or lost all its games against the "
            "others; anchor another, or give a ridge, as 0.1"
        )
    at = mean if anchor is None else anchor[1]
    replicates = np.empty((0, len(wins)))
    if resamples and len(each) > 1:
        drawn = _resampled(each, pairs, cells, logits, ridge, resamples, seed)
        with np.errstate(invalid="ignore"):  # where the anchor itself is undefeated nothing is known
            replicates = at + (drawn - _centre(drawn, pivot)) / per_point
    return BradleyTerry(
        players=verdicts.players,
        rating=at + (logits - _centre(logits[None], pivot)[0]) / per_point,
        covariance=_covariance(wins, logits, ridge, pivot) / per_point**2,
        wins=wins,
        replicates=replicates,
        per_point=per_point,
    )


def fit(wins: npt.ArrayLike, ridge: float = 0.0) -> Floats:
    """Logits b of maximal likelihood, mean 0 over the finite ones.

    Args:
        wins: shape (P, P), >= 0: how often row beat column; a tie is half a win for each. The diagonal does
            not count.
        ridge: see `rate`.

    Returns:
        Shape (P,). Without a ridge, players above the largest group that is bound together by wins both ways
        have inf, those below -inf, and those neither NaN.
    """
    table = np.array(wins, dtype=np.float64)
    np.fill_diagonal(table, 0)
    if ridge > 0:
        return np.asarray(_newton(table[None], ridge, np.zeros((1, len(table))))[0])
    beaten = table > 0
    groups, group = connected_components(beaten, directed=True, connection="strong")
    if groups == 1:
        return np.asarray(_newton(table[None], 0.0, np.zeros((1, len(table))))[0])
    # The largest group, by players and then by games.
    games = table + table.T
    sizes = [
        (int((group == g).sum()), float(games[np.ix_(group == g, group == g)].sum())) for g in range(groups)
    ]
    main = group == max(range(groups), key=lambda g: sizes[g])
    reach = _closure(beaten[None])[0]
    above, below = reach[:, main].any(axis=1), reach[main].any(axis=0)
    logits = np.full(len(table), np.nan)
    logits[above & ~below], logits[below & ~above] = np.inf, -np.inf
    inner = table[np.ix_(main, main)]
    logits[main] = _newton(inner[None], 0.0, np.zeros((1, len(inner))))[0]
    return logits


def _ends(values: Floats, tail: float) -> tuple[float, float]:
    """Percentiles of the resamples in which a value is known: of values, as infinite ones have no mean."""
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def _counts(
    games: Verdicts, players: int, *, by_prompt: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Wins by prompt and pair.

    Returns:
        pairs (M,), i * players + j with i < j, of those who met; cells, where j's wins over i belong; and
        (prompts, 2 M), the wins of i and then those of j.
    """
    i, j = np.minimum(games.first, games.second), np.maximum(games.first, games.second)
    pairs, pair = np.unique(i.astype(np.int64) * players + j, return_inverse=True)
    of_first = np.where(games.result == TIE, 0.5, (games.result == FIRST).astype(np.float64))
    of_i = np.where(games.first == i, of_first, 1 - of_first)
    m = len(pairs)
    prompts, prompt = np.unique(games.question, return_inverse=True) if by_prompt else (np.zeros(1), 0)
    place = prompt * 2 * m + pair
    size = len(prompts) * 2 * m
    counts = np.bincount(place, of_i, size) + np.bincount(place + m, 1 - of_i, size)
    cells = (pairs % players * players + pairs // players).astype(np.int64)
    return pairs, cells, np.asarray(counts, dtype=np.float64).reshape(len(prompts), 2 * m)


def _table(
    counts: Floats, pairs: npt.NDArray[np.int64], cells: npt.NDArray[np.int64], players: int
) -> Floats:
    """Wins, shape (B, P, P), from counts (B, 2 M)."""
    table = np.zeros((len(counts), players * players))
    table[:, pairs], table[:, cells] = counts[:, : len(pairs)], counts[:, len(pairs) :]
    return table.reshape(-1, players, players)


def _check_connected(wins: Floats, players: tuple[str, ...]) -> None:
    groups, group = connected_components(wins + wins.T > 0, directed=False)
    if groups > 1:
        named = [[name for name, g in zip(players, group, strict=True) if g == at] for at in range(groups)]
        shown = "; ".join(", ".join(names[:4]) + (", ..." if len(names) > 4 else "") for names in named[:4])
        raise DataError(
            f"the players are in {groups} groups that never met ({shown}), so their ratings do not compare; "
            "add games between the groups, rate each by itself, or give a ridge, as 0.1, which takes the "
            "groups' means for equal"
        )


def _newton(wins: Floats, ridge: float, start: Floats) -> Floats:
    """Maximal likelihood for tables (B, P, P), each strongly connected or with a ridge; (B, P), mean 0.

    Damped: a step is halved until the likelihood does not fall, so that it converges from anywhere.
    """
    players = wins.shape[-1]
    games = wins + wins.transpose(0, 2, 1)
    total = wins.sum(axis=2)
    eye = np.eye(players)
    # b is known up to a constant: along (1, ..., 1) the information is 0, and anything may stand there.
    ones = np.full((players, players), 1 / players)

    def value(b: Floats) -> Floats:
        gap = b[:, :, None] - b[:, None, :]
        penalty = ridge / 2 * ((b - b.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        return np.asarray((wins * np.logaddexp(0, -gap)).sum(axis=(1, 2)) + penalty)

    b = start - start.mean(axis=1, keepdims=True)
    now = value(b)
    for _ in range(_STEPS):
        p = expit(b[:, :, None] - b[:, None, :])
        gradient = total - (games * p).sum(axis=2) - ridge * b
        weight = games * p * (1 - p)
        information = weight.sum(axis=2)[:, :, None] * eye - weight + ridge * (eye - ones)
        size = np.maximum(1e-300, np.trace(information, axis1=1, axis2=2) / players)[:, None, None]
        step = np.linalg.solve(information + size * ones, gradient[:, :, None])[:, :, 0]
        if np.abs(step).max() < _TIGHT:
            return np.asarray(b + step)
        share = np.ones(len(b))
        after = value(b + step)
        for _ in range(40):
            worse = after > now + 1e-12 * np.abs(now)
            if not worse.any():
                break
            share[worse] /= 2
            after = value(b + share[:, None] * step)
        b, now = b + share[:, None] * step, after
    if np.abs(step).max() < 1e-6:  # as close as rounding lets it come
        return np.asarray(b)
    raise PosterhallError(
        "the fit of Bradley and Terry did not converge; some players are all but undefeated: give a ridge, "
        "as 0.1"
    )


def _covariance(wins: Floats, logits: Floats, ridge: float, pivot: int | None) -> Floats:
    """Of the ratings as anchored, logits squared."""
    finite = np.flatnonzero(np.isfinite(logits))
    b, games = logits[finite], (wins + wins.T)[np.ix_(finite, finite)]
    p = expit(b[:, None] - b[None, :])
    weight = games * p * (1 - p)
    np.fill_diagonal(weight, 0)
    ones = np.full((len(b), len(b)), 1 / len(b))
    eye = np.eye(len(b))
    information = np.diag(weight.sum(axis=1)) - weight + ridge * (eye - ones)
    size = max(1e-300, float(np.trace(information)) / len(b))
    inverse = np.linalg.inv(information + size * ones) - ones / size  # the pseudo-inverse: of b, mean 0
    if pivot is not None:
        against = eye - (np.arange(len(b)) == int(np.flatnonzero(finite == pivot)[0])).astype(float)[None, :]
        inverse = against @ inverse @ against.T
    whole = np.full((len(logits), len(logits)), np.nan)
    whole[np.ix_(finite, finite)] = inverse
    return whole


def _resampled(
    each: Floats,
    pairs: npt.NDArray[np.int64],
    cells: npt.NDArray[np.int64],
    logits: Floats,
    ridge: float,
    resamples: int,
    seed: int,
) -> Floats:
    """Logits of resamples of the prompts, (B, P)."""
    prompts, players = len(each), len(logits)
    rng = generator(seed, "arena", "bradley-terry prompts")
    weights = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    start = np.where(np.isfinite(logits), logits, 0.0)
    found = np.empty((resamples, players))
    batch = max(1, _CELLS // (players * players * 8))
    for begin in range(0, resamples, batch):
        tables = _table(weights[begin : begin + batch] @ each, pairs, cells, players)
        bound = np.ones(len(tables), dtype=bool) if ridge > 0 else _closure(tables > 0).all(axis=(1, 2))
        out = found[begin : begin + batch]
        if bound.any():
            out[bound] = _newton(tables[bound], ridge, np.repeat(start[None], int(bound.sum()), axis=0))
        for at in np.flatnonzero(~bound):
            out[at] = fit(tables[at], ridge)
    return found


def _closure(beaten: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Who is reached from whom along wins, for (B, P, P), oneself included."""
    reach = (beaten | np.eye(beaten.shape[-1], dtype=bool)).astype(np.float32)
    for _ in range(max(1, math.ceil(math.log2(beaten.shape[-1])))):
        reach = np.minimum(reach @ reach, 1)
    return reach > 0


def _centre(logits: Floats, pivot: int | None) -> Floats:
    """What lies at the anchor, (B, 1): a player's logit, or the mean of the finite ones."""
    if pivot is not None:
        return logits[:, pivot : pivot + 1]
    finite = np.isfinite(logits)
    return np.asarray(
        np.where(finite, logits, 0).sum(axis=1, keepdims=True)
        / np.maximum(1, finite.sum(axis=1, keepdims=True))
    )
