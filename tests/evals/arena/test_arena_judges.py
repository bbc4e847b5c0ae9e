"""Judges: bias by position, flips and agreement on made-up judges; relative scores; the whole report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from posterhall.config import finite, plain
from posterhall.errors import DataError
from posterhall.evals.arena import judges
from posterhall.evals.arena.relative import relative
from posterhall.evals.arena.table import ArenaSettings, report
from posterhall.evals.arena.verdicts import Verdicts, example


def both_orders(said, prompts=20, judge="j"):
    """A judge asked in both orders; `said` gives the winner's name, tie or none."""
    games = []
    for prompt in range(prompts):
        for first, second in (("a", "b"), ("b", "a")):
            winner = said(prompt, first, second)
            place = {first: "first", second: "second"}.get(winner, winner)
            games.append((str(prompt), first, second, place))
    return games, [judge] * len(games)


def made(*each):
    games = [game for part, _ in each for game in part]
    return Verdicts.of_games(games, judges=[name for _, names in each for name in names])


def test_a_fair_judge_never_flips_and_one_who_takes_the_first_always_does():
    fair = judges.position(made(both_orders(lambda p, f, s: "b")), "j")
    assert (fair.first.estimate, fair.flipped.estimate, fair.both) == (0.5, 0, 20)
    first = judges.position(made(both_orders(lambda p, f, s: f)), "j")
    assert (first.first.estimate, first.flipped.estimate, first.changed.estimate) == (1, 1, 1)


def test_ties_and_missing_verdicts_are_no_flips():
    def said(prompt, first, second):
        return {0: "tie" if first == "a" else "b", 1: "none" if first == "a" else "b"}.get(prompt, first)

    found = judges.position(made(both_orders(said, prompts=4)), "j")
    assert (found.both, found.unjudged) == (3, 1)
    assert found.flipped.n == 2  # of those with a winner in either order
    assert (found.flipped.estimate, found.changed.estimate) == (1, 1)
    assert found.ties == pytest.approx(1 / 7)


def test_the_published_bias_is_measured():
    found = judges.position(example(), "")
    assert found.first.estimate == pytest.approx(0.650, abs=5e-4)
    assert found.flipped.estimate == pytest.approx(0.26, abs=0.005)
    assert found.unjudged == 13


def test_orders_count_as_one_verdict_when_judges_are_compared():
    verdicts = made(
        both_orders(lambda p, f, s: "a" if p < 10 else "b", judge="x"),
        both_orders(lambda p, f, s: "a" if p < 15 else "b", judge="y"),
        both_orders(lambda p, f, s: f, judge="z"),  # flips always: a tie
    )
    xy, xz, yz, all_ = judges.agreement(verdicts)
    assert (xy.judges, xy.n, xy.same) == (("x", "y"), 20, 0.75)
    assert xy.kappa.estimate == pytest.approx(0.5)  # p_o .75, p_e .5
    assert (xz.same, yz.same) == (0, 0)
    assert all_.judges == ("x", "y", "z")
    assert all_.same == pytest.approx(0.25)  # one of three pairs agrees on 15 of 20


def test_judges_without_anything_in_common_have_no_kappa():
    one, other = both_orders(lambda p, f, s: "a", judge="x"), both_orders(lambda p, f, s: "a", judge="y")
    games = [(f"other {q}", *rest) for q, *rest in other[0]]
    [found] = judges.agreement(made(one, (games, other[1])))
    assert (found.n, found.same, found.kappa) == (0, None, None)
    assert judges.agreement(Verdicts.of_games([])) == []


def test_the_majority_is_a_judge_of_its_own():
    verdicts = made(
        *(both_orders(lambda p, f, s, n=n: "a" if p < n else "b", judge=str(n)) for n in (5, 10, 15))
    )
    more = judges.majority(verdicts, ["5", "10", "15"])
    pairs = {found.judges: found for found in judges.agreement(more)}
    assert pairs["10", "majority"].same == 1
    assert pairs["5", "majority"].same == 0.75
    tied = judges.majority(made(both_orders(lambda p, f, s: f)), ["j"])
    assert judges.position(tied, "majority").ties == 1
    with pytest.raises(DataError, match="majority"):
        judges.majority(more, ["5"])
    with pytest.raises(DataError, match="no judge 'w'"):
        judges.majority(verdicts, ["w"])


def scored(bias=0.0, prompts=30, seed=0):
    rng = np.random.default_rng(seed)
    games, scores = [], []
    for prompt in range(prompts):
        x, ref = rng.uniform(4, 8), rng.uniform(4, 8)
        games += [(str(prompt), "x", "ref", "none"), (str(prompt), "ref", "x", "none")]
        scores += [(x + bias, ref), (ref + bias, x)]
    return Verdicts.of_games(games, scores=scores), scores


def test_relative_scores_are_the_mean_of_both_orders():
    verdicts, scores = scored(bias=1.5)
    [found] = relative(verdicts, "ref")
    sums = np.array(scores).reshape(-1, 2, 2).sum(axis=0)
    first, second = sums[0, 0] / sums[0, 1], sums[1, 1] / sums[1, 0]
    assert (found.shown_first, found.shown_second) == pytest.approx((first, second))
    assert found.score.estimate == pytest.approx((first + second) / 2)
    assert found.score.low < found.score.estimate < found.score.high
    assert found.score.n == 30


def test_the_interval_of_a_relative_score_is_that_of_redrawn_prompts():
    estimates = [relative(scored(seed=seed)[0], "ref")[0].score.estimate for seed in range(300)]
    found = relative(scored(seed=999)[0], "ref")[0].score
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(estimates), rel=0.3)


def test_scores_that_give_no_ratio_are_refused():
    verdicts, _ = scored()
    with pytest.raises(DataError, match="no model 'rf'"):
        relative(verdicts, "rf")
    with pytest.raises(DataError, match="no game with gpt4 has scores"):
        relative(example(), "gpt4")
    zero = Verdicts.of_games([("q", "x", "ref", "none")], scores=[(1, 0)])
    with pytest.raises(DataError, match="nothing to divide by"):
        relative(zero, "ref")
    negative = Verdicts.of_games([("q", "x", "ref", "none")], scores=[(-3, 2)])
    with pytest.raises(DataError, match="negative"):
        relative(negative, "ref")
    [one] = relative(Verdicts.of_games([("q", "x", "ref", "none")], scores=[(4, 5)]), "ref")
    assert (one.score.estimate, one.shown_second) == (0.8, None)


def test_the_report_counts_every_row_and_is_json():
    games = [
        *(("q", "a", "b", "first"), ("q", "b", "a", "tie"), ("q", "a", "a", "first")),
        *(("r", "a", "b", "none"), ("r", "top", "a", "first"), ("s", "b", "a", "first")),
    ]
    found = report(Verdicts.of_games(games), ArenaSettings(orderings=50, resamples=100))
    assert (found["rows"], found["games"], found["ties"], found["unjudged"], found["self_play"]) == (
        6,
        4,
        1,
        1,
        1,
    )
    top = found["players"][0]
    assert (top["player"], top["wins"], top["bradley_terry"]["bound"]) == ("top", 1, "undefeated")
    json.dumps(finite(plain(found)), allow_nan=False)


def test_one_judge_of_several_may_be_asked_for():
    verdicts = made(
        both_orders(lambda p, f, s: "a" if p else "b", judge="x"),
        both_orders(lambda p, f, s: "b" if p else "a", judge="y"),
    )
    found = report(verdicts, ArenaSettings(orderings=50, resamples=0), judge="y")
    assert [each["player"] for each in found["players"]] == ["b", "a"]
    assert len(found["judges"]) == 2
    assert found["agreement"][0]["same"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        *({"k": 0}, {"base": 1.0}, {"scale": -1}, {"orderings": 0}, {"resamples": 5}, {"ridge": -1}),
        *({"anchor": "a=x"}, {"anchor": "=3"}),
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(DataError):
        ArenaSettings(**wrong)
    assert ArenaSettings(anchor="a=b=3").anchored() == ("a=b", 3.0)
    assert ArenaSettings(anchor="vicuna").anchored() == ("vicuna", 1000.0)
