"""The Game of 24 and its relatives: any numbers, any target, also modulo a number (Yao et al. 2023, §4.1)."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from posterhall.errors import DataError
from posterhall.lm.parsing import answer_line, classes
from posterhall.search.protocol import Ask, Check, State, Task, Thoughts
from posterhall.search.tasks import compact, expressions, worked
from posterhall.search.tasks.moves import OPERATORS, Move, Number, Numbers, Rules, expression, move, shown
from posterhall.search.tasks.templates import fill, prompt

Style = Literal["plain", "compact"]

MOST_NUMBERS = 8
_PIECES = 500
"""Pieces of a reply that are looked at; the rest count as unread."""
_SOLVED = 1000.0
"""The worth of a state in which the target alone is left: above whatever votes give."""
_NUMBER = r"\(?(-?[0-9]{1,12}(?:\.[0-9]{1,12}|/[0-9]{1,12})?)\)?"
_MOVE = re.compile(
    rf"\s*(?:[*•-]\s+|[0-9]{{1,3}}[.)]\s+|step\s+[0-9]{{1,3}}[:.)]\s*)?{_NUMBER}\s*([-+*/])\s*{_NUMBER}\s*={{1,2}}\s*"
    rf"{_NUMBER}\s*(?:[,;.]?\s*[(\[]?\s*(?:left|remaining)\b.*|[.,;]?\s*)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Game24(Task):
    """Make the target of some numbers, each used exactly once: `Game24("4 9 10 13")`.

    A thought is a move, "4 + 9 = 13 (left: 10 13 13)": it is legal if it takes two numbers that are left
    and its arithmetic is right; what is left is reckoned here, whatever the model says. The answer of a
    finished state is built from its moves without asking a model.

    Raises:
        DataError: for a value out of its range.
    """

    problem: str | None = None
    """The puzzle, as 4 9 10 13; none: any."""
    target: int = 24
    """What is to be made."""
    count: int | None = None
    """Most numbers of a puzzle, 2 to 8; none: as many as the puzzle has, or 4."""
    operators: str | None = None
    """Some of + - * /; none: all, or + - * with a modulus."""
    modulus: int | None = None
    """Reckon modulo this, >= 2, with + - * only; none: with rationals."""
    style: Style = "plain"
    """plain: prompts with worked examples; compact: one line each, for a small model that was trained on
    such lines."""
    original: bool = False
    """As the code of the paper's authors: a fourth step asks a model for the answer, thoughts are lines of
    text that nobody verifies, and an answer is what the last line says."""

    name = "game24"

    def __post_init__(self) -> None:
        if self.style not in ("plain", "compact"):
            raise DataError(f"style is {self.style!r}; allowed are plain and compact")
        if self.original and (self.style == "compact" or self.modulus is not None):
            raise DataError("original goes with style=plain and without a modulus: so it was")
        if self.count is not None and not 2 <= self.count <= MOST_NUMBERS:
            raise DataError(f"count is {self.count}; a puzzle has 2 to {MOST_NUMBERS} numbers")
        _ = self.rules  # checks its settings
        if self.problem is not None:
            object.__setattr__(self, "problem", self.read(self.problem))
        object.__setattr__(self, "depth", self._count - 1 + self.original)

    @functools.cached_property
    def rules(self) -> Rules:
        """What the game allows."""
        all_of_them = OPERATORS if self.modulus is None else OPERATORS.replace("/", "")
        return Rules(self.target, self.operators or all_of_them, self.modulus)

    @property
    def _count(self) -> int:
        return self.count or (len(self.problem.split()) if self.problem is not None else 4)

    # -- problems ---------------------------------------------------------------------------------

    def read(self, text: str) -> str:
        """A puzzle in canonical form: its numbers in order, between single spaces.

        Raises:
            DataError: if it is none.
        """
        words = re.split(r"[\s,;]+", text.strip()[:400])
        most = self.count or (MOST_NUMBERS if self.problem is not None else 4)
        try:
            numbers = tuple(sorted(map(expressions.number, words)))
        except DataError as error:
            raise DataError(f"{text[:80]!r} is no puzzle, which reads as 4 9 10 13: {error}") from None
        if not 2 <= len(numbers) <= most:
            more = "" if self.count else "; for more, set count"
            raise DataError(
                f"the puzzle {text[:80]!r} has {len(numbers)} numbers; allowed are 2 to {most}{more}"
            )
        if self.modulus is not None:
            for each in numbers:
                if not (isinstance(each, int) and 0 <= each < self.modulus):
                    raise DataError(
                        f"{shown(each)} in {text[:80]!r}: modulo {self.modulus} numbers are below that"
                    )
        return worked.spaced(numbers)

    def check(self, problem: str, answer: str | None) -> Check:
        """Whether an expression uses exactly the numbers of the puzzle and makes the target."""
        if answer is None:
            return Check(False, 0.0, "there is no answer")
        if self.original:
            answer = answer.strip().split("\n")[-1].lower().replace("answer: ", "").split("=")[0]
        try:
            found = expressions.read(answer)
        except DataError as error:
            return Check(False, 0.0, str(error))
        given = Counter(_numbers(problem))
        used = Counter(re.findall(r"\d+", answer)) if self.original else Counter(found.numbers)
        if self.original:
            if used != Counter(re.findall(r"\d+", problem)):
                return Check(False, 0.0, f"the numbers are not {problem}")
        elif used != given and (min(given) < 0 or Counter(map(abs, found.numbers)) != given):
            return Check(
                False, 0.0, f"it uses {worked.spaced(tuple(sorted(used.elements())))}, not {problem}"
            )
        if barred := sorted((set(found.text) & set("+*/")) - set(self.rules.operators)):
            return Check(False, 0.0, f"it uses {barred[0]}, and the operators are {self.rules.operators}")
        value = found.value
        if self.modulus is not None and isinstance(value, int):
            value %= self.modulus
        if value != self.target:
            return Check(False, 0.0, f"it makes {shown(value)}, not {self.target}")
        return Check(True, 1.0, f"right: {found.text} = {self.target}")

    # -- states -----------------------------------------------------------------------------------

    def key(self, state: State) -> Hashable:
        """The numbers that are left."""
        return (state.problem, state.thoughts) if self.original else (state.problem, self.left(state))

    def left(self, state: State) -> Numbers:
        """The numbers that are left, sorted."""
        path = _path(self.rules, state.problem, state.thoughts)
        return path[-1].rest if path else _numbers(state.problem)

    def finished(self, state: State) -> bool:
        """Whether one number is left (the original code: after the fourth step)."""
        return len(state.thoughts) >= self.depth if self.original else len(self.left(state)) == 1

    def answer(self, state: State) -> str | None:
        """The expression that the moves make."""
        if not self.finished(state):
            return None
        if self.original:
            return state.thoughts[-1]
        path = _path(self.rules, state.problem, state.thoughts)
        return f"{expression(path)} = {shown(path[-1].result)}"

    def worth(self, state: State) -> float | None:
        """Of a finished state: whether its number is the target. The original gives 0 to four lines without
        an answer."""
        if self.original:
            said = "\n".join(state.thoughts)
            return 0.0 if len(said.strip().split("\n")) == 4 and "answer" not in said.lower() else None
        left = self.left(state)
        return None if len(left) > 1 else _SOLVED if left[0] == self.target else 0.0

    def remaining(self, state: State) -> float:
        """Moves until one number is left."""
        return float(len(self.left(state)) - 1) if not self.original else super().remaining(state)

    # -- generating -------------------------------------------------------------------------------

    def propose(self, state: State) -> Ask:
        """Asks for moves, given the numbers that are left and nothing else (paper, §4.1)."""
        if self.style == "compact":
            return Ask(compact.prompt("moves", self.left(state)), max_tokens=112)
        if self.original and self._said(state) == str(self.target):
            return self._chain(state.problem, state.thoughts)
        return self._ask(
            "propose",
            worked.proposals(self.rules, max(3, self._count)),
            numbers=self._said(state) if self.original else worked.spaced(self.left(state)),
        )

    def sample(self, state: State) -> Ask:
        """Asks for one move: the next step of a chain of thought."""
        if self.style == "compact":
            return Ask(compact.prompt("move", self.left(state)), max_tokens=24)
        chain = self._chain(state.problem, state.thoughts)
        return Ask(chain.prompt, stop=("\n", *chain.stop))

    def thoughts(self, state: State, reply: str) -> Thoughts:
        """The legal moves in a reply, one a line (or between semicolons)."""
        if self.original:
            return Thoughts(tuple(reply.split("\n")))
        pieces = [each for each in re.split(r"[\n;]", reply) if each.strip()]
        found: dict[str, None] = {}
        unread = max(0, len(pieces) - _PIECES)
        numbers = self.left(state)
        for piece in pieces[:_PIECES]:
            made = _move_in(piece, numbers, self.rules)
            if made is None:
                unread += 1
            else:
                found[str(made)] = None
        return Thoughts(tuple(found), unread)

    # -- evaluating -------------------------------------------------------------------------------

    def value(self, state: State) -> Ask:
        """Asks whether the target can be reached from the numbers that are left; of a finished state,
        whether its answer is right."""
        if self.original:
            last = _last(state)
            if "left: " not in last:
                return self._judge(state.problem, last.lower().replace("answer: ", ""))
            return self._ask("value", worked.values(self.rules), numbers=self._said(state))
        if self.style == "compact":
            return Ask(compact.prompt("value", self.left(state)), max_tokens=2)
        if self.finished(state):
            return self._judge(state.problem, self.answer(state) or "")
        return self._ask("value", worked.values(self.rules), numbers=worked.spaced(self.left(state)))

    def grade(self, state: State, reply: str) -> str | None:
        """The class that ends the reply; the original takes its last line to the letter."""
        if self.original:
            last = reply.split("\n")[-1]
            return last if last in self.grades else None
        found = classes(reply, [*self.grades, "maybe"]).value
        return "likely" if found == "maybe" else found  # as the paper has it; its prompt has "likely"

    # -- without search ---------------------------------------------------------------------------

    def direct(self, problem: str) -> Ask:
        """Asks for the answer, after five examples."""
        if self.style == "compact":
            return super().direct(problem)
        return self._ask("direct", worked.answers(self.rules, self._count), numbers=problem)

    def chain(self, problem: str) -> Ask:
        """Asks for all steps and the answer, after five examples."""
        if self.style == "compact":
            return Ask(compact.prompt("solve", _numbers(problem)), max_tokens=96)
        return self._chain(problem, ())

    def refine(self, problem: str, attempts: Sequence[tuple[str, Check]]) -> Ask:
        """Asks for another answer, given the earlier ones and what was wrong with them."""
        if self.style == "compact":
            return super().refine(problem, attempts)
        said = "\n".join(
            f"Answer: {' '.join(answer.split())[:200]}\nWrong: {check.why}" for answer, check in attempts
        )
        return self._ask("refine", worked.answers(self.rules, self._count), numbers=problem, attempts=said)

    def conclude(self, problem: str, reply: str) -> str | None:
        """The answer after "Answer:", or what the steps of the reply amount to."""
        if self.original:
            return reply.strip() or None
        parsed = answer_line(reply)
        said = parsed.value if self.style == "plain" else None
        if said is not None and parsed.how == "labelled":
            return _spelled(said)
        path: list[Move] = []
        numbers = _numbers(problem)
        for piece in re.split(r"[\n;]", reply)[:_PIECES]:
            made = _move_in(piece, numbers, self.rules)
            if made is not None:
                path.append(made)
                numbers = made.rest
        if path and len(numbers) == 1:
            return expression(path)
        return None if said is None else _spelled(said)

    # -- prompts ----------------------------------------------------------------------------------

    def _ask(self, name: str, examples: str, **fields: str) -> Ask:
        operators = " ".join(self.rules.operators)
        if self.modulus is not None:
            operators += f" modulo {self.modulus}"
        given = {"operators": operators, "target": str(self.target), "examples": examples, **fields}
        return Ask(fill(prompt(f"game24/{name}"), given), stop=("\nInput:",))

    def _chain(self, problem: str, steps: Sequence[str]) -> Ask:
        given = "".join(f"{each}\n" for each in steps)
        examples = worked.chains(self.rules, self._count)
        return self._ask("chain", examples, numbers=problem, steps=given)

    def _judge(self, problem: str, answer: str) -> Ask:
        examples = worked.judgements(self.rules, self._count)
        return self._ask("judge", examples, numbers=problem, answer=" ".join(answer.split())[:200])

    def _said(self, state: State) -> str:
        """What the original takes for the numbers that are left: what stands behind "left: "."""
        last = _last(state) or state.problem
        return last.split("left: ")[-1].split(")")[0]


def _last(state: State) -> str:
    return "\n".join(state.thoughts).strip().split("\n")[-1]


def _spelled(answer: str) -> str | None:
    """An answer in its one spelling; as it is, if it cannot be read."""
    try:
        return expressions.read(answer).text
    except DataError:
        return answer[: expressions.LONGEST] or None


@functools.lru_cache(maxsize=1 << 12)
def _numbers(problem: str) -> Numbers:
    return tuple(sorted(map(expressions.number, problem.split())))


@functools.lru_cache(maxsize=1 << 16)
def _path(rules: Rules, problem: str, thoughts: tuple[str, ...]) -> tuple[Move, ...]:
    """The moves of a state.

    Raises:
        DataError: if a thought is no legal move, which only a caller's own state can have.
    """
    if not thoughts:
        return ()
    before = _path(rules, problem, thoughts[:-1])
    made = _move_in(thoughts[-1], before[-1].rest if before else _numbers(problem), rules)
    if made is None:
        raise DataError(f"{thoughts[-1]!r} is no legal move here; thoughts come from `Game24.thoughts`")
    return (*before, made)


def _move_in(piece: str, numbers: Numbers, rules: Rules) -> Move | None:
    """The legal move that a piece of text is; None if it is none."""
    if len(piece) > expressions.LONGEST:
        return None
    match = _MOVE.fullmatch(expressions.plain_signs(piece).strip(" *_"))
    if match is None:
        return None
    left, right = _among(match[1], numbers), _among(match[3], numbers)
    if left is None or right is None:
        return None
    made = move(numbers, left, match[2], right, rules)
    return made if made is not None and _same(match[4], made.result) else None


def _among(said: str, numbers: Numbers) -> Number | None:
    """The number that is meant: exactly, or as one that rounds to what was said."""
    return next((each for each in numbers if _same(said, each)), None)


def _same(said: str, exact: Number) -> bool:
    """Whether a number is what was said; 0.91 is said of 10/11, which has no end."""
    try:
        value = expressions.number(said)
    except DataError:
        return False
    digits = len(said.partition(".")[2])
    near = Fraction(1, 2 * 10**digits)
    return value == exact or (digits >= 2 and exact - near <= value <= exact + near)
