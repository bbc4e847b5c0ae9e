"""The recurrent baseline: its gradients, what it can learn, and the time it keeps."""

import math
import time
from dataclasses import fields

import numpy as np
import pytest

from posterhall.data import corpus
from posterhall.embeddings.recurrent import RecurrentLM, RecurrentSettings, Weights, loss_and_gradients
from posterhall.errors import DataError, UsageError


def random_weights(words, d, seed):
    rng = np.random.default_rng(seed)
    return Weights(
        inputs=rng.normal(size=(words, d)),
        recurrent=rng.normal(size=(d, d)) / 2,
        bias=rng.normal(size=d) / 3,
        outputs=rng.normal(size=(words, d)),
        output_bias=rng.normal(size=words),
    )


def test_gradients_are_those_of_finite_differences():
    words, d = 6, 4
    weights = random_weights(words, d, 0)
    rng = np.random.default_rng(1)
    tokens = rng.integers(words, size=(4, 3)).astype(np.int32)
    tokens[:2, 0] = 2  # a word read twice in one block: its gradients must add up
    state = rng.normal(size=(3, d))
    _, gradients, _ = loss_and_gradients(weights, tokens, state)
    for f in fields(Weights):
        array, found = getattr(weights, f.name), getattr(gradients, f.name)
        for index in np.ndindex(array.shape):
            old, h = array[index], 1e-6
            array[index] = old + h
            above = loss_and_gradients(weights, tokens, state)[0]
            array[index] = old - h
            below = loss_and_gradients(weights, tokens, state)[0]
            array[index] = old
            assert found[index] == pytest.approx((above - below) / (2 * h), abs=1e-7), (f.name, index)


def test_state_is_carried_from_block_to_block():
    weights = random_weights(5, 3, 2)
    tokens = np.array([[0, 1], [2, 3], [4, 0], [1, 1], [3, 2]], np.int32)
    start = np.zeros((2, 3))
    whole, _, end = loss_and_gradients(weights, tokens, start)
    first, _, middle = loss_and_gradients(weights, tokens[:3], start)
    second, _, last = loss_and_gradients(weights, tokens[2:], middle)
    assert whole == pytest.approx((first + second) / 2)
    np.testing.assert_allclose(last, end)


def test_loss_at_the_start_is_the_entropy_of_the_words():
    counts = np.array([60, 25, 10, 5], np.int64)
    text = np.repeat(np.arange(4), counts).astype(np.int32)
    tokens = np.random.default_rng(0).permutation(np.append(text, 0))[:, None].astype(np.int32)
    weights = Weights.initial(RecurrentSettings(dim=8), counts)
    expected = -np.log(counts / counts.sum())[tokens[1:, 0]].mean()
    assert loss_and_gradients(weights, tokens, np.zeros((1, 8), np.float32))[0] == pytest.approx(expected)


def counting(words=7, repeats=1500):
    """A text that needs memory: 0 1 2 0 1 3 0 1 4 ...: what follows "0 1" is known from the last triple."""
    cycle = np.concatenate([[0, 1, k] for k in range(2, words)])
    return corpus.read(np.tile(cycle, repeats), min_count=1)


def test_learns_what_only_memory_can_tell():
    vocabulary, encoded = counting()
    model = RecurrentLM(dim=16, alpha=0.1, streams=8, epochs=2).fit_encoded(vocabulary, encoded)
    without_memory = math.log(5) / 3  # the third word of each triple, one of five, is a guess
    assert model.history_[-1] < 0.2 * without_memory
    assert model.words_ == pytest.approx(2 * encoded.words, rel=0.01)


def test_equal_seeds_give_equal_vectors():
    vocabulary, encoded = counting(repeats=40)
    a, b, c = (RecurrentLM(dim=8, epochs=1, seed=s).fit_encoded(vocabulary, encoded) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.vectors_.matrix, b.vectors_.matrix)
    assert (a.vectors_.matrix != c.vectors_.matrix).any()
    assert list(a.vectors_.words) == [str(item) for item in vocabulary.items]


def test_stops_when_its_time_is_up():
    vocabulary, encoded = counting()
    began = time.process_time()
    model = RecurrentLM(dim=8, epochs=10_000).fit_encoded(vocabulary, encoded, cpu_seconds=0.1)
    assert time.process_time() - began >= 0.1
    assert 0 < model.words_ < 10_000 * encoded.words
    assert np.isfinite(model.vectors_.matrix).all()


def test_shortest_text_and_what_is_too_short():
    vocabulary, encoded = corpus.read(np.array([0, 1], np.int32), min_count=1)
    assert RecurrentLM(dim=2, epochs=1).fit_encoded(vocabulary, encoded).words_ == 1
    one = corpus.encode(np.array([0], np.int32), vocabulary)
    with pytest.raises(DataError, match="needs two"):
        RecurrentLM(dim=2).fit_encoded(vocabulary, one)


def test_wrong_settings_are_refused():
    with pytest.raises(DataError, match="streams is 0"):
        RecurrentLM(streams=0)
    with pytest.raises(DataError, match="alpha is nan"):
        RecurrentLM(alpha=math.nan)
    with pytest.raises(UsageError, match="Did you mean"):
        RecurrentLM(alhpa=0.1)
    with pytest.raises(UsageError, match="before fit"):
        _ = RecurrentLM().vectors_
