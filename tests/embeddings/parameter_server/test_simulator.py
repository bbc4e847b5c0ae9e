from __future__ import annotations

import numpy as np
import pytest

from posterhall.embeddings.parameter_server import (
    Classifier,
    Rule,
    Timing,
    simulate,
    simulate_task,
)
from posterhall.errors import DataError
from posterhall.seeds import generator

TASK = Classifier(inputs=8, hidden=12, classes=4, batch=16, held_out=400, distance=1.5)


def test_the_classifiers_gradients_are_those_of_autograd():
    torch = pytest.importorskip("torch")
    task = Classifier()
    rng = generator(3, "test")
    parameters = task.initial(rng)
    parameters[1] += 0.1
    points, labels = task.examples(rng, 64)
    gradients, loss = task.gradient_at(parameters, points, labels)
    tensors = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in parameters]
    hidden = torch.tanh(torch.tensor(points, dtype=torch.float64) @ tensors[0].T + tensors[1])
    logits = hidden @ tensors[2].T + tensors[3]
    reference = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    reference.backward()
    assert loss == pytest.approx(reference.item(), rel=1e-6)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        assert np.abs(gradient - tensor.grad.numpy()).max() < 1e-6


def test_one_worker_is_plain_gradient_descent():
    parameters = TASK.initial(generator(5, "initial"))
    for push in range(60):
        gradients, _ = TASK.gradient(parameters, generator(5, "batch", 0, push, 0))
        parameters = [p - np.float32(0.1) * g for p, g in zip(parameters, gradients, strict=True)]
    result = simulate_task(TASK, pushes=60, rate=0.1, workers=1, seed=5)
    assert result.loss == pytest.approx(TASK.loss(parameters), rel=1e-5)
    assert result.mean_staleness == 0


def test_the_same_arguments_give_the_same_result_bit_for_bit():
    def run(seed: int):
        return simulate_task(
            TASK, pushes=150, rate=0.2, workers=7, seed=seed, timing=Timing(spread=0.5), evaluate_every=50
        )

    one, two, other = run(1), run(1), run(2)
    assert np.array_equal(one.parameters[0], two.parameters[0])
    assert one.curve == two.curve
    assert np.array_equal(one.staleness, two.staleness)
    assert not np.array_equal(one.parameters[0], other.parameters[0])
    assert [chunks for _, chunks, _ in one.curve] == [50, 100, 150]


@pytest.mark.parametrize("workers", [2, 5, 16])
def test_staleness_is_about_the_number_of_other_workers(workers):
    result = simulate_task(TASK, pushes=40 * workers, rate=0.01, workers=workers)
    assert result.mean_staleness == pytest.approx(workers - 1, rel=0.15)
    assert result.staleness.sum() == 40 * workers


def test_equal_durations_keep_all_in_lockstep():
    """All pull, all compute, then they push one after the other: the i-th is stale by i pushes."""
    result = simulate_task(TASK, pushes=40, rate=0.01, workers=4, timing=Timing(spread=0.0))
    assert result.staleness[:5].tolist() == [10, 10, 10, 10, 0]


def test_staleness_hurts_at_a_rate_that_one_worker_can_afford():
    losses = [simulate_task(TASK, pushes=600, rate=0.6, workers=k).loss for k in (1, 48)]
    assert losses[1] > 1.5 * losses[0]


def test_warm_start_trains_alone_first():
    result = simulate_task(TASK, pushes=200, rate=0.05, workers=8, warm_start=100)
    assert result.staleness[0] >= 100


def test_rounds_are_stale_by_nothing_that_matters_and_average_the_gradients():
    """Synchronous rounds of K workers are gradient descent on the mean of K mini-batches."""
    k, rounds = 3, 10
    parameters = TASK.initial(generator(1, "initial"))
    for number in range(rounds):
        batches = [
            TASK.gradient(parameters, generator(1, "batch", 0, number * k + i, 0))[0] for i in range(k)
        ]
        mean = [sum(each) / k for each in zip(*batches, strict=True)]
        parameters = [p - np.float32(0.3) * g for p, g in zip(parameters, mean, strict=True)]
    result = simulate_task(TASK, pushes=k * rounds, rate=0.3, workers=k, synchronous=True)
    assert result.loss == pytest.approx(TASK.loss(parameters), rel=1e-4)


def test_a_straggler_holds_up_rounds_but_not_downpour():
    timing = Timing(spread=0.1, stragglers=0.25, slowdown=10.0)
    free, tied, bounded = (
        simulate_task(TASK, pushes=160, rate=0.05, workers=4, timing=timing, **how).seconds
        for how in ({}, {"synchronous": True}, {"bound": 3})
    )
    assert tied > 5 * free
    assert free < bounded < tied


def test_latency_costs_rounds_and_small_windows():
    def seconds(**how):
        timing = Timing(spread=0.0, latency=5.0)
        return simulate_task(TASK, pushes=40, rate=0.01, workers=1, timing=timing, **how).seconds

    assert seconds() == pytest.approx(40 * (1 + 5 + 5))
    assert seconds(n_fetch=10, n_push=10) == pytest.approx(40 * (10 + 5 + 5))


def test_the_bound_limits_staleness():
    timing = Timing(spread=0.5)
    loose = simulate_task(TASK, pushes=400, rate=0.01, workers=8, timing=timing)
    tight = simulate_task(TASK, pushes=400, rate=0.01, workers=8, timing=timing, bound=0)
    assert np.flatnonzero(tight.staleness).max() <= 14 < np.flatnonzero(loose.staleness).max()


def test_divergence_is_a_result_not_a_crash():
    result = simulate_task(TASK, pushes=200, rate=3e38, workers=2)
    assert result.diverged
    assert result.loss == float("inf")


def test_adagrad_on_the_server_trains():
    result = simulate_task(TASK, pushes=300, rate=0.05, workers=4, rule=Rule("adagrad", gamma=0.05), shards=2)
    assert result.loss < 0.6 * simulate_task(TASK, pushes=1, rate=1e-9, workers=1).loss


def test_rows_of_frequent_words_are_the_stale_ones(small):
    settings = small.settings(epochs=1)
    result = simulate(
        lambda: small.job(settings, shards=2, batch_words=10),
        small.initial(settings),
        small.clock,
        workers=8,
        watch_rows=True,
    )
    order = np.arange(len(small.vocabulary))
    deciles = result.rows[0].by_decile(order)
    assert deciles[0]["staleness"] > 3 * deciles[-1]["staleness"]
    assert sum(d["pushes"] for d in deciles) == result.rows[0].pushes.sum()
    assert 0 < deciles[0]["staleness"] <= 7.5


def test_one_worker_meets_no_stale_row(small):
    settings = small.settings(epochs=1)
    result = simulate(
        lambda: small.job(settings), small.initial(settings), small.clock, workers=1, watch_rows=True
    )
    assert result.rows[1].staleness.sum() == 0
    assert result.rows[1].drift.sum() == 0


def test_words_on_a_simulated_clock_learn_what_the_trainer_learns(small):
    settings = small.settings(epochs=2)
    reference = small.sequential(settings)[1]
    result = simulate(lambda: small.job(settings), small.initial(settings), small.clock, epochs=2, workers=4)
    assert result.training_losses[-1] == pytest.approx(reference[-1], rel=0.03)


def test_timing_out_of_range_is_refused():
    with pytest.raises(DataError, match="share"):
        Timing(stragglers=1.5)
