"""The verifier: an answer is judged by walking it on the graph, not by comparing it with a key.

::

    from posterhall.evals.planning import graphs, scoring
    scoring.outcome(graphs.PUBLISHED["A"], (0, 1, 3, 5), start=0, goals=[5])         # "correct"
    scoring.verify(graphs.PUBLISHED["D"], answers, starts, goals).codes              # (n,) int8

What is wrong with an answer is the first of these that applies: *unread* (no path could be read in the
reply), *no path* (it says there is none, or names one node), *invented edge* (a step that is none, or a name
that no node has), *wrong ends*, *loop* (a node twice), *longer* (a way, but not a shortest one). The paper
names three of them (invented edges, longer paths, loops); the order is ours: an edge that is not there is the
graver mistake than where the path ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError
from posterhall.evals.planning import _kernels as kernels
from posterhall.evals.planning.graphs import Bools, Graph

Codes: TypeAlias = npt.NDArray[np.int8]
Ints: TypeAlias = npt.NDArray[np.int64]

OUTCOMES = (
    "correct",
    "invented edge",
    "longer",
    "loop",
    "wrong ends",
    "no path",
    "unread",
    "wrong number",
)
"""By code: `OUTCOMES[code]`. The last one is of questions for a number (of clusters), not for a path."""
CORRECT, INVENTED, LONGER, LOOP, WRONG_ENDS, NO_PATH, UNREAD, WRONG_NUMBER = range(8)
UNKNOWN = -1
"""In an answer: a name that no node of the graph has."""


@dataclass(frozen=True)
class Verdicts:
    """What the verifier says of n answers."""

    codes: Codes
    """Shape (n,), of `OUTCOMES`."""
    start_omitted: Bools
    """Shape (n,): whether the start was left out and taken as said."""
    distance: npt.NDArray[np.int32]
    """Shape (n,): fewest steps from the start to a goal; -1 where none is in reach."""

    @property
    def correct(self) -> Bools:
        """Shape (n,)."""
        return np.asarray(self.codes == CORRECT)

    def outcomes(self) -> list[str]:
        """In words."""
        return [OUTCOMES[code] for code in self.codes]


@dataclass(frozen=True)
class Worlds:
    """Many graphs packed into a few arrays, so that each answer can have its own; see `of` and `of_edges`."""

    indptr: Ints
    indices: npt.NDArray[np.int32]
    nodes: Ints
    edges_at: Ints

    @classmethod
    def of(cls, graphs: Iterable[Graph]) -> Worlds:
        """Pack graphs, in order."""
        sizes: list[int] = []
        pieces = []
        for graph in graphs:
            sizes.append(len(graph))
            a, b = np.nonzero(graph.adjacency)
            pieces.append((np.full(len(a), len(sizes) - 1), a, b))
        which, a, b = (np.concatenate(each) for each in zip(*pieces, strict=True))
        return cls.of_edges(np.array(sizes), which, a, b)

    @classmethod
    def of_edges(
        cls, sizes: npt.ArrayLike, which: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike
    ) -> Worlds:
        """Pack the steps of many graphs.

        Args:
            sizes: nodes of each graph, shape (w,).
            which: the graph that each step belongs to, shape (e,).
            a, b: from where to where it leads, shape (e,).
        """
        count = np.asarray(sizes, dtype=np.int64)
        which, a, b = np.asarray(which, dtype=np.int64), np.asarray(a), np.asarray(b)
        rows = np.concatenate(([0], np.cumsum(count)))[which] + a
        if (rows[1:] < rows[:-1]).any():
            order = np.argsort(rows, kind="stable")
            which, a, b = which[order], a[order], b[order]
        nodes = np.concatenate(([0], np.cumsum(count + 1)))  # one more offset than nodes, for each graph
        edges_at = np.zeros(len(count) + 1, dtype=np.int64)
        indptr = np.zeros(int(nodes[-1]), dtype=np.int64)
        kernels.pack(which, a, nodes, edges_at, indptr)
        return cls(indptr, b.astype(np.int32, copy=False), nodes, edges_at)

    def __len__(self) -> int:
        return len(self.nodes) - 1


def verify(
    graph: Graph | Worlds,
    answers: Sequence[Sequence[int] | None],
    starts: npt.ArrayLike,
    goals: Sequence[Sequence[int]] | npt.ArrayLike,
    *,
    world: npt.ArrayLike | None = None,
    may_omit_start: bool = True,
) -> Verdicts:
    """Judge many answers at once.

    Args:
        graph: the graph, or several packed ones.
        answers: of each, the nodes it names in order (`UNKNOWN` for a name that is none); None: unread.
        starts: where each should begin, shape (n,).
        goals: where each may end: a node each, shape (n,), or a list of nodes each. A path is correct that
            ends at one of them by as few steps as lead to that one.
        world: which of the packed graphs each is of, shape (n,).
        may_omit_start: an answer that does not name the start, and begins one step from it, is taken to
            begin there, and that is recorded.

    Returns:
        What is to be said of each.

    Raises:
        DataError: for a start, goal or answer that is no node, or lists of different lengths.
    """
    worlds = graph if isinstance(graph, Worlds) else Worlds.of([graph])
    n = len(answers)
    begin = np.asarray(starts, dtype=np.int64)
    where = np.zeros(n, dtype=np.int64) if world is None else np.asarray(world, dtype=np.int64)
    given: Any = goals if isinstance(goals, Sequence) else np.asarray(goals).tolist()
    ends = [each if isinstance(each, Sequence) else (each,) for each in given]
    if not len(begin) == len(where) == len(ends) == n:
        raise DataError(f"{n} answers, {len(begin)} starts, {len(ends)} goals: there must be one of each")
    if n and not (where.min() >= 0 and where.max() < len(worlds)):
        raise DataError(f"an answer is of graph {where.max()}; there are {len(worlds)}")
    said, said_at = _flat([each if each is not None else () for each in answers])
    wanted, wanted_at = _flat(ends)
    limits = np.diff(worlds.nodes)[where] - 1
    for name, values, limit, lowest in (
        ("start", begin, limits, 0),
        ("goal", wanted, np.repeat(limits, np.diff(wanted_at)), 0),
        ("answer", said, np.repeat(limits, np.diff(said_at)), UNKNOWN),
    ):
        if ((values < lowest) | (values >= limit)).any():
            at = int(np.argmax((values < lowest) | (values >= limit)))
            raise DataError(f"{name} {values[at]} is no node of its graph, which has {limit[at]}")
    codes = np.array([UNREAD if each is None else 0 for each in answers], dtype=np.int8)
    omitted = np.zeros(n, dtype=np.bool_)
    steps = np.zeros(n, dtype=np.int32)
    kernels.verify(
        worlds.indptr,
        worlds.indices,
        worlds.nodes,
        worlds.edges_at,
        where,
        said,
        said_at,
        begin,
        wanted,
        wanted_at,
        may_omit_start,
        codes,
        omitted,
        steps,
    )
    return Verdicts(codes, omitted, steps)


def outcome(
    graph: Graph,
    answer: Sequence[int] | None,
    *,
    start: int,
    goals: Sequence[int],
    may_omit_start: bool = True,
) -> str:
    """What is to be said of one answer, of `OUTCOMES`; see `verify`."""
    found = verify(graph, [answer], [start], [list(goals)], may_omit_start=may_omit_start)
    return OUTCOMES[found.codes[0]]


def _flat(lists: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Lists one after the other, and where each begins (and the last ends)."""
    at = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(each) for each in lists], out=at[1:])
    return np.fromiter((node for each in lists for node in each), dtype=np.int64, count=int(at[-1])), at
