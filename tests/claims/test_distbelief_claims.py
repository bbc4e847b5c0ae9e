"""What the claims of DistBelief measure with, and their experiments at a toy size."""

from __future__ import annotations

import math
import os
import signal

import numpy as np
import pytest

from posterhall.claims import Budget, Row, decide, load
from posterhall.claims.distbelief import killing, rates
from posterhall.claims.distbelief.network import (
    CHANCE,
    DrawnAgain,
    Network,
    counted,
    curve,
    final_loss,
    staleness_shares,
)
from posterhall.claims.distbelief.vectors import Corpus, HeldOut, WordTask, kept_share
from posterhall.claims.lines import mean_line, median_line
from posterhall.embeddings.parameter_server import Simulation, Timing
from posterhall.embeddings.parameter_server.processes import ProcessFleet
from posterhall.errors import DataError

CLAIMS = load(["posterhall.claims.distbelief"])


# Learning rates.


def test_a_grid_rises_by_its_factor():
    assert rates.grid(0.0125, 4.0, 5) == (0.0125, 0.05, 0.2, 0.8, 3.2)


def test_the_best_rate_is_among_those_that_did_not_diverge():
    assert rates.best({0.8: math.inf, 0.05: 0.3, 0.2: 0.1}) == 0.2
    assert rates.best({0.2: 0.1, 0.05: 0.1}) == 0.05, "the more careful of two equals"
    with pytest.raises(DataError, match="every rate diverged"):
        rates.best({0.8: math.inf, 3.2: math.nan})


def test_the_highest_good_rate_need_not_be_the_best():
    losses = {0.05: 0.11, 0.2: 0.10, 0.8: 0.12, 3.2: math.inf}
    assert rates.highest_good(losses, 0.12) == 0.8
    assert rates.highest_good(losses, 0.119) == 0.2
    with pytest.raises(DataError, match="no rate"):
        rates.highest_good(losses, 0.09)


@pytest.mark.parametrize(
    ("many", "share"),
    [(1.0, 0.0), (2.0, 0.5), (3.0, 1.0), (50.0, 1.0), (math.inf, 1.0), (math.nan, 1.0), (0.5, -0.25)],
)
def test_what_is_lost_is_a_share_of_what_one_replica_learned(many, share):
    assert rates.lost_share(3.0, 1.0, many) == share


def test_nothing_learned_cannot_be_lost():
    with pytest.raises(DataError, match="learned nothing"):
        rates.lost_share(1.0, 1.0, 2.0)
    with pytest.raises(DataError, match="learned nothing"):
        rates.lost_share(1.0, math.nan, 2.0)


# The dense network.


def simulation(loss=0.5, diverged=False, staleness=(), at=()):
    histogram = np.zeros(1024, np.int64)
    histogram[: len(staleness)] = staleness
    points = [(float(pushes), pushes, loss) for pushes in at] or [(1.0, 1, loss)]
    return Simulation([], points, histogram, 1.0, diverged, [])


def test_divergence_counts_as_guessing():
    assert final_loss(simulation(0.5)) == counted(0.5) == 0.5
    assert final_loss(simulation(17.0)) == pytest.approx(math.log(10)), "worse than guessing"
    assert final_loss(simulation(diverged=True)) == math.inf
    assert counted(math.inf) == CHANCE


def test_a_curve_ends_where_training_did():
    found = curve(simulation(0.5, at=(10, 21)), np.array([5, 10, 20, 30]))
    assert found[:3] == [0.5, 0.5, 0.5]
    assert math.isnan(found[3])


def test_shares_of_staleness_keep_what_exceeds_the_last_bin():
    assert staleness_shares(simulation(staleness=[2, 4, 1, 1]), 3) == [0.25, 0.5, 0.25]


def test_stale_copies_are_as_stale_as_there_are_replicas():
    network = Network(Budget(pushes=120, hidden=8), seed=3)
    assert network.train("fixed rate", 0.05, 1).mean_staleness == 0
    assert network.train("fixed rate", 0.05, 8).mean_staleness == pytest.approx(7, rel=0.1)


def test_other_delays_change_nothing_for_one_replica_and_something_for_several():
    network = Network(Budget(pushes=60, hidden=8), seed=3)

    def losses(replicas):
        return [network.train("fixed rate", 0.2, replicas, timing=t).loss for t in (Timing(), DrawnAgain())]

    assert len(set(losses(1))) == 1
    assert len(set(losses(6))) == 2


def test_training_begins_at_the_loss_of_the_initial_weights():
    network = Network(Budget(pushes=20, hidden=8), seed=3)
    assert network.untrained == pytest.approx(network.train("fixed rate", 1e-9, 1).loss, rel=1e-5)
    assert network.loss("fixed rate", 0.2, 1) < network.untrained


# Word vectors on held-out text.


def test_the_held_out_loss_is_that_of_the_definition():
    rng = np.random.default_rng(1)
    inputs, outputs = (rng.normal(size=(7, 4)).astype(np.float32) for _ in range(2))
    pairs = HeldOut(np.array([0, 6]), np.array([[3, 1, 2], [5, 5, 0]]))

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    expected = []
    for word, (neighbour, *noise) in zip(pairs.inputs, pairs.outputs, strict=True):
        dot = [float(inputs[word].astype(float) @ outputs[o].astype(float)) for o in (neighbour, *noise)]
        expected.append(-math.log(sigmoid(dot[0])) - sum(math.log(sigmoid(-d)) for d in dot[1:]))
    assert pairs.losses(inputs, outputs) == pytest.approx(expected, rel=1e-12)


def test_the_held_out_loss_of_exploded_vectors_is_large_and_finite():
    big = np.full((3, 2), 1e15, np.float32)
    assert np.isfinite(HeldOut(np.array([0]), np.array([[1, 2]])).losses(big, big)).all()


def test_held_out_pairs_stay_in_their_sentence_and_their_window():
    # Word i stands at position i; a mark after every tenth.
    tokens = np.arange(400)
    tokens[::10] = -1
    pairs = HeldOut.draw(tokens, np.ones(400, np.int64), pairs=3000, seed=5, window=3, negative=2)
    a, b = pairs.inputs, pairs.outputs[:, 0]
    assert len(a) > 1500
    assert (a // 10 == b // 10).all()
    assert set(np.unique(np.abs(a - b))) == {1, 2, 3}
    shares = [(np.abs(a - b) == d).mean() for d in (1, 2, 3)]
    assert shares[0] > shares[1] > shares[2], "near words more often, as reach is drawn from 1 to window"
    assert 0.4 < (a < b).mean() < 0.6
    assert pairs.outputs.shape == (len(a), 3)


def test_noise_words_follow_counts_to_three_quarters():
    pairs = HeldOut.draw(np.arange(3), np.array([81, 16, 1]), pairs=20_000, seed=5)
    shares = np.bincount(pairs.outputs[:, 1:].ravel(), minlength=3) / pairs.outputs[:, 1:].size
    assert shares == pytest.approx(np.array([27, 8, 1]) / 36, abs=0.01)


def test_no_pair_is_an_error():
    with pytest.raises(DataError, match="no pair"):
        HeldOut.draw(np.array([0, -1, 1, -1]), np.array([1, 1]), pairs=50, seed=1)


def test_a_corpus_is_long_enough_for_its_pushes_and_holds_out_the_rest():
    corpus = Corpus.generate(words=50, tokens=3000, chunk_words=500, seed=2)
    assert corpus.encoded.words == 3000
    assert corpus.vocabulary.total == 3000
    assert corpus.held_out.inputs.max() < len(corpus.vocabulary)


def test_the_row_of_a_word_task_tells_staleness_by_frequency():
    row = WordTask(words=200, dim=8, pushes=60, seed=4).row("sparse rows", (0.05, 0.1), 8)
    staleness = row["row_staleness"]
    assert len(staleness) == len(row["harm"]) == 10
    assert staleness[0] > 3 * staleness[-1], "frequent words are where replicas meet"
    assert row["lost_share"] <= 1
    assert row["harm"][0] > row["harm"][-1]


def test_a_thinned_corpus_is_so_much_longer_that_it_has_as_many_pushes():
    assert kept_share(300, 0.0) == 1.0
    assert kept_share(300, 1e-3) < 0.6
    sizes = [WordTask(words=300, dim=4, pushes=80, subsample=t, seed=4).train(0.025, 1) for t in (0.0, 1e-3)]
    pushes = [int(done.staleness.sum()) for done in sizes]
    assert pushes[0] == 80
    assert pushes[1] == pytest.approx(80, rel=0.15), "but for the ends of chunks"


# The worker that is killed.


class Office:
    def __init__(self, words):
        self.words = words

    def words_by_slot(self):
        return np.array(self.words)


class Standing:
    def __init__(self, words):
        self.words = words


class Fleet(ProcessFleet):
    """Two workers that are not there."""

    def __init__(self, words):
        self.office = Office(words)

    @property
    def pids(self):
        return {0: -10, 1: -11}


def test_the_second_worker_is_killed_once_when_both_have_trained(monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    killer = killing.Killer(1000, 0.3)
    killer(Standing(200), Fleet([150, 50]))
    killer(Standing(350), Fleet([350, 0]))
    assert killed == []
    killer(Standing(400), Fleet([350, 50]))
    killer(Standing(500), Fleet([450, 50]))
    assert killed == [(-11, signal.SIGKILL)]
    assert killer.struck_at == 0.4


def test_a_real_death_is_counted_and_leaves_no_word_untrained():
    training = killing.Training(words=50, tokens=100_000, dim=4, epochs=2, seed=1)
    dead = training.with_a_death("killed")
    assert dead["deaths"] == 1
    assert dead["untrained_words"] == 0
    assert dead["learned"] > 0
    assert dead["trained_by_second"] < 0.5
    half = training.on_half("half")
    assert half["untrained_words"] == 0
    assert half["learned"] != dead["learned"]


# Whole experiments, small.

TOYS = {
    "asynchrony-is-nearly-free": Budget(pushes=20, hidden=8, grid=True),
    "adagrad-tolerates-staleness": Budget(
        pushes=30, hidden=8, replicas=4, lowest=0.05, factor=4.0, rates=2
    ),
    "adagrad-extends-replicas": Budget(pushes=30, hidden=8, replicas=4, lowest=0.05, factor=4.0, rates=2),
    "warm-start-helps": Budget(pushes=40, hidden=8, replicas=4),
    "sparse-rows-suffer-less": Budget(pushes=40, hidden=8, replicas=4, words=100, dim=4),
    "thinned-rows-suffer-less": Budget(pushes=40, hidden=8, replicas=4, words=100, dim=4),
}  # fmt: skip


@pytest.mark.parametrize("name", TOYS)
def test_a_small_run_gives_every_arm_the_same_twice_and_a_figure(name):
    cls = CLAIMS[name]
    rows, again = (list(cls().run(TOYS[name], 1)) for _ in range(2))
    assert rows == again
    assert {*cls.kind.names, *cls.control_kind().names} <= {row.arm for row in rows}
    decide(cls, rows)  # everything is there for a verdict
    cls().figure(rows)


def test_everything_but_the_real_processes_is_tried_here():
    assert {*TOYS, "killed-worker-costs-its-batch"} == set(CLAIMS)
    assert [name for name, cls in CLAIMS.items() if cls.exclusive] == ["killed-worker-costs-its-batch"]


def verdict(stale, hot):
    """Of the headline, from final losses of 32 replicas at the modest and the aggressive rate."""
    cls = CLAIMS["asynchrony-is-nearly-free"]
    rows = [
        Row(f"{replicas}, rate {rate}", seed, loss=loss * (1 + seed / 1000))
        for seed in range(5)
        for replicas, rate, loss in (
            ("1 replica", 0.05, 0.4), ("32 replicas", 0.05, stale),
            ("1 replica", 0.8, 0.3), ("32 replicas", 0.8, hot),
        )
    ]  # fmt: skip
    return decide(cls, rows)[0].verdict


def test_the_headline_can_fail():
    assert verdict(0.404, math.inf) == "supported"
    assert verdict(0.44, math.inf) == "refuted"
    assert verdict(math.inf, math.inf) == "refuted", "divergence is not a missing value"
    assert verdict(0.404, 0.301) == "inconclusive", "a test that passes anything"


# Lines of the figures.


def test_lines_skip_what_is_not_finite():
    rows = [Row("a", seed, y=values) for seed, values in enumerate([[1, 2], [3, math.nan], [5, math.inf]])]
    mean = mean_line(rows, "a", [0, 1, 2], "y", label="a")
    assert mean.y[:2] == (3.0, 2.0)
    assert math.isnan(mean.y[2])
    assert mean.low[0] < 3 < mean.high[0]
    assert math.isnan(mean.low[1]), "no interval from one seed"
    assert median_line(rows, "a", [0, 1], "y", label="a").y == (3.0, 2.0)
