from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from posterhall.embeddings.parameter_server import Push, Rule, Table
from posterhall.embeddings.parameter_server.placement import Placement
from posterhall.embeddings.parameter_server.server import Server
from posterhall.embeddings.parameter_server.transport import (
    BackgroundTransport,
    RetryingTransport,
    from_half,
    to_half,
)
from posterhall.errors import PosterhallError


def server() -> Server:
    return Server([Table("a", 4, 2)], [Placement.make(4, 1)], Rule(), slots=2)


def push(number: int, value: float = 1.0) -> Push:
    return Push(0, number, 0, 1.0, [np.array([0], np.int32)], [np.full((1, 2), value, np.float32)])


class Gate:
    """A transport whose pushes wait until it is opened."""

    borrows = False

    def __init__(self) -> None:
        self.opened, self.entered, self.numbers = threading.Event(), threading.Semaphore(0), []

    def pull(self, worker, wanted):
        return [0]

    def push(self, pushes, done):
        self.entered.release()
        self.opened.wait(10)
        self.numbers.append(pushes[0].number)
        done()

    def flush(self):
        pass


def test_a_full_queue_holds_the_worker_back_until_a_push_is_through():
    gate = Gate()
    background = BackgroundTransport(gate, limit=2)
    done: list[int] = []
    for number in (1, 2, 3):  # one on its way, two waiting
        background.push([push(number)], lambda n=number: done.append(n))
        if number == 1:
            assert gate.entered.acquire(timeout=10)
    through = threading.Event()

    def fourth() -> None:
        background.push([push(4)], lambda: done.append(4))
        through.set()

    thread = threading.Thread(target=fourth)
    thread.start()
    assert not through.wait(0.05)
    assert done == []
    gate.opened.set()
    assert through.wait(10)
    thread.join()
    background.flush()
    assert gate.numbers == done == [1, 2, 3, 4]
    background.close()


def test_flush_returns_when_everything_is_applied():
    s = server()
    background = BackgroundTransport(s.transport(), limit=50)
    for number in range(1, 31):
        background.push([push(number)], lambda: None)
    background.flush()
    assert (s.values()[0][0] == 30).all()
    background.close()


def test_a_failed_push_in_the_background_reaches_the_worker_and_blocks_nobody():
    background = BackgroundTransport(server().transport(), limit=1)
    background.push([push(1, np.nan)], lambda: None)
    with pytest.raises(PosterhallError, match="NaN"):
        background.flush()
    with pytest.raises(PosterhallError, match="NaN"):
        background.push([push(2)], lambda: None)
    background.close()


class Lossy:
    """Applies a push and then loses the answer, the first `losses` times."""

    borrows = False

    def __init__(self, inner, losses: int) -> None:
        self.inner, self.losses = inner, losses

    def pull(self, worker, wanted):
        return self.inner.pull(worker, wanted)

    def push(self, pushes, done):
        self.inner.push(pushes, done)
        if self.losses:
            self.losses -= 1
            raise TimeoutError

    def flush(self):
        pass


def test_a_retry_after_a_lost_answer_applies_once_and_reports_once():
    s = server()
    reported: list[int] = []
    retrying = RetryingTransport(Lossy(s.transport(), losses=2), attempts=3)
    retrying.push([push(1)], lambda: reported.append(1))
    assert (s.values()[0][0] == 1).all()
    assert reported == [1]
    assert s.counts() == {"pushes": 1, "repeats": 2, "refused": 0, "clipped_rows": 0}


def test_a_shard_that_never_answers_is_given_up():
    retrying = RetryingTransport(Lossy(server().transport(), losses=9), attempts=2)
    with pytest.raises(PosterhallError, match="timed out 2 times"):
        retrying.push([push(1)], lambda: None)


@given(arrays(np.float32, (5, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_half_precision_keeps_each_rows_scale(delta):
    back = from_half(*to_half(delta))
    scale = np.abs(delta).max(axis=1, keepdims=True)
    assert (np.abs(back - delta) <= scale * 2.0**-11 + 1e-37).all()


def test_half_precision_hides_no_poison():
    delta = np.zeros((3, 4), np.float32)
    delta[0, 1], delta[2, 3] = np.nan, np.inf
    back = from_half(*to_half(delta))
    assert not np.isfinite(back[0]).all()
    assert np.isfinite(back[1]).all()
    assert not np.isfinite(back[2]).all()
