"""PPO: it finds the optimum that can be computed, stops on bad rewards, and kills change nothing."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal

import numpy as np
import pytest

from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import DataError, Interrupted
from posterhall.train.ppo_settings import PpoSettings

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
WORDS, LENGTH = 4, 2
QUICK = {
    "beta": 0.3, "lr": 3e-3, "prompts": 2, "samples": 16, "batch": 16, "accumulate": 1, "passes": 2,
    "max_new_tokens": LENGTH, "temperature": 1.0, "schedule": "constant", "log_every": 2,
}  # fmt: skip


def decoder(*, vocab_size=WORDS, max_length=8, seed=0):
    from posterhall.models import Decoder, DecoderConfig

    config = DecoderConfig(
        vocab_size=vocab_size, dim=16, layers=1, heads=2, max_length=max_length, init_std=0.3
    )
    return Decoder(config, seed=seed)


def threes(ids, mask):
    """The share of threes in an answer."""
    return ((ids == 3) & mask).sum(1) / LENGTH


def log_chances(model, prompt):
    """log p of all answers, by what the model says of each."""
    answers = list(itertools.product(range(WORDS), repeat=LENGTH))
    ids = torch.tensor([[*prompt, *each] for each in answers])
    with torch.no_grad():
        logp = model(ids).double().log_softmax(-1)
    at = len(prompt) - 1
    return answers, sum(logp[:, at + i].gather(1, ids[:, at + 1 + i, None])[:, 0] for i in range(LENGTH))


@pytest.mark.parametrize("advantage", ["gae", "leave_one_out", "group"])
def test_the_objective_comes_near_the_optimum_and_never_above(advantage):
    from posterhall.train.ppo import fit_ppo

    model, beta = decoder(), 0.3
    answers, before = log_chances(model, [1])
    worth = torch.tensor([each.count(3) / LENGTH for each in answers], dtype=torch.float64)
    optimum = beta * torch.logsumexp(before + worth / beta, 0).item()  # beta log Z
    start = (before.exp() * worth).sum().item()
    settings = PpoSettings(**QUICK, advantage=advantage, steps=240)
    trained = fit_ppo(model, [[1]], reward=threes, settings=settings)
    assert trained.model is model
    _, after = log_chances(model, [1])
    reached = (after.exp() * (worth - beta * (after - before))).sum().item()
    assert reached <= optimum + 1e-9
    # Half of the way at least: the group's normalisation makes it weigh the reward otherwise.
    assert reached > optimum - (0.1 if advantage != "group" else 0.5) * (optimum - start)
    assert trained.history[0]["ratio"] == pytest.approx(1, abs=0.05)
    assert ("explained_variance" in trained.history[0]) == (advantage == "gae")


def test_in_the_first_step_of_a_rollout_the_policy_is_what_drew():
    from posterhall.train.ppo import PpoObjective, fit_ppo

    seen = []
    ordinary = PpoObjective.__call__

    def watching(self, *arguments):
        loss, said = ordinary(self, *arguments)
        seen.append(float(said["ratio"]))
        return loss, said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PpoObjective, "__call__", watching)
        fit_ppo(decoder(), [[0], [1], [2, 1]], reward=threes, settings=PpoSettings(**QUICK, steps=8))
    assert seen[::4] == pytest.approx([1.0] * 2, abs=1e-5)
    assert max(abs(each - 1) for each in seen) > 1e-4


def test_rewards_that_are_all_equal_teach_nothing():
    from posterhall.train.ppo import fit_ppo

    settings = PpoSettings(**{**QUICK, "advantage": "leave_one_out", "steps": 2, "beta": 1e-12})
    model = decoder()
    before = {name: value.clone() for name, value in model.named_parameters()}
    trained = fit_ppo(model, [[1]], reward=lambda ids, mask: torch.full((len(ids),), 0.1), settings=settings)
    assert trained.history[-1]["loss"] == pytest.approx(0, abs=1e-9)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-2)
        assert torch.isfinite(value).all()


def test_a_reward_that_is_no_number_stops_before_anything_is_learnt():
    from posterhall.train.ppo import fit_ppo

    model = decoder()
    before = {name: value.clone() for name, value in model.named_parameters()}

    def bad(ids, mask):
        rewards = threes(ids, mask)
        rewards[5] = math.nan
        return rewards

    with pytest.raises(DataError, match=r"file, line 7: the reward of answer 6 .* is nan"):
        fit_ppo(model, [[1]], reward=bad, settings=PpoSettings(**QUICK), names=["file, line 7"])
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name])
    with pytest.raises(DataError, match="shape"):
        fit_ppo(model, [[1]], reward=lambda ids, mask: torch.zeros(3), settings=PpoSettings(**QUICK))


def test_prompts_must_be_there_and_fit():
    from posterhall.train.ppo import fit_ppo

    for prompts, said in (([], "no prompts"), ([[]], "1 to 8"), ([[1], [0] * 9], "prompt 2 has 9 tokens")):
        with pytest.raises(DataError, match=said):
            fit_ppo(decoder(), prompts, reward=threes, settings=PpoSettings(**QUICK))


def test_the_price_adapts_until_the_kl_is_on_target():
    from posterhall.train.ppo import fit_ppo

    settings = PpoSettings(**{**QUICK, "beta": 2.0, "target_kl": 0.5, "steps": 400, "passes": 1})
    history = fit_ppo(decoder(), [[1]], reward=threes, settings=settings).history
    assert history[-1]["beta"] < 1.0
    assert np.mean([line["kl"] for line in history[-10:]]) == pytest.approx(0.5, abs=0.25)


def test_with_an_adapter_the_reference_is_the_model_as_it_was():
    from posterhall.adapters import add_lora, lora_parameters
    from posterhall.train.rollouts import Reference

    model = add_lora(decoder(), rank=2, alpha=4.0)
    with torch.no_grad():
        for each in lora_parameters(model):  # as after fine-tuning: not what it is without adapters
            each.add_(0.1)
    ids = torch.tensor([[1, 2, 3]])
    batch = {"ids": ids[:, :2], "sources": torch.tensor([0, 1]), "labels": ids[0, 1:]}
    reference = Reference.of(model)
    assert reference.model is model
    before = reference.logprobs(batch, 1.0)
    with torch.no_grad():
        for each in lora_parameters(model):
            each.add_(0.5)
    assert torch.equal(reference.logprobs(batch, 1.0), before)
    assert not torch.allclose(model(ids)[0, :2].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0], before)


@pytest.fixture
def job(tmp_path):
    """A model's directory, prompts and a lexicon."""
    from posterhall.models import hub

    hub.save(decoder(vocab_size=258, max_length=48), tmp_path / "model", tokenizer=ByteTokenizer())
    (tmp_path / "prompts.txt").write_text("".join(f"say {i}:\n" for i in range(12)))
    (tmp_path / "words.txt").write_text("a 1\ne 1\nx -1\n# remark\n")
    return tmp_path / "model", tmp_path / "prompts.txt", f"lexicon:{tmp_path / 'words.txt'}"


def settings_of(reward, **more):
    return PpoSettings(
        reward=reward, prompts=4, samples=2, batch=4, accumulate=1, passes=2, max_new_tokens=8,
        temperature=1.0, lr=1e-3, log_every=4, **more,
    )  # fmt: skip


def test_killed_and_resumed_equals_uninterrupted(job, tmp_path):
    from posterhall.models import hub
    from posterhall.train.ppo import PpoObjective, train_ppo

    model, prompts, reward = job
    settings = settings_of(reward, epochs=3, eval_fraction=0.0, target_kl=1.0)
    plain = train_ppo(settings, model, [prompts], tmp_path / "plain", device="cpu")
    calls = 0
    ordinary = PpoObjective.__call__

    def stopping(self, *arguments):
        nonlocal calls
        calls += 1
        if calls in (6, 22):  # in the midst of a rollout
            os.kill(os.getpid(), signal.SIGINT)
        return ordinary(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PpoObjective, "__call__", stopping)
        for _ in range(2):
            with pytest.raises(Interrupted):
                train_ppo(settings, model, [prompts], tmp_path / "cut", device="cpu", resume=True)
        resumed = train_ppo(settings, model, [prompts], tmp_path / "cut", device="cpu", resume=True)
    assert resumed["train"] == plain["train"]
    assert resumed["train"]["beta"] != settings.beta
    one, other = (hub.load(tmp_path / name) for name in ("plain", "cut"))
    for (name, mine), (_, theirs) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_the_command_says_what_came_out(posterhall, job, tmp_path):
    model, prompts, reward = job
    arguments = ("train", "ppo", model, prompts, "-o", tmp_path / "run", "--reward", reward, "--prompts", 4,
                 "--samples", 2, "--batch", 4, "--accumulate", 1, "--max-new-tokens", 8, "--eval-fraction",
                 0.25, "--advantage", "leave_one_out", "--threads", 1, "--quiet")  # fmt: skip
    done = json.loads(posterhall(*arguments, "--json").out)
    assert (done["prompts"], done["eval_prompts"], done["saved"]) == (9, 3, "model")
    assert done["answers"] == done["rollouts"] * 8
    assert 0 < done["eval"]["reward"] < 1
    assert json.loads(posterhall(*arguments, "--resume", "--json").out) == done
    failed = posterhall(*arguments[:5], tmp_path / "other", "--reward", "lexicn:x", code=4)
    assert "Did you mean: lexicon" in failed.err
    failed = posterhall(*arguments[:5], tmp_path / "other", code=2)
    assert "--reward" in failed.err
    failed = posterhall(*arguments[:5], tmp_path / "other", "--reward", reward, code=4)
    assert "leaves no room" in failed.err  # 53 tokens for a model of 48


def test_a_reward_model_of_another_tokeniser_or_for_shorter_texts_is_refused(job, tmp_path):
    from posterhall.models import reward as rewards
    from posterhall.models import reward_files
    from posterhall.train.ppo import train_ppo
    from posterhall.train.scorers import Learned

    class Other(ByteTokenizer):
        eos_id = 257

    model, prompts, _ = job
    scores = rewards.RewardModel(decoder(vocab_size=258, max_length=48, seed=1))
    reward_files.save(scores, tmp_path / "same", tokenizer=ByteTokenizer())
    done = train_ppo(settings_of(str(tmp_path / "same")), model, [prompts], tmp_path / "run", device="cpu")
    assert math.isfinite(done["train"]["reward"])
    with pytest.raises(DataError, match="another tokeniser"):
        Learned(scores, Other(), "other").of_tokens(ByteTokenizer())
    short = rewards.RewardModel(decoder(vocab_size=258, max_length=15, seed=1))
    reward_files.save(short, tmp_path / "short", tokenizer=ByteTokenizer())
    with pytest.raises(DataError, match="reads at most 15 tokens; prompts with answers have up to 16"):
        train_ppo(settings_of(str(tmp_path / "short")), model, [prompts], tmp_path / "no", device="cpu")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"beta": 0.0}, "beta is 0.0"),
        ({"beta": -1.0}, "beta is -1.0"),
        ({"beta": math.nan}, "beta is nan"),
        ({"advantage": "gea"}, "Did you mean: gae"),
        ({"advantage": "group"}, "at least 2"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"prompts": 10}, "multiple"),
        ({"discount": 1.5}, "from 0 to 1"),
        ({"target_kl": 0.0}, "target_kl"),
        ({"missing_end_penalty": -1.0}, "at least 0"),
        ({"tokens": 100}, "steps or epochs"),
        ({"lora_rank": 2, "lora_dropout": 0.1}, "without dropout"),
    ],
)
def test_settings_outside_their_range_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        PpoSettings(**given)
