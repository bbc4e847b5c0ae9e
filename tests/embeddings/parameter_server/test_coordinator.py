from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.embeddings.parameter_server.coordinator import Coordinator, Lease, NoLease, Trained
from posterhall.errors import DataError

WORDS = np.array([10, 20, 30], np.int64)


def trained(step: int, words: int, loss: float = 1.0, terms: int = 2) -> Trained:
    return Trained(step, words, loss, terms, 100, 50)


def test_chunks_go_out_in_order_of_epochs_and_the_share_follows_the_words():
    c = Coordinator(WORDS, 2, slots=1)
    seen = []
    while isinstance(lease := c.lease(0), Lease):
        seen.append((lease.epoch, lease.chunk, lease.step, round(lease.share * 120)))
        c.report(0, trained(1, int(WORDS[lease.chunk])))
        c.finish(0)
    assert seen == [(0, 0, 0, 0), (0, 1, 0, 10), (0, 2, 0, 30), (1, 0, 0, 60), (1, 1, 0, 70), (1, 2, 0, 90)]
    assert lease is NoLease.DONE
    assert c.finished
    assert c.words == 120
    assert c.losses() == [0.5, 0.5]
    assert c.traffic() == (600, 300)


def test_what_a_dead_worker_held_goes_to_another_from_its_last_push_on():
    c = Coordinator(WORDS, 1, slots=3)
    c.lease(0)
    c.lease(1)
    c.report(1, trained(4, 8))
    held = c.release(1)
    assert (held.epoch, held.chunk, held.step) == (0, 1, 4)
    assert c.lease(1) is NoLease.DONE  # the dead stay dead
    lease = c.lease(2)
    assert (lease.chunk, lease.step) == (1, 4)
    assert c.release(1) is None


def test_an_idle_worker_waits_while_others_may_still_die():
    c = Coordinator(WORDS[:1], 1, slots=2)
    c.lease(0)
    assert c.lease(1) is NoLease.WAIT
    c.release(0)
    assert isinstance(c.lease(1), Lease)
    c.finish(1)
    assert c.lease(1) is NoLease.DONE


def test_warm_start_is_one_workers_and_passes_on_if_it_dies():
    c = Coordinator(WORDS, 2, slots=3, warm_start=2)
    assert isinstance(c.lease(1), Lease)
    assert c.lease(0) is NoLease.WAIT
    c.release(1)
    assert isinstance(c.lease(2), Lease)
    assert c.lease(0) is NoLease.WAIT
    c.finish(2)
    assert c.lease(0) is NoLease.WAIT
    c.lease(2)
    c.finish(2)
    assert isinstance(c.lease(0), Lease)


def test_the_bound_holds_back_who_is_ahead_and_nobody_else():
    c = Coordinator(np.full(9, 10), 1, slots=3, bound=1)
    c.lease(0)
    c.lease(1)
    assert c.may_step(0)
    c.report(0, trained(1, 1))
    assert c.may_step(0)
    c.report(0, trained(2, 1))
    assert not c.may_step(0)
    assert c.may_step(1)
    c.report(1, trained(1, 1))
    c.lease(2)  # who joins late is not waited for from the beginning
    assert c.may_step(0)
    c.release(1)
    c.release(2)  # the dead hold back nobody
    c.report(0, trained(3, 1))
    c.report(0, trained(4, 1))
    assert c.may_step(0)


def test_pause_gives_out_nothing_and_stop_ends_everything():
    c = Coordinator(WORDS, 1, slots=2)
    c.lease(0)
    c.pause(True)
    assert c.lease(1) is NoLease.WAIT
    assert not c.quiet
    c.finish(0)
    assert c.quiet
    c.pause(False)
    assert isinstance(c.lease(1), Lease)
    c.stop()
    assert c.lease(0) is NoLease.DONE


def test_a_snapshot_in_the_middle_of_a_lease_is_refused():
    c = Coordinator(WORDS, 1, slots=1)
    c.lease(0)
    with pytest.raises(DataError, match="leases finished"):
        c.state()


def test_a_restored_coordinator_continues_with_another_number_of_workers():
    c = Coordinator(WORDS, 2, slots=2)
    for slot in (0, 1, 0):
        lease = c.lease(slot)
        c.report(slot, trained(1, int(WORDS[lease.chunk])))
        c.finish(slot)
    c.lease(1)
    c.release(1)  # a chunk to redo is part of the snapshot
    again = Coordinator(WORDS, 2, slots=5)
    again.restore(c.state())
    assert again.words == 60
    assert again.losses() == c.losses()
    lease = again.lease(4)
    assert (lease.epoch, lease.chunk) == (1, 0)
    assert again.lease(3).chunk == 1
    with pytest.raises(DataError, match="another corpus"):
        Coordinator(WORDS, 3, slots=1).restore(c.state())


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.randoms(use_true_random=False))
def test_every_chunk_is_trained_exactly_once_whoever_dies(chunks, epochs, workers, random):
    """Each chunk has 3 steps of one word; workers report step by step and die anywhere."""
    slots = workers + 4
    c = Coordinator(np.full(chunks, 3), epochs, slots=slots)
    done: list[tuple[int, int, int]] = []
    holds: dict[int, tuple[int, int, int]] = {}
    alive, spare = list(range(workers)), list(range(workers, slots))
    for _ in range(10_000):
        if c.finished:
            break
        slot = random.choice(alive)
        if spare and random.random() < 0.1:
            c.release(slot)
            holds.pop(slot, None)
            alive[alive.index(slot)] = spare.pop()
        elif slot in holds:
            epoch, chunk, step = holds[slot]
            done.append((epoch, chunk, step))
            c.report(slot, trained(step + 1, 1))
            holds[slot] = (epoch, chunk, step + 1)
            if step + 1 == 3:
                del holds[slot]
                c.finish(slot)
        elif isinstance(lease := c.lease(slot), Lease):
            holds[slot] = (lease.epoch, lease.chunk, lease.step)
            if lease.step == 3:  # it died between its last push and the end of its lease
                del holds[slot]
                c.finish(slot)
    assert sorted(done) == [(e, k, s) for e in range(epochs) for k in range(chunks) for s in range(3)]
    assert c.words == 3 * chunks * epochs
