"""Preferences from a model's own answers: sample, score, compare (Rafailov et al. 2023, §6 and app. C).

    found = collect(lm, scorer, ["prompts.jsonl"], PairSettings(samples=4), out="pairs.jsonl")

A run holds what was asked so far: sampling, and the judging by a model, are maps over documents
(`posterhall.lm.mapping`) within it, so that a kill costs nothing that was answered.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from posterhall.data import prompts as reading
from posterhall.data.documents import expand
from posterhall.data.preference_tokens import LONG
from posterhall.data.prompts import Asked, Prompt, Prompts, as_messages
from posterhall.errors import DataError
from posterhall.lm import mapping, records
from posterhall.lm.local import LocalLM
from posterhall.lm.metered import Usage
from posterhall.lm.protocol import Request
from posterhall.lm.stack import Connected
from posterhall.runs import Run, atomic_file, is_run, read_manifest
from posterhall.seeds import generator
from posterhall.train import scorers

KIND = "data pairs"
PAIRS, CANDIDATES = "pairs.jsonl", "candidates.jsonl"
Rows = Literal["pairs", "rankings"]
EMPTY, IDENTICAL, TIED, UNSCORED = "empty answer", "identical answers", "tied", "no score"
_MANY = 256
"""Answers scored at once."""


@dataclass(frozen=True)
class PairSettings:
    """What decides the pairs, beside model, prompts and reward.

    Raises:
        DataError: for a value outside its range.
    """

    samples: int = 4
    """Answers to a prompt, >= 2 (app. C.1: 4, which make 6 pairs)."""
    temperature: float = 1.0
    """Of the sampling, > 0; at 0 all answers would be the same."""
    top_p: float = 1.0
    """In (0, 1]."""
    max_tokens: int = 128
    """Of an answer, >= 1."""
    stop: tuple[str, ...] = ()
    """An answer ends before the first of these texts."""
    form: Literal["chat", "text"] = "text"
    """Whether a prompt that is a text is to be continued, or a message to be answered. Prompts of messages
    are answered."""
    label_temperature: float = 0.0
    """0: the higher score wins. Above: labels are drawn, the first answer wins with chance sigmoid(difference
    of the scores / label_temperature), as Bradley and Terry's model has it and people are."""
    rows: Rows = "pairs"
    """pairs: prompt, chosen, rejected. rankings: prompt, all answers and their scores, best first."""
    field: str = reading.FIELD
    """Field of the prompts' files."""
    limit: int | None = None
    """Only the first so many prompts, >= 1; none: all."""
    seed: int = 0
    """Of sampling and labels."""

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise DataError(f"samples is {self.samples}; a pair needs at least 2")
        if not 0 < self.temperature < math.inf:
            raise DataError(f"temperature is {self.temperature}; above 0, or all answers are the same")
        if not 0 <= self.label_temperature < math.inf:
            raise DataError(f"label_temperature is {self.label_temperature}; it must be at least 0")
        if self.rows not in get_args(Rows):
            raise DataError(f"rows is '{self.rows}'; it must be pairs or rankings")
        if self.label_temperature and self.rows == "rankings":
            raise DataError("label_temperature draws labels of pairs; rankings have their scores")
        self.asking()

    def asking(self) -> _Asking:
        """What is asked of the model for each prompt."""
        return _Asking(
            prompt="{prompt}",
            form="text",
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            n=self.samples,
            seed=self.seed,
            uid_field="uid",
        )


@dataclass(frozen=True)
class _Asking(mapping.MapSettings):
    """A map over prompts in JSON: a text, or [role, text] of each message."""

    def request(self, prompt: str) -> Request:
        """See `MapSettings.request`."""
        asked = json.loads(prompt) if prompt else ""
        if isinstance(asked, str):
            return super().request(asked)
        return dataclasses.replace(super().request(prompt), prompt=scorers.messages(asked))


@dataclass(frozen=True)
class Answer:
    """A sampled answer."""

    text: str
    score: float
    """NaN where there is none."""


def compare(
    prompt: Asked, answers: Sequence[Answer], settings: PairSettings, dropped: Counter[str]
) -> Iterator[dict[str, Any]]:
    """All pairs of a prompt's answers, better first; what says nothing is dropped and counted.

    Args:
        prompt: the prompt.
        answers: to it.
        settings: how labels come about.
        dropped: counts pairs by reason: an empty answer, identical answers, no score, tied.

    Yields:
        Rows: prompt, chosen, rejected (all three lists of messages for a conversation), score_chosen,
        score_rejected.
    """
    key = prompt if isinstance(prompt, str) else json.dumps(prompt)
    for i, j in combinations(range(len(answers)), 2):
        one, other = answers[i], answers[j]
        if not (one.text.strip() and other.text.strip()):
            dropped[EMPTY] += 1
        elif one.text == other.text:
            dropped[IDENTICAL] += 1
        elif math.isnan(one.score) or math.isnan(other.score):
            dropped[UNSCORED] += 1
        elif one.score == other.score and not settings.label_temperature:
            dropped[TIED] += 1
        else:
            first = one.score > other.score
            if settings.label_temperature:
                chance = expit((one.score - other.score) / settings.label_temperature)
                first = generator(settings.seed, "label", key, i, j).random() < chance
            better, worse = (one, other) if first else (other, one)
            said: list[Any] = [better.text, worse.text]
            if not isinstance(prompt, str):
                said = [as_messages([("assistant", text)]) for text in said]
            yield {
                "prompt": _row(prompt),
                "chosen": said[0],
                "rejected": said[1],
                "score_chosen": better.score,
                "score_rejected": worse.score,
            }


def rank(prompt: Asked, answers: Sequence[Answer], dropped: Counter[str]) -> dict[str, Any] | None:
    """A prompt's answers by score, best first, each text once; None if no two of them differ in score."""
    kept: dict[str, float] = {}
    for each in answers:
        reason = (
            EMPTY if not each.text.strip() else UNSCORED if math.isnan(each.score)
            else IDENTICAL if each.text in kept else None
        )  # fmt: skip
        if reason is None:
            kept[each.text] = each.score
        else:
            dropped[reason] += 1
    if len(set(kept.values())) < 2:
        dropped[TIED] += len(kept)
        return None
    order = sorted(kept, key=lambda text: -kept[text])
    return {"prompt": _row(prompt), "answers": order, "scores": [kept[text] for text in order]}


def _row(prompt: Asked) -> str | list[dict[str, str]]:
    """A prompt as files have it."""
    return prompt if isinstance(prompt, str) else as_messages(prompt)


def collect(
    lm: Connected,
    scorer: scorers.Scorer,
    sources: Sequence[Path | str],
    settings: PairSettings,
    *,
    out: Path | str,
    resume: bool = False,
    quiet: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Sample answers, score them, and write what is better than what.

    Of a model on this machine all prompts are read as tokens before anything is sampled: those that leave no
    room for an answer are left out, as are conversations that its chat template does not take.

    Args:
        lm: what answers, with its meter; what an interrupted run has spent counts towards its budget.
        scorer: what answers are worth.
        sources: files of prompts; see `posterhall.data.prompts.read`.
        settings: how.
        out: the directory of the run; or a file that ends in .jsonl, for the rows, beside which the run is in
            a directory of the same name that ends in .run.
        resume: go on with the run that is there; one that is done is left as it is.
        quiet: no progress.
        warn: is told which prompts are too long.

    Returns:
        What `posterhall data pairs --json` prints.

    Raises:
        BudgetExceeded: when a budget ends; the run can go on with a larger one.
        DataError: for prompts that cannot be read; prompts of messages and a model on this machine without a
            chat template; if no pair is left.
    """
    out = Path(out)
    file = out if out.suffix == ".jsonl" else None
    directory = out.with_suffix(".run") if file is not None else out
    if resume and is_run(directory) and (done := read_manifest(directory))["status"] == "done":
        return dict(done["facts"])
    if file is not None and file.exists() and not is_run(directory):
        raise DataError(f"{file} exists; write to another file")
    found = reading.read(sources, name=settings.field, limit=settings.limit)
    if settings.form == "chat":
        found.rows = [
            row if row.messages else Prompt("", row.where, (("user", row.text),)) for row in found.rows
        ]
    if isinstance(lm.bare, LocalLM):
        _check(found, lm.bare, warn)
    config = {
        **dataclasses.asdict(settings),
        "model": lm.name,
        "fingerprint": lm.fingerprint(),
        "score": scorer.name,
    }
    with Run.start(
        directory, kind=KIND, config=config, inputs=expand(sources), seeds=[settings.seed], resume=resume
    ) as run:
        work = run.checkpoint("sampling")
        texts, cut, failed, spent = _sampled(lm, found.rows, settings, work, quiet)
        scores, judging = _scored(scorer, found.rows, texts, run, quiet)
        written, dropped = _write(run, file, found.rows, texts, scores, settings)
        if not written:
            said = ", ".join(f"{n:,} {reason}" for reason, n in sorted(dropped.items()))
            raise DataError(
                f"no pair is left of {sum(map(len, texts)):,} answers ({said or 'all failed'}); take more "
                "samples, a higher temperature, or another score"
            )
        facts: dict[str, Any] = {
            "run": str(directory),
            "pairs": str(file or run.artifact(PAIRS)),
            "model": lm.name,
            "score": scorer.name,
            "prompts": len(found.rows),
            "refused": dict(sorted(found.refused.items())),
            "answers": sum(map(len, texts)),
            "cut": cut,
            "failed": failed,
            "rows": written,
            "dropped": dict(sorted(dropped.items())),
            "score_mean": float(np.nanmean(np.concatenate(scores))),
            "usage": dataclasses.asdict(spent),
            "judging": dataclasses.asdict(judging),
        }
        run.finish(**facts)
        for each in (work, run.checkpoint("judging")):
            shutil.rmtree(each, ignore_errors=True)
            each.with_suffix(".jsonl").unlink(missing_ok=True)
    return facts


def _check(found: Prompts, lm: LocalLM, warn: Callable[[str], None]) -> None:
    """Leave out what the model could not answer, before it is asked anything."""
    chats = next((row for row in found.rows if row.messages), None)
    if chats is not None and not lm.has_template:
        raise DataError(f"{chats.where}: {reading.NO_TEMPLATE}")
    texts = [row for row in found.rows if not row.messages]
    lengths = dict(zip(texts, lm.prompt_tokens([row.text for row in texts]), strict=True))
    for row in found.rows:
        if row.messages:
            try:
                [lengths[row]] = lm.prompt_tokens([scorers.messages(row.messages)])
            except DataError as error:  # what its template says
                found.refuse(str(error), row.where)
    longest = lm.model.config.max_length
    found.rows = [row for row in found.rows if row in lengths]
    long = [row for row in found.rows if lengths[row] >= longest]
    if long:
        for row in long:
            found.refuse(LONG, row.where)
        found.rows = [row for row in found.rows if lengths[row] < longest]
        others = f", with {len(long) - 1:,} more" if len(long) > 1 else ""
        warn(
            f"{long[0].where}: left out{others}: {lengths[long[0]]:,} tokens, which leave no room for an "
            f"answer in a model of {longest:,}; shorten the prompt, or take a model of longer texts"
        )
    if not found.rows:
        raise DataError(f"no prompt is left ({found.reasons()})")


def _sampled(
    lm: Connected, prompts: Sequence[Prompt], settings: PairSettings, work: Path, quiet: bool
) -> tuple[list[list[str]], int, int, Usage]:
    """Answers to each prompt; how many were cut at max_tokens, how many prompts failed, and the cost."""
    asked = (
        {"uid": str(i), "prompt": json.dumps(each.asked, ensure_ascii=False)}
        for i, each in enumerate(prompts)
    )
    rows, spent = _mapped(lm, asked, settings.asking(), work, quiet)
    texts: list[list[str]] = [[] for _ in prompts]
    for row in rows:
        if "reply" in row:
            texts[int(row["id"])].append(row["reply"])
    cut = sum(row.get("finish_reason") == "length" for row in rows)
    return texts, cut, sum("error" in row for row in rows), spent


def _scored(
    scorer: scorers.Scorer, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], run: Run, quiet: bool
) -> tuple[list[NDArray[np.float64]], Usage]:
    """The score of each answer, and what they cost; those of a model that judges are kept as they come."""
    asked = [(prompt.asked, text) for prompt, own in zip(prompts, texts, strict=True) for text in own]
    flat = np.full(len(asked), np.nan)
    spent = Usage()
    if isinstance(scorer, scorers.Judge) and asked:
        documents = ({"uid": str(i), "ask": scorers.judge_text(*each)} for i, each in enumerate(asked))
        rows, spent = _mapped(scorer.lm, documents, scorers.JUDGING, run.checkpoint("judging"), quiet)
        for row in rows:
            flat[int(row["id"])] = scorers.judge_score(row.get("reply", ""))
    else:
        for at in range(0, len(asked), _MANY):
            some = asked[at : at + _MANY]
            flat[at : at + _MANY] = scorer.score([p for p, _ in some], [a for _, a in some])
    return np.split(flat, np.cumsum([len(own) for own in texts])[:-1]), spent


def _mapped(
    lm: Connected, documents: Iterator[dict[str, str]], settings: mapping.MapSettings, work: Path, quiet: bool
) -> tuple[list[dict[str, Any]], Usage]:
    """Rows of a map over documents, which is resumed if it is there, and what it has cost."""
    file = work.with_suffix(".jsonl")
    with atomic_file(file) as opened:
        for each in documents:
            opened.write(records.line(each))
    done = mapping.run(lm, [file], settings, out=work, resume=True, quiet=quiet)
    with open(done["replies"], encoding="utf-8") as lines:
        return [json.loads(line) for line in lines], Usage(**done["usage"])


def _write(
    run: Run,
    file: Path | None,
    prompts: Sequence[Prompt],
    texts: Sequence[Sequence[str]],
    scores: Sequence[NDArray[np.float64]],
    settings: PairSettings,
) -> tuple[int, Counter[str]]:
    """Write rows, and all answers with their scores; how many rows, and what was dropped."""
    dropped: Counter[str] = Counter()
    rows: list[bytes] = []
    with atomic_file(run.artifact(CANDIDATES)) as opened:
        for prompt, own, worth in zip(prompts, texts, scores, strict=True):
            answers = [Answer(text, float(score)) for text, score in zip(own, worth, strict=True)]
            for each in answers:
                score = None if math.isnan(each.score) else each.score
                row = {"prompt": _row(prompt.asked), "answer": each.text, "score": score}
                opened.write(records.line(row))
            if settings.rows == "rankings":
                ranked = rank(prompt.asked, answers, dropped)
                rows += [] if ranked is None else [records.line(ranked)]
            else:
                rows += [records.line(each) for each in compare(prompt.asked, answers, settings, dropped)]
    if rows:
        for place in (run.artifact(PAIRS), *([] if file is None else [file])):
            with atomic_file(place) as opened:
                opened.writelines(rows)
    return len(rows), dropped
