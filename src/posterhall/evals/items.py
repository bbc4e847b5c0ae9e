"""Ask a model items of a task, and score each: from log-probabilities, and from generated answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from posterhall.errors import DataError
from posterhall.evals.shots import Plan
from posterhall.evals.tasks import Item, TaskSettings, answers
from posterhall.lm.protocol import LM, Request, Scored, Unsupported
from posterhall.metrics import probability, text


@dataclass(frozen=True)
class Metric:
    """What is to be known of a score."""

    higher_is_better: bool
    guessed: bool
    """Whether it is a share of what can be reached, of which guessing may reach some: then it is rescaled."""
    meaning: str


METRICS = {
    "nll": Metric(False, False, "-log p of the right answer (several together), nats"),
    "p_vocab": Metric(True, False, "p of the right answer among all texts"),
    "p_choices": Metric(True, True, "p of the right choice, renormalised over the choices"),
    "brier_single": Metric(False, False, "(1 - p_choices)²"),
    "brier": Metric(False, False, "K-class Brier score over the choices, 0 to 2"),
    "accuracy": Metric(True, True, "whether the most probable choice is right"),
    "accuracy_norm": Metric(True, True, "the same for log p per UTF-8 byte of the choice"),
    "exact_match": Metric(True, True, "whether the generated answer is a target"),
    "token_edit_distance": Metric(False, False, "insertions, deletions, substitutions to the nearest target"),
    "lcs": Metric(True, False, "longest common subsequence, as a share of the target's length"),
    "rouge_2": Metric(True, True, "F of the pairs of words shared with the best target"),
    "numeric_parsed": Metric(True, False, "whether the answer holds a number, where the target is one"),
    "numeric_error": Metric(False, False, "|answer - target|, where both are numbers"),
}
"""Every metric of an item, in the order of the chain from likelihood to right or wrong."""


@dataclass(frozen=True)
class Row:
    """What came out for one item at one number of examples."""

    item: str
    scores: dict[str, float | None]
    """By metric; None where there is none (an answer that is no number)."""
    output: dict[str, Any]
    """What the model said: log-probabilities of the answers, and the generated answer."""


async def ask(lm: LM, plan: Plan, shots: int, items: Sequence[Item]) -> list[Row]:
    """Ask a model some items of a plan, and score its answers.

    Choices cost one pass over their probabilities. Generated answers are greedy, and the targets'
    probabilities are taken too, where the model can tell them.

    Raises:
        Unsupported: if the task has choices and the model cannot tell probabilities.
        DataError: if a prompt does not fit in the model's context.
    """
    settings = plan.task.settings
    prompts = [plan.prompt(item, shots) for item in items]
    wanted = [answers(item, settings) for item in items]
    if plan.task.kind == "choices":
        scored = await lm.ascore(list(zip(prompts, wanted, strict=True)))
        return _choices(items, scored)
    try:
        targets: list[list[Scored]] | None = await lm.ascore(list(zip(prompts, wanted, strict=True)))
    except Unsupported:
        targets = None
    requests = [
        Request(each, max_tokens=settings.max_tokens, temperature=0.0, stop=settings.stop) for each in prompts
    ]
    said = [samples[0].text for samples in await lm.agenerate(requests)]
    return _generated(items, said, targets, settings)


def _choices(items: Sequence[Item], scored: Sequence[Sequence[Scored]]) -> list[Row]:
    totals = [[each.total for each in options] for options in scored]
    for item, logps in zip(items, totals, strict=True):
        if max(logps) == -math.inf:
            raise DataError(f"{item.where}: the model gives every choice the probability 0")
    lengths = [[each.bytes for each in options] for options in scored]
    correct = [list(item.correct) for item in items]
    chain = probability.chain(totals, correct, lengths=lengths)
    rows = []
    for i, item in enumerate(items):
        scores: dict[str, float | None] = {name: float(chain[name][i]) for name in METRICS if name in chain}
        output = {"logprobs": totals[i], "correct": correct[i]}
        rows.append(Row(item.id, scores, output))
    return rows


def _generated(
    items: Sequence[Item],
    said: Sequence[str],
    scored: Sequence[Sequence[Scored]] | None,
    settings: TaskSettings,
) -> list[Row]:
    rows = []
    for i, item in enumerate(items):
        scores: dict[str, float | None] = {}
        output: dict[str, Any] = {"answer": said[i].strip()}
        if scored is not None:
            logps = [each.total for each in scored[i]]
            scores["nll"] = float(probability.nll([logps])[0])
            scores["p_vocab"] = float(probability.p_vocab([logps])[0])
            output["logprobs"] = logps
        rows.append(Row(item.id, scores | compare(said[i], item.targets, settings), output))
    return rows


def compare(said: str, targets: Sequence[str], settings: TaskSettings) -> dict[str, float | None]:
    """Scores of a generated answer against the target that suits it best, for each metric on its own.

    White space at the ends does not count. Numbers are compared where all targets are plain numbers;
    an answer without one has the numeric error None, which a mean leaves out: see numeric_parsed.
    """

    def plain(value: str) -> str:
        value = value.strip()
        return value.casefold() if settings.ignore_case else value

    answer, wanted = plain(said), [plain(each) for each in targets]
    units: list[Sequence[str]] = [_units(each, settings.unit) for each in wanted]
    mine = [_units(answer, settings.unit)] * len(units)
    common = text.lcs_length(mine, units)
    scores: dict[str, float | None] = {
        "exact_match": float(answer in wanted),
        "token_edit_distance": float(text.token_edit_distance(mine, units).min()),
        "lcs": max(float(shared) / len(each) for shared, each in zip(common, units, strict=True)),
    }
    if any(len(text.words(each)) > 1 for each in wanted):  # one word has no pairs to share
        scores["rouge_2"] = float(text.rouge_n([answer] * len(wanted), wanted, 2).f1.max())
    if all(map(_is_number, wanted)):
        errors = text.numeric_error([answer] * len(wanted), wanted)
        parsed = bool(errors.parsed[0])
        scores["numeric_parsed"] = float(parsed)
        scores["numeric_error"] = float(errors.absolute.min()) if parsed else None
    return scores


def _units(value: str, unit: str) -> list[str]:
    return list(value) if unit == "characters" else value.split()


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value.replace(",", "")))
    except ValueError:
        return False
