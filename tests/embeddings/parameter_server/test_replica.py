from __future__ import annotations

import itertools

import numpy as np
import pytest

from posterhall.embeddings.parameter_server import Rule
from posterhall.embeddings.parameter_server.coordinator import Coordinator
from posterhall.embeddings.parameter_server.replica import Event, Replica, drive
from posterhall.embeddings.parameter_server.server import Server
from posterhall.embeddings.parameter_server.words import cut_plan, join_plans, lease_size, lease_words
from posterhall.embeddings.plans import Plan, apply, empty_matrix
from posterhall.errors import DataError

LOSSES = ["negative", "hierarchical", "hierarchical+negative", "nce", "softmax"]


def run(small, settings, *, shards=1, n_fetch=1, n_push=1, batch_words=20, rule=None):
    """One worker on a server of its own; returns matrices, coordinator, server."""
    job = small.job(settings, shards=shards, batch_words=batch_words)
    server = Server(job.tables, job.placements, rule or Rule(), slots=1)
    server.assign(small.initial(settings))
    coordinator = Coordinator(small.clock, settings.epochs, slots=1)
    drive(Replica(job, server.transport(), coordinator, slot=0, n_fetch=n_fetch, n_push=n_push))
    return server.values(), coordinator, server


@pytest.mark.parametrize(
    ("n_fetch", "n_push", "shards"),
    [(1, 1, 1), (1, 1, 3), (5, 5, 2), (100, 100, 2), (3, 10, 2), (10, 3, 2), (1, 1000, 2), (7, 2, 1)],
)
def test_one_worker_is_the_sequential_trainer_however_it_exchanges(small, n_fetch, n_push, shards):
    settings = small.settings()
    expected, losses = small.sequential(settings)
    got, coordinator, server = run(small, settings, n_fetch=n_fetch, n_push=n_push, shards=shards)
    for matrix, reference in zip(got, expected, strict=True):
        assert np.abs(matrix - reference).max() < 2e-5
    assert coordinator.losses() == pytest.approx(losses, rel=1e-5)
    assert coordinator.words == settings.epochs * small.encoded.tokens_total
    assert server.staleness()[1:].sum() == 0


@pytest.mark.parametrize("model", ["skipgram", "cbow"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_model_and_loss_trains_as_on_one_machine(small, model, loss):
    settings = small.settings(model=model, loss=loss, epochs=1)
    expected, losses = small.sequential(settings)
    got, coordinator, _ = run(small, settings, n_fetch=4, n_push=4, shards=2)
    for matrix, reference in zip(got, expected, strict=True):
        assert np.abs(matrix - reference).max() < 2e-5
    assert coordinator.losses() == pytest.approx(losses, rel=1e-4)


def test_pieces_of_a_plan_applied_in_turn_are_the_plan(small):
    settings = small.settings(window=4)
    planner = small.planner(settings)
    plan = planner.plan(small.encoded.read(0), 7)
    results = []
    for cuts in ([0, plan.n], [0, 1, 2, 40, 41, plan.n]):
        inputs, outputs = empty_matrix(planner.words, 20), empty_matrix(planner.output_rows, 20)
        inputs[:, :20] = small.initial(settings)[0]
        total = np.zeros(2)
        for first, last in itertools.pairwise(cuts):
            total += apply(cut_plan(plan, first, last, Plan()), inputs, outputs, settings, 0.05)
        results.append((inputs, outputs, total))
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])
    assert results[0][2] == pytest.approx(results[1][2])


def test_chunks_leased_together_are_the_chunks_one_after_the_other(small):
    settings = small.settings(loss="hierarchical+negative")
    planner = small.planner(settings)
    plans = [planner.plan(small.encoded.read(i), 40 + i) for i in range(3)]
    results = []
    for given in (plans, [join_plans(plans, Plan())]):
        inputs, outputs = empty_matrix(planner.words, 20), empty_matrix(planner.output_rows, 20)
        inputs[:, :20] = small.initial(settings)[0]
        totals = sum(np.array(apply(plan, inputs, outputs, settings, 0.05)) for plan in given)
        results.append((inputs, outputs, totals))
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])
    assert results[0][2] == pytest.approx(results[1][2])


def test_a_lease_holds_as_many_words_as_a_push_wants(small):
    settings = small.settings()
    size = lease_size(settings, small.vocabulary.counts, small.encoded, 1500)
    job = small.job(settings, batch_words=100, lease_chunks=size)
    words = lease_words(small.encoded, size)
    assert size > 1
    assert words.sum() == small.encoded.tokens_total
    courses = [job.open(0, lease) for lease in range(len(words) - 1)]
    assert abs(courses[-1].steps - 15) <= 4
    assert job.open(0, len(words) - 1).words(10_000) == words[-1]


def test_only_rows_in_the_batch_travel(small):
    settings = small.settings(epochs=1)
    job = small.job(settings, batch_words=5)
    course = job.open(0, 0)
    window = course.window(2, 3)
    plan = small.planner(settings).plan(small.encoded.read(0), _seed(settings))
    positions = range(10, 15)
    contexts = {int(plan.kept[c]) for i in positions for c in range(plan.lo[i], plan.hi[i])}
    outputs = {int(r) for r in plan.rows[plan.start[10] : plan.start[15]]}
    pulled_in, pulled_out = (set(s.rows.tolist()) for s in window.selections)
    assert pulled_out == outputs
    assert contexts <= pulled_in
    assert len(pulled_in) <= len(contexts) + 5


def _seed(settings):
    from posterhall.seeds import derive

    return derive(settings.seed, "chunk", 0, 0)


def test_traffic_counts_the_bytes_of_the_rows(small):
    settings = small.settings(epochs=1)
    job = small.job(settings, batch_words=20)
    expected = 0
    for chunk in range(len(small.encoded)):
        course = job.open(0, chunk)
        for step in range(course.steps):
            expected += sum(len(s.rows) for s in course.window(step, step + 1).selections) * 20 * 4
    _, coordinator, _ = run(small, settings)
    pulled, pushed = coordinator.traffic()
    assert pulled == expected
    assert 0 < pushed <= pulled


def test_larger_windows_move_fewer_bytes(small):
    settings = small.settings(epochs=1)
    moved = [sum(run(small, settings, n_fetch=n, n_push=n)[1].traffic()) for n in (1, 4, 20)]
    assert moved[0] > 1.5 * moved[1] > 1.5 * moved[2]


def test_two_workers_by_hand_have_the_staleness_of_their_schedule(small):
    """Both pull, then both push, in lockstep: the second of each round is stale by one push."""
    settings = small.settings(epochs=1)
    jobs = [small.job(settings) for _ in range(2)]
    server = Server(jobs[0].tables, jobs[0].placements, Rule(), slots=2)
    server.assign(small.initial(settings))
    coordinator = Coordinator(small.clock, 1, slots=2)
    replicas = [
        Replica(job, server.transport(), coordinator, slot=slot, n_fetch=1, n_push=1).run()
        for slot, job in enumerate(jobs)
    ]
    for _ in range(5):
        for event in (Event.PULLED, Event.COMPUTE, Event.PUSHING, Event.PUSHED):
            for replica in replicas:
                assert next(replica).event is event
    assert server.staleness()[:3].tolist() == [5, 5, 0]


def test_a_worker_sees_its_own_steps_that_it_has_not_pushed_yet(small):
    """Fetching every step and pushing never until the end must not undo the worker's own steps."""
    settings = small.settings(epochs=1)
    expected, _ = small.sequential(settings)
    got, _, _ = run(small, settings, n_fetch=1, n_push=10_000)
    assert np.abs(got[0] - expected[0]).max() < 2e-5


def test_a_diverging_rate_stops_with_advice(small):
    settings = small.settings(alpha=1e4)
    job = small.job(settings)
    job.worst_loss = 20.0
    server = Server(job.tables, job.placements, Rule(), slots=1)
    server.assign(small.initial(settings))
    replica = Replica(
        job, server.transport(), Coordinator(small.clock, 2, slots=1), slot=0, n_fetch=9, n_push=9
    )
    with pytest.raises(DataError, match=r"diverges.*lower alpha"):
        drive(replica)


@pytest.mark.parametrize(("n_fetch", "n_push"), [(0, 1), (1, 0)])
def test_zero_steps_between_exchanges_are_refused(small, n_fetch, n_push):
    job = small.job(small.settings())
    server = Server(job.tables, job.placements, Rule(), slots=1)
    with pytest.raises(DataError, match="at least 1"):
        Replica(job, server.transport(), None, slot=0, n_fetch=n_fetch, n_push=n_push)
