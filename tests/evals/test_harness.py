"""The adapter to lm-evaluation-harness: what it asks, against a stand-in with the harness's interface."""

from __future__ import annotations

import abc
import json
import math
import sys
import types
from dataclasses import dataclass

import pytest

from posterhall.evals import harness
from posterhall.evals.jobs import EvalSettings, evaluate
from posterhall.lm import EchoLM, ScriptedLM


@dataclass
class Instance:
    args: tuple


@pytest.fixture
def lm_eval(monkeypatch):
    """`lm_eval` as far as it is used: the abstract model, and an evaluation that asks it three things."""

    class Model(abc.ABC):
        def __init__(self):
            self.rank_is_set = True

        @abc.abstractmethod
        def loglikelihood(self, requests): ...

        @abc.abstractmethod
        def loglikelihood_rolling(self, requests): ...

        @abc.abstractmethod
        def generate_until(self, requests): ...

    calls = []

    def simple_evaluate(*, model, tasks, num_fewshot, limit, log_samples, **seeds):
        assert isinstance(model, Model)
        assert model.rank_is_set
        calls.append((tuple(tasks), num_fewshot, limit, seeds))
        pairs = [("Q: a?\nA:", " yes"), ("Q: a?\nA:", " no")]
        (yes, _), _ = model.loglikelihood([Instance(each) for each in pairs], disable_tqdm=True)
        [rolled] = model.loglikelihood_rolling([Instance(("abcd",))])
        [said] = model.generate_until([Instance(("say", {"until": ["\n"], "max_gen_toks": 2}))])
        return {
            "results": {
                "toy": {
                    "alias": "toy",
                    "acc,none": 0.5 + num_fewshot / 10,
                    "acc_stderr,none": 0.1,
                    "f1,strict": yes,
                }
            },
            "higher_is_better": {"toy": {"acc": True}},
            "config": {"rolled": rolled, "said": said, "fn": len},
            "samples": {"toy": [{"doc_id": 0, "doc": {"q": "é"}}]},
        }

    package, api, model = (types.ModuleType(name) for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model"))
    model.LM, package.simple_evaluate = Model, simple_evaluate
    for module in (package, api, model):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_a_run_keeps_what_the_harness_returns(lm_eval, tmp_path):
    settings = EvalSettings(shots=(0, 1), harness=("toy",), limit=3, seed=9)
    result = evaluate(EchoLM(), [], settings, out=tmp_path / "run")
    assert [(row["metric"], row["shots"], row["score"]) for row in result["harness"]] == [
        ("acc", 0, 0.5),
        ("acc", 1, 0.6),
        ("f1,strict", 0, pytest.approx(-4 * math.log(256))),
        ("f1,strict", 1, pytest.approx(-4 * math.log(256))),
    ]
    assert result["harness"][0] == {
        "task": "toy",
        "shots": 0,
        "metric": "acc",
        "score": 0.5,
        "stderr": 0.1,
        "higher_is_better": True,
    }
    kept = json.loads((tmp_path / "run/artifacts/harness-1-shot.json").read_text())
    assert kept["results"]["toy"]["acc,none"] == 0.6
    assert kept["config"]["rolled"] == pytest.approx(-4 * math.log(256))
    assert kept["config"]["said"] == "ay"
    lines = (tmp_path / "run/artifacts/harness-1-shot-samples.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"task": "toy", "doc_id": 0, "doc": {"q": "é"}}
    [first, second] = lm_eval
    assert (first[:3], second[:3]) == ((("toy",), 1, 3), (("toy",), 0, 3))
    assert set(first[3].values()) == {9}
    assert result["mean"] is None


def test_equal_contexts_are_scored_together_and_answered_in_order():
    asked = []

    class Watching(EchoLM):
        async def ascore(self, items):
            asked.extend(items)
            return await super().ascore(items)

    pairs = [("one ", "a"), ("two", "bb"), ("one", " ccc"), ("one ", "a")]
    found = harness.loglikelihood(Watching(), pairs)
    assert asked == [("one", [" a", " ccc"]), ("two", ["bb"])]
    assert [round(-total / math.log(256)) for total, _ in found] == [2, 2, 4, 2]
    assert all(greedy is False for _, greedy in found)


def test_generation_arguments_are_understood():
    lm = ScriptedLM([{"reply": "one\ntwo"}])
    arguments = [
        ("a", {"until": "\n"}),
        ("b", {"until": ["x", ""], "do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_gen_toks": 5}),
        ("c", {"temperature": 0.7}),
    ]
    assert harness.generate_until(lm, arguments) == ["one", "one\ntwo", "one\ntwo"]
    one, two, three = (each.request for each in lm.asked)
    assert (one.stop, one.temperature, one.max_tokens) == (("\n",), 0.0, 256)
    assert (two.stop, two.temperature, two.top_p, two.max_tokens, two.seed) == (("x",), 0.7, 0.9, 5, 1)
    assert three.temperature == 0.0  # the harness samples only with do_sample
