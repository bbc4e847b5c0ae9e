"""Tasks and their files: JSONL with a question or a prompt a line, and the layout of MMLU.

A file NAME.jsonl is a task. Beside it may lie NAME.shots.jsonl, from which examples are taken, and
NAME.yaml, with `TaskSettings`. A line is one of

    {"question": "...", "choices": ["...", "..."], "answer": 1}
    {"prompt": "...", "target": "..."}

`answer` is the number of the right choice from 0, its letter (A is the first) or its text; a list where
several are right. `targets` is a list of texts any of which is right. `id` and `cluster` (items of one
passage or template are not independent) are optional. Any other text can be named in a template.
"""

from __future__ import annotations

import csv
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from posterhall import config
from posterhall.errors import DataError, UsageError, did_you_mean

Kind = Literal["choices", "generate"]
PRIMARY: dict[Kind, tuple[str, ...]] = {
    "choices": ("accuracy", "accuracy_norm", "p_choices"),
    "generate": ("exact_match", "rouge_2"),
}
"""What can stand for a task in the mean over tasks; the first is the default."""
LETTERS = string.ascii_uppercase
LARGEST_LINE = 16 << 20
"""Bytes of a line; a longer one is no item."""


@dataclass(frozen=True)
class TaskSettings:
    """How the items of a task are put to a model; NAME.yaml holds these."""

    style: Literal["text", "letter"] = "text"
    """Choices: score the text of each after the question, or list them and score their letters (MMLU)."""
    template: str | None = None
    """An item as text, {fields} replaced; default: 'Question: {question}' and 'Answer:' on two lines,
    with {options} between them for letters; or '{prompt}'."""
    description: str = ""
    """Stands once before everything."""
    separator: str = "\n\n"
    """Between examples, and before the item."""
    answer_prefix: str = " "
    """Between an item and its answer; it counts as part of the answer."""
    max_tokens: int = 64
    """Longest answer that is generated, in the model's tokens, >= 1."""
    stop: tuple[str, ...] = ("\n",)
    """A generated answer ends before these."""
    unit: Literal["words", "characters"] = "words"
    """What edit distance and common subsequence count. Not the model's tokens, so that models compare."""
    ignore_case: bool = False
    """Whether answers are compared without regard to case."""
    chance: float | None = None
    """What guessing scores, in [0, 1); default: 1 / number of choices, and 0 for generated answers."""
    primary: Literal["accuracy", "accuracy_norm", "p_choices", "exact_match", "rouge_2"] | None = None
    """What stands for the task in the mean over tasks; default: accuracy or exact_match."""
    shot_order: Literal["random", "first"] = "random"
    """Draw the examples, or take the first ones of the file as they are (MMLU)."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise DataError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if not all(self.stop):
            raise DataError("stop holds an empty text, at which every answer would end; leave it out")
        if self.chance is not None and not 0 <= self.chance < 1:
            raise DataError(f"chance is {self.chance}; it must be a fraction in [0, 1). Is it in per cent?")


@dataclass(frozen=True)
class Item:
    """One question: either choices of which some are right, or targets any of which is."""

    id: str
    where: str
    """File and line."""
    fields: Mapping[str, str] = field(repr=False)
    """What templates may name."""
    choices: tuple[str, ...] = ()
    correct: tuple[int, ...] = ()
    """Numbers of the right choices, from 0."""
    targets: tuple[str, ...] = ()
    cluster: str | None = None

    @property
    def kind(self) -> Kind:
        """Whether there are choices, or an answer has to be generated."""
        return "choices" if self.choices else "generate"

    @property
    def key(self) -> str:
        """What makes two items the same: question and choices, without regard to case and spaces."""
        asked = self.fields["question" if self.choices else "prompt"]
        return "\0".join(" ".join(each.split()).casefold() for each in (asked, *sorted(self.choices)))


@dataclass(frozen=True)
class Task:
    """A name, items of one kind, and how they are asked."""

    name: str
    items: tuple[Item, ...] = field(repr=False)
    settings: TaskSettings = TaskSettings()
    shots: tuple[Item, ...] | None = field(default=None, repr=False)
    """Where examples are taken from; None: from the items, which are then no longer asked."""
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.settings.primary not in (None, *PRIMARY[self.kind]):
            raise DataError(
                f"{self.name}: primary is {self.settings.primary!r}; for items of the kind {self.kind!r} it "
                f"is one of {', '.join(PRIMARY[self.kind])}"
            )

    @property
    def kind(self) -> Kind:
        """That of its items."""
        return self.items[0].kind

    @property
    def primary(self) -> str:
        """The metric that stands for it in the mean over tasks."""
        return self.settings.primary or PRIMARY[self.kind][0]

    @property
    def chance(self) -> float:
        """What guessing scores: the mean of right choices over choices, or what the settings say."""
        if self.settings.chance is not None:
            return self.settings.chance
        shares = [len(each.correct) / len(each.choices) for each in self.items if each.choices]
        return sum(shares) / len(shares) if shares else 0.0


def load(paths: Sequence[Path], *, sets: Sequence[str] = ()) -> list[Task]:
    """The tasks of files and directories, in order.

    Args:
        paths: JSONL files; directories of them; directories with test/*.csv (and dev/*.csv) as MMLU's.
        sets: ``key=value`` of `TaskSettings`, for all tasks, over what their own files say.

    Raises:
        DataError: for a file that cannot be understood, naming line and value; for two tasks of one name.
    """
    found: list[Task] = []
    for path in paths:
        if path.is_dir():
            found += _directory(path, sets)
        elif path.suffix == ".csv":
            raise DataError(
                f"{path}: give MMLU's directory, which has test/ and dev/ in it, not a file of it"
            )
        else:
            found.append(_jsonl_task(path, sets))
    places: dict[str, Task] = {}
    for task in found:
        if task.name in places:
            raise DataError(
                f"two tasks are named {task.name!r}: {places[task.name].files[0]} and {task.files[0]}; "
                "rename one of the files"
            )
        places[task.name] = task
    return found


def _directory(path: Path, sets: Sequence[str]) -> list[Task]:
    if (path / "test").is_dir() and (tests := sorted((path / "test").glob("*.csv"))):
        return [_mmlu_task(path, each, sets) for each in tests]
    files = [each for each in sorted(path.glob("*.jsonl")) if not each.name.endswith(".shots.jsonl")]
    if not files:
        raise DataError(f"{path} holds no tasks; a task is NAME.jsonl, or MMLU's test/NAME_test.csv")
    return [_jsonl_task(each, sets) for each in files]


# -- JSONL ------------------------------------------------------------------------------------------


def _jsonl_task(path: Path, sets: Sequence[str]) -> Task:
    name = path.name.removesuffix(".jsonl")
    said, shots = path.with_name(f"{name}.yaml"), path.with_name(f"{name}.shots.jsonl")
    settings = config.resolve(TaskSettings, file=said if said.exists() else None, sets=sets, environ={})
    files = [path, *(each for each in (shots, said) if each.exists())]
    task = Task(
        name,
        items=read_jsonl(path),
        settings=settings,
        shots=read_jsonl(shots) if shots.exists() else None,
        files=tuple(files),
    )
    if task.shots and task.shots[0].kind != task.kind:
        raise DataError(
            f"{shots}: its items are of the kind {task.shots[0].kind!r}, those of {path} {task.kind!r}; "
            "examples must be like the items"
        )
    return task


def read_jsonl(path: Path) -> tuple[Item, ...]:
    """Read a file of items, all of one kind, ids unique.

    Raises:
        DataError: naming file, line, value and what is allowed.
    """
    items: list[Item] = []
    lines: dict[str, str] = {}
    for where, line in _lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}") from None
        item = parse(value, where, default_id=str(len(items)))
        if items and item.kind != items[0].kind:
            raise DataError(
                f"{where}: an item of the kind {item.kind!r} after those of the kind {items[0].kind!r}; "
                "put them into two files, which are two tasks"
            )
        if item.id in lines:
            raise DataError(f"{where}: the id {item.id!r} was given already at {lines[item.id]}")
        lines[item.id] = where
        items.append(item)
    if not items:
        raise DataError(f"{path}: holds no items; write one JSON object a line")
    return tuple(items)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with open(path, "rb") as file:
            number = 0
            while raw := file.readline(LARGEST_LINE + 1):
                number += 1
                where = f"{path}:{number}"
                if len(raw) > LARGEST_LINE:
                    raise DataError(f"{where}: longer than {LARGEST_LINE >> 20} MiB, which is no item")
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{where}: not UTF-8 (byte {error.start} of the line)") from None
                if line.strip():
                    yield where, line
    except OSError as error:
        raise DataError(f"{path}: cannot read the task: {error.strerror or error}") from None


def parse(value: Any, where: str, *, default_id: str, distinct: bool = True) -> Item:
    """One item from a JSON value; see the module for the keys.

    Args:
        value: an object of these keys.
        where: file and line, for messages.
        default_id: its id, if it gives none.
        distinct: refuse two choices of the same text, which only letters tell apart.

    Raises:
        DataError: saying at `where` what is wrong.
    """
    if not isinstance(value, dict):
        raise DataError(f'{where}: an item is a JSON object, as {{"prompt": "2+2=", "target": "4"}}')
    choices_given = "choices" in value or "question" in value
    if choices_given == ("prompt" in value or "target" in value or "targets" in value):
        raise DataError(
            f"{where}: has the keys {', '.join(map(str, value)) or '(none)'}; an item has either question, "
            f"choices and answer, or prompt and target{did_you_mean(next(iter(value), ''), _KNOWN)}"
        )
    fields = {
        key: str(each)
        for key, each in value.items()
        if isinstance(each, str | int | float) and not isinstance(each, bool)
    }
    identity = value.get("id", default_id)
    cluster = value.get("cluster")
    for key, each in (("id", identity), ("cluster", cluster)):
        if isinstance(each, bool) or not isinstance(each, str | int | None):
            raise DataError(f"{where}: {key} is {each!r}; it must be text or a whole number")
    common: dict[str, Any] = {
        "id": str(identity),
        "where": where,
        "fields": fields,
        "cluster": None if cluster is None else str(cluster),
    }
    if choices_given:
        _text(value, "question", where)
        choices = _choices(value.get("choices"), where, distinct=distinct)
        answers = value.get("answer")
        listed = answers if isinstance(answers, list) else [answers]
        if not listed:
            raise DataError(f"{where}: answer is an empty list; at least one choice must be right")
        correct = sorted({_answer(each, choices, where) for each in listed})
        return Item(**common, choices=choices, correct=tuple(correct))
    _text(value, "prompt", where)
    if ("target" in value) == ("targets" in value):
        raise DataError(f"{where}: give either target, one text, or targets, a list of which any is right")
    targets = value["targets"] if "targets" in value else [value["target"]]
    if not isinstance(targets, list) or not targets or not all(map(_is_text, targets)):
        raise DataError(
            f"{where}: {'targets' if 'targets' in value else 'target'} is {_short(targets)}; an answer to "
            "be generated is text, not empty (a number goes in quotes)"
        )
    return Item(**common, targets=tuple(dict.fromkeys(targets)))


_KNOWN = ("question", "choices", "answer", "prompt", "target", "targets", "id", "cluster")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _text(value: dict[str, Any], key: str, where: str) -> None:
    if not _is_text(value.get(key)):
        raise DataError(f"{where}: {key} is {_short(value.get(key))}; it must be text, not empty")


def _choices(value: Any, where: str, *, distinct: bool) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < 2 or not all(map(_is_text, value)):
        raise DataError(
            f"{where}: choices is {_short(value)}; it must be a list of two or more texts, none of them empty"
        )
    if len(value) > len(LETTERS):
        raise DataError(f"{where}: {len(value)} choices; at most {len(LETTERS)} can be told by letters")
    first: dict[str, int] = {}
    for number, each in enumerate(value):
        if distinct and each in first:
            raise DataError(
                f"{where}: choices {first[each]} and {number} are both {_short(each)}; a model cannot tell "
                "them apart, so remove one"
            )
        first[each] = number
    return tuple(value)


def _answer(value: Any, choices: tuple[str, ...], where: str) -> int:
    """The number of the choice that `value` names."""
    letters = LETTERS[: len(choices)]
    allowed = f"a number from 0 to {len(choices) - 1}, a letter from A to {letters[-1]}, or a choice's text"
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < len(choices):
            return value
        raise DataError(f"{where}: answer is {value}, and there are {len(choices)} choices; give {allowed}")
    if isinstance(value, str):
        by_text = choices.index(value) if value in choices else None
        by_letter = letters.index(value) if len(value) == 1 and value in letters else None
        if by_text is not None and by_letter is not None and by_text != by_letter:
            raise DataError(
                f"{where}: answer {value!r} is the text of choice {by_text} and the letter of choice "
                f"{by_letter}; give the number"
            )
        for found in (by_text, by_letter):
            if found is not None:
                return found
    raise DataError(
        f"{where}: answer is {_short(value)}, which is not among the choices; give {allowed}."
        f"{did_you_mean(value, choices) if isinstance(value, str) else ''}"
    )


# -- MMLU -------------------------------------------------------------------------------------------


def _mmlu_task(root: Path, test: Path, sets: Sequence[str]) -> Task:
    """A subject: test/NAME_test.csv, and dev/NAME_dev.csv for the examples (Hendrycks et al. 2021)."""
    subject = test.stem.removesuffix("_test")
    dev = root / "dev" / f"{subject}_dev.csv"
    about = subject.replace("_", " ")
    preset = TaskSettings(
        style="letter",
        description=f"The following are multiple choice questions (with answers) about {about}.\n\n",
        template="{question}\n{options}\nAnswer:",
        shot_order="first",
    )
    flags = {name: value for name, value in config.to_dict(preset).items() if value is not None}
    chosen = {each.partition("=")[0].strip().replace("-", "_") for each in sets}
    settings = config.resolve(
        TaskSettings, sets=sets, flags={k: v for k, v in flags.items() if k not in chosen}, environ={}
    )
    return Task(
        subject,
        items=_read_mmlu(test),
        settings=settings,
        shots=_read_mmlu(dev) if dev.exists() else None,
        files=(test, dev) if dev.exists() else (test,),
    )


def _read_mmlu(path: Path) -> tuple[Item, ...]:
    """Rows of question, four (or more) choices, and the right letter; no header."""
    items: list[Item] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            for row in rows:
                where = f"{path}:{rows.line_num}"
                if len(row) < 4:
                    raise DataError(f"{where}: {len(row)} columns; a row is question, choices, right letter")
                question, *choices, answer = row
                if re.fullmatch(r"[A-Z]", answer) is None:
                    raise DataError(
                        f"{where}: the last column is {_short(answer)}; it must be the letter of the right "
                        "choice. Does the file have a header?"
                    )
                value = {"question": question, "choices": choices, "answer": LETTERS.index(answer)}
                # Some of MMLU's questions have two equal choices.
                items.append(parse(value, where, default_id=str(len(items)), distinct=False))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from None
    if not items:
        raise DataError(f"{path}: holds no questions")
    return tuple(items)


# -- an item as text --------------------------------------------------------------------------------


def default_template(kind: Kind, style: str) -> str:
    """The template where the settings give none."""
    if kind == "generate":
        return "{prompt}"
    return (
        "Question: {question}\n{options}\nAnswer:" if style == "letter" else "Question: {question}\nAnswer:"
    )


def render(item: Item, settings: TaskSettings) -> str:
    """An item as text, up to where its answer would follow.

    Fields are put in once and as they are: what they hold is not looked at for further fields.

    Raises:
        UsageError: for a template that names a field which the item lacks.
    """
    template = settings.template
    if template is None:
        template = default_template(item.kind, settings.style)
    options = "\n".join(f"{letter}. {each}" for letter, each in zip(LETTERS, item.choices, strict=False))
    fields = {**item.fields, "options": options}

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in fields:
            raise UsageError(
                f"the template names {{{name}}}, and {item.where} has no such text; it has "
                f"{', '.join(fields)}.{did_you_mean(name, fields)}"
            )
        return fields[name]

    return re.sub(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", value, template)


def answers(item: Item, settings: TaskSettings) -> tuple[str, ...]:
    """What a model's probabilities are asked of: each choice, or each target, as it follows the item."""
    if item.kind == "generate":
        return tuple(settings.answer_prefix + each for each in item.targets)
    said = LETTERS[: len(item.choices)] if settings.style == "letter" else item.choices
    return tuple(settings.answer_prefix + each for each in said)


def example(item: Item, settings: TaskSettings) -> str:
    """An item with its (first) right answer."""
    right = item.correct[0] if item.kind == "choices" else 0
    return render(item, settings) + answers(item, settings)[right]
