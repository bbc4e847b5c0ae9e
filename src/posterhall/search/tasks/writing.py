"""Creative writing under a constraint that can be checked (Yao et al. 2023, §4.2): a plan, then a passage."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from posterhall.errors import DataError
from posterhall.lm.parsing import integer
from posterhall.lm.protocol import LM, Request
from posterhall.search.protocol import Ask, Check, State, Task, Thoughts
from posterhall.search.tasks.templates import fenced, fill, prompt
from posterhall.seeds import derive

MOST = 8
_LONGEST = 20_000
_ABBREVIATIONS = frozenset(
    (
        *("mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "etc", "e.g", "i.e", "a.m", "p.m", "no"),
        *("vol", "fig", "al", "inc", "ltd", "co", "gen", "col", "lt", "sgt", "rev", "capt"),
    )
)
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?=\s|$)")
_PLAN = re.compile(r"^[^\w\n]{0,8}plan[^\w\n]{0,4}:[*_]{0,4}", re.IGNORECASE | re.MULTILINE)
_PASSAGE = re.compile(r"^[^\w\n]{0,8}passage[^\w\n]{0,4}:[*_]{0,4}", re.IGNORECASE | re.MULTILINE)
_CHOICE = re.compile(r"best\s+choice\s+is\W{0,5}(?:choice\W{0,3})?(\d{1,4})(?!\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Writing(Task):
    """Write a passage whose paragraphs end with given sentences: first a plan, then the passage.

    Thoughts are sampled and voted on. The constraint is checked by rule, which the paper's score of
    coherence leaves out (of its passages 61 to 78 % keep it); coherence is for a model to judge: see
    `coherence`.
    """

    problem: str | None = None
    """The sentences, one a line or in one line; none: any."""

    name = "writing"
    depth = 2

    def __post_init__(self) -> None:
        if self.problem is not None:
            object.__setattr__(self, "problem", self.read(self.problem))

    def read(self, text: str) -> str:
        """The sentences in canonical form, one a line.

        Raises:
            DataError: if there is none, or there are too many.
        """
        if len(text) > _LONGEST:
            raise DataError(f"a problem of {len(text):,} characters; at most {_LONGEST:,} are read")
        printed = (
            "".join(char if char.isprintable() else " " for char in line) for line in text.splitlines()
        )
        lines = [" ".join(line.split()) for line in printed if line.strip()]
        found = lines if len(lines) > 1 else sentences(lines[0]) if lines else []
        if not 1 <= len(found) <= MOST:
            raise DataError(f"{text[:60]!r} has {len(found)} sentences; give 1 to {MOST}, one a line")
        return "\n".join(found)

    def check(self, problem: str, answer: str | None) -> Check:
        """Whether there are as many paragraphs as sentences, each ending with its own, word for word.

        Case, quotes and white space do not matter.
        """
        wanted = problem.split("\n")
        found = paragraphs(answer or "")
        ends = sum(
            _bare(paragraph).endswith(_bare(sentence))
            for paragraph, sentence in zip(found, wanted, strict=False)
        )
        share, exact = ends / len(wanted), len(found) == len(wanted)
        parts = {"paragraphs": float(exact), "endings": share}
        if exact and ends == len(wanted):
            return Check(True, 1.0, "each paragraph ends with its sentence", parts)
        why = f"{len(found)} paragraphs of {len(wanted)}, {ends} of which end with their sentence"
        return Check(False, share * (1.0 if exact else 0.5), why, parts)

    def answer(self, state: State) -> str | None:
        """The passage."""
        return state.thoughts[1] if len(state.thoughts) > 1 else None

    def sample(self, state: State) -> Ask:
        """Asks for a plan; then, given the plan, for the passage (temperature 1, as in the paper)."""
        task = self._task(state.problem)
        if not state.thoughts:
            return Ask(f"{task}\n\n{prompt('writing/plan')}", stop=("\nPassage:\n",), temperature=1.0)
        return Ask(
            f"{task}\n\n{fill(prompt('writing/passage'), {'plan': state.thoughts[0]})}", temperature=1.0
        )

    def thoughts(self, state: State, reply: str) -> Thoughts:
        """The plan, or the passage, in a reply."""
        text = _after(_PASSAGE, reply) if state.thoughts else _PASSAGE.split(_after(_PLAN, reply))[0]
        text = text.strip()[:_LONGEST]
        return Thoughts((text,) if text else (), 0 if text else 1)

    def vote(self, states: Sequence[State]) -> Ask:
        """Asks which plan, or passage, is the most promising."""
        choices = "\n\n".join(
            f"Choice {number}:\n{fenced(state.thoughts[-1] if state.thoughts else '', 'choice')}"
            for number, state in enumerate(states, 1)
        )
        what = "passages" if len(states[0].thoughts) > 1 else "plans"
        fields = {"what": what, "task": self._task(states[0].problem), "choices": choices}
        return Ask(fill(prompt("writing/vote"), fields))

    def choice(self, states: Sequence[State], reply: str) -> int | None:
        """The last "The best choice is N" of a reply, or a number that stands alone."""
        if said := _CHOICE.findall(reply[-_LONGEST:]):
            number: int | None = int(said[-1])
        else:
            number = integer(reply, 1, len(states)).value
        return number - 1 if number is not None and 1 <= number <= len(states) else None

    def direct(self, problem: str) -> Ask:
        """Asks for the passage at once."""
        return Ask(f"{self._task(problem)}\n\nPassage:\n", temperature=1.0)

    def chain(self, problem: str) -> Ask:
        """Asks for a plan and the passage in one reply."""
        return Ask(f"{self._task(problem)}\n\n{prompt('writing/plan')}", temperature=1.0)

    def refine(self, problem: str, attempts: Sequence[tuple[str, Check]]) -> Ask:
        """Asks for a better passage, given the earlier ones and what the check said."""
        said = "\n\n".join(f"{fenced(text, 'attempt')}\nWrong: {check.why}" for text, check in attempts)
        return Ask(
            f"{self._task(problem)}\n\n{fill(prompt('writing/refine'), {'attempts': said})}", temperature=1.0
        )

    def conclude(self, problem: str, reply: str) -> str | None:
        """What stands after "Passage:", or the whole reply."""
        return _after(_PASSAGE, reply).strip()[:_LONGEST] or None

    def _task(self, problem: str) -> str:
        wanted = problem.split("\n")
        given = "\n".join(f"{i}. {each}" for i, each in enumerate(wanted, 1))
        return fill(
            prompt("writing/write"), {"count": str(len(wanted)), "sentences": fenced(given, "sentences")}
        ).rstrip("\n")


async def coherence(lm: LM, passages: Sequence[str], *, votes: int = 5, seed: int = 0) -> list[float | None]:
    """How coherent a model finds passages, 1 to 10: means of several replies (the paper takes five).

    Args:
        lm: the judge.
        passages: what to judge.
        votes: replies to each, >= 1.
        seed: of the replies.

    Returns:
        For each passage the mean of the replies that could be read; None if there was none.
    """
    prompts = [fill(prompt("writing/coherence"), {"passage": fenced(each, "passage")}) for each in passages]
    requests = [
        Request(each, max_tokens=400, temperature=0.7, n=votes, seed=derive(seed, "coherence", each))
        for each in prompts
    ]
    means: list[float | None] = []
    for samples in await lm.agenerate(requests):
        read = [integer(sample.text, 1, 10).value for sample in samples]
        known = [each for each in read if each is not None]
        means.append(math.fsum(known) / len(known) if known else None)
    return means


def sentences(text: str) -> list[str]:
    """Cut a line into sentences: after . ! ? or … (quotes included) before white space, but not after an
    abbreviation, an initial or a number's dot with a small letter following."""
    found, begin = [], 0
    for match in _END.finditer(text):
        end = match.end()
        word = text[begin : match.start()].rsplit(maxsplit=1)[-1:] or [""]
        last = word[0].lower().lstrip("\"'“‘([")
        follows = text[end:].lstrip()[:1]
        stops = match[0].startswith(".") and len(match[0].rstrip("\"'”’)]")) == 1
        if stops and (last in _ABBREVIATIONS or (len(last) == 1 and last.isalpha() and last != "i")):
            continue
        if follows.islower() and stops:
            continue
        found.append(text[begin:end].strip())
        begin = end
    if rest := text[begin:].strip():
        found.append(rest)
    return found


def paragraphs(text: str) -> list[str]:
    """Paragraphs: what stands between blank lines; lines, if there is no blank one."""
    text = text.strip()
    parts = re.split(r"\n\s*\n", text) if re.search(r"\n\s*\n", text) else text.split("\n")
    return [each.strip() for each in parts if each.strip()]


def _after(label: re.Pattern[str], reply: str) -> str:
    """What follows the first line that begins with a label; all of it if there is none."""
    match = label.search(reply)
    return reply[match.end() :] if match else reply


def _bare(text: str) -> str:
    """Text without what does not matter at its end, in one spelling."""
    text = text.translate(str.maketrans("“”‘’", "\"\"''"))
    return " ".join(text.split()).rstrip("\"'*_ ").rstrip(".!?…").lower()
