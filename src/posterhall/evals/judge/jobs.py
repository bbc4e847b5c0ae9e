"""Judging as a run: every pair of models, every question that both answered, in both orders; resumable."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posterhall.config import canonical, finite, plain, to_dict
from posterhall.errors import DataError
from posterhall.evals.arena import judges
from posterhall.evals.arena.relative import relative
from posterhall.evals.arena.verdicts import Verdicts
from posterhall.evals.judge import reading
from posterhall.evals.judge.answers import Answers, Question
from posterhall.evals.judge.prompts import Form, prompt
from posterhall.lm import flow, records
from posterhall.lm.metered import Usage, money
from posterhall.lm.parsing import UNREAD
from posterhall.lm.protocol import LM, Request, wait
from posterhall.lm.stack import Connected, connect
from posterhall.lm.wrapping import BudgetExceeded, one_caller
from posterhall.progress import Progress
from posterhall.runs import Run, is_run, read_manifest, write_atomic
from posterhall.seeds import derive
from posterhall.stats import mean_interval

KIND = "eval judge"
VERDICTS, REPLIES, SUMMARY = "verdicts.csv", "replies.jsonl", "judge.json"
FAILED = "failed"
HOPELESS = 10
"""Comparisons that the judge refuses, with none that it takes, after which the fault is not theirs."""
COLUMNS = (
    "question",
    "category",
    "model_a",
    "model_b",
    "winner",
    "judge",
    "order",
    "score_a",
    "score_b",
    "how",
)
Order = Literal["ab", "ba"]
_SEEDS = 1 << 31  # what every server takes


@dataclass(frozen=True)
class JudgeSettings:
    """What is asked of a judge, beside the answers."""

    form: Form = "verdict"
    """verdict: 1, 2 or tie; scores: 1 to 10 for each answer, of which the higher wins."""
    temperature: float = 0.2
    """>= 0 (Dettmers et al. 2023, §6.1: 0.2)."""
    top_p: float = 1.0
    """In (0, 1]."""
    max_tokens: int = 1024
    """Of a reply, >= 1; a reasoning judge needs more."""
    limit: int | None = None
    """Only the first so many questions; None: all."""
    seed: int = 0
    """Of the sampling."""

    def __post_init__(self) -> None:
        if self.form not in ("verdict", "scores"):
            raise DataError(f"form is {self.form!r}; it must be verdict or scores")
        if self.limit is not None and self.limit < 1:
            raise DataError(f"limit is {self.limit}; it must be at least 1")
        Request("", max_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True)
class Comparison:
    """Two answers, in an order."""

    question: Question
    a: Answers
    b: Answers
    order: Order

    @property
    def name(self) -> str:
        """Unique in a run."""
        return canonical([self.question.uid, self.a.player, self.b.player, self.order])

    def request(self, settings: JudgeSettings) -> Request:
        """What the judge is asked."""
        one, two = (each.by_question[self.question.uid] for each in (self.a, self.b))
        if self.order == "ba":
            one, two = two, one
        return Request(
            prompt(self.question.text, one, two, category=self.question.category, form=settings.form),
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=derive(settings.seed, "judge", self.name) % _SEEDS if settings.temperature else None,
        )


def comparisons(
    questions: Sequence[Question], answers: Sequence[Answers], settings: JudgeSettings
) -> Iterator[Comparison]:
    """All comparisons in order: question by question, each pair in both orders."""
    for question in questions[: settings.limit]:
        for a, b in combinations(answers, 2):
            if question.uid in a.by_question and question.uid in b.by_question:
                yield Comparison(question, a, b, "ab")
                yield Comparison(question, a, b, "ba")


def judge(
    lm: LM,
    questions: Sequence[Question],
    answers: Sequence[Answers],
    settings: JudgeSettings | None = None,
    *,
    out: Path | None = None,
    inputs: Sequence[Path] = (),
    resume: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Have a model compare answers.

    Args:
        lm: the judge.
        questions, answers: see `answers.load`.
        settings: None means the paper's.
        out: directory of the run; None keeps nothing.
        inputs: files that were read, for the run's record.
        resume: go on with the run that is there; a finished one is left as it is.
        quiet: no progress.

    Returns:
        See `summary`; with run and usage.

    Raises:
        BudgetExceeded: when a budget ends; what is judged is kept, and the run can go on with a larger one.
        DataError: for a run that is there already, or if the judge refuses everything.
    """
    settings = settings or JudgeSettings()
    if resume and out is not None and is_run(out) and read_manifest(out)["status"] == "done":
        done: dict[str, Any] = json.loads((out / "artifacts" / SUMMARY).read_bytes())
        return done
    asked = lm if isinstance(lm, Connected) else connect(lm, cache=False)
    todo = list(comparisons(questions, answers, settings))
    if out is None:
        return _work(asked, todo, settings, None, quiet)
    digest = derive(0, "judge", "answers", *_texts(todo))
    config = {**to_dict(settings), "model": lm.name, "answers": digest}
    with Run.start(out, kind=KIND, config=config, inputs=inputs, seeds=[settings.seed], resume=resume) as run:
        result = _work(asked, todo, settings, run, quiet)
        run.checkpoint(REPLIES).unlink(missing_ok=True)
        run.finish(judge=lm.name, comparisons=result["comparisons"], unread=result["unread"])
    return result


def _texts(todo: Sequence[Comparison]) -> Iterator[str]:
    """All that is compared, for the run's record."""
    for each in todo:
        uid = each.question.uid
        yield from (each.name, each.question.text, each.a.by_question[uid], each.b.by_question[uid])


class _Kept:
    """Replies so far, each appended to a file at once; in memory only without a file."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.said: dict[str, dict[str, Any]] = {}
        self.spent = Usage()
        if path is None or not path.exists():
            return
        *lines, torn = path.read_bytes().split(b"\n")
        for line in lines:
            value = json.loads(line)
            self.spent += Usage(**value["usage"])
            if "error" not in value:  # asked once more: what was in the way may be gone
                self.said[value["name"]] = value
        if torn:
            os.truncate(path, sum(len(line) + 1 for line in lines))

    def add(self, said: dict[str, Any]) -> None:
        """Keep a reply; it survives the death of the process from here on."""
        self.said[said["name"]] = said
        if self.path is not None:
            with open(self.path, "ab") as file:
                file.write(records.line(said))


def _work(
    lm: Connected, todo: Sequence[Comparison], settings: JudgeSettings, run: Run | None, quiet: bool
) -> dict[str, Any]:
    kept = _Kept(run.checkpoint(REPLIES) if run else None)
    lm.meter.spent_before(kept.spent)
    ended = wait(_ask(lm, todo, settings, kept, quiet))
    if ended is not None:
        later = "go on by --resume with a larger budget" if run else "with -o they would be kept"
        raise BudgetExceeded(
            f"{ended}. {len(kept.said):,} of {len(todo):,} comparisons are judged; {later}", limit=ended.limit
        )
    rows = [_row(each, kept.said[each.name], settings, lm.name) for each in todo]
    result = {
        **summary(rows, lm.name, settings),
        "run": str(run.path) if run else None,
        "usage": {**asdict(lm.meter.usage), "cost_without_cache": lm.meter.usage.cost_without_cache},
    }
    if run is not None:
        write_atomic(run.artifact(VERDICTS), _csv(rows))
        write_atomic(run.artifact(REPLIES), b"".join(records.line(kept.said[each.name]) for each in todo))
        text = json.dumps(finite(plain(result)), indent=2, ensure_ascii=False)
        write_atomic(run.artifact(SUMMARY), text + "\n")
    return result


async def _ask(
    lm: Connected, todo: Sequence[Comparison], settings: JudgeSettings, kept: _Kept, quiet: bool
) -> BudgetExceeded | None:
    """Ask what is not judged yet; the budget that ended, if one did."""
    ended: list[BudgetExceeded] = []
    refused = [0]

    def left() -> Iterator[Comparison]:
        for each in todo:
            if ended:
                return
            if each.name not in kept.said:
                yield each

    async def work(each: Comparison) -> None:
        said: dict[str, Any] = {"name": each.name}
        with lm.meter.scope() as tally:
            try:
                [[sample]] = await lm.agenerate([each.request(settings)])
                said |= {"reply": sample.text, "cut": sample.finish_reason == "length"}
            except BudgetExceeded as error:
                ended.append(error)  # what is under way is paid for: it is waited for
                return
            except DataError as error:
                refused[0] += 1
                if refused[0] >= HOPELESS and refused[0] > len(kept.said):
                    raise
                said["error"] = str(error)
        kept.add({**said, "usage": tally.usage.parts()})

    done = float(len(kept.said))
    with (
        one_caller(),
        Progress(len(todo), label="judge", unit="comparisons", quiet=quiet, start=done) as progress,
    ):
        async for _ in flow.each(work, left(), width=lm.width):
            progress.update(float(len(kept.said)), spent=money(lm.meter.usage.cost))
    return ended[0] if ended else None


def _row(each: Comparison, said: dict[str, Any], settings: JudgeSettings, judge: str) -> dict[str, Any]:
    """A row of the verdicts."""
    row: dict[str, Any] = {
        "question": each.question.uid,
        "category": each.question.category,
        "model_a": each.a.player,
        "model_b": each.b.player,
        "winner": "none",
        "judge": judge,
        "order": each.order,
        "score_a": None,
        "score_b": None,
        "how": FAILED,
        "cut": said.get("cut", False),
    }
    if "error" in said:
        return row
    turned = each.order == "ba"
    if settings.form == "scores":
        both = reading.scores(said["reply"])
        row["how"] = both.how
        if both.value is not None:
            x, y = both.value[::-1] if turned else both.value
            row |= {"score_a": x, "score_b": y, "winner": "tie" if x == y else "a" if x > y else "b"}
        return row
    found = reading.verdict(said["reply"])
    row["how"] = found.how
    if found.value is not None:
        names = {"1": "b" if turned else "a", "2": "a" if turned else "b", "tie": "tie"}
        row["winner"] = names[found.value]
    return row


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def summary(rows: Sequence[dict[str, Any]], judge: str, settings: JudgeSettings) -> dict[str, Any]:
    """What is said of verdicts.

    Returns:
        judge; comparisons; unread, replies without a verdict; failed, comparisons that were refused; cut,
        replies that ended at the limit of tokens; how (replies by how they were read); pairs, each with
        model_a, model_b, questions (with a verdict in both orders), a, b and tie (what both orders say),
        changed (the orders differ), share (of a's wins, orders averaged and ties half), low and high (over
        questions, Student), incomplete; position, see `arena.judges.Position`; relative, of scores: each
        model against the first.
    """
    verdicts = _verdicts(rows)
    position = judges.position(verdicts, judge)
    how = Counter(row["how"] for row in rows)
    scored = settings.form == "scores" and any(row["score_a"] is not None for row in rows)
    reference = rows[0]["model_a"] if rows else ""
    return {
        "judge": judge,
        "form": settings.form,
        "comparisons": len(rows),
        "unread": how[UNREAD],
        "failed": how[FAILED],
        "cut": sum(row["cut"] for row in rows),
        "how": dict(sorted(how.items())),
        "pairs": [_pair(rows, *names) for names in dict.fromkeys((r["model_a"], r["model_b"]) for r in rows)],
        "position": asdict(position),
        "relative": _relative(verdicts, reference) if scored else None,
    }


def _verdicts(rows: Sequence[dict[str, Any]]) -> Verdicts:
    sides = {"ab": {"a": "first", "b": "second"}, "ba": {"a": "second", "b": "first"}}
    games, scores = [], []
    for row in rows:
        turn = -1 if row["order"] == "ba" else 1
        first, second = (row["model_a"], row["model_b"])[::turn]
        games.append((row["question"], first, second, sides[row["order"]].get(row["winner"], row["winner"])))
        x, y = (np.nan if row[name] is None else row[name] for name in ("score_a", "score_b")[::turn])
        scores.append((float(x), float(y)))
    return Verdicts.of_games(games, judges=[row["judge"] for row in rows], scores=scores)


def _pair(rows: Sequence[dict[str, Any]], a: str, b: str) -> dict[str, Any]:
    by_question: dict[str, dict[str, str]] = {}
    for row in rows:
        if (row["model_a"], row["model_b"]) == (a, b):
            by_question.setdefault(row["question"], {})[row["order"]] = row["winner"]
    whole = [tuple(said.values()) for said in by_question.values() if "none" not in said.values()]
    same = Counter(said[0] for said in whole if len(set(said)) == 1)
    points = {"a": 1.0, "b": 0.0, "tie": 0.5}
    shares = [float(np.mean([points[winner] for winner in said])) for said in whole]
    interval = mean_interval(shares) if shares else None
    return {
        "model_a": a,
        "model_b": b,
        "questions": len(whole),
        **{name: same[name] for name in points},
        "changed": len(whole) - same.total(),
        "share": interval.estimate if interval else None,
        "low": max(0.0, interval.low) if interval else None,
        "high": min(1.0, interval.high) if interval else None,
        "incomplete": len(by_question) - len(whole),
    }


def _relative(verdicts: Verdicts, reference: str) -> dict[str, Any]:
    return {
        "reference": reference,
        "players": [
            {
                "player": each.player,
                "estimate": each.score.estimate,
                "low": each.score.low,
                "high": each.score.high,
                "games": each.games,
            }
            for each in relative(verdicts, reference)
        ],
    }
