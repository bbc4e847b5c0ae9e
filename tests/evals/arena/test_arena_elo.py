"""Elo: against a plain loop, conserved points, published ratings, and intervals that cover."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.evals.arena import elo
from posterhall.evals.arena.verdicts import Verdicts, example

SCORES = {"first": 1.0, "second": 0.0, "tie": 0.5}


def plain(games, players, k=32.0, start=1000.0, base=10.0, scale=400.0):
    """Elo as it is written down."""
    rating = dict.fromkeys(players, start)
    for _, a, b, winner in games:
        expected = 1 / (1 + base ** ((rating[b] - rating[a]) / scale))
        moved = k * (SCORES[winner] - expected)
        rating[a] += moved
        rating[b] -= moved
    return np.array([rating[each] for each in players])


def test_the_mean_over_all_orders_is_that_of_a_plain_loop():
    games = [
        ("1", "a", "b", "first"),
        ("2", "b", "c", "tie"),
        ("3", "a", "c", "second"),
        ("4", "b", "a", "first"),
    ]
    all_orders = np.array([plain(order, "abc", k=200) for order in itertools.permutations(games)])
    found = elo.rate(Verdicts.of_games(games), k=200, orderings=200_000, resamples=0)
    assert found.rating == pytest.approx(all_orders.mean(axis=0), abs=4 * 20 / np.sqrt(200_000))
    assert found.ordering_sd == pytest.approx(all_orders.std(axis=0), rel=0.02)
    assert found.ordering_error == pytest.approx(found.ordering_sd / np.sqrt(200_000))


@pytest.mark.parametrize(
    ("k", "base", "scale"), [(32, 10, 400), (16, 2.718281828459045, 100), (900, 10, 400)]
)
def test_games_that_are_all_alike_need_no_order(k, base, scale):
    games = [(str(i), "a", "b", "first") for i in range(300)]
    found = elo.rate(Verdicts.of_games(games), k=k, base=base, scale=scale, orderings=9, resamples=0)
    assert found.rating == pytest.approx(plain(games, "ab", k, 1000, base, scale), abs=1e-6)
    assert found.ordering_sd == pytest.approx([0, 0], abs=1e-4)


games = st.lists(
    st.tuples(
        st.sampled_from(["q1", "q2", "q3", "q4"]),
        st.sampled_from("abcde"),
        st.sampled_from("vwxyz"),
        st.sampled_from(sorted(SCORES)),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=30, deadline=None)
@given(games, st.floats(1, 500))
def test_points_are_conserved(games, k):
    verdicts = Verdicts.of_games(games)
    found = elo.rate(verdicts, k=k, orderings=33, resamples=0)
    assert found.rating.mean() == pytest.approx(1000, abs=1e-6)
    assert np.isfinite(found.rating).all()


def test_results_depend_on_the_seed_and_not_on_threads():
    verdicts = example()
    one = elo.rate(verdicts, orderings=100, resamples=100, threads=1)
    other = elo.rate(verdicts, orderings=100, resamples=100, threads=3)
    assert np.array_equal(one.rating, other.rating)
    assert np.array_equal(one.low, other.low)
    assert not np.array_equal(one.rating, elo.rate(verdicts, orderings=100, resamples=0, seed=1).rating)


PUBLISHED = {  # Dettmers et al. 2023, tables 1 and 7
    "gpt4": 1348,
    "guanaco-65b": 1022,
    "guanaco-33b": 992,
    "vicuna-13b": 974,
    "gpt35": 966,
    "guanaco-13b": 913,
    "bard": 902,
    "guanaco-7b": 879,
}


def test_the_published_tournament_is_recovered():
    verdicts = example()
    found = elo.rate(verdicts, orderings=2000, resamples=0)
    rating = dict(zip(verdicts.players, found.rating, strict=True))
    assert sorted(rating, key=rating.get, reverse=True) == list(PUBLISHED)
    for name, points in PUBLISHED.items():
        # GPT-4 comes out 27 higher than printed; what made the difference is not known.
        assert rating[name] == pytest.approx(points, abs=35 if name == "gpt4" else 10)
    # The paper's "± 1" is what the order leaves open after 10,000 orderings, not what other prompts would.
    assert found.ordering_sd / np.sqrt(10_000) == pytest.approx(np.full(8, 0.45), abs=0.1)


def test_leaving_ties_out_moves_the_best_by_a_hundred_points():
    found = elo.rate(example().decisive(), orderings=1000, resamples=0)
    assert found.rating.max() == pytest.approx(1476, abs=15)


def test_the_interval_over_prompts_is_that_of_redrawn_tournaments():
    # Skill differs by prompt, so the games of a prompt belong together; the spread over whole new tournaments
    # is what the interval should tell. Each is judged twice on 40 prompts.
    rng = np.random.default_rng(0)

    def tournament():
        games = []
        for prompt in range(40):
            better = rng.random() < 1 / (1 + np.exp(-rng.normal(0.4, 2)))
            games += [(str(prompt), "a", "b", "first" if better else "second")] * 4
        return Verdicts.of_games(games)

    ratings = [elo.rate(tournament(), orderings=64, resamples=0).rating[0] for _ in range(200)]
    widths = []
    for _ in range(10):
        found = elo.rate(tournament(), orderings=64, resamples=300)
        widths.append(found.high[0] - found.low[0])
        assert found.low[0] < found.rating[0] < found.high[0]
    truth = np.quantile(ratings, 0.975) - np.quantile(ratings, 0.025)
    assert np.mean(widths) == pytest.approx(truth, rel=0.2)


def test_one_prompt_has_no_interval_and_no_game_no_rating():
    one = Verdicts.of_games([("q", "a", "b", "first")])
    assert np.isnan(elo.rate(one).low).all()
    with pytest.raises(DataError, match="nothing to rate"):
        elo.rate(Verdicts.of_games([("q", "a", "b", "none")]))
    for wrong in ({"k": 0}, {"base": 1}, {"scale": -1}, {"orderings": 0}, {"k": float("nan")}):
        with pytest.raises(DataError):
            elo.rate(one, **wrong)
