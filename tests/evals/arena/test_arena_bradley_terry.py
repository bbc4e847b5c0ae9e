"""Bradley-Terry: closed forms, another optimiser on the likelihood, tournaments without a maximum."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from posterhall.errors import DataError
from posterhall.evals.arena import bradley_terry as bt
from posterhall.evals.arena.verdicts import Verdicts, example

POINT = 400 / math.log(10)


def series(*results):
    """Games as (a, b, wins of a, ties, wins of b), each on a prompt of its own."""
    games = []
    for a, b, wins, ties, losses in results:
        said = ["first"] * wins + ["tie"] * ties + ["second"] * losses
        games += [(f"{a}{b}{i}", a, b, each) for i, each in enumerate(said)]
    return Verdicts.of_games(games)


def test_two_players_have_the_log_odds():
    found = bt.rate(series(("a", "b", 30, 0, 10)), resamples=0, anchor=("b", 0.0))
    assert found.rating == pytest.approx([POINT * math.log(3), 0], abs=1e-9)
    # Variance of log odds: 1/30 + 1/10.
    assert found.error == pytest.approx([POINT * math.sqrt(1 / 30 + 1 / 10), 0], abs=1e-9)
    gap, low, high = found.difference(0, 1)
    assert (high - low) / 2 == pytest.approx(1.959964 * POINT * math.sqrt(1 / 30 + 1 / 10), rel=1e-6)
    assert gap == pytest.approx(POINT * math.log(3))
    assert found.probability()[0, 1] == pytest.approx(0.75)


def test_ties_are_half_a_win_for_each():
    ties = bt.rate(series(("a", "b", 20, 10, 10)), resamples=0)
    assert ties.rating[0] - ties.rating[1] == pytest.approx(POINT * math.log(25 / 15))


def test_ratings_centre_on_the_mean_or_on_the_anchor():
    verdicts = series(("a", "b", 5, 0, 3), ("b", "c", 4, 1, 2), ("a", "c", 2, 0, 2))
    assert bt.rate(verdicts, mean=1500, resamples=0).rating.mean() == pytest.approx(1500)
    found = bt.rate(verdicts, anchor=("c", 800.0), resamples=200)
    assert found.rating[2] == pytest.approx(800)
    low, high = found.interval()
    assert (low[2], high[2]) == (800, 800)
    assert found.error[2] == 0


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 6).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=n, max_size=n)
    ),
    st.sampled_from([0.0, 0.3]),
)
def test_the_fit_is_where_another_optimiser_finds_the_maximum(rows, ridge):
    wins = np.array(rows, dtype=float)
    np.fill_diagonal(wins, 0)
    n = len(wins)
    reach = np.linalg.matrix_power((wins > 0) + np.eye(n), n)
    assume((reach > 0).all() or ridge > 0)
    found = bt.fit(wins, ridge)

    def loss(b):
        return (wins * np.logaddexp(0, b[None, :] - b[:, None])).sum() + ridge / 2 * (
            (b - b.mean()) ** 2
        ).sum()

    best = minimize(loss, np.zeros(n), method="BFGS", options={"gtol": 1e-9})
    assert found == pytest.approx(best.x - best.x.mean(), abs=2e-4)
    assert loss(found) <= best.fun + 1e-9


def test_the_covariance_is_the_inverse_of_the_curvature():
    verdicts = series(("a", "b", 9, 2, 5), ("b", "c", 7, 0, 6), ("a", "c", 4, 0, 4), ("c", "d", 5, 0, 3))
    found = bt.rate(verdicts, resamples=0, anchor=("d", 0.0), base=math.e, scale=1.0)
    wins = found.wins

    def loss(b):
        b = np.append(b, 0.0)
        return (wins * np.logaddexp(0, b[None, :] - b[:, None])).sum()

    h, at = 1e-4, found.rating[:3]
    eye = np.eye(3) * h
    curvature = [
        [
            (loss(at + i + j) - loss(at + i - j) - loss(at - i + j) + loss(at - i - j)) / (4 * h * h)
            for j in eye
        ]
        for i in eye
    ]
    assert found.covariance[:3, :3] == pytest.approx(np.linalg.inv(curvature), rel=1e-4)


def test_intervals_of_independent_games_are_those_of_the_information():
    rng = np.random.default_rng(0)
    skill = {"a": 0.8, "b": 0.2, "c": -1.0}
    games = []
    for i in range(900):
        x, y = rng.choice(list("abc"), 2, replace=False)
        won = rng.random() < expit(skill[x] - skill[y])
        games.append((str(i), str(x), str(y), "first" if won else "second"))
    found = bt.rate(Verdicts.of_games(games), resamples=2000)
    low, high = found.interval()
    assert (high - low) / 2 == pytest.approx(1.96 * found.error, rel=0.1)


def test_games_of_a_prompt_belong_together():
    once = series(("a", "b", 25, 0, 15))
    copies = [(f"q{i}", "a", "b", "first" if i < 25 else "second") for i in range(40) for _ in range(9)]
    one, nine = (bt.rate(each, resamples=1000).interval() for each in (once, Verdicts.of_games(copies)))
    assert nine[0] == pytest.approx(one[0], abs=15)  # nine times the games, and no more known
    narrow = bt.rate(Verdicts.of_games(copies), resamples=0).interval()
    assert narrow[1][0] - narrow[0][0] == pytest.approx((nine[1][0] - nine[0][0]) / 3, rel=0.15)


def test_the_published_ranking_is_recovered():
    verdicts = example()
    found = bt.rate(verdicts, resamples=200)
    order = [verdicts.players[i] for i in np.argsort(-found.rating)]
    assert order == [
        "gpt4", "guanaco-65b", "guanaco-33b", "vicuna-13b", "gpt35", "guanaco-13b", "bard", "guanaco-7b"
    ]  # fmt: skip
    low, high = found.interval()
    assert ((low < found.rating) & (found.rating < high)).all()
    # Over prompts the interval is wider by half and more than if games were independent.
    assert ((high - low) / (2 * 1.96 * found.error) > 1.25).all()


def test_an_undefeated_player_is_infinitely_better_and_the_rest_is_rated_without():
    rest = [("a", "b", 5, 0, 3), ("b", "c", 4, 0, 2), ("c", "a", 3, 0, 3)]
    alone = bt.rate(series(*rest), resamples=0)
    found = bt.rate(series(*rest, ("top", "a", 4, 0, 0), ("b", "last", 2, 0, 0)), resamples=0)
    rating = dict(zip(found.players, found.rating, strict=True))
    assert rating["top"] == math.inf
    assert rating["last"] == -math.inf
    assert [rating[each] for each in alone.players] == pytest.approx(alone.rating)
    assert found.probability()[found.players.index("top"), found.players.index("a")] == 1
    finite = bt.rate(series(*rest, ("top", "a", 4, 0, 0)), resamples=0, ridge=0.1)
    assert np.isfinite(finite.rating).all()
    assert finite.rating.argmax() == finite.players.index("top")


def test_who_may_be_undefeated_on_other_prompts_has_no_upper_end():
    verdicts = series(("a", "b", 30, 0, 1), ("b", "c", 20, 0, 20), ("a", "c", 30, 0, 0))
    low, high = bt.rate(verdicts, resamples=500).interval()
    assert high[0] == math.inf
    assert np.isfinite(low[0])
    assert np.isfinite([low[1:], high[1:]]).all()


def test_players_who_never_met_do_not_compare():
    apart = series(("a", "b", 3, 0, 2), ("c", "d", 3, 0, 2))
    with pytest.raises(DataError, match=r"2 groups that never met \(a, b; c, d\)"):
        bt.rate(apart)
    assert np.isfinite(bt.rate(apart, ridge=0.1, resamples=0).rating).all()
    # a and x both lost to the same player and never met: which is better is not known.
    unknown = bt.rate(series(("a", "b", 2, 0, 2), ("top", "a", 2, 0, 0), ("top", "x", 2, 0, 0)), resamples=0)
    assert math.isnan(unknown.rating[unknown.players.index("x")])


def test_a_bad_anchor_or_setting_is_refused():
    verdicts = series(("a", "b", 3, 0, 2), ("top", "a", 1, 0, 0))
    with pytest.raises(DataError, match="cannot be the anchor"):
        bt.rate(verdicts, anchor=("top", 1000.0))
    with pytest.raises(DataError, match=r"no model 'vicunna'.*Did you mean: vicuna"):
        bt.rate(series(("vicuna", "b", 1, 0, 1)), anchor=("vicunna", 0.0))
    for wrong in ({"ridge": -1}, {"base": 0.5}, {"scale": 0}, {"ridge": math.nan}):
        with pytest.raises(DataError):
            bt.rate(verdicts, **wrong)
    with pytest.raises(DataError, match="nothing to rate"):
        bt.rate(Verdicts.of_games([]))


def test_lopsided_counts_converge():
    wins = np.array([[0, 1e6, 1], [1, 0, 1e5], [1e-3, 1, 0]])
    found = bt.fit(wins)
    p = expit(found[:, None] - found[None, :])
    assert (wins - (wins + wins.T) * p).sum(axis=1) == pytest.approx(np.zeros(3), abs=1e-3)
