"""The scores of an item, from a model whose probabilities are known."""

from __future__ import annotations

import asyncio
import itertools
import math

import pytest

from posterhall.errors import DataError
from posterhall.evals.items import METRICS, ask, compare
from posterhall.evals.shots import plan
from posterhall.evals.tasks import PRIMARY, Task, TaskSettings, parse
from posterhall.lm import LM, ScriptedLM, Unsupported
from posterhall.lm.protocol import Sample


def rows(lm, values, settings=None, shots=0):
    items = tuple(parse(each, f"f:{i}", default_id=str(i)) for i, each in enumerate(values))
    made = plan(Task("t", items, settings=settings or TaskSettings()), shots=[0], seed=0)
    return asyncio.run(ask(lm, made, shots, made.items))


def test_the_chain_from_likelihood_to_right_or_wrong_has_its_closed_forms():
    p = {" red": 0.2, " light blue": 0.1, " green": 0.1}
    lm = ScriptedLM([{"prompt": "Question: Q?\nAnswer:", "scores": {k: [math.log(v)] for k, v in p.items()}}])
    [row] = rows(lm, [{"question": "Q?", "choices": ["red", "light blue", "green"], "answer": 1}])
    expected = {
        "nll": -math.log(0.1),
        "p_vocab": 0.1,
        "p_choices": 0.25,
        "brier_single": 0.75**2,
        "brier": 0.5**2 + 0.75**2 + 0.25**2,
        "accuracy": 0.0,  # red is likeliest
        "accuracy_norm": 1.0,  # per byte of " red" (4), " light blue" (11), " green" (6), it is light blue
    }
    assert row.scores == pytest.approx(expected)
    assert row.output["logprobs"] == pytest.approx([math.log(each) for each in p.values()])


def test_letters_are_scored_where_they_are_asked_for():
    lm = ScriptedLM([{"ends": "A. no\nB. yes\nAnswer:", "scores": {" A": -2.0, " B": -1.0}}])
    [row] = rows(
        lm,
        [{"question": "Q?", "choices": ["no", "yes"], "answer": "yes"}],
        TaskSettings(style="letter"),
    )
    assert row.scores["accuracy"] == 1.0
    assert row.scores["p_choices"] == pytest.approx(1 / (1 + math.exp(-1)))


def test_several_right_choices_count_together():
    lm = ScriptedLM([{"scores": {" a": math.log(0.3), " b": math.log(0.2), " c": math.log(0.4)}}])
    [row] = rows(lm, [{"question": "Q", "choices": ["a", "b", "c"], "answer": [0, 1]}])
    assert row.scores["p_vocab"] == pytest.approx(0.5)
    assert row.scores["p_choices"] == pytest.approx(5 / 9)


def test_a_model_that_gives_every_choice_nothing_is_refused():
    class Never(ScriptedLM):
        async def ascore(self, items):
            from posterhall.lm import Scored

            return [
                [Scored(each, ("x",), (-math.inf,), is_greedy=False) for each in said] for _, said in items
            ]

    with pytest.raises(DataError, match="f:0: the model gives every choice the probability 0"):
        rows(Never([{"reply": ""}]), [{"question": "Q", "choices": ["a", "b"], "answer": 0}])


def test_generated_answers_are_compared_and_their_targets_scored():
    lm = ScriptedLM(
        [
            {"prompt": "17+25=", "reply": " 43\nand so on", "scores": {" 42": [-1.0, -0.5], " 42.0": -3.0}},
            {"prompt": "1+1=", "reply": " two", "scores": {" 2": -1.0}},
        ]
    )
    one, two = rows(lm, [{"prompt": "17+25=", "targets": ["42", "42.0"]}, {"prompt": "1+1=", "target": "2"}])
    assert one.output["answer"] == "43"
    assert one.scores["nll"] == pytest.approx(-math.log(math.exp(-1.5) + math.exp(-3.0)))
    assert one.scores["numeric_error"] == 1.0
    assert one.scores["exact_match"] == 0.0
    assert two.scores["numeric_error"] is None
    assert two.scores["numeric_parsed"] == 0.0
    asked = [each.request for each in lm.asked if each.kind == "generate"]
    assert all(each.temperature == 0.0 and each.stop == ("\n",) and each.max_tokens == 64 for each in asked)


def test_a_model_that_cannot_score_can_still_answer():
    class Speaker(LM):
        name = "speaker"

        async def agenerate(self, requests):
            return [[Sample("4", "stop", 1, 1)] for _ in requests]

    [row] = rows(Speaker(), [{"prompt": "2+2=", "target": "4"}])
    assert row.scores["exact_match"] == 1.0
    assert "nll" not in row.scores
    with pytest.raises(Unsupported, match="speaker cannot tell"):
        rows(Speaker(), [{"question": "Q", "choices": ["a", "b"], "answer": 0}])


@pytest.mark.parametrize(
    ("said", "targets", "settings", "expected"),
    [
        (" The Cat\n", ["the cat"], {}, {"exact_match": 0, "token_edit_distance": 2, "lcs": 0}),
        (
            "The Cat",
            ["the cat"],
            {"ignore_case": True},
            {"exact_match": 1, "token_edit_distance": 0, "lcs": 1},
        ),
        ("abXd", ["abcd"], {"unit": "characters"}, {"token_edit_distance": 1, "lcs": 0.75}),
        ("", ["a b"], {}, {"exact_match": 0, "token_edit_distance": 2, "lcs": 0, "rouge_2": 0}),
        ("x b c d", ["a b c d"], {}, {"rouge_2": 2 / 3, "lcs": 0.75}),
        ("b", ["a", "b", "c d"], {}, {"exact_match": 1, "token_edit_distance": 0, "lcs": 1}),
        ("about 1,000.5", ["1000"], {}, {"numeric_error": 0.5, "numeric_parsed": 1}),
        ("12", ["12 apples"], {}, {"exact_match": 0}),
    ],
)
def test_comparison_with_targets(said, targets, settings, expected):
    scores = compare(said, targets, TaskSettings(**settings))
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert ("numeric_error" in scores) == (targets == ["1000"])
    assert ("rouge_2" in scores) == any(" " in each for each in targets)


def test_every_metric_says_what_it_is():
    for name in itertools.chain(*PRIMARY.values()):
        assert METRICS[name].guessed
