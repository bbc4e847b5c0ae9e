"""What search costs, and what else could be had for that: chains by the dozen, votes, duplicates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from posterhall.claims import Budget, Claim, Figure, Paired, Ratio, Row, claim
from posterhall.claims.figures import default
from posterhall.claims.tree_of_thoughts.numbers import SCALES, SMALL_MODEL

if TYPE_CHECKING:
    from posterhall.claims.tree_of_thoughts._bench import Bench
    from posterhall.search.solution import Solution

_EQUAL = (
    "chains are as many as have, over all puzzles, at least the tokens that the search generated (at most "
    "1,000 a puzzle)"
)
_MOST_CHAINS = 1000


@claim(id="tree-beats-best-of-n", paper="tree_of_thoughts", where="Table 2; Fig. 3 (a)")
class TreeBeatsBestOfN(Claim):
    """At equal generated tokens, and with the free checker given to both, search solves more puzzles than
    the best of many chains of thought, by more than two percentage points.

    The checker picks among the five states that the search kept, and among all chains: what the paper's 74
    (any of five) and its best of 100 chains (49) are. The rows of models whose chains were learnt from
    random legal moves, where chains are as weak as the paper's, stand beside the test and do not count.
    """

    kind = Paired(metric="solved", arms=("ToT, checked", "best of n chains, checked"), margin=0.02)
    paper_value = "74 % against 49 % (best of 100 chains, 6.7 k generated tokens a puzzle; ToT 5.5 k)"
    refuted_by = "chains and the checker solve as many at the cost of the search"
    negative_control = "best of n chains must not beat best of n other chains"
    control_arms = ("best of n chains, checked", "best of n other chains, checked")
    deviates = f"{SMALL_MODEL}; {_EQUAL}"
    scales = SCALES
    params = {"model": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.tree_of_thoughts._bench import bench, row

        with bench(self.params, budget, seed) as here:
            tree, n = _as_many_chains(here)
            yield row("ToT, checked", seed, tree, checked=True)
            yield row("ToT, unchecked", seed, tree)
            for arm, draws in (("best of n chains", seed), ("best of n other chains", seed + 10_000)):
                chains = here.solve(method="best-of", samples=n, seed=draws)
                yield row(f"{arm}, checked", seed, chains, checked=True)
        if self.params["model"] is None:
            with bench(self.params, budget, seed, chains="legal moves") as here:
                tree, n = _as_many_chains(here)
                yield row("ToT, checked, chains learnt from legal moves", seed, tree, checked=True)
                chains = here.solve(method="best-of", samples=n)
                yield row("best of n chains learnt from legal moves, checked", seed, chains, checked=True)


@claim(id="tree-beats-self-consistency", paper="tree_of_thoughts", where="Table 2")
class TreeBeatsSelfConsistency(Claim):
    """At equal generated tokens, and without a checker, search solves more puzzles than the most frequent
    answer of many chains of thought, by more than ten percentage points."""

    kind = Paired(metric="solved", arms=("ToT", "CoT-SC"), margin=0.10)
    paper_value = "74 % against 9.0 % (100 chains; nearly equal tokens)"
    refuted_by = "the most frequent answer of as many tokens solves as many"
    negative_control = "the most frequent answer must not beat that of other chains"
    control_arms = ("CoT-SC", "CoT-SC, other chains")
    deviates = f"{SMALL_MODEL}; {_EQUAL}"
    scales = SCALES
    params = {"model": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.tree_of_thoughts._bench import bench, row

        with bench(self.params, budget, seed) as here:
            tree, n = _as_many_chains(here)
            yield row("ToT", seed, tree)
            yield row("CoT-SC", seed, here.solve(method="cot-sc", samples=n))
            yield row(
                "CoT-SC, other chains", seed, here.solve(method="cot-sc", samples=n, seed=seed + 10_000)
            )


def _as_many_chains(here: Bench) -> tuple[list[Solution], int]:
    """The search, and how many chains a puzzle generate at least as many tokens."""
    from posterhall.claims.tree_of_thoughts._bench import generated

    tree = here.solve()
    one = generated(here.solve(method="cot"))
    return tree, max(1, min(_MOST_CHAINS, math.ceil(generated(tree) / one)))


_VOTES = (1, 3, 5)


@claim(id="votes-sharpen-values", paper="tree_of_thoughts", where="§4.1 (three values a thought)")
class VotesSharpenValues(Claim):
    """Valuing each state three times rather than once solves more puzzles, by more than two percentage
    points."""

    kind = Paired(metric="solved", arms=("3 values a state", "1 value a state"), margin=0.02)
    paper_value = "no number given (three are sampled)"
    refuted_by = "one value a state solves as many puzzles"
    negative_control = "random values must not gain from other draws"
    control_arms = ("random values", "other random values")
    deviates = SMALL_MODEL
    scales = SCALES
    params = {"model": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.tree_of_thoughts._bench import bench, row

        with bench(self.params, budget, seed) as here:
            for votes in _VOTES:
                arm = f"{votes} values a state" if votes > 1 else "1 value a state"
                yield row(arm, seed, here.solve(votes=votes))
            for arm, draws in (("random values", seed), ("other random values", seed + 10_000)):
                yield row(arm, seed, here.solve(evaluator="random", seed=draws))


@claim(id="equal-states-valued-once", paper="tree_of_thoughts", where="§3 (generator); their code, bfs.py")
class EqualStatesValuedOnce(Claim):
    """A search that takes states with the same numbers left for one values fewer states for each puzzle it
    solves: without that it is at least 1.25 times as many.

    Both keep five states a step. Duplicates cost values, and places among the five.
    """

    kind = Ratio(metric="states_a_solution", arms=("duplicates kept", "duplicates dropped"), at_least=1.25)
    paper_value = "no number given (their code gives a thought that comes again in a step the value 0)"
    refuted_by = "duplicates cost nothing"
    negative_control = "duplicates kept, drawn anew, must not cost more than duplicates kept"
    control_arms = ("duplicates kept, other draws", "duplicates kept")
    deviates = SMALL_MODEL
    scales = SCALES
    params = {"model": None}
    diverged = {"states_a_solution": 1e9}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.tree_of_thoughts._bench import bench, row

        with bench(self.params, budget, seed) as here:
            for arm, changes in (
                ("duplicates kept", {"deduplicate": "off"}),
                ("duplicates dropped", {"deduplicate": "step"}),
                ("duplicates of text dropped", {"deduplicate": "text"}),
                ("duplicates kept, other draws", {"deduplicate": "off", "seed": seed + 10_000}),
            ):
                found = row(arm, seed, here.solve(**changes))
                solved = found.number("solved")
                found.metrics["states_a_solution"] = found.number("states") / solved if solved else math.inf
                yield found

    def figure(self, rows: Sequence[Row]) -> Figure | None:
        # What was valued, which can be drawn also where nothing was solved.
        return default(
            rows, "states", ("duplicates kept", "duplicates of text dropped", "duplicates dropped")
        )
