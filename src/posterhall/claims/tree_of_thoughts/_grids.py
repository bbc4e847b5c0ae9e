"""Grids of words, and a model of their lexicon whose errors are known: what is searched depth first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from posterhall.claims.rows import Budget, Row, Scalar
from posterhall.claims.tree_of_thoughts._bench import Bench
from posterhall.lm import stack
from posterhall.lm.protocol import LM, Request, Sample, transcript
from posterhall.search.settings import SearchSettings
from posterhall.search.solution import Solution
from posterhall.search.tasks.crosswords import fits
from posterhall.search.tasks.word_grid import Lexicon, WordGrid, compact_lesson
from posterhall.seeds import generator


@contextlib.contextmanager
def bench(params: Mapping[str, Scalar], budget: Budget, seed: int) -> Iterator[Bench]:
    """The bench of a claim: a lexicon, grids and what the oracle says, drawn by the seed; or, where
    ``model=`` names a model, that model, the same grids for every seed, and seeds of the sampling."""
    address = params.get("model")
    lexicon = Lexicon(seed=seed if address is None else 0)
    problems = tuple(lexicon.puzzles(budget.grids, seed=lexicon.seed))
    settings = SearchSettings(method="dfs", votes=1, states=budget.states, use_worth=False, seed=seed)
    if address is not None:
        with stack.connect(str(address)) as lm:
            yield Bench(lm, WordGrid(), problems, settings)
        return
    oracle = Oracle(lexicon.words, forgets=budget.forgets, errs=budget.errs)
    yield Bench(oracle, WordGrid(style="compact"), problems, settings)


def row(arm: str, seed: int, solutions: Sequence[Solution]) -> Row:
    """Means over all grids: "words", the share of words that are right in the grid that was given; "games",
    of grids without an error; "visited", states."""
    count = len(solutions)
    return Row(
        arm,
        seed,
        words=sum(each.check.score for each in solutions) / count,
        games=sum(each.solved for each in solutions) / count,
        visited=sum(len(each.answers) for each in solutions) / count,
        calls=sum(each.usage.calls for each in solutions) / count,
    )


class Oracle(LM):
    """Answers the one-line prompts of word grids, rightly but for a share of them that is drawn.

    A clue's words come in a random order, each left out with probability `forgets`; with probability `errs`
    what is said of a pattern is what would be said of another case: impossible of one that has words, maybe
    of one that has none.

    Args:
        words: of each clue.
        forgets: in [0, 1].
        errs: in [0, 1].
    """

    name = "oracle"

    def __init__(self, words: Mapping[str, Sequence[str]], *, forgets: float, errs: float) -> None:
        self._words = words
        self._forgets = forgets
        self._errs = errs

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [[self._answer(each, each.first + i) for i in range(each.n)] for each in requests]

    def _answer(self, request: Request, number: int) -> Sample:
        kind, clue, *letters = transcript(request.prompt).rstrip(" :").split()
        rng = generator(request.seed or 0, "oracle", number)
        pattern, words = "".join(letters), self._words[clue]
        if kind == "words":
            kept = [words[place] for place in rng.permutation(len(words)).tolist()]
            kept = [word for word in kept if rng.random() >= self._forgets]
            _, said = compact_lesson(kind, clue, pattern, kept)
        else:
            _, said = compact_lesson(kind, clue, pattern, words)
            if rng.random() < self._errs:
                said = " impossible" if any(fits(word, pattern) for word in words) else " maybe"
        return Sample(said.strip(), "stop", tokens_in=3 + len(letters), tokens_out=len(said.split()))
