"""Generation: the same text alone and in any batch, with a cache and without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from tiny import decoder, tokens

from posterhall import seeds
from posterhall.errors import DataError
from posterhall.models.generate import Sampling, generate

MODEL = decoder("grouped", layers=2)
PROMPTS = st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=9), min_size=1, max_size=4)


def by_hand(model, prompt, count):
    """Greedy, without a cache."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@limits(max_examples=15)
@given(PROMPTS)
def test_greedy_text_is_that_without_a_cache(prompts):
    found = generate(MODEL, prompts, max_new_tokens=6, temperature=0)
    assert [each.ids for each in found] == [by_hand(MODEL, prompt, 6) for prompt in prompts]
    assert not any(each.stopped for each in found)


@given(
    PROMPTS, st.integers(0, 5), st.integers(1, 4), st.sampled_from([None, 3]), st.sampled_from([None, 0.8])
)
def test_a_rows_text_does_not_depend_on_its_batch(prompts, seed, batch, top_k, top_p):
    own = [seeds.derive(seed, row) for row in range(len(prompts))]
    settings = {"max_new_tokens": 5, "top_k": top_k, "top_p": top_p, "return_logprobs": True}
    together = generate(MODEL, prompts, seeds=own, stop_ids=[7], batch=batch, **settings)
    for each, prompt, one in zip(together, prompts, own, strict=True):
        [alone] = generate(MODEL, [prompt], seeds=[one], stop_ids=[7], **settings)
        assert (each.ids, each.stopped) == (alone.ids, alone.stopped)
        assert each.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_a_single_seed_gives_each_row_its_own():
    found = generate(MODEL, [[1, 2]] * 4, seeds=3, max_new_tokens=8)
    assert len({tuple(each.ids) for each in found}) == 4
    own = [seeds.derive(3, "row", row) for row in range(4)]
    assert found == generate(MODEL, [[1, 2]] * 4, seeds=own, max_new_tokens=8)
    assert found[:2] == generate(MODEL, [[1, 2]] * 2, seeds=3, max_new_tokens=8)


def test_log_probabilities_are_the_models_own_whatever_the_temperature():
    [found] = generate(MODEL, [[5, 6]], temperature=0.3, max_new_tokens=7, return_logprobs=True)
    whole = torch.tensor([[5, 6, *found.ids]])
    with torch.no_grad():
        logprobs = MODEL(whole).log_softmax(-1)[0, 1:-1]
    expected = logprobs.gather(-1, whole[0, 2:, None])[:, 0]
    assert found.logprobs == pytest.approx(expected.tolist(), abs=1e-5)
    assert generate(MODEL, [[5, 6]], max_new_tokens=2)[0].logprobs is None


def test_stop_tokens_and_watchers_end_a_row():
    [free] = generate(MODEL, [[3]], max_new_tokens=12, seeds=[1])
    stop = free.ids[4]
    before = free.ids[: free.ids.index(stop)]
    [stopped] = generate(MODEL, [[3]], max_new_tokens=12, seeds=[1], stop_ids=[stop])
    assert (stopped.ids, stopped.stopped) == (before, True)
    seen = []

    def watch(row, ids):
        seen.append((row, len(ids)))
        return row == 1 and len(ids) == 3

    found = generate(MODEL, [[3], [4]], max_new_tokens=5, watch=watch)
    assert [(len(each.ids), each.stopped) for each in found] == [(5, False), (3, True)]
    assert sorted(seen) == [(0, n) for n in range(1, 6)] + [(1, n) for n in range(1, 4)]


def test_generation_ends_where_the_model_does():
    model = decoder("plain")
    prompts = [tokens(model, 1, length)[0].tolist() for length in (48, 45, 2)]
    found = generate(model, prompts, max_new_tokens=10, batch=3)
    # The last token needs no room: nothing follows it.
    assert [len(each.ids) for each in found] == [1, 4, 10]
    assert generate(model, [[1]], max_new_tokens=0)[0].ids == []
    assert generate(model, []) == []


def test_training_mode_is_given_back():
    model = decoder("plain", dropout=0.5).train()
    first = generate(model, [[1, 2]], temperature=0)
    assert model.training
    assert first == generate(model, [[1, 2]], temperature=0)


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1]),
        ({"temperature": 0.5}, np.square([0.5, 0.25, 0.15, 0.1])),
        ({"top_k": 2}, [0.5, 0.25, 0, 0]),
        ({"top_k": 9}, [0.5, 0.25, 0.15, 0.1]),
        ({"top_p": 0.5}, [1, 0, 0, 0]),
        ({"top_p": 0.6}, [0.5, 0.25, 0, 0]),
        ({"top_p": 1.0}, [0.5, 0.25, 0.15, 0.1]),
        ({"top_k": 3, "top_p": 0.85}, [0.5, 0.25, 0.15, 0]),  # of what is left, 0.83 lies before the third
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_with_the_stated_probabilities(settings, allowed):
    order = torch.tensor([2, 0, 3, 1])  # the likeliest token is not the first
    logits = torch.empty(4).index_copy(0, order, torch.tensor([0.5, 0.25, 0.15, 0.1]).log())
    count = 4000
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    drawn = Sampling(**settings).draw(logits.expand(count, 4), uniforms)
    shares = torch.bincount(drawn, minlength=4)[order] / count
    expected = np.array(allowed) / np.sum(allowed)
    assert shares.tolist() == pytest.approx(expected.tolist(), abs=1.1 / count)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_what_is_drawn_is_possible(logits, uniform):
    for top_p in (None, 1e-9, 0.5, 1.0):
        sampling = Sampling(top_p=top_p)
        token = int(sampling.draw(torch.tensor([logits]), torch.tensor([uniform], dtype=torch.float64)))
        assert torch.tensor(logits).double().softmax(-1)[token] > 0


def test_what_cannot_be_is_refused():
    for settings, said in (
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"batch": 0}, "batch 0"),
        ({"seeds": [1, 2]}, "2 seeds for 1 prompts"),
    ):
        with pytest.raises(DataError, match=said):
            generate(MODEL, [[1]], **settings)
    with pytest.raises(DataError, match="prompt 1 has 0 tokens"):
        generate(MODEL, [[1], []])
    with pytest.raises(DataError, match="prompt 0 has 49 tokens"):
        generate(MODEL, [[1] * 49])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(broken, temperature):
    model = decoder()
    with torch.no_grad():
        model.norm.weight[0] = broken
    with pytest.raises(DataError, match="logits are not finite"):
        generate(model, [[1, 2, 3]], max_new_tokens=2, temperature=temperature)
