"""Reward models: what is read off where, training, centring, and files that transformers reads."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from posterhall.data.preference import Preference
from posterhall.data.preference_tokens import PreferenceBatches, encode
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import DataError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")


def model(*, seed=0, tie=True):
    from posterhall.models import Decoder, DecoderConfig
    from posterhall.models.reward import RewardModel

    config = DecoderConfig(
        vocab_size=258, dim=16, layers=2, heads=2, max_length=64, init_std=0.3, tie_embeddings=tie
    )
    return RewardModel(Decoder(config, seed=seed), seed=seed)


def rows(count=30, *, scored=False):
    draw = random.Random(0)
    found = []
    for i in range(count):
        prompt = f"say {draw.choice(['cat', 'dog', 'sun'])}:"
        answers = (f" good {i}", f" fair {i}{i}", f" bad {i}")
        found.append(Preference(prompt, answers, f"row {i}", (3.0, 2.0, 0.0) if scored else None))
    return found


@pytest.fixture
def tokens():
    from posterhall.train.reward import whole

    return whole(encode(rows(), ByteTokenizer(), max_length=63))


@pytest.mark.parametrize("layout", ["trees", "rows"])
def test_an_answers_reward_is_read_off_the_token_that_ends_it(tokens, layout):
    from posterhall.train.reward import answer_rewards

    reward = model()
    reward.offset.fill_(0.25)
    batch = PreferenceBatches(tokens, layout=layout, shuffle=False).take(0, 6)
    found = answer_rewards(reward, {name: torch.as_tensor(each) for name, each in batch.items()})
    used = np.unique(tokens.items[:6])
    for at, answer in enumerate(sorted(used, key=lambda a: (int(tokens.prompt_of[a]), a))):
        ids = [*tokens.prompts[tokens.prompt_of[answer]].tolist(), *tokens.answers[answer][:-1].tolist()]
        assert ids[-1] == 256  # the end
        state = reward.backbone.hidden(torch.tensor([ids]))[0, -1]
        assert found[at].item() == pytest.approx((state @ reward.head).item() - 0.25, abs=1e-5)


def test_padding_does_not_show_and_texts_give_what_tokens_give():
    from posterhall.models.reward import score_texts

    reward = model()
    texts = [("a:", " b"), ("what a long prompt:", " and an answer"), ("", " x")]
    alone = [float(score_texts(reward, ByteTokenizer(), [p], [a])[0]) for p, a in texts]
    together = score_texts(reward, ByteTokenizer(), *zip(*texts, strict=True))
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    ids = torch.tensor([[256, *b"a: b", 256]])
    wanted = (reward.backbone.hidden(ids)[0, -1] @ reward.head).item()
    assert alone[0] == pytest.approx(wanted, abs=1e-5)
    some = score_texts(reward, ByteTokenizer(), ["x" * 80, "a:"], ["y", " b"])
    assert np.isnan(some[0])
    assert some[1] == pytest.approx(alone[0], abs=1e-5)
    with pytest.raises(DataError, match="reads at most 64"):
        score_texts(reward, ByteTokenizer(), ["x" * 80], ["y"])
    with pytest.raises(DataError, match="marks no token"):
        reward.rewards(ids, torch.zeros_like(ids, dtype=torch.bool))


@pytest.mark.parametrize("tie", [True, False])
def test_saved_models_come_back_and_transformers_reads_them(tmp_path, tie):
    transformers = pytest.importorskip("transformers")
    from posterhall.models import reward_files

    ours = model(tie=tie)
    ours.offset.fill_(0.5)
    reward_files.save(ours, tmp_path / "reward", tokenizer=ByteTokenizer())
    back, tokenizer = reward_files.load(tmp_path / "reward")
    ids = torch.tensor([[256, *b"say cat: good", 256]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert back.rewards(ids, mask).item() == ours.rewards(ids, mask).item()
    assert tokenizer.digest == ByteTokenizer().digest
    transformers.utils.logging.disable_progress_bar()
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "reward"))
    assert theirs.config.num_labels == 1
    with torch.no_grad():
        logit = theirs(ids).logits.item()
    assert logit == pytest.approx(ours.rewards(ids, mask).item() + 0.5, abs=1e-4)


def test_a_language_model_is_no_reward_model(tmp_path):
    from posterhall.models import hub, reward_files

    hub.save(model().backbone, tmp_path / "model", tokenizer=ByteTokenizer())
    with pytest.raises(DataError, match="no reward model"):
        reward_files.load(tmp_path / "model")


def test_margins_from_scores_go_with_their_pairs():
    from posterhall.objectives.reward import bradley_terry
    from posterhall.train.reward import RewardObjective, answer_rewards, whole
    from posterhall.train.reward_settings import RewardSettings

    tokens = whole(encode(rows(scored=True), ByteTokenizer(), max_length=63))
    assert set(np.round(tokens.gaps, 6)) == {1.0, 2.0, 3.0}
    batch = {n: torch.as_tensor(a) for n, a in PreferenceBatches(tokens, seed=3).take(5, 9).items()}
    reward = model()
    found = answer_rewards(reward, batch)
    better, worse = found[batch["items"][:, 0]], found[batch["items"][:, 1]]
    settings = RewardSettings(score_margin=0.5, margin=0.1, centring=0.0)
    loss, _ = RewardObjective(settings)(reward, batch)
    wanted, _ = bradley_terry(better, worse, margin=0.1 + 0.5 * batch["gaps"].float())
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    plain = PreferenceBatches(whole(encode(rows(), ByteTokenizer(), max_length=63))).take(0, 2)
    with pytest.raises(DataError, match="no scores"):
        RewardObjective(settings)(reward, {n: torch.as_tensor(a) for n, a in plain.items()})


def test_calibration_of_known_chances():
    from posterhall.train.reward import calibration

    rng = np.random.default_rng(0)
    truth = rng.normal(size=40_000) * 2
    right = rng.random(40_000) < 1 / (1 + np.exp(-truth))
    gaps = np.where(right, truth, -truth)  # what is chosen is drawn from the very chances
    sure = calibration(3 * gaps)
    found = calibration(gaps)
    assert found["ece"] < 0.01 < 0.1 < sure["ece"]
    assert found["nll"] < sure["nll"]
    assert found["accuracy"] == sure["accuracy"] == pytest.approx((gaps > 0).mean())
    coin = calibration(np.zeros(4))
    assert (coin["accuracy"], coin["brier"], coin["ece"]) == (0.5, 0.25, 0.0)
    assert coin["nll"] == pytest.approx(math.log(2))


def test_the_command_leaves_a_model_with_centred_rewards(posterhall, tmp_path):
    from posterhall.models import hub, reward_files
    from posterhall.models import reward as rewards

    hub.save(model().backbone, tmp_path / "model", tokenizer=ByteTokenizer())
    lines = [{"prompt": f"say {i % 9}:", "chosen": f" good {i}", "rejected": f" bad {i}"} for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ("train", "reward", tmp_path / "model", tmp_path / "pairs.jsonl", "-o", tmp_path / "run",
                 "--lr", 1e-3, "--epochs", 6, "--batch", 4, "--accumulate", 1, "--eval-fraction", 0.25,
                 "--threads", 1, "--quiet", "--json")  # fmt: skip
    done = json.loads(posterhall(*arguments).out)
    assert done["eval"]["accuracy"] > 0.9
    assert done["comparisons"] + done["eval_comparisons"] == 40
    assert json.loads(posterhall(*arguments, "--resume").out) == done
    reward, tokenizer = reward_files.load(tmp_path / "run")
    assert float(reward.offset) == pytest.approx(done["reward_offset"])
    prompts = [line["prompt"] for line in lines] * 2
    answers = [line["chosen"] for line in lines] + [line["rejected"] for line in lines]
    scores = rewards.score_texts(reward, tokenizer, prompts, answers)
    assert abs(scores.mean()) < 0.25 * scores.std()  # 0 over what it was trained on
    assert (scores[:40] > scores[40:]).mean() > 0.9
    failed = posterhall(*arguments[:-1], "--set", "centring=-1", "--resume", code=4)
    assert "centring is -1" in failed.err
