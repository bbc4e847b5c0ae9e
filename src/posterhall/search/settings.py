"""What can be set about a search."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints

from posterhall.errors import DataError

Method = Literal[
    "bfs", "dfs", "best-first", "astar", "mcts", "map", "io", "cot", "cot-sc", "best-of", "refine"
]
Generator = Literal["propose", "sample"]
Evaluator = Literal["value", "vote", "logprob", "random", "free"]
Selection = Literal["greedy", "sample"]
Deduplicate = Literal["off", "text", "step", "tree"]
Duplicates = Literal["drop", "zero"]
Policy = Literal["uct", "puct"]

WITHOUT_TREE = ("io", "cot", "cot-sc", "best-of", "refine")
"""Methods that ask for whole answers: what a search is compared with."""


@dataclass(frozen=True)
class SearchSettings:
    """Everything that determines what a search finds, given a task, a problem and a model.

    Raises:
        DataError: for a value out of its range.
    """

    method: Method = "bfs"
    """bfs keeps the best `breadth` states of each step (Yao et al. 2023, algorithm 1; also called beam
    search); dfs follows the best child and comes back (algorithm 2); best-first and astar expand the best
    state anywhere, astar by path cost and what is still to come; mcts is Monte Carlo tree search; map plans
    by modules (see `posterhall.search.planner`). Without a tree: io asks for the answer, cot for thoughts and
    answer, cot-sc takes the most frequent of several, best-of the first that the free checker passes, refine
    asks again with what the checker said."""
    generator: Generator = "propose"
    """propose: one reply lists many next thoughts; sample: each reply is one thought."""
    proposals: int = 1
    """Replies of the generator a state, >= 1 (n_generate of the original; k thoughts when sampling)."""
    evaluator: Evaluator = "value"
    """value: each state alone, `votes` replies, what they say added up; vote: the states of a step compared,
    `votes` times; logprob: the mean worth of the classes by their probabilities, from models that tell;
    random: a number by the seed, to compare with; free: no model, what the task itself says."""
    votes: int = 3
    """Replies of the evaluator, >= 1 (n_evaluate of the original)."""
    selection: Selection = "greedy"
    """greedy: the greatest values, the earlier first among equals; sample: drawn with probabilities
    proportional to values, without replacement."""
    breadth: int = 5
    """States kept a step (bfs), expanded at once (best-first, astar), >= 1 (b of the paper)."""
    steps: int | None = None
    """Most thoughts, >= 1; None: the task's depth."""
    deduplicate: Deduplicate = "step"
    """Candidates that are the same: off, nobody looks; text, those of the same thoughts among the candidates
    of one step; step, those that the task takes for the same, in one step; tree, anywhere in the tree."""
    duplicates: Duplicates = "drop"
    """drop leaves them out; zero keeps them as candidates of value 0, as the original code does."""
    use_worth: bool = True
    """Take the task's own word for the value of a state where it has one, rather than ask."""
    use_check: bool = False
    """Let the task's free checker end the search: the first finished state that passes is the answer. An
    advantage that must be given to whatever it is compared with."""
    threshold: float | None = None
    """dfs does not descend into states whose value is at most this. None: the value of a state that all
    votes put into the worst class."""
    children: int | None = None
    """Most children of a state that dfs, best-first, astar and mcts go on with, >= 1; None: all."""
    prune: bool = True
    """dfs: heed the threshold. Without, states are not valued where the generator says how sure it is."""
    backtrack: bool = True
    """dfs: try the other children of a state too; without, the first child is followed to the end."""
    states: int = 100
    """Most states that dfs visits, >= 1."""
    expansions: int = 50
    """States that best-first and astar expand, and iterations of mcts, >= 1."""
    doubt: float = 1.0
    """astar: how much longer the rest of a path is taken to be where its value is the worst, as a share of
    it, >= 0; 0 leaves values out."""
    policy: Policy = "uct"
    """mcts: uct (Kocsis & Szepesvari 2006), or puct with the values as prior (Silver et al. 2017)."""
    exploration: float = 1.4142135623730951
    """mcts: weight of what was seldom visited, >= 0; sqrt(2) is UCB1's for rewards in [0, 1]."""
    rollout: bool = False
    """mcts: value a state by thoughts drawn at random up to a finished state, rather than as it is."""
    samples: int | None = None
    """Whole answers that io, cot, cot-sc and best-of ask for, >= 1. None: 1 for io and cot, 10 for the others
    (the paper has 100)."""
    rounds: int = 10
    """Most answers of refine, the first included, and tries of the actor of map, >= 1."""
    branches: int = 2
    """map: moves that the actor proposes, >= 1 (B of Webb et al. 2023)."""
    lookahead: int = 2
    """map: moves that are looked ahead, >= 1 (L of Webb et al. 2023)."""
    without: tuple[str, ...] = ()
    """map: modules that are left out: decomposer, monitor, search (with predictor and evaluator as far as
    they serve it), orchestrator."""
    exact: tuple[str, ...] = ()
    """map: modules that the problem's own rules play instead of the model: monitor, predictor,
    orchestrator."""
    temperature: float = 0.7
    """Of all sampling where a task does not say, >= 0."""
    top_p: float = 1.0
    """Of all sampling, in (0, 1]."""
    max_tokens: int = 1000
    """Of a reply, where a task does not say, >= 1."""
    seed: int = 0
    """Of everything drawn."""
    problem_calls: int | None = None
    """Most requests for one problem, >= 0; None for no limit. Limits to a problem count what it asks,
    whether or not a cache answers, so that they end it at the same place always."""
    problem_tokens: int | None = None
    """Tokens read and generated for one problem after which no round of requests begins, >= 0."""
    problem_cost: float | None = None
    """US dollars for one problem after which no round of requests begins, >= 0; needs a known price."""
    problem_seconds: float | None = None
    """Seconds for one problem after which no round of requests begins, >= 0."""

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value not in kind:
                raise DataError(f"{name} is {value!r}; allowed are {', '.join(kind)}")
        for name in ("proposals", "votes", "breadth", "states", "expansions", "rounds", "max_tokens"):
            self._at_least(name, 1)
        for name in ("branches", "lookahead"):
            self._at_least(name, 1)
        for name, allowed in _MODULES.items():
            for module in getattr(self, name):
                if module not in allowed:
                    raise DataError(f"{name} names {module!r}; allowed are {', '.join(allowed)}")
        for name in ("steps", "children", "samples"):
            if getattr(self, name) is not None:
                self._at_least(name, 1)
        for name in ("doubt", "exploration", "temperature"):
            self._at_least(name, 0)
        for name in ("problem_calls", "problem_tokens", "problem_cost", "problem_seconds"):
            if getattr(self, name) is not None:
                self._at_least(name, 0)
        if self.threshold is not None and math.isnan(self.threshold):
            raise DataError("threshold is not a number")
        if not 0 < self.top_p <= 1:
            raise DataError(f"top_p is {self.top_p}; it must be above 0 and at most 1 (everything)")

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if not least <= value < math.inf:
            raise DataError(f"{name} is {value}; it must be at least {least}")

    @property
    def answers(self) -> int:
        """`samples`, or what is meant by None."""
        return self.samples if self.samples is not None else 1 if self.method in ("io", "cot") else 10


_MODULES = {
    "without": ("decomposer", "monitor", "search", "orchestrator"),
    "exact": ("monitor", "predictor", "orchestrator"),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    each.name: get_args(kind)
    for each in fields(SearchSettings)
    if get_args(kind := get_type_hints(SearchSettings)[each.name])
    and all(isinstance(choice, str) for choice in get_args(kind))
}
