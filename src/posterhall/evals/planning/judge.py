"""A model as a second judge of paths, and how far it agrees with the verifier.

The published scores are a model's, with a rubric; it was lenient, and once it gave 3 of 1. The verifier stays
what counts here: a judge is asked so that one may know how far to trust it where there is no verifier.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from posterhall.errors import DataError
from posterhall.evals.planning import rows
from posterhall.lm import flow
from posterhall.lm.protocol import LM, Message, Request, wait
from posterhall.metrics.agreement import kappa
from posterhall.progress import Progress
from posterhall.runs import write_atomic
from posterhall.stats import wilson

FILE = "judge.json"
_SCORE = re.compile(r"score\W{0,4}[:=][\s*_`]{0,3}(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)")
_RUBRIC = (
    "You grade answers to questions about paths. An answer is right if the path or number that it gives in "
    "the end is one of the right answers; the order of the places counts, case and small words do not. Reply "
    "with one line, `Score: 1` for a right answer and `Score: 0` for a wrong one."
)


def read_score(reply: str) -> float | None:
    """The score in a judge's reply, in [0, 1]; None if there is none, or it is outside.

    A score out of range is a judge that has not understood: it is counted as unread, not clipped.
    """
    found = _SCORE.findall(reply) or _NUMBER.findall(reply.strip().rpartition("\n")[2])
    if not found:
        return None
    value = float(found[-1])
    return value if 0 <= value <= 1 else None


def agreement(lm: LM, run: Path, *, width: int = 64, quiet: bool = True) -> dict[str, Any]:
    """Let a model judge the conversations of a run, and compare.

    The scores are written to judge.json in the run's artifacts, in the order of its conversations.

    Returns:
        judge; judged, how many scores could be read; unread; agreement, the share in which it says the
        same (right from 0.5 on); low and high, its interval (Wilson, 95 %); kappa; lenient and strict, how
        often it alone says right or wrong.

    Raises:
        DataError: if the run has no conversations.
    """
    table = rows.score(rows.load(run))
    if not len(table):
        raise DataError(f"{run}: no conversations in it")
    scores = wait(_judged(lm, table, width, quiet))
    result = compare(lm.name, table["correct"].to_pylist(), scores)
    text = json.dumps({**result, "scores": scores})
    write_atomic(run / "artifacts" / FILE, text + "\n")
    return result


def compare(judge: str, correct: Sequence[bool], scores: Sequence[float | None]) -> dict[str, Any]:
    """What `agreement` returns, from the verdicts and a judge's scores."""
    pairs = [(truth, score >= 0.5) for truth, score in zip(correct, scores, strict=True) if score is not None]
    same = sum(truth == said for truth, said in pairs)
    interval = wilson(same, len(pairs)) if pairs else None
    return {
        "judge": judge,
        "judged": len(pairs),
        "unread": len(scores) - len(pairs),
        "agreement": same / len(pairs) if pairs else None,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "kappa": kappa(*zip(*pairs, strict=True)) if pairs else None,
        "lenient": sum(said and not truth for truth, said in pairs),
        "strict": sum(truth and not said for truth, said in pairs),
    }


async def _judged(lm: LM, table: pa.Table, width: int, quiet: bool) -> list[float | None]:
    scores: list[float | None] = [None] * len(table)

    async def ask(row: dict[str, Any]) -> float | None:
        request = Request(_prompt(row), max_tokens=256, temperature=0.0, seed=0)
        return read_score((await lm.agenerate([request]))[0][0].text)

    lines = (row for batch in table.to_batches(1024) for row in batch.to_pylist())
    with Progress(len(table), label="judge", unit="conversations", quiet=quiet) as progress:
        async for number, score in flow.each(ask, lines, width=width):
            scores[number] = score
            progress.update(progress.done + 1)
    return scores


def _prompt(row: dict[str, Any]) -> tuple[Message, ...]:
    key = [" -> ".join(row["names"][node] for node in path) for path in row["key"]] or [str(row["number"])]
    right = "\n".join(f"- {each}" for each in key)
    asked = "\n\n".join(row["prompts"])
    return (
        Message("system", _RUBRIC),
        Message(
            "user", f"Question:\n{asked}\n\nRight answers:\n{right}\n\nAnswer to grade:\n{row['replies'][-1]}"
        ),
    )
