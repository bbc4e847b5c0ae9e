"""The laboratory: a reference that is known exactly, preferences drawn from it, and where policies end.

A text is a prompt of two words and an answer of so many more. The reference is a decoder trained on texts of
a `Language`; its answers to the prompts that are tested are enumerated, so that divergence, expected reward
and the best that could be had (`posterhall.metrics.frontier`) are sums over all of them, without sampling
error.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.dpo._language import WORDS, Labels, Language, reward
from posterhall.claims.rows import Budget
from posterhall.data.epochs import Epochs
from posterhall.data.preference_tokens import PreferenceTokens
from posterhall.extras import torch
from posterhall.metrics import frontier
from posterhall.models import Decoder, DecoderConfig, enumeration
from posterhall.models.sampling import invert
from posterhall.seeds import derive, generator

PROMPT = 2
"""Words of a prompt (the paper: 2 to 8 tokens of a film review)."""
SAMPLES = 4
"""Answers drawn to each prompt, as in the paper."""


class Rows:
    """Arrays as training data: all rows once an epoch, in an order that follows from seed and epoch."""

    def __init__(self, seed: int, **arrays: NDArray[Any]) -> None:
        self.items = len(next(iter(arrays.values())))
        self._arrays = arrays
        self._epochs = Epochs(
            self.items, lambda epoch: generator(seed, "dpo", "order", epoch).permutation(self.items)
        )

    def take(self, first: int, count: int) -> dict[str, NDArray[Any]]:
        """See `posterhall.train.loop.Items`."""
        chosen = self._epochs.drawn(first, count)
        return {name: array[chosen] for name, array in self._arrays.items()}


@dataclass(frozen=True)
class Point:
    """Where a policy stands."""

    kl: float
    """KL(policy || reference), nats an answer, the mean over the tested prompts."""
    reward: float
    """Expected true reward."""
    gap: float
    """What the best policy at this KL expects more."""

    def as_far_as(self, goal: Point) -> bool:
        """Whether a policy expects at most 0.01 less, at a KL at most a tenth higher."""
        return self.reward >= goal.reward - 0.01 and self.kl <= 1.1 * goal.kl

    @classmethod
    def of(cls, lab: Lab, logp: NDArray[np.float64]) -> Point:
        """The point of a distribution (P, N) over all answers.

        Raises:
            PosterhallError: if it lies above the frontier, where nothing can be.
        """
        kl, worth = frontier.divergence(logp, lab.logq), frontier.expected(logp, lab.reward)
        return cls(kl, worth, lab.frontier.gap(kl, worth))


@dataclass(frozen=True)
class Preferences:
    """Answers to prompts, and which is preferred to which."""

    texts: NDArray[np.int64]
    """(A, L) prompts with their answers; SAMPLES after one another have the same prompt."""
    score: NDArray[np.float64]
    """(A,) of each answer."""
    pairs: NDArray[np.int64]
    """(pairs, 2) indices, the preferred one first; answers of equal score are no pair."""

    @property
    def preferred(self) -> NDArray[np.bool_]:
        """(prompts, SAMPLES, SAMPLES): whether answer i of a prompt is preferred to answer j."""
        found = np.zeros((len(self.texts) // SAMPLES, SAMPLES, SAMPLES), np.bool_)
        better, worse = self.pairs.T
        found[better // SAMPLES, better % SAMPLES, worse % SAMPLES] = True
        return found

    @property
    def rankings(self) -> NDArray[np.int64]:
        """(prompts, SAMPLES) indices, the best first, of those prompts whose answers all differ in score."""
        groups = self.score.reshape(-1, SAMPLES)
        order = np.argsort(-groups, axis=1)
        ranked = np.take_along_axis(groups, order, axis=1)
        differ = (np.diff(ranked, axis=1) < 0).all(axis=1)
        starts = np.arange(len(groups))[:, None] * SAMPLES
        found: NDArray[np.int64] = (order + starts)[differ]
        return found

    def tokens(self, items: NDArray[np.int64] | None = None) -> PreferenceTokens:
        """As the product's training takes them; `items` instead of the pairs."""
        return PreferenceTokens(
            prompts=list(self.texts[::SAMPLES, :PROMPT].astype(np.int32)),
            answers=list(self.texts[:, PROMPT:].astype(np.int32)),
            prompt_of=np.repeat(np.arange(len(self.texts) // SAMPLES), SAMPLES),
            items=self.pairs if items is None else items,
        )


class Lab:
    """One seed's language, reference and tested prompts.

    Args:
        budget: gives `length` (words of an answer), `tested` (prompts whose answers are enumerated) and
            `texts_steps` (of the training of the reference, of 256 texts each).
        seed: of everything.

    Attributes:
        language: what texts are made of.
        reference: the trained decoder.
        prompts: (P, 2) tested.
        logq: (P, N) log-probabilities of all answers under the reference.
        reward: (P, N) their true rewards.
        frontier: the best that any policy can have.
    """

    def __init__(self, budget: Budget, seed: int) -> None:
        self.seed, self.length = seed, int(budget.length)
        self.language = Language.draw(seed)
        self.reference = pretrained(seed, self.length, int(budget.texts_steps))
        self.answers = enumeration.answers(WORDS, self.length)
        drawn = self.language.texts(int(budget.tested), PROMPT, generator(seed, "dpo", "tested prompts"))
        self.set_prompts(drawn)

    def set_prompts(self, prompts: NDArray[np.int64]) -> None:
        """Test on these prompts (P, 2) from now on."""
        self.prompts = prompts
        self.logq = self.enumerate(self.reference)
        self.score = self.language.score(prompts[:, -1:], self.answers[None])
        self.reward = reward(self.score)
        self.frontier = frontier.Frontier(self.logq, self.reward)

    def policy(self) -> Decoder:
        """A copy of the reference, to be trained."""
        return copy.deepcopy(self.reference)

    def enumerate(self, model: Any, *, temperature: float = 1.0) -> NDArray[np.float64]:
        """(P, N) log-probabilities of all answers to the tested prompts."""
        return enumeration.distribution(model, self.prompts.tolist(), self.length, temperature=temperature)

    def point(self, model: Any) -> Point:
        """Where a model stands."""
        return Point.of(self, self.enumerate(model))

    def win_rate(self, model: Any, *, temperature: float = 1.0) -> float:
        """How often a model's answer has a greater true reward than one of the reference, ties counted half.

        The reference answers at temperature 1; the mean over the tested prompts.
        """
        logp = self.enumerate(model, temperature=temperature)
        wins = np.empty_like(logp)
        for row, (logs, worth) in enumerate(zip(self.logq, self.reward, strict=True)):
            _, which = np.unique(worth, return_inverse=True)
            mass = np.bincount(which, np.exp(logs))
            wins[row] = (np.cumsum(mass) - mass / 2)[which]
        return frontier.expected(logp, wins)

    def deviation(self, values: NDArray[np.float64]) -> float:
        """How far values (P, N) of all answers are from their scores, up to a constant for each prompt.

        The root mean square over the reference's answers, as a share of the scores' standard deviation.
        """

        def centred(table: NDArray[np.float64]) -> NDArray[np.float64]:
            found: NDArray[np.float64] = table - (np.exp(self.logq) * table).sum(1, keepdims=True)
            return found

        scores = centred(self.score)
        missed = frontier.expected(self.logq, (centred(values) - scores) ** 2)
        return math.sqrt(missed / frontier.expected(self.logq, scores**2))

    def start(self) -> Point:
        """Where the reference stands."""
        return Point(0.0, self.frontier.reference, 0.0)

    def drawn_prompts(self, count: int, purpose: str) -> NDArray[np.int64]:
        """(count, 2) beginnings of texts."""
        return self.language.texts(count, PROMPT, generator(self.seed, "dpo", purpose, "prompts"))

    def preferences(self, prompts: int, *, labels: Labels = "better", purpose: str = "pairs") -> Preferences:
        """Answers of the reference to prompts, SAMPLES each, and all pairs of those to one prompt.

        Another purpose draws other prompts, answers and labels.
        """
        before = np.repeat(self.drawn_prompts(prompts, purpose), SAMPLES, axis=0)
        rng = generator(self.seed, "dpo", purpose, labels)
        texts = sample(self.reference, before, self.length, generator(self.seed, "dpo", purpose, "answers"))
        score = self.language.score(before[:, -1], texts[:, PROMPT:])

        def turned(ahead: NDArray[np.float64]) -> NDArray[np.bool_]:
            if labels == "better":
                return ahead < 0
            chance = 1 / (1 + np.exp(-ahead)) if labels == "bradley-terry" else 0.5
            return rng.random(len(ahead)) >= chance

        return Preferences(texts, score, all_pairs(score, SAMPLES, turned))


@lru_cache(maxsize=16)
def pretrained(seed: int, length: int, steps: int) -> Decoder:
    """The reference of a seed, which nobody changes: most claims have the same."""
    from posterhall.train import TrainSettings, fit, next_token

    shape = DecoderConfig(
        vocab_size=WORDS,
        dim=32,
        layers=1,
        heads=2,
        ffn_dim=128,
        max_length=PROMPT + length,
        rope_theta=100.0,
        init_std=32**-0.5,
    )
    model = Decoder(shape, seed=derive(seed, "dpo", "weights"))
    rng = generator(seed, "dpo", "texts")
    texts = Language.draw(seed).texts(256 * steps, PROMPT + length, rng)
    fit(
        model,
        Rows(seed, ids=texts[:, :-1], labels=texts[:, 1:]),
        objective=next_token,
        settings=TrainSettings(
            lr=1e-2, steps=steps, batch=256, warmup=0.05, weight_decay=0.0, keep="last", log_every=steps
        ),
    )
    return model.eval()


def sample(
    model: Any, prompts: NDArray[np.int64], length: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(B, P + T) prompts (B, P) with an answer of T words drawn to each, all rows together.

    What `posterhall.models.generate` does for rows that end where they like and have seeds of their own;
    here all are as long and share a generator, which makes it several times as fast for a model this small.
    """
    drawn = torch.from_numpy(rng.random((length, len(prompts))))
    ids = torch.from_numpy(prompts)
    parts = [ids]
    was = model.training
    model.eval()
    with torch.no_grad():
        cache = model.new_cache(len(prompts), prompts.shape[1] + length)
        for at in range(length):
            states = model.hidden(ids, cache=cache)[:, -1]
            ids = invert(model.logits(states).double().softmax(-1), drawn[at])[:, None]
            parts.append(ids)
    model.train(was)
    found: NDArray[np.int64] = torch.cat(parts, dim=1).numpy()
    return found


def all_pairs(
    worth: NDArray[np.float64],
    samples: int,
    turned: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
) -> NDArray[np.int64]:
    """(pairs, 2) indices of answers, the preferred first: all pairs of those to a prompt but of equal worth.

    Args:
        worth: (A,) of answers, `samples` after one another to each prompt.
        samples: of a prompt.
        turned: by how much the first of each pair is worth more, to whether the second is preferred.
    """
    first, second = np.triu_indices(samples, 1)
    starts = np.arange(0, len(worth), samples)[:, None]
    pairs: NDArray[np.int64] = np.stack([(starts + first).ravel(), (starts + second).ravel()], axis=1)
    ahead = worth[pairs[:, 0]] - worth[pairs[:, 1]]
    pairs, ahead = pairs[ahead != 0], ahead[ahead != 0]
    swapped = turned(ahead)
    pairs[swapped] = pairs[swapped, ::-1]
    return pairs


def envelope(lab: Lab, points: Sequence[Point], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The reward that the policies of some points, mixed at random where need be, have at given KL."""
    return frontier.attainable(
        [p.kl for p in (lab.start(), *points)], [p.reward for p in (lab.start(), *points)], at
    )


def common_range(*methods: Sequence[Point]) -> NDArray[np.float64]:
    """KL at which methods are compared: evenly from 0 to what all of them have reached."""
    most = min(max(p.kl for p in points) for points in methods)
    return np.linspace(0.0, most, 65)[1:] if math.isfinite(most) and most > 0 else np.zeros(1)
