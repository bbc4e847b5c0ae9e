"""The laboratory on real text: a byte-level decoder, a reward of words, and divergences from samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.dpo._lab import SAMPLES, all_pairs
from posterhall.claims.rows import Budget, Scalar
from posterhall.data.preference_tokens import PreferenceBatches, PreferenceTokens
from posterhall.data.tokenizer import ByteTokenizer, Tokenizer
from posterhall.errors import DataError
from posterhall.metrics import frontier
from posterhall.models import Decoder, DecoderConfig
from posterhall.models.best_of import kl_bound
from posterhall.models.generate import generate
from posterhall.seeds import derive, generator
from posterhall.train.dpo import PreferenceObjective
from posterhall.train.dpo_settings import DpoSettings
from posterhall.train.loop import fit
from posterhall.train.references import reference_logprobs
from posterhall.train.rollouts import layout_of
from posterhall.train.scorers import Lexicon, Scorer, scorer

_PROMPT_WORDS, _LEAST_WORDS = 3, 8
"""Of a line: those that are the prompt, and how many it has at least."""
_HELD_OUT = 4000
"""Lines that prompts are taken from."""
_LEXICON = 300
"""The most common words, which have valences."""
_STEP = 32
"""Prompts of a step."""


@dataclass(frozen=True)
class Base:
    """A reference with its tokeniser, and beginnings of lines that it was not trained on."""

    model: Any
    tokenizer: Tokenizer
    prompts: tuple[str, ...]
    words: tuple[str, ...]
    """The most common of the text, the commonest first."""


@lru_cache(maxsize=1)
def base(dim: int, layers: int, tokens: int, corpus: Scalar, model: Scalar) -> Base:
    """The reference: the same for all seeds, which differ in reward, prompts and answers.

    Args:
        dim, layers, tokens: of a decoder that is trained on lines of text, in bytes.
        corpus: a file or directory of lines; None for the standard library's documentation.
        model: a directory with a checkpoint to take instead.

    Raises:
        DataError: if there are too few lines.
    """
    lines = _lines(corpus)
    if len(lines) < 2 * _HELD_OUT:
        raise DataError(
            f"{corpus}: {len(lines):,} different lines of {_LEAST_WORDS} words or more; at least "
            f"{2 * _HELD_OUT:,} are wanted. Give more text with --set corpus=PATH"
        )
    order = generator(0, "dpo", "lines").permutation(len(lines)).tolist()
    held_out, rest = ([lines[i] for i in part] for part in (order[:_HELD_OUT], order[_HELD_OUT:]))
    prompts = tuple(dict.fromkeys(" ".join(line.split()[:_PROMPT_WORDS]) for line in held_out))
    counts = Counter(word for line in rest for word in line.split())
    words = tuple(word for word, _ in counts.most_common(_LEXICON))
    if model is not None:
        from posterhall.data import tokenizer as tokenizers
        from posterhall.models import causal, hub

        directory = hub.locate(str(model))
        return Base(causal.load(directory, dtype="float32"), tokenizers.load(directory), prompts, words)
    return Base(_trained(rest, dim, layers, tokens), ByteTokenizer(), prompts, words)


def _lines(corpus: Scalar) -> list[str]:
    if corpus is None:
        from posterhall.data.python_text import lines

        found = lines()
    else:
        from posterhall.data.documents import documents

        texts = (each.text for each in documents(str(corpus)))
        found = tuple(dict.fromkeys(line for text in texts for line in text.splitlines()))
    return [line for line in found if len(line.split()) >= _LEAST_WORDS]


def _trained(lines: list[str], dim: int, layers: int, tokens: int) -> Decoder:
    from posterhall.data.packing import Packed
    from posterhall.data.tokens import from_texts
    from posterhall.train import TrainSettings, next_token

    shape = DecoderConfig(
        vocab_size=ByteTokenizer.vocab_size,
        dim=dim,
        layers=layers,
        heads=max(1, dim // 32),
        ffn_dim=3 * dim,
        max_length=256,
        init_std=dim**-0.5,
    )
    decoder = Decoder(shape, seed=0)
    data = Packed(from_texts(lines, ByteTokenizer()), context=128, seed=0, packing="documents")
    settings = TrainSettings(lr=3e-3, tokens=tokens, batch=32, warmup=0.05, keep="last", log_every=1 << 20)
    fit(decoder, data, objective=next_token, settings=settings)
    return decoder.eval()


@dataclass(frozen=True)
class Draws:
    """Answers to prompts, SAMPLES or more after one another to each, and what they are worth."""

    tokens: PreferenceTokens
    rewards: NDArray[np.float64]

    def compared(self, *, at_random: np.random.Generator | None = None) -> PreferenceTokens:
        """With all pairs of the answers to a prompt, the one of the greater reward first, or either."""
        samples = len(self.rewards) // len(self.tokens.prompts)
        pairs = all_pairs(
            self.rewards,
            samples,
            lambda ahead: ahead < 0 if at_random is None else at_random.random(len(ahead)) < 0.5,
        )
        return replace(self.tokens, items=pairs)


class Writing:
    """One seed's reward and prompts, on the common reference.

    Args:
        budget: see `posterhall.claims.dpo.text`.
        params: "corpus", "model" and "reward" as a user gave them.
        seed: of lexicon, prompts and answers.
    """

    def __init__(self, budget: Budget, params: Mapping[str, Scalar], seed: int) -> None:
        self.base = base(
            int(budget.dim), int(budget.layers), int(budget.tokens), params["corpus"], params["model"]
        )
        self.seed, self._budget = seed, budget
        self.layout = layout_of(self.base.model)
        self.scorer: Scorer
        if params["reward"] is None:
            valences = generator(seed, "dpo", "lexicon").normal(size=len(self.base.words))
            self.scorer = Lexicon(dict(zip(self.base.words, valences.tolist(), strict=True)))
        else:
            self.scorer = scorer(str(params["reward"]))
        order = generator(seed, "dpo", "prompts").permutation(len(self.base.prompts)).tolist()
        self._prompts = [self.base.prompts[i] for i in order]

    def draw(self, model: Any, first: int, count: int, samples: int, purpose: str) -> Draws:
        """Answers of a model to the prompts from `first` on."""
        tokenizer, ends = self.base.tokenizer, {self.base.tokenizer.eos_id}
        texts = self._prompts[first : first + count]
        start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
        head = np.array([] if start is None else [start], np.int32)
        prompts = [np.concatenate([head, ids]) for ids in tokenizer.encode_batch(texts)]
        found = generate(
            model,
            [ids.tolist() for ids in prompts for _ in range(samples)],
            max_new_tokens=int(self._budget.answer),
            seeds=derive(self.seed, "dpo", "answers", purpose),
            # Watched, not stopped: the end is a token of the answer.
            watch=lambda _, ids: ids[-1] in ends,
            batch=256,
        )
        answers = [np.array(each.ids, np.int32) for each in found]
        rewards = self.scorer.score(
            [text for text in texts for _ in range(samples)], [tokenizer.decode(ids) for ids in answers]
        )
        tokens = PreferenceTokens(
            prompts=prompts,
            answers=answers,
            prompt_of=np.repeat(np.arange(len(prompts)), samples),
            items=np.zeros((0, 2), np.int64),
        )
        return Draws(tokens, rewards)

    def place(self, model: Any) -> tuple[float, float]:
        """KL(model || reference), nats an answer, and expected reward, from answers to the first prompts."""
        drawn = self.draw(model, 0, int(self._budget.tested), SAMPLES, "measured")
        ratio = self.logprobs(model, drawn.tokens) - self.logprobs(self.base.model, drawn.tokens)
        return max(0.0, float(ratio.mean())), float(drawn.rewards.mean())

    def logprobs(self, model: Any, tokens: PreferenceTokens) -> NDArray[np.float64]:
        """(answers,) log p under a model."""
        return reference_logprobs(model, tokens, layout=self.layout)

    def preferences(self) -> Draws:
        """SAMPLES answers of the reference to prompts that are not measured on."""
        return self.draw(
            self.base.model, int(self._budget.tested), int(self._budget.prompts), SAMPLES, "compared"
        )

    def trained(self, tokens: PreferenceTokens, **loss: Any) -> list[tuple[float, float]]:
        """Train a copy of the reference on comparisons; its places half-way and at the end."""
        import copy

        steps = int(self._budget.steps)
        settings = DpoSettings(
            **{
                "lr": self._budget.lr,
                "schedule": "linear",
                "min_lr_fraction": 0.1,
                "warmup": 0.05,
                "steps": steps,
                "batch": _STEP * SAMPLES * (SAMPLES - 1) // 2,
                "accumulate": 1,
                "clip": 1.0,
                "keep": "last",
                "eval_every": max(1, steps // 2),
                "log_every": steps,
                **loss,
            }
        )
        data = PreferenceBatches(
            tokens,
            seed=self.seed,
            layout=self.layout,
            reference=self.logprobs(self.base.model, tokens),
        )
        places: list[tuple[float, float]] = []

        def evaluate(policy: Any) -> dict[str, float]:
            places.append(self.place(policy))
            return {"kl": places[-1][0], "reward": places[-1][1]}

        objective = PreferenceObjective(settings)
        fit(copy.deepcopy(self.base.model), data, objective=objective, settings=settings, evaluate=evaluate)
        return places


def best_of(drawn: Draws, n: int) -> tuple[float, float]:
    """KL and expected reward of the best of n answers, from more of them; the KL is that without ties."""
    groups = drawn.rewards.reshape(len(drawn.tokens.prompts), -1)
    kept = groups[:, : groups.shape[1] // n * n].reshape(len(groups), -1, n)
    return kl_bound(n), float(kept.max(2).mean())


def envelope(reference: float, places: list[tuple[float, float]]) -> Callable[[list[float]], list[float]]:
    """The reward that policies of some places have at given KL, mixed at random where need be."""
    kls, rewards = zip((0.0, reference), *places, strict=True)
    return lambda at: frontier.attainable(kls, rewards, at).tolist()
