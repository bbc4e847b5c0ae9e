"""What is judged: questions, and the answers of models to them, from JSON lines.

A row of answers has an id (`id`, `question_id` or `uid`), an answer (`answer`, `reply`, `response`, `output`
or `text`), and may have the question (`question` or `prompt`), its `category`, and the `model`. Replies of
`posterhall lm map` and FastChat's answer files are such rows. Questions may also come from a file of their
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posterhall.errors import DataError
from posterhall.lm.rows import Row, rows

ID = ("id", "question_id", "uid")
ANSWER = ("answer", "reply", "response", "output", "text")
QUESTION = ("question", "prompt")
MODEL = ("model", "model_id")


@dataclass(frozen=True)
class Question:
    """One question."""

    uid: str
    text: str
    category: str = "general"


@dataclass(frozen=True)
class Answers:
    """One model's."""

    player: str
    by_question: dict[str, str]
    """Answer by the question's id; an empty one is an answer too."""
    missing: int = 0
    """Rows that say that there was none, as a server's refusal."""


def load(
    paths: Sequence[Path | str],
    *,
    questions: Path | str | None = None,
    names: Sequence[str] | None = None,
) -> tuple[list[Question], list[Answers]]:
    """Read answers and their questions.

    Args:
        paths: a file for each model, two or more.
        questions: rows with an id, the question (`question`, `prompt` or `text`) and perhaps its category;
            None: the files of answers have them.
        names: of the models; None: what the rows say, or the file's name.

    Returns:
        The questions that two models or more answered, in order; and the answers.

    Raises:
        DataError: naming file and line, for a row without id, answer or question, an id given twice,
            questions that differ under one id, models of one name, or nothing answered by two.
    """
    if len(paths) < 2:
        raise DataError(f"{len(paths)} file of answers; give two or more, one a model")
    if names is not None and len(names) != len(paths):
        raise DataError(f"{len(names)} names for {len(paths)} files of answers; give one a file")
    asked: dict[str, Question] = {}
    if questions is not None:
        for row in rows([questions]):
            _ask(asked, row, _needed(row, ID, "id"), (*QUESTION, "text"))
    found = [
        _answers(Path(path), None if names is None else names[at], asked, own=questions is None)
        for at, path in enumerate(paths)
    ]
    seen: dict[str, int] = {}
    for at, each in enumerate(found):
        if each.player in seen:
            raise DataError(
                f"{paths[seen[each.player]]} and {paths[at]} are both of {each.player!r}; name them, in "
                "order, with --name"
            )
        seen[each.player] = at
    several = [uid for uid in asked if sum(uid in each.by_question for each in found) > 1]
    if not several:
        raise DataError(f"no question was answered by two of {', '.join(map(str, paths))}; do the ids agree?")
    return [asked[uid] for uid in several], found


def _answers(path: Path, name: str | None, asked: dict[str, Question], *, own: bool) -> Answers:
    answers: dict[str, str] = {}
    models: set[str] = set()
    missing = 0
    for row in rows([path]):
        uid = _needed(row, ID, "id")
        if row.fields.get("sample", "0") != "0":  # of several samples the first is judged
            continue
        if "error" in row.fields and not any(each in row.fields for each in ANSWER):
            missing += 1
            continue
        if own:
            _ask(asked, row, uid, QUESTION)
        elif uid not in asked:
            raise DataError(f"{row.where}: no question has the id {uid!r}")
        if uid in answers:
            raise DataError(f"{row.where}: the id {uid!r} is there twice; give each question one answer")
        answers[uid] = _needed(row, ANSWER, "answer")
        models.update(row.fields[each] for each in MODEL if each in row.fields)
    if not answers:
        raise DataError(f"{path}: no answer in it")
    told = models.pop() if len(models) == 1 else path.name.partition(".")[0]
    return Answers(name or told, answers, missing)


def _ask(asked: dict[str, Question], row: Row, uid: str, names: tuple[str, ...]) -> None:
    """Take up the question of a row."""
    text = next((row.fields[each] for each in names if each in row.fields), None)
    if text is None:
        if uid in asked:
            return
        raise DataError(
            f"{row.where}: no question in it (none of {', '.join(names)}); give them in a file, with "
            "--questions"
        )
    before = asked.get(uid)
    if before is not None and before.text != text:
        raise DataError(f"{row.where}: another question has the id {uid!r}; ids must be of one question each")
    if before is None:
        asked[uid] = Question(uid, text, row.fields.get("category", "general"))


def _needed(row: Row, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if name in row.fields:
            return row.fields[name]
    raise DataError(f"{row.where}: no {what} in it; call it {names[0]} (or {', '.join(names[1:])})")
