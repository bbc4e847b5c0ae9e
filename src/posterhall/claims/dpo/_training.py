"""How the laboratory's policies are trained: on preferences directly, or on a reward."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.dpo._lab import PROMPT, SAMPLES, Lab, Point, Preferences, Rows, sample
from posterhall.data.preference_tokens import PreferenceBatches
from posterhall.extras import nn, torch
from posterhall.metrics.frontier import Floats, expected
from posterhall.models import Decoder, enumeration
from posterhall.objectives import ppo
from posterhall.objectives.lm import IGNORED, token_logprobs
from posterhall.objectives.reward import bradley_terry
from posterhall.seeds import derive, generator
from posterhall.train.dpo import PreferenceObjective
from posterhall.train.dpo_settings import DpoSettings
from posterhall.train.loop import Trained, fit
from posterhall.train.references import reference_logprobs
from posterhall.train.settings import TrainSettings

PREFERENCE_LR, REWARD_LR = 1e-3, 3e-3
"""Of policies trained on preferences, and of those trained on a reward and reward models. Of 1e-3 and 3e-3
these took DPO and PPO closer to the frontier, up to a KL of 4 nats, on a seed that is not run."""
PROMPTS_A_STEP = 64
"""With SAMPLES answers each: of a step on preferences as of a rollout."""
PASSES = 2
"""Steps on each rollout."""

Scorer = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Texts (B, L) to what they are worth (B,)."""


@dataclass
class Learnt:
    """A policy and how it came about."""

    model: Decoder
    points: list[Point]
    """On the way, the last one at the end."""
    seconds: list[float]
    """CPU seconds of training up to each, without the measuring."""
    values: list[float]
    """What was asked for beside the true reward, expected at each point."""
    history: list[dict[str, Any]]
    """Lines of metrics, each the mean over the stretch before a point."""

    @property
    def end(self) -> Point:
        """Where the policy stands."""
        return self.points[-1]


def on_preferences(
    lab: Lab,
    preferences: Preferences,
    *,
    steps: int,
    points: int,
    items: NDArray[np.int64] | None = None,
    at_once: int = 1,
    **loss: Any,
) -> Learnt:
    """Train a copy of the reference with a loss of `posterhall.objectives.preference`.

    Args:
        lab: of the reference.
        preferences: what to learn from.
        steps: of PROMPTS_A_STEP prompts each: up to 6 pairs of each, or its ranking.
        points: evaluations, evenly on the way.
        items: comparisons instead of all pairs.
        at_once: times PROMPTS_A_STEP, for large steps.
        **loss: fields of `DpoSettings`, among them "loss".
    """
    begun = time.process_time()
    tokens = preferences.tokens(items)
    reference = reference_logprobs(lab.reference, tokens, layout="rows")
    answers = SAMPLES * (SAMPLES - 1) // 2 if tokens.items.shape[1] == 2 else 1
    settings = DpoSettings(
        **{
            "lr": PREFERENCE_LR,
            "schedule": "linear",
            "min_lr_fraction": 0.1,
            "warmup": 0.05,
            "steps": steps,
            "batch": PROMPTS_A_STEP * answers * at_once,
            "accumulate": 1,
            "clip": 1.0,
            "keep": "last",
            "eval_every": max(1, steps // points),
            "log_every": max(1, steps // points),
            **loss,
        }
    )
    data = PreferenceBatches(
        tokens, seed=derive(lab.seed, "dpo", "batches"), layout="rows", reference=reference
    )
    return _fitted(lab, lab.policy(), data, PreferenceObjective(settings), settings, begun)


def on_reward(
    lab: Lab,
    scorer: Scorer,
    *,
    beta: float,
    rollouts: int,
    points: int,
    values: Floats | None = None,
    goal: Point | None = None,
) -> Learnt:
    """Train a copy of the reference by PPO's clipped loss on a reward less beta times the KL.

    Without a critic: an answer's advantage is what it is worth, the price of its own log-ratio paid, less
    the mean of the other answers to its prompt (REINFORCE leave-one-out; Ahmadian et al. 2024).

    Args:
        lab: of the reference.
        scorer: the reward.
        beta: price of a nat, >= 0.
        rollouts: of PROMPTS_A_STEP prompts with SAMPLES answers each, passed over PASSES times.
        points: evaluations, evenly on the way.
        values: (P, N) of all answers, whose expectation is noted too.
        goal: training ends at the first evaluation that is as far as this.
    """
    begun = time.process_time()
    model = lab.policy()
    steps = rollouts * PASSES
    settings = TrainSettings(
        lr=REWARD_LR,
        schedule="linear",
        warmup=0.05,
        steps=steps,
        batch=PROMPTS_A_STEP * SAMPLES,
        weight_decay=0.0,
        beta2=0.999,
        keep="last",
        eval_every=max(1, steps // points),
        log_every=max(1, steps // points),
    )

    def objective(policy: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        logp = answer_logp(policy, batch["texts"])
        return ppo.policy_loss(logp, batch["old"], batch["advantages"])

    return _fitted(lab, model, _Rollouts(lab, model, scorer, beta), objective, settings, begun, values, goal)


def _fitted(
    lab: Lab,
    model: Decoder,
    data: Any,
    objective: Any,
    settings: TrainSettings,
    begun: float,
    values: Floats | None = None,
    goal: Point | None = None,
) -> Learnt:
    points: list[Point] = []
    seconds: list[float] = []
    worths: list[float] = []
    measuring = 0.0

    def evaluate(policy: Any) -> dict[str, float]:
        nonlocal measuring
        now = time.process_time()
        seconds.append(now - begun - measuring)
        logp = lab.enumerate(policy)
        points.append(Point.of(lab, logp))
        if values is not None:
            worths.append(expected(logp, values))
        measuring += time.process_time() - now
        return {"kl": points[-1].kl, "reward": points[-1].reward}

    trained: Trained = fit(
        model,
        data,
        objective=objective,
        settings=settings,
        evaluate=evaluate,
        enough=lambda _: goal is not None and points[-1].as_far_as(goal),
    )
    lines = [line for line in trained.history if "loss" in line]
    return Learnt(model.eval(), points, seconds, worths, lines)


class _Rollouts:
    """Answers of a policy as it is when each rollout begins, as the training loop takes them."""

    def __init__(self, lab: Lab, model: Decoder, scorer: Scorer, beta: float) -> None:
        self.items = PROMPTS_A_STEP * SAMPLES
        self._lab, self._model, self._scorer, self._beta = lab, model, scorer, beta
        self._number = -1
        self._batch: dict[str, torch.Tensor] = {}

    def take(self, first: int, count: int) -> dict[str, torch.Tensor]:
        """The rollout at `first`; `count` is all of it."""
        number = first // (self.items * PASSES)
        if number != self._number:
            self._number, self._batch = number, self._drawn(number)
        return self._batch

    def _drawn(self, number: int) -> dict[str, torch.Tensor]:
        lab = self._lab
        rng = generator(lab.seed, "dpo", "rollout", number)
        prompts = lab.language.texts(PROMPTS_A_STEP, PROMPT, rng).repeat(SAMPLES, axis=0)
        drawn = sample(self._model, prompts, lab.length, rng)
        texts = torch.from_numpy(drawn)
        with torch.no_grad():
            old, reference = answer_logp(self._model, texts), answer_logp(lab.reference, texts)
        kl = ppo.kl_estimate(old, reference).sum(1).double()
        worth = torch.from_numpy(self._scorer(drawn)) - self._beta * kl
        advantages = ppo.leave_one_out(worth.view(-1, SAMPLES)).view(-1, 1).expand_as(old).float()
        return {"texts": texts, "old": old, "advantages": advantages}


def answer_logp(model: Decoder, texts: torch.Tensor) -> torch.Tensor:
    """(B, T) log p of each word of the answers of texts (B, PROMPT + T)."""
    labels = texts[:, 1:].clone()
    labels[:, : PROMPT - 1] = IGNORED
    return token_logprobs(model.hidden(texts[:, :-1]), model.head_weight(), labels)[:, PROMPT - 1 :]


def mean_logp(model: Decoder, preferences: Preferences) -> tuple[float, float]:
    """Mean log p, nats an answer, of chosen and of rejected answers over all pairs."""
    with torch.no_grad():
        logp = answer_logp(model, torch.from_numpy(preferences.texts)).double().sum(1).numpy()
    chosen, rejected = logp[preferences.pairs].mean(0).tolist()
    return chosen, rejected


class RewardModel(nn.Module):
    """A decoder whose state after each word of an answer, times a vector, is what the word adds.

    The sum over words, as DPO's implicit reward is one, and not the last state alone: a decoder of one layer
    cannot bring there which words stood after a "not".
    """

    def __init__(self, backbone: Decoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Parameter(torch.zeros(backbone.config.dim))

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        """(B, L) texts to (B,)."""
        result: torch.Tensor = (self.backbone.hidden(texts)[:, PROMPT:] @ self.head).sum(1)
        return result

    def scores(self, lab: Lab) -> Floats:
        """(P, N) of all answers to the tested prompts."""
        with torch.no_grad():
            return enumeration.sums(
                self.backbone, lab.prompts.tolist(), lab.length, lambda states: states @ self.head
            )

    def scorer(self) -> Scorer:
        """For `on_reward`."""

        def score(texts: NDArray[np.int64]) -> NDArray[np.float64]:
            with torch.no_grad():
                found: NDArray[np.float64] = self(torch.from_numpy(texts)).double().numpy()
            return found

        return score


def reward_model(lab: Lab, preferences: Preferences, *, steps: int) -> RewardModel:
    """Train a reward model on preferences, from the reference (Bradley & Terry 1952)."""
    model = RewardModel(lab.policy())
    # At random: with zeros the backbone would have no gradient at first.
    draw = torch.Generator().manual_seed(derive(lab.seed, "dpo", "reward head"))
    with torch.no_grad():
        model.head.normal_(0.0, model.head.numel() ** -0.5, generator=draw)
    groups = preferences.texts.reshape(-1, SAMPLES, preferences.texts.shape[-1])

    def objective(rewards: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        scores = rewards(batch["texts"].flatten(0, 1)).view(-1, SAMPLES)
        group, chosen, rejected = batch["preferred"].nonzero(as_tuple=True)
        loss, metrics = bradley_terry(scores[group, chosen], scores[group, rejected])
        return loss, {"tokens": len(group), **metrics}

    settings = TrainSettings(
        lr=REWARD_LR,
        schedule="linear",
        min_lr_fraction=0.1,
        warmup=0.05,
        steps=steps,
        weight_decay=0.0,
        batch=PROMPTS_A_STEP,
        keep="last",
        log_every=max(1, steps // 4),
    )
    data = Rows(derive(lab.seed, "dpo", "reward"), texts=groups, preferred=preferences.preferred)
    fit(model, data, objective=objective, settings=settings)
    return model.eval()


def true_scorer(lab: Lab) -> Scorer:
    """The reward itself, for `on_reward`."""
    from posterhall.claims.dpo._language import reward

    return lambda texts: reward(lab.language.score(texts[:, PROMPT - 1], texts[:, PROMPT:]))
