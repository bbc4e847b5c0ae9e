"""All answers of a small model, against one pass over each of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from posterhall.errors import DataError

torch = pytest.importorskip("torch")

from posterhall.models import Decoder, DecoderConfig, enumeration  # noqa: E402
from posterhall.models.generate import generate  # noqa: E402

WORDS = 4


def model(seed=0, **changes):
    shape = {"dim": 16, "layers": 2, "heads": 2, "max_length": 8, "init_std": 0.4, **changes}
    return Decoder(DecoderConfig(vocab_size=WORDS, **shape), seed=seed)


def one_by_one(decoder, prompt, length, temperature=1.0):
    """log p of every answer by a whole pass over prompt and answer, in float64."""
    answers = torch.cartesian_prod(*[torch.arange(WORDS)] * length).view(-1, length)
    ids = torch.cat([torch.tensor(prompt).expand(len(answers), -1), answers], dim=1)
    with torch.no_grad():
        logs = (decoder(ids[:, :-1]).double() / temperature).log_softmax(-1)
    return logs.gather(-1, ids[:, 1:, None])[:, len(prompt) - 1 :, 0].sum(1).numpy()


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_each_answer_has_the_probability_that_a_pass_over_it_gives(temperature):
    decoder, prompts = model(), [[0, 1], [3, 3]]
    found = enumeration.distribution(decoder, prompts, 3, temperature=temperature)
    assert found.shape == (2, WORDS**3)
    for row, prompt in zip(found, prompts, strict=True):
        np.testing.assert_allclose(row, one_by_one(decoder, prompt, 3, temperature), atol=2e-5)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, atol=1e-12)


def test_prompts_may_differ_in_length():
    decoder = model(seed=1)
    found = enumeration.distribution(decoder, [[2], [0, 1, 3]], 2)
    np.testing.assert_allclose(found[0], one_by_one(decoder, [2], 2), atol=2e-5)
    np.testing.assert_allclose(found[1], one_by_one(decoder, [0, 1, 3], 2), atol=2e-5)


def test_answers_are_in_the_order_of_the_probabilities():
    answers = enumeration.answers(WORDS, 3)
    assert answers.shape == (64, 3)
    assert answers[:5].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3], [0, 1, 0]]
    likeliest = answers[enumeration.distribution(model(), [[1]], 3, temperature=0)[0].argmax()]
    said = generate(model(), [[1]], max_new_tokens=3, temperature=0)[0].ids
    assert likeliest.tolist() == said


def test_at_temperature_zero_one_answer_is_left():
    found = enumeration.distribution(model(), [[1], [2]], 3, temperature=0)
    assert (found.max(1) == 0).all()
    assert np.isneginf(found).sum(1).tolist() == [63, 63]


def test_many_prompts_go_in_several_passes(monkeypatch):
    decoder, prompts = model(), [[i % WORDS, i // WORDS] for i in range(10)]
    whole = enumeration.distribution(decoder, prompts, 2)
    monkeypatch.setattr(enumeration, "_ROWS", 3 * WORDS)
    np.testing.assert_allclose(enumeration.distribution(decoder, prompts, 2), whole, atol=1e-5)


def test_sums_over_the_tokens_of_every_answer():
    decoder, direction = model(), torch.linspace(-1, 1, 16)
    found = enumeration.sums(decoder, [[0, 1], [2, 3]], 2, lambda states: states @ direction)
    answers = torch.from_numpy(enumeration.answers(WORDS, 2))
    for row, prompt in zip(found, ([0, 1], [2, 3]), strict=True):
        ids = torch.cat([torch.tensor(prompt).expand(len(answers), -1), answers], dim=1)
        with torch.no_grad():
            wanted = (decoder.hidden(ids)[:, 2:] @ direction).sum(1)
        np.testing.assert_allclose(row, wanted.numpy(), atol=1e-4)


def test_the_model_is_left_in_its_mode():
    decoder = model(dropout=0.5).train()
    first = enumeration.distribution(decoder, [[0]], 2)
    assert decoder.training
    np.testing.assert_array_equal(first, enumeration.distribution(decoder, [[0]], 2))


@pytest.mark.parametrize(
    ("prompts", "length", "temperature", "words"),
    [
        ([[0]], 20, 1.0, "at most 16,777,216 can be enumerated"),
        ([[0], []], 2, 1.0, "prompt 1 is empty"),
        ([], 2, 1.0, "at least 1 of both"),
        ([[0]], 0, 1.0, "at least 1 of both"),
        ([[0]], 2, -1.0, "temperature is -1.0"),
        ([[0]], 2, math.nan, "temperature is nan"),
        ([[0] * 7], 5, 1.0, "max_length"),
    ],
)
def test_bad_input_is_named(prompts, length, temperature, words):
    with pytest.raises(DataError, match=words):
        enumeration.distribution(model(), prompts, length, temperature=temperature)
