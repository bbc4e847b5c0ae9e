"""Preferences: a prompt with answers, the better before the worse, from the files that people have.

    found = read("pairs.jsonl")
    found.rows[0].prompt, found.rows[0].answers     # best first
    found.refused                                   # {"identical answers": 3}

A prompt and an answer are joined as they are: the space or newline between them belongs to the answer.
A row that says nothing (two identical answers, an empty one) is refused and counted, never repaired.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from posterhall.data.objects import Object, objects
from posterhall.data.refusals import Refusals
from posterhall.errors import DataError, did_you_mean

Form = Literal["auto", "pairs", "rankings", "hh", "shp", "tldr", "oasst1"]

EMPTY, IDENTICAL, TIED = "empty answer", "identical answers", "no answer is better"
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
UNRENDERED = "a message of another role, or with a turn inside its text"


@dataclass(frozen=True, slots=True)
class Preference:
    """One prompt and two or more answers to it."""

    prompt: str
    answers: tuple[str, ...]
    """The best first."""
    where: str
    """File and line."""
    scores: tuple[float, ...] | None = None
    """Of the answers, not increasing; equal ones are tied. None: each is better than the next."""
    messages: tuple[tuple[str, str], ...] = ()
    """(role, text) of the conversation before the answers, which a chat template is to render; the prompt is
    empty then. Without any, prompt and answers are the text itself."""

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Indices (better, worse) of all pairs, ties left out."""
        for better, worse in itertools.combinations(range(len(self.answers)), 2):
            if self.scores is None or self.scores[better] > self.scores[worse]:
                yield better, worse

    @property
    def tied(self) -> bool:
        """Whether any two answers are."""
        scores = self.scores
        return scores is not None and any(a == b for a, b in itertools.pairwise(scores))


@dataclass
class Preferences(Refusals):
    """What a reader found."""

    rows: list[Preference] = field(default_factory=list)
    as_messages: bool = False
    """Whether conversations stay messages."""

    def contradictions(self) -> int:
        """Pairs that some other row has the other way round (people disagree; they are kept)."""
        seen = Counter(
            ((row.prompt, row.messages), row.answers[better], row.answers[worse])
            for row in self.rows
            for better, worse in row.pairs()
        )
        return sum(seen[prompt, worse, better] for prompt, better, worse in seen)

    def add(self, row: Preference) -> None:
        """Keep a row, or refuse it."""
        if any(not answer.strip() for answer in row.answers):
            self.refuse(EMPTY, row.where)
        elif len(set(row.answers)) < len(row.answers):
            self.refuse(IDENTICAL, row.where)
        elif next(row.pairs(), None) is None:
            self.refuse(TIED, row.where)
        else:
            self.rows.append(row)


def read(
    paths: str | Path | Iterable[str | Path],
    *,
    form: Form = "auto",
    min_score_ratio: float = 2.0,
    as_messages: bool = False,
) -> Preferences:
    """Read preferences.

    Forms, told apart by the fields of the first row:

    - pairs: "prompt", "chosen" and "rejected", as text, or as chat messages (lists of {"role", "content"}),
      then with the prompt in a field of its own or as what both begin with. Messages become text as in
      "hh", unless they stay `as_messages`.
    - rankings: "prompt" (text, or messages) and "answers" (texts, the best first), or "answers" and "scores"
      (numbers, higher is better, equal ones tied).
    - hh: Anthropic's helpful and harmless dialogues: "chosen" and "rejected", whole, alike up to an
      "Assistant:" turn.
    - shp: Stanford Human Preferences: "history", "human_ref_A", "human_ref_B", "score_A", "score_B"; pairs
      whose better score is at least `min_score_ratio` times the other (2: Rafailov et al.'s code).
    - tldr: OpenAI's comparisons of summaries: "info", "summaries", "choice".
    - oasst1: Open Assistant's messages, one a row or a tree a row; all ranked answers to a message become
      one ranking, after the whole conversation before them.

    Args:
        paths: JSON lines or Parquet; files, directories and patterns.
        form: one of these, or auto.
        min_score_ratio: see shp.
        as_messages: keep conversations (of pairs, rankings and oasst1) as messages, for a model's chat
            template.

    Returns:
        Rows in the order of the files, and what was refused.

    Raises:
        DataError: naming file and line, for a row of another form; if no row is left.
    """
    from posterhall.data import preference_forms

    if form not in get_args(Form):
        near = did_you_mean(form, get_args(Form))
        raise DataError(f"form is '{form}'; it must be one of {', '.join(get_args(Form))}.{near}")
    if not min_score_ratio >= 1:
        raise DataError(f"min_score_ratio is {min_score_ratio}; it must be at least 1")
    found = Preferences(as_messages=as_messages)
    stream = iter(objects(paths))
    head = next(stream, None)
    if head is None:
        raise DataError(f"{_named(paths)}: no rows; give JSON lines or Parquet with preferences")
    kind = _form_of(head) if form == "auto" else form
    everything = itertools.chain([head], stream)
    if kind == "oasst1":
        preference_forms.open_assistant(everything, found)
    else:
        readers: dict[str, Callable[[Object, Preferences], None]] = {
            "pairs": _pair,
            "rankings": _ranking,
            "hh": preference_forms.helpful_harmless,
            "shp": lambda row, into: preference_forms.stanford(row, into, min_score_ratio),
            "tldr": preference_forms.summaries,
        }
        for row in everything:
            readers[kind](row, found)
    if not found.rows:
        raise DataError(f"{_named(paths)}: no row is of use ({found.reasons() or 'no ranked answers'})")
    return found


def render(messages: Sequence[Mapping[str, str]], where: str) -> str:
    """A conversation as text, in the form of Anthropic's dialogues.

    Args:
        messages: {"role": system, user or assistant, "content": text}, in order.
        where: for messages of errors.

    Returns:
        ``\\n\\nHuman: ...\\n\\nAssistant: ...``, what the system says before it all. A text that itself has
        such a turn in it cannot be told from one, and is an error.
    """
    turns = {"user": HUMAN, "prompter": HUMAN, "assistant": ASSISTANT}
    parts = []
    for number, message in enumerate(messages, 1):
        role, content = message["role"], message["content"]
        if HUMAN in content or ASSISTANT in content:
            raise DataError(
                f"{where}: message {number} has '{HUMAN.strip()}' or '{ASSISTANT.strip()}' in it, "
                "after an empty line, which would be read as another's turn; give prompt and answers as text"
            )
        if role == "system" and number == 1:
            parts.append(content)
        elif role in turns:
            parts.append(f"{turns[role]} {content}")
        else:
            raise DataError(
                f"{where}: message {number} is of role '{role}'; it must be user or assistant, or first and "
                "system"
            )
    return "".join(parts)


def add_conversation(
    before: Sequence[Mapping[str, str]],
    answers: Sequence[str],
    where: str,
    into: Preferences,
    scores: tuple[float, ...] | None = None,
) -> None:
    """Keep a row of chat messages and what the assistant could say next, or refuse it."""
    if into.as_messages:
        roles = {"prompter": "user"}
        messages = tuple((roles.get(each["role"], each["role"]), each["content"]) for each in before)
        into.add(Preference("", tuple(answers), where, scores, messages))
        return
    try:
        prompt = render(before, where) + ASSISTANT
        said = tuple(render([{"role": "assistant", "content": each}], where) for each in answers)
    except DataError:
        into.refuse(UNRENDERED, where)
        return
    into.add(Preference(prompt, tuple(each.removeprefix(ASSISTANT) for each in said), where, scores))


def _form_of(row: Object) -> str:
    names = set(row.fields)
    if {"human_ref_A", "human_ref_B"} <= names:
        return "shp"
    if {"summaries", "choice"} <= names:
        return "tldr"
    if "message_id" in names or ("message_tree_id" in names and isinstance(row.fields.get("prompt"), dict)):
        return "oasst1"
    if {"prompt", "answers"} <= names:
        return "rankings"
    if {"chosen", "rejected"} <= names:
        return "pairs" if "prompt" in names or not isinstance(row.fields["chosen"], str) else "hh"
    raise DataError(
        f"{row.where}: fields {', '.join(sorted(names)[:12]) or '(none)'}; preferences have prompt, chosen "
        "and rejected, or prompt and answers (best first), or the fields of HH, SHP, TL;DR or OASST1. "
        "Rename the fields"
    )


def _pair(row: Object, into: Preferences) -> None:
    chosen, rejected = (value(row, name) for name in ("chosen", "rejected"))
    given = row.fields.get("prompt")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if isinstance(given, list):
            add_conversation(_messages(given, row, "prompt"), [chosen, rejected], row.where, into)
        else:
            into.add(Preference(text(row, "prompt"), (chosen, rejected), row.where))
        return
    one, other = _messages(chosen, row, "chosen"), _messages(rejected, row, "rejected")
    shared = 0
    while shared < min(len(one), len(other)) - 1 and one[shared] == other[shared]:
        shared += 1
    before = one[:shared]
    if isinstance(given, list) and not (before and before == _messages(given, row, "prompt")):
        before = _messages(given, row, "prompt") + before
    elif isinstance(given, str) and not before:
        before = [{"role": "user", "content": given}]
    ends = one[shared:], other[shared:]
    if any(len(each) != 1 or each[0]["role"] != "assistant" for each in ends):
        into.refuse("more than the last answer differs", row.where)
        return
    add_conversation(before, [end[0]["content"] for end in ends], row.where, into)


def _ranking(row: Object, into: Preferences) -> None:
    answers, scores = value(row, "answers"), row.fields.get("scores")
    if not isinstance(answers, list) or len(answers) < 2 or not all(isinstance(a, str) for a in answers):
        raise DataError(f"{row.where}: 'answers' must be a list of two texts or more")
    ordered: tuple[float, ...] | None = None
    if scores is not None:
        if not isinstance(scores, list) or len(scores) != len(answers) or not all(map(_is_number, scores)):
            raise DataError(f"{row.where}: 'scores' must be {len(answers)} finite numbers, one an answer")
        order = sorted(range(len(answers)), key=lambda i: -scores[i])
        answers, ordered = [answers[i] for i in order], tuple(float(scores[i]) for i in order)
    prompt = value(row, "prompt")
    if isinstance(prompt, list):
        add_conversation(_messages(prompt, row, "prompt"), answers, row.where, into, ordered)
    else:
        into.add(Preference(text(row, "prompt"), tuple(answers), row.where, ordered))


def value(row: Object, name: str) -> Any:
    """A field.

    Raises:
        DataError: if it is not there.
    """
    if name not in row.fields:
        near = did_you_mean(name, row.fields) or f" There are: {', '.join(list(row.fields)[:12])}."
        raise DataError(f"{row.where}: no field '{name}'.{near}")
    return row.fields[name]


def text(row: Object, name: str) -> str:
    """A field that is text.

    Raises:
        DataError: if it is not.
    """
    found = value(row, name)
    if not isinstance(found, str):
        raise DataError(f"{row.where}: '{name}' is a {type(found).__name__}; it must be text")
    return found


def _messages(given: Any, row: Object, name: str) -> list[dict[str, str]]:
    def is_message(each: Any) -> bool:
        return isinstance(each, dict) and all(isinstance(each.get(k), str) for k in ("role", "content"))

    if not isinstance(given, list) or not all(map(is_message, given)):
        raise DataError(
            f"{row.where}: '{name}' must be text, or a list of messages "
            '{"role": "user" or "assistant", "content": text}'
        )
    return [{"role": each["role"], "content": each["content"]} for each in given]


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)


def _named(paths: Any) -> str:
    return str(paths) if isinstance(paths, str | Path) else ", ".join(map(str, paths))
