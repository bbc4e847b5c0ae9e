"""The laboratory of DPO's claims, and each claim at a tiny size."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path

import numpy as np
import pytest

from posterhall.claims import Row, decide, load
from posterhall.claims.dpo._language import NOT, WORDS, Language, reward
from posterhall.claims.rows import Budget

torch = pytest.importorskip("torch")

from posterhall.claims.dpo import _lab, _training, _writing, overoptimisation, shift  # noqa: E402
from posterhall.claims.dpo import frontier as of_frontier  # noqa: E402
from posterhall.claims.dpo._lab import PROMPT, SAMPLES, Lab, Point, Preferences  # noqa: E402
from posterhall.data.tokenizer import ByteTokenizer  # noqa: E402
from posterhall.errors import DataError, PosterhallError  # noqa: E402
from posterhall.metrics import frontier  # noqa: E402
from posterhall.models import Decoder, hub  # noqa: E402

CLAIMS = load(["posterhall.claims.dpo"])


# The language.


def test_a_not_turns_the_next_word_round_and_is_worth_nothing_itself():
    language = Language.draw(0)
    good, bad = int(language.valences.argmax()), int(language.valences.argmin())
    worth = language.valences
    answers = np.array([[good, bad], [NOT, good], [NOT, NOT], [bad, NOT]])
    np.testing.assert_array_equal(
        language.score(np.array([0, 0, 0, 0]), answers),
        [worth[good] + worth[bad], -worth[good], 0, worth[bad]],
    )
    assert language.score(np.array(NOT), np.array([good, good])) == 0, "after the prompt's not"
    assert reward(np.array(0.0)) == 0.5


def test_equal_sums_are_equal_numbers_in_any_order():
    language = Language.draw(3)
    rng = np.random.default_rng(0)
    words = rng.integers(0, NOT, (50, 6))
    shuffled = rng.permuted(words, axis=1)
    before = np.zeros(50, np.int64)
    np.testing.assert_array_equal(language.score(before, words), language.score(before, shuffled))


def test_texts_follow_the_chain_from_its_own_beginning():
    language = Language.draw(1)
    np.testing.assert_allclose(language.first @ language.chain, language.first, atol=1e-9)
    texts = language.texts(40_000, 3, np.random.default_rng(0))
    pairs = np.zeros((WORDS, WORDS))
    np.add.at(pairs, (texts[:, 1], texts[:, 2]), 1)
    np.testing.assert_allclose(pairs / len(texts), language.first[:, None] * language.chain, atol=0.006)
    other = language.with_other_chain(1)
    assert abs(other.chain - language.chain).max() > 0.1
    np.testing.assert_array_equal(other.valences, language.valences)


# The laboratory.

BUDGET = Budget(length=3, tested=2, texts_steps=30)


@pytest.fixture(scope="module")
def lab():
    return Lab(BUDGET, 7)


def test_the_reference_has_learnt_the_language(lab):
    exact = np.zeros_like(lab.logq)
    for row, prompt in enumerate(lab.prompts):
        words = np.concatenate([np.full((len(lab.answers), 1), prompt[-1]), lab.answers], axis=1)
        exact[row] = np.log(lab.language.chain[words[:, :-1], words[:, 1:]]).sum(1)
    at_random = math.log(WORDS**3) - -np.sum(np.exp(exact) * exact, axis=1).mean()
    assert frontier.divergence(exact, lab.logq) < 0.35 * at_random


def test_drawn_answers_come_as_often_as_they_are_probable(lab):
    prompts = np.repeat(lab.prompts[:1], 20_000, axis=0)
    texts = _lab.sample(lab.reference, prompts, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(texts[:, :PROMPT], prompts)
    drawn = np.bincount(np.ravel_multi_index(texts[:, PROMPT:].T, (WORDS,) * 3), minlength=WORDS**3)
    expected = np.exp(lab.logq[0]) * len(texts)
    common = expected > 5
    chi2 = ((drawn - expected) ** 2 / expected)[common].sum()
    assert abs(chi2 - common.sum()) < 5 * math.sqrt(2 * common.sum())


def test_preferences_are_all_pairs_of_the_answers_to_a_prompt(lab):
    found = lab.preferences(40)
    assert found.texts.shape == (40 * SAMPLES, PROMPT + 3)
    better, worse = found.pairs.T
    assert (better // SAMPLES == worse // SAMPLES).all()
    assert (found.score[better] > found.score[worse]).all()
    ties = sum(
        found.score[i] == found.score[j]
        for start in range(0, 160, SAMPLES)
        for i in range(start, start + SAMPLES)
        for j in range(start, i)
    )
    assert len(found.pairs) == 240 - ties
    assert found.preferred.sum() == len(found.pairs)
    assert found.preferred[better[0] // SAMPLES, better[0] % SAMPLES, worse[0] % SAMPLES]
    ranked = found.score[found.rankings]
    assert (np.diff(ranked, axis=1) < 0).all()
    assert len(np.unique(found.rankings)) == found.rankings.size
    other = lab.preferences(40, purpose="others")
    assert not np.array_equal(found.texts, other.texts)
    np.testing.assert_array_equal(found.texts, lab.preferences(40, labels="random").texts)


def test_drawn_labels_follow_bradley_and_terry(lab):
    found = lab.preferences(4000, labels="bradley-terry")
    gap = found.score[found.pairs[:, 0]] - found.score[found.pairs[:, 1]]
    near = (abs(gap) > 0.9) & (abs(gap) < 1.1)
    assert (gap[near] > 0).mean() == pytest.approx(1 / (1 + math.exp(-1)), abs=0.03)
    guessed = lab.preferences(4000, labels="random")
    gap = guessed.score[guessed.pairs[:, 0]] - guessed.score[guessed.pairs[:, 1]]
    assert (gap > 0).mean() == pytest.approx(0.5, abs=0.02)


def test_the_reference_stands_at_the_beginning_of_the_frontier(lab):
    assert lab.point(lab.reference).kl == pytest.approx(0, abs=1e-9)
    assert lab.point(lab.reference).gap == pytest.approx(0, abs=1e-6)
    assert lab.start().reward == pytest.approx(lab.point(lab.reference).reward)
    assert lab.win_rate(lab.reference) == pytest.approx(0.5, abs=1e-9)


def test_a_point_above_the_frontier_is_an_error(lab, monkeypatch):
    monkeypatch.setattr(lab, "reward", lab.reward + 0.01)
    with pytest.raises(PosterhallError, match="above"):
        Point.of(lab, lab.logq)


def test_win_rate_by_counting_pairs_of_answers(lab):
    policy = lab.policy()
    with torch.no_grad():
        policy.embedding.mul_(1.5)
    p, q, r = np.exp(lab.enumerate(policy)), np.exp(lab.logq), lab.reward
    won = [
        p[x] @ ((r[x][:, None] > r[x]) + 0.5 * (r[x][:, None] == r[x])) @ q[x]
        for x in range(len(lab.prompts))
    ]
    assert lab.win_rate(policy) == pytest.approx(np.mean(won), abs=1e-9)


def test_deviation_is_of_the_score_up_to_a_constant(lab):
    assert lab.deviation(lab.score + np.array([[3.0], [-2.0]])) == pytest.approx(0, abs=1e-9)
    assert lab.deviation(np.zeros_like(lab.score)) == pytest.approx(1)
    assert lab.deviation(2 * lab.score) == pytest.approx(1)


# Training.


def test_log_probabilities_of_answers_are_the_enumerated_ones(lab):
    answers = lab.answers[:50]
    texts = np.concatenate([np.repeat(lab.prompts[:1], 50, axis=0), answers], axis=1)
    with torch.no_grad():
        found = _training.answer_logp(lab.reference, torch.from_numpy(texts))
    assert found.shape == (50, 3)
    np.testing.assert_allclose(found.sum(1).numpy(), lab.logq[0, :50], atol=1e-4)


def test_dpo_raises_the_reward_and_labels_at_random_do_not(lab):
    how = {"steps": 30, "points": 3, "loss": "dpo", "beta": 0.1}
    learnt = _training.on_preferences(lab, lab.preferences(200), **how)
    assert len(learnt.points) == len(learnt.seconds) == len(learnt.history) == 3
    assert learnt.end.reward > lab.start().reward + 0.1
    assert learnt.seconds == sorted(learnt.seconds)
    guessed = _training.on_preferences(lab, lab.preferences(200, labels="random"), **how)
    assert abs(guessed.end.reward - lab.start().reward) < 0.1
    assert learnt.end.gap < guessed.end.gap


def test_ppo_comes_near_what_its_price_allows(lab):
    learnt = _training.on_reward(
        lab, _training.true_scorer(lab), beta=0.1, rollouts=40, points=2, values=lab.score
    )
    kl, best = lab.frontier.tilted(0.1)
    reached = learnt.end.reward - 0.1 * learnt.end.kl
    assert lab.start().reward + 0.5 * (best - 0.1 * kl - lab.start().reward) < reached <= best - 0.1 * kl
    assert learnt.values[-1] > learnt.values[0] > frontier.expected(lab.logq, lab.score)


def test_a_reward_model_orders_answers_and_scores_all_of_them_alike(lab):
    pairs = lab.preferences(300)
    model = _training.reward_model(lab, pairs, steps=40)
    scores = model.scorer()(pairs.texts)
    assert (scores[pairs.pairs[:, 0]] > scores[pairs.pairs[:, 1]]).mean() > 0.75
    texts = np.concatenate([np.repeat(lab.prompts[:1], 20, axis=0), lab.answers[:20]], axis=1)
    np.testing.assert_allclose(model.scores(lab)[0, :20], model.scorer()(texts), atol=1e-4)


def test_mean_log_probabilities_of_pairs(lab):
    texts = np.concatenate([np.repeat(lab.prompts[:1], 4, axis=0), lab.answers[[5, 17, 400, 999]]], axis=1)
    given = Preferences(texts, np.arange(4.0), np.array([[3, 0], [2, 1]]))
    chosen, rejected = _training.mean_logp(lab.reference, given)
    assert chosen == pytest.approx(lab.logq[0, [999, 400]].mean(), abs=1e-4)
    assert rejected == pytest.approx(lab.logq[0, [5, 17]].mean(), abs=1e-4)


# Real text.


def own_text(folder, lines=8100):
    rng = np.random.default_rng(0)
    words = np.array(["sun", "rain", "is", "not", "good", "bad", "and", "the", "day", "night"])
    text = "\n".join(" ".join(words[rng.integers(0, 10, 9)]) for _ in range(lines))
    (folder / "lines.txt").write_text(text)
    return str(folder / "lines.txt")


@pytest.fixture(scope="module")
def writing(tmp_path_factory):
    text = own_text(tmp_path_factory.mktemp("text"))
    budget = CLAIMS["text-dpo-near-best-of-n"].budget("smoke").replace(**WRITTEN)
    return _writing.Writing(budget, {"corpus": text, "model": None, "reward": None}, 3)


def test_answers_are_worth_what_the_lexicon_says_of_their_words(writing):
    drawn = writing.preferences()
    assert len(drawn.tokens.prompts) == 8
    assert len(drawn.rewards) == 8 * _writing.SAMPLES
    assert max(map(len, drawn.tokens.answers)) <= 8
    weights = writing.scorer.weights
    for ids, worth in zip(drawn.tokens.answers, drawn.rewards, strict=True):
        words = re.findall(r"\w+", writing.base.tokenizer.decode(ids.tolist()).lower())
        assert worth == pytest.approx(1 / (1 + math.exp(-sum(weights.get(w, 0.0) for w in words))))
    pairs = drawn.compared().items
    assert (drawn.rewards[pairs[:, 0]] > drawn.rewards[pairs[:, 1]]).all()
    guessed = drawn.compared(at_random=np.random.default_rng(0)).items
    assert len(guessed) == len(pairs)
    assert sorted(map(set, guessed.tolist()), key=sorted) == sorted(map(set, pairs.tolist()), key=sorted)


def test_the_text_model_is_at_no_divergence_from_itself_and_another_is(writing):
    assert writing.place(writing.base.model)[0] == pytest.approx(0, abs=1e-9)
    assert writing.place(Decoder(writing.base.model.config, seed=5))[0] > 1


def test_best_of_n_from_groups_of_draws(writing):
    tokens = writing.preferences().tokens
    rewards = np.tile([0.1, 0.2, 0.3, 0.4], 8)
    kl, worth = _writing.best_of(_writing.Draws(tokens, rewards), 2)
    assert kl == pytest.approx(math.log(2) - 0.5)
    assert worth == pytest.approx((0.2 + 0.4) / 2)


def test_a_checkpoint_and_a_reward_of_ones_own_take_the_place_of_both(writing, tmp_path):
    hub.save(Decoder(writing.base.model.config, seed=9), tmp_path / "model", tokenizer=ByteTokenizer())
    cls = CLAIMS["text-dpo-near-best-of-n"]
    given = {"corpus": own_text(tmp_path), "model": str(tmp_path / "model"), "reward": "length:2"}
    rows = list(cls(given).run(cls.budget("smoke").replace(**WRITTEN), 0))
    assert {row.arm for row in rows} >= {*cls.kind.names, *cls.control_arms}
    assert max(x for row in rows for x in row["rewards"]) <= 0, "minus how far the length is off"


def test_too_little_text_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least 8,000 are wanted"):
        _writing.base(8, 1, 100, own_text(tmp_path, lines=50), None)


# What is decided.


def test_methods_are_compared_where_both_have_been(lab):
    far, near = [Point(2.0, 0.9, 0.0)], [Point(0.5, 0.6, 0.0), Point(1.0, 0.7, 0.0)]
    at = _lab.common_range(far, near)
    assert at[-1] == 1.0
    assert (at > 0).all()
    start = lab.start().reward
    np.testing.assert_allclose(_lab.envelope(lab, far, at), start + at * (0.9 - start) / 2)


def test_a_path_loses_what_it_had_only_if_the_learned_reward_rose():
    path = {"kls": [0, 1, 2], "rewards": [0.4, 0.8, 0.6]}
    assert overoptimisation._row("a", 0, **path, learned=[0, 1, 2])["lost"] == pytest.approx(0.2)
    assert overoptimisation._row("a", 0, **path, learned=[0, 3, 2])["lost"] == 0
    rising = {"kls": [0, 1, 2], "rewards": [0.4, 0.6, 0.8]}
    assert overoptimisation._row("a", 0, **rising, learned=[0, 1, 2])["lost"] == 0


def test_training_on_a_reward_ends_where_it_is_as_far_as_its_goal(lab):
    scorer, how = _training.true_scorer(lab), {"beta": 0.1, "rollouts": 20, "points": 10}
    whole = _training.on_reward(lab, scorer, **how)
    goal = Point(whole.points[4].kl, whole.points[4].reward, 0.0)
    assert not Point(goal.kl, goal.reward - 0.02, 0.0).as_far_as(goal)
    assert not Point(1.2 * goal.kl, 1.0, 0.0).as_far_as(goal)
    ended = _training.on_reward(lab, scorer, goal=goal, **how)
    first = [point.as_far_as(goal) for point in whole.points].index(True)
    assert ended.points == whole.points[: first + 1]
    assert first <= 4


def test_the_headline_can_fail():
    cls = CLAIMS["dpo-dominates-ppo"]

    def verdict(dpo, ppo, other):
        rows = [
            Row(arm, seed, reward_at_equal_kl=value + seed / 1e4 * (arm == "DPO"))
            for seed in range(5)
            for arm, value in (("DPO", dpo), ("PPO-GT", ppo), ("DPO, other pairs", other))
        ]
        return decide(cls, rows)[0].verdict

    assert verdict(0.8, 0.7, 0.8) == "supported"
    assert verdict(0.7, 0.8, 0.7) == "refuted"
    assert verdict(0.802, 0.8, 0.802) == "inconclusive"
    assert verdict(0.8, 0.7, 0.7) == "inconclusive", "a test that passes DPO against itself"


# Each claim, small.

WRITTEN = {"tokens": 4000, "prompts": 8, "tested": 4, "many": 16, "steps": 2, "answer": 8}
SMALL = {"length": 3, "tested": 1, "texts_steps": 3, "prompts": 70}
TINY = {
    "dpo-dominates-ppo": {"steps": 2, "points": 1, "rollouts": 2},
    "dpo-near-the-frontier": {"steps": 2, "points": 1},
    "dpo-above-likelihood-training": {"steps": 2, "points": 1},
    "ppo-costs-five-times-dpo": {"steps": 2, "rollouts": 5},
    "ppo-overoptimises": {"steps": 2, "points": 2, "rollouts": 2},
    "best-of-n-overoptimises": {"steps": 2},
    "gradient-weight-falls": {"steps": 4, "points": 4},
    "chosen-falls-reward-rises": {"steps": 2},
    "rankings-match-pairs": {"steps": 2, "points": 2},
    "implicit-reward-is-the-reward": {"steps": 2, "batches": 1},
    "temperature-costs-both-the-same": {"steps": 2, "rollouts": 2},
    "shifted-prompts-cost-both-the-same": {"steps": 2, "rollouts": 2},
    "text-dpo-near-best-of-n": WRITTEN,
}


def test_every_claim_is_tried_below():
    assert set(TINY) == set(CLAIMS)


@pytest.mark.parametrize("id", TINY)
def test_claim_runs_at_a_tiny_size(id, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "contracts"))
    check_rows = importlib.import_module("claim").check_rows
    cls = CLAIMS[id]
    budget = cls.budget("smoke").replace(**{**SMALL, **TINY[id]})
    rows = list(cls().run(budget, 1))
    for kept in (_lab.pretrained, of_frontier.dpo_points, shift.policies):
        kept.cache_clear()  # what is computed again must be the same, not be remembered
    check_rows(cls, rows, list(cls().run(budget, 1)), 1, {"cpu_seconds"})
    assert all(np.isfinite(row[metric]).all() for row in rows for metric in row.metrics)


def test_rollouts_follow_from_the_seed(lab):
    first, again = (
        _training.on_reward(lab, _training.true_scorer(lab), beta=0.1, rollouts=3, points=1) for _ in range(2)
    )
    assert first.points == again.points
