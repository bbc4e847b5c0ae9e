"""What pruning and backtracking are worth to depth-first search, on grids of words."""

from __future__ import annotations

from collections.abc import Iterator

from posterhall.claims import Budget, Claim, Paired, Row, claim

_WHOLE, _UNPRUNED, _FORWARD = "DFS", "DFS without pruning", "DFS without backtracking"
_DEVIATES = (
    "4 x 4 grids of a generated lexicon (60 clues of 5 words, 4 letters) against 5 x 5 English crosswords; "
    "words from a scripted model that forgets a tenth of them and misjudges a tenth of the patterns, so that "
    "what is measured is the search: a small model that had learnt the lexicon without error would need no "
    "pruning, and its errors would be unknown; states are visited up to 40, not 100"
)
_SCALES = {
    "smoke": Budget(grids=40, states=40, forgets=0.1, errs=0.1, seconds=5.0),
    "laptop": Budget(grids=200, states=40, forgets=0.1, errs=0.1, seeds=10, seconds=20.0),
    "full": Budget(grids=400, states=40, forgets=0.1, errs=0.1, seeds=20, seconds=40.0),
}


@claim(id="pruning-helps", paper="tree_of_thoughts", where="§4.3, Table 3")
class PruningHelps(Claim):
    """Depth-first search that leaves out states with an impossible word gets a greater share of words right
    than one that does not, by more than five percentage points, in equally many visited states.

    Both take the children of a state in the order of their values.
    """

    kind = Paired(metric="words", arms=(_WHOLE, _UNPRUNED), margin=0.05)
    paper_value = "60 against 41.5 % of words, 20 against 5 % of games"
    refuted_by = "without pruning as many words are right"
    negative_control = "pruning at random must not do better than no pruning"
    control_arms = ("DFS, half pruned at random", _UNPRUNED)
    deviates = _DEVIATES
    scales = _SCALES
    params = {"model": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.tree_of_thoughts._grids import bench, row

        with bench(self.params, budget, seed) as here:
            yield row(_WHOLE, seed, here.solve())
            yield row(_UNPRUNED, seed, here.solve(prune=False))
            yield row("DFS without values", seed, here.solve(prune=False, evaluator="free"))
            yield row("DFS, half pruned at random", seed, here.solve(evaluator="random", threshold=0.5))


@claim(id="backtracking-helps", paper="tree_of_thoughts", where="§4.3, Table 3")
class BacktrackingHelps(Claim):
    """Depth-first search that comes back from dead ends gets a greater share of words right than one that
    stops there, by more than ten percentage points."""

    kind = Paired(metric="words", arms=(_WHOLE, _FORWARD), margin=0.10)
    paper_value = "60 against 20 % of words, 20 against 5 % of games"
    refuted_by = "without coming back as many words are right"
    negative_control = "without backtracking, other draws must not do better by that much"
    control_arms = (f"{_FORWARD}, other draws", _FORWARD)
    deviates = _DEVIATES
    scales = _SCALES
    params = {"model": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.tree_of_thoughts._grids import bench, row

        with bench(self.params, budget, seed) as here:
            yield row(_WHOLE, seed, here.solve())
            yield row(_FORWARD, seed, here.solve(backtrack=False))
            yield row(f"{_FORWARD}, other draws", seed, here.solve(backtrack=False, seed=seed + 10_000))
