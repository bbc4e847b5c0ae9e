"""A user's own task, declared in a YAML file: prompts as templates and how an answer is checked."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from posterhall.errors import DataError, UsageError
from posterhall.lm.parsing import answer_line, classes, integer
from posterhall.search.protocol import Ask, Check, State, Task, Thoughts
from posterhall.search.tasks import expressions
from posterhall.search.tasks.templates import fenced, fields_of, fill

Checker = Literal["none", "exact", "number", "contains", "regex"]
Pieces = Literal["lines", "reply"]

_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "propose": ("problem", "thoughts", "last", "step"),
    "sample": ("problem", "thoughts", "last", "step"),
    "value": ("problem", "thoughts", "last", "step"),
    "vote": ("problem", "choices"),
    "direct": ("problem",),
    "chain": ("problem",),
    "refine": ("problem", "attempts"),
}
_LONGEST = 20_000
_PIECES = 500
_MARKER = re.compile(r"^\s*(?:[*•-]\s+|\d{1,3}[.)]\s+)")


@dataclass(frozen=True)
class Declaration:
    """What a file declares: prompts as templates, how replies are read, how an answer is checked.

    Templates name {problem} (between tags), {thoughts} (numbered lines), {last}, {step} (from 1), in `vote`
    {choices}, in `refine` {attempts}; {{ and }} are braces. What a field holds is put in as it is. A problem
    is text, or {"problem": ..., "answer": ...} where the answer is known; it is never shown to the model.

    Raises:
        DataError: for a value out of its range, a template with unknown fields, a pattern that is none.
    """

    name: str
    """What it is called."""
    depth: int = 3
    """Most thoughts of a solution, 1 to 50."""
    propose: str | None = None
    """Template that asks for a list of next thoughts."""
    sample: str | None = None
    """Template that asks for one next thought."""
    value: str | None = None
    """Template that asks for the class of a state."""
    vote: str | None = None
    """Template that asks for the number of the best of several states."""
    direct: str | None = None
    """Template that asks for the answer at once."""
    chain: str | None = None
    """Template that asks for thoughts and answer in one go."""
    refine: str | None = None
    """Template that asks for a better answer than the earlier ones."""
    stop: tuple[str, ...] = ()
    """Texts before which replies end."""
    pieces: Pieces = "lines"
    """lines: each line of a reply to `propose` is a thought; reply: all of it is one. A reply to `sample` is
    one thought always."""
    thought: str | None = None
    """Regular expression that a thought must match as a whole; its first group, if any, is the thought."""
    finished: str | None = None
    """Regular expression that tells, found in the last thought, that nothing is to be added."""
    answer: str | None = None
    """Regular expression found in the last thought (or reply): its first group is the answer. None: what
    stands after the last "Answer:", or the last line."""
    classes: tuple[str, ...] = ("sure", "likely", "impossible")
    """Classes that `value` asks for, best first."""
    worths: tuple[float, ...] = (20.0, 1.0, 0.001)
    """What each class is worth, >= 0."""
    check: Checker = "none"
    """How an answer is compared with the known one: exact (but for case, white space and a dot at the end),
    number (equal by value: 1/2 and 0.5), contains (the known answer stands in it), regex (it matches
    `pattern`; no answer need be known), none (nobody can tell)."""
    pattern: str | None = None
    """Regular expression of a right answer as a whole, for check: regex."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", self.name):
            raise DataError(f"name is {self.name!r}; it must be small letters, digits and hyphens")
        if not 1 <= self.depth <= 50:
            raise DataError(f"depth is {self.depth}; it must be from 1 to 50")
        for template, allowed in _TEMPLATES.items():
            text = getattr(self, template)
            if text is not None and "problem" not in fields_of(text, allowed, template):
                raise DataError(f"{template} does not name {{problem}}, so the model would not see it")
        if not any((self.propose, self.sample, self.direct, self.chain)):
            raise DataError(f"{self.name} has no prompt; give one of propose, sample, direct, chain")
        for name in ("thought", "finished", "answer", "pattern"):
            self._expression(name)
        if len(self.classes) != len(self.worths) or not self.classes:
            raise DataError(f"{len(self.classes)} classes and {len(self.worths)} worths; give one for each")
        if len({each.casefold().strip() for each in self.classes}) < len(self.classes) or "" in self.classes:
            raise DataError(f"classes is {list(self.classes)}; they must differ and not be empty")
        if not all(0 <= each < math.inf for each in self.worths):
            raise DataError(f"worths is {list(self.worths)}; they must be 0 or above")
        if (self.check == "regex") != (self.pattern is not None):
            raise DataError("check: regex goes with a pattern, and a pattern with check: regex")

    def _expression(self, name: str) -> None:
        text = getattr(self, name)
        try:
            groups = 0 if text is None else re.compile(text).groups
        except re.error as error:
            raise DataError(f"{name} is {text!r}, no regular expression: {error}") from None
        if name == "answer" and text is not None and not groups:
            raise DataError(f"answer is {text!r}; it needs a group, as in 'total: (.*)'")


class DeclaredTask(Task):
    """A task made from a declaration: prompts, patterns and a checker, no code.

    Args:
        declared: what the file says.
        problem: one problem; None: any.

    Raises:
        DataError: if the problem is none.
    """

    def __init__(self, declared: Declaration, problem: str | None = None) -> None:
        self.declared = declared
        self.name = declared.name
        self.depth = declared.depth
        self.grades = dict(zip(declared.classes, declared.worths, strict=True))
        self.checkable = declared.check == "regex"
        self.problem = None if problem is None else self.read(problem)

    # -- problems ---------------------------------------------------------------------------------

    def read(self, text: str) -> str:
        """Canonical JSON, {"problem": ...} with "answer" where it is known.

        Raises:
            DataError: if it is empty or too long, or JSON of another form.
        """
        if not any(map(str.isprintable, text.strip())) or len(text) > _LONGEST:
            raise DataError(f"a problem of {len(text):,} characters; allowed are 1 to {_LONGEST:,}")
        value: object = {"problem": text.strip()}
        if text.lstrip().startswith("{"):
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(text)
        if not isinstance(value, dict) or not {"problem"} <= value.keys() <= {"problem", "answer"}:
            raise DataError(
                f'{text[:60]!r} is no problem; write {{"problem": "...", "answer": "..."}}, or text'
            )
        if not all(isinstance(each, str | int | float) and str(each).strip() for each in value.values()):
            raise DataError(f"{text[:60]!r}: problem and answer must be texts or numbers that are not empty")
        return json.dumps(
            {name: str(value[name]) for name in sorted(value, reverse=True)}, ensure_ascii=False
        )

    def check(self, problem: str, answer: str | None) -> Check:
        """As `check` of the declaration says."""
        how, known = self.declared.check, _known(problem)
        if answer is None:
            return Check(False, 0.0, "there is no answer")
        given = answer.strip()[:_LONGEST]
        if how == "regex":
            right = re.fullmatch(self.declared.pattern or "", given) is not None
            return Check(right, float(right), "right" if right else "it does not match the pattern")
        if how == "none" or known is None:
            return Check(False, 0.0, "the answer is not known")
        if how == "number":
            ours, theirs = _value(given), _value(known)
            right = ours is not None and ours == theirs
        elif how == "contains":
            right = _bare(known) in _bare(given)
        else:
            right = _bare(known) == _bare(given)
        return Check(right, float(right), "right" if right else f"it is not {_bare(known)[:60]}")

    # -- states -----------------------------------------------------------------------------------

    def key(self, state: State) -> Hashable:
        """The thoughts, but for case and white space."""
        return state.problem, tuple(map(_bare, state.thoughts))

    def finished(self, state: State) -> bool:
        """Whether the last thought says so, or there are as many as may be."""
        if (
            state.thoughts
            and self.declared.finished
            and re.search(self.declared.finished, state.thoughts[-1])
        ):
            return True
        return len(state.thoughts) >= self.depth

    def answer(self, state: State) -> str | None:
        """The answer in the last thought of a finished state."""
        return self._answer(state.thoughts[-1]) if state.thoughts and self.finished(state) else None

    # -- asking -----------------------------------------------------------------------------------

    def propose(self, state: State) -> Ask:
        """Asks for a list of next thoughts."""
        return self._of_state("propose", state)

    def sample(self, state: State) -> Ask:
        """Asks for one next thought."""
        return self._of_state("sample", state)

    def thoughts(self, state: State, reply: str) -> Thoughts:
        """The pieces of a reply that are thoughts: with a template to propose, as `pieces` says."""
        lines = self.declared.pieces == "lines" and self.declared.propose is not None
        pieces = [each for each in (reply.split("\n") if lines else [reply]) if each.strip()]
        found: dict[str, None] = {}
        unread = max(0, len(pieces) - _PIECES)
        for piece in pieces[:_PIECES]:
            text = (_MARKER.sub("", piece, count=1) if lines else piece).strip()
            if self.declared.thought is not None:
                match = re.fullmatch(self.declared.thought, text[:_LONGEST])
                text = "" if match is None else (match[1] if match.re.groups else match[0]) or ""
            if text and len(text) <= _LONGEST:
                found[text] = None
            else:
                unread += 1
        return Thoughts(tuple(found), unread)

    def value(self, state: State) -> Ask:
        """Asks for the class of a state."""
        return self._of_state("value", state)

    def grade(self, state: State, reply: str) -> str | None:
        """The class that ends a reply."""
        return classes(reply, self.declared.classes).value

    def vote(self, states: Sequence[State]) -> Ask:
        """Asks for the number of the best state."""
        choices = "\n\n".join(
            f"Choice {number}:\n{fenced(_numbered(state.thoughts), 'choice')}"
            for number, state in enumerate(states, 1)
        )
        return self._filled("vote", states[0].problem, choices=choices)

    def choice(self, states: Sequence[State], reply: str) -> int | None:
        """The number in a reply."""
        number = integer(reply, 1, len(states)).value
        return None if number is None else number - 1

    def direct(self, problem: str) -> Ask:
        """Asks for the answer at once."""
        return self._filled("direct", problem)

    def chain(self, problem: str) -> Ask:
        """Asks for thoughts and answer in one go."""
        return self._filled("chain", problem)

    def refine(self, problem: str, attempts: Sequence[tuple[str, Check]]) -> Ask:
        """Asks for a better answer. Of a wrong one no more is told than that it is wrong."""
        said = "\n".join(
            f"{number}. {answer[:2000]} (wrong)" for number, (answer, _) in enumerate(attempts, 1)
        )
        return self._filled("refine", problem, attempts=said)

    def conclude(self, problem: str, reply: str) -> str | None:
        """The answer in a reply."""
        return self._answer(reply)

    def _answer(self, text: str) -> str | None:
        if self.declared.answer is not None:
            found = list(re.finditer(self.declared.answer, text[-_LONGEST:]))
            return (found[-1][1] or "").strip() or None if found else None
        return answer_line(text).value

    def _of_state(self, template: str, state: State) -> Ask:
        return self._filled(
            template,
            state.problem,
            thoughts=_numbered(state.thoughts),
            last=state.thoughts[-1] if state.thoughts else "",
            step=str(len(state.thoughts) + 1),
        )

    def _filled(self, template: str, problem: str, **given: str) -> Ask:
        text = getattr(self.declared, template)
        if text is None:
            has = ", ".join(each for each in _TEMPLATES if getattr(self.declared, each) is not None)
            raise UsageError(f"the task {self.name} has no template '{template}'; it has {has}")
        shown = fenced(json.loads(problem)["problem"], "problem")
        return Ask(fill(text, {"problem": shown, **given}), stop=self.declared.stop)


def _known(problem: str) -> str | None:
    known = json.loads(problem).get("answer")
    return None if known is None else str(known)


def _value(text: str) -> object:
    """The number that a text is: its last word if it has several, without currency and thousands' commas."""
    word = re.sub(r"(?<=\d),(?=\d{3})", "", text.strip()).strip(" $€£%.*").split()[-1:]
    try:
        return expressions.read(word[0]).value if word else None
    except DataError:
        return None


def _bare(text: str) -> str:
    return " ".join(text.split()).strip(" .").casefold()


def _numbered(thoughts: Sequence[str]) -> str:
    return "\n".join(f"{number}. {thought}" for number, thought in enumerate(thoughts, 1))
