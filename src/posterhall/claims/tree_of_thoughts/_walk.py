"""Finding the way through one maze: the task, the model that has seen shortest ways, and one that wanders."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posterhall.data.synthetic.mazes import Maze
from posterhall.errors import DataError
from posterhall.lm.protocol import LM, Request, Sample, transcript
from posterhall.search.protocol import Ask, Check, State, Task, Thoughts
from posterhall.seeds import derive, generator
from posterhall.train.small import SmallSettings, small_model

_LESSONS = 20_000


@dataclass(frozen=True)
class Walk(Task):
    """Go from one cell to another: a problem is "3 27", a thought the next cell, an answer the way."""

    maze: Maze

    name = "maze"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", len(self.maze.neighbours))

    def read(self, text: str) -> str:
        """Two different cells of the maze.

        Raises:
            DataError: if it is something else.
        """
        words, cells = text.split(), len(self.maze.neighbours)
        if len(words) != 2 or len(set(words)) != 2 or not all(_is_cell(each, cells) for each in words):
            raise DataError(f"{text[:60]!r} is no way to be found; give two cells from 0 to {cells - 1}")
        return " ".join(words)

    def check(self, problem: str, answer: str | None) -> Check:
        """Whether a way goes from cell to neighbouring cell, from the start to the goal."""
        start, goal = map(int, problem.split())
        words = (answer or "").split()
        if not words or not all(_is_cell(each, len(self.maze.neighbours)) for each in words):
            return Check(False, 0.0, "that is no way of cells")
        way = [start, *map(int, words)]
        for here, there in itertools.pairwise(way):
            if there not in self.maze.neighbours[here]:
                return Check(False, 0.0, f"there is a wall between {here} and {there}")
        if way[-1] != goal:
            return Check(False, 0.0, f"it ends in {way[-1]}, not {goal}")
        return Check(True, 1.0, f"{len(words)} steps")

    def key(self, state: State) -> Hashable:
        """The cell that was reached."""
        return state.problem, _here(state)

    def finished(self, state: State) -> bool:
        """Whether that is the goal."""
        return _here(state) == int(state.problem.split()[1])

    def answer(self, state: State) -> str | None:
        """The way so far."""
        return " ".join(state.thoughts) or None

    def sample(self, state: State) -> Ask:
        """Asks for the next cell, after the way so far."""
        return Ask(" ".join([_prompt(state.problem), *state.thoughts]), max_tokens=1)

    def thoughts(self, state: State, reply: str) -> Thoughts:
        """The next cell, if it is a neighbour; its score is one for each reply that names it."""
        words = reply.split()
        open_cells = self.maze.neighbours[_here(state)]
        found = tuple(word for word in words[:1] if _is_cell(word, self.depth) and int(word) in open_cells)
        return Thoughts(found, unread=len(words) - len(found), scores=(1.0,) * len(found))

    def chain(self, problem: str) -> Ask:
        """Asks for the whole way, the most probable cell at each step."""
        return Ask(_prompt(problem), max_tokens=self.depth, temperature=0.0)


def _prompt(problem: str) -> str:
    start, goal = problem.split()
    return f"from {start} to {goal} :"


def _here(state: State) -> int:
    return int(state.thoughts[-1] if state.thoughts else state.problem.split()[0])


def _is_cell(word: str, cells: int) -> bool:
    return word.isdecimal() and len(word) <= 4 and int(word) < cells and word == str(int(word))


def problems(maze: Maze, *, shown: int, held_out: int, least: int, seed: int) -> tuple[list[str], list[str]]:
    """Ways that are shown, between any two cells, and ways held out, between cells `least` steps apart."""
    every, far = [], []
    for goal in range(len(maze.neighbours)):
        for start, steps in enumerate(maze.distances(goal)):
            if start != goal:
                every.append(f"{start} {goal}")
            if steps >= least:
                far.append(f"{start} {goal}")
    rng = generator(seed, "ways held out and shown")
    drawn = [far[place] for place in rng.permutation(len(far))[:held_out].tolist()]
    left = sorted(set(every) - set(drawn))
    return [left[place] for place in rng.permutation(len(left))[:shown].tolist()], drawn


def lessons(maze: Maze, learnt: Sequence[str], *, seed: int) -> Iterator[tuple[str, str]]:
    """Shortest ways, and nothing else: no dead end is ever walked into."""
    rng = generator(seed, "ways")
    for place in rng.integers(len(learnt), size=_LESSONS).tolist():
        start, goal = map(int, learnt[place].split())
        way = maze.shortest(start, goal, rng)
        yield _prompt(learnt[place]), "".join(f" {cell}" for cell in way[1:])


def model(maze: Maze, learnt: Sequence[str], *, held_out: int, least: int, steps: int, seed: int) -> Path:
    """The small model of a maze."""
    cells = len(maze.neighbours)
    recipe = {
        "task": "maze",
        "side": maze.side,
        "shown": len(learnt),
        "held_out": held_out,
        "least": least,
        "lessons": _LESSONS,
        "seed": seed,
    }
    settings = SmallSettings(
        steps=steps, batch=32, heads=4, max_length=cells + 8, rope_theta=100.0, seed=derive(seed, "model")
    )
    return small_model(lessons(maze, learnt, seed=seed), settings, recipe=recipe)


class Wanderer(LM):
    """Says a neighbour of the last cell, any as likely as another: a model that has learnt the walls only."""

    name = "wanderer"

    def __init__(self, maze: Maze) -> None:
        self.maze = maze

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [[self._step(each, each.first + i) for i in range(each.n)] for each in requests]

    def _step(self, request: Request, number: int) -> Sample:
        words = transcript(request.prompt).split()
        here = int(words[-1] if words[-1] != ":" else words[1])
        rng: np.random.Generator = generator(request.seed or 0, "step", number)
        cell = self.maze.neighbours[here][int(rng.integers(len(self.maze.neighbours[here])))]
        return Sample(str(cell), "length", tokens_in=len(words), tokens_out=1)
