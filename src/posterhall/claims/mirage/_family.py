"""Families of models that do arithmetic, and their outputs: trained here, or checkpoints of any origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posterhall.claims.mirage._measure import Floats, emergence, onset
from posterhall.data.synthetic.arithmetic import Arithmetic, Problems
from posterhall.errors import DataError
from posterhall.seeds import derive, generator

Metric = Literal["exact match", "edit distance", "likelihood"]
METRICS: tuple[Metric, ...] = ("exact match", "edit distance", "likelihood")
_BATCH = 64
_ROWS = 2000  # scored at a time


@dataclass(frozen=True)
class Outputs:
    """What one model said to all problems.

    Attributes:
        parameters: of the model.
        said: tokens of each answer, n sequences.
        nll: negative log-likelihood of the right answer's tokens after the right ones before, (n, L), or
            (n, 1) with the mean over the answer where a model only scores whole answers.
    """

    parameters: int
    said: Sequence[Sequence[int]]
    nll: Floats


@dataclass(frozen=True)
class Family:
    """Outputs of models of different sizes on the same problems.

    Attributes:
        targets: tokens of the right answers, n sequences of L or more.
        length: L, tokens that are judged.
        models: by size.
    """

    targets: Sequence[Sequence[int]]
    length: int
    models: tuple[Outputs, ...]

    @property
    def sizes(self) -> list[int]:
        """Parameters of each model."""
        return [each.parameters for each in self.models]

    @cached_property
    def _wanted(self) -> list[tuple[int, ...]]:
        return [tuple(target) for target in self.targets]

    def exact(self, length: int | None = None) -> NDArray[np.float64]:
        """Whether each model has the first `length` tokens of each answer right, (models, n)."""
        from posterhall.metrics.text import exact_match

        wanted, said = self._cut(length)
        return np.stack([exact_match(each, wanted) for each in said])

    def scores(self, metric: Metric, length: int | None = None) -> Floats:
        """Mean score of each model on the first `length` tokens of the answers, (models,)."""
        from posterhall.metrics.text import token_edit_distance

        if metric == "exact match":
            return np.asarray(self.exact(length).mean(axis=1))
        if metric == "likelihood":
            return np.array([each.nll[:, :length].mean() for each in self.models])
        wanted, said = self._cut(length)
        return np.array([token_edit_distance(each, wanted).mean() for each in said])

    def sharpness(self, metric: Metric, length: int | None = None) -> float:
        """ES / (n - 1), positive where the larger models are better."""
        step = {"exact match": 1.0, "edit distance": 1.0, "likelihood": 0.0}[metric] / len(self.targets)
        better = metric == "exact match"
        return emergence(self.sizes, self.scores(metric, length), higher_is_better=better, resolution=step)

    def onset(self, metric: Metric, length: int | None = None) -> float:
        """How late the score begins to rise, see `_measure.onset`."""
        return onset(self.sizes, self.scores(metric, length), higher_is_better=metric == "exact match")

    def dealt(self, order: NDArray[np.int64]) -> Family:
        """The same outputs, judged by the answers in another order."""
        return Family([self.targets[i] for i in order.tolist()], self.length, self.models)

    def chance(self) -> Floats:
        """Exact match to be expected if the right answers were dealt out anew at random, (models,)."""
        wanted = Counter(self._wanted)
        n = len(self._wanted)
        return np.array([sum(wanted[tuple(answer)] for answer in each.said) / n**2 for each in self.models])

    def _cut(self, length: int | None) -> tuple[list[Any], list[list[Any]]]:
        wanted = [target[:length] for target in self._wanted]
        return wanted, [[tuple(s[:length]) for s in each.said] for each in self.models]


@lru_cache(maxsize=8)  # claims on the same models need not train them twice in one process
def trained(
    task: Arithmetic, widths: tuple[int, ...], *, steps: int, items: int, seed: int, layers: int = 2
) -> Family:
    """Train one decoder of each width on the same problems, and ask it all test problems.

    All take the same number of steps of 64 problems; the rate falls with the root of the width
    (0.005 at width 32), and initial weights have the standard deviation width^-1/2.

    Args:
        widths: multiples of 4.
        steps: of each training.
        items: test problems, none of which is trained on.
    """
    train, test = task.split(_BATCH * steps, items, seed=derive(seed, "problems"))
    models = tuple(_train(train, test, width, layers, steps, seed) for width in widths)
    return Family(test.targets().tolist(), task.answer_length, models)


def _train(train: Problems, test: Problems, width: int, layers: int, steps: int, seed: int) -> Outputs:
    from posterhall.data.synthetic.arithmetic import SYMBOLS
    from posterhall.models import Decoder, DecoderConfig, parameters_count
    from posterhall.train import TrainSettings, fit, next_token

    config = DecoderConfig(
        vocab_size=len(SYMBOLS),
        dim=width,
        layers=layers,
        heads=2,
        ffn_dim=4 * width,
        max_length=train.task.prompt_length + train.task.answer_length,
        rope_theta=50.0,  # wavelengths for some fifteen tokens, not for thousands
        tie_embeddings=False,
        init_std=width**-0.5,
    )
    settings = TrainSettings(
        lr=5e-3 * (32 / width) ** 0.5, steps=steps, batch=_BATCH, warmup=0.05, beta2=0.98,
        weight_decay=0.01, log_every=max(1, steps),
    )  # fmt: skip
    model = Decoder(config, seed=derive(seed, "model", width))
    fit(model, train, objective=next_token, settings=settings)
    said, nll = answers(model.eval(), test)
    return Outputs(parameters_count(config).total, said.tolist(), nll)


def answers(model: Any, problems: Problems) -> tuple[NDArray[np.int64], Floats]:
    """The most probable answer, token by token, and -log p of the right one's tokens; both (n, L)."""
    from posterhall.extras import torch
    from posterhall.objectives.lm import token_logprobs

    length, prompts, targets = problems.task.answer_length, problems.prompts(), problems.targets()
    said, nll = [], []
    with torch.no_grad():
        head = model.head_weight()
        for first in range(0, len(problems), _ROWS):
            ids = torch.as_tensor(prompts[first : first + _ROWS])
            right = torch.as_tensor(targets[first : first + _ROWS])
            before = torch.cat([ids, right[:, :-1]], dim=1)
            hidden = model.hidden(before)[:, -length:]
            nll.append(-token_logprobs(hidden, head, right).double().numpy())
            cache = model.new_cache(len(ids))
            said_here = []
            for _ in range(length):
                ids = (model.hidden(ids, cache=cache)[:, -1] @ head.T).argmax(dim=-1, keepdim=True)
                said_here.append(ids)
            said.append(torch.cat(said_here, dim=1).numpy())
    return np.concatenate(said), np.concatenate(nll)


def checkpoints(paths: str, task: Arithmetic, *, items: int, seed: int, shots: int = 2) -> Family:
    """Ask a family of checkpoints the same problems, after a few solved ones.

    Written as people write it (``12*34=408``); what is judged is digits, whatever a model's tokens are, up
    to the end of the line. Only problems whose operands and answers have all their digits are asked.
    Another seed draws other problems and examples, nothing else.

    Args:
        paths: directories of models, or ids on the Hugging Face hub, with commas between.
        task: operation and number of digits.

    Raises:
        DataError: with fewer than three models, or for one whose number of parameters is not known.
    """
    from posterhall.extras import torch
    from posterhall.lm import Request, connect

    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = [name.strip() for name in paths.split(",") if name.strip()]
    if len(names) < 3:
        raise DataError(f"family={paths}: {len(names)} models; give three or more sizes, with commas between")
    rng = generator(seed, "family")
    least = 10 ** (task.answer_length - 1)
    asked = _long_problems(task, least, items + shots, rng)
    lines = [f"{a}{task.operation}{b}=" for a, b in asked]
    right = [str(a * b if task.operation == "*" else a + b) for a, b in asked]
    head = "".join(f"{line}{answer}\n" for line, answer in zip(lines[:shots], right[:shots], strict=True))
    lines, right = lines[shots:], right[shots:]
    outputs = []
    for name in names:
        with connect(name, device=device) as lm:
            if lm.parameters is None:
                raise DataError(f"family={name}: its number of parameters is not known; give a local model")
            requests = [
                Request(head + line, max_tokens=2 * task.answer_length, temperature=0.0, stop=("\n",))
                for line in lines
            ]
            said = [samples[0].text.strip() for samples in lm.generate(requests)]
            scored = lm.score_many(
                [(head + line, [answer]) for line, answer in zip(lines, right, strict=True)]
            )
            nll = [-each[0].total / len(answer) for each, answer in zip(scored, right, strict=True)]
            outputs.append(Outputs(lm.parameters, [_symbols(s) for s in said], np.array(nll)[:, None]))
    if len({each.parameters for each in outputs}) < len(outputs):
        raise DataError(f"family={paths}: two models have equally many parameters; give one of each size")
    outputs.sort(key=lambda each: each.parameters)
    return Family([_symbols(answer) for answer in right], min(map(len, right)), tuple(outputs))


def _long_problems(
    task: Arithmetic, least: int, wanted: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Different problems of operands without leading zeros whose answer is no smaller than `least`."""
    low, high = 10 ** (task.digits - 1), 10**task.digits
    found: dict[tuple[int, int], None] = {}
    for _ in range(1000):
        a, b = rng.integers(low, high, size=(2, wanted))
        kept = task.answer(a, b) >= least
        found.update(dict.fromkeys(zip(a[kept].tolist(), b[kept].tolist(), strict=True)))
        if len(found) >= wanted:
            return list(found)[:wanted]
    raise DataError(f"{wanted:,} problems of {task.digits} digits are not to be had; ask fewer items")


def _symbols(text: str) -> list[int]:
    """Characters as numbers: what is compared."""
    return [ord(character) for character in text]
