"""The verifier's loop (numba; releases the GIL)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

CORRECT, INVENTED, LONGER, LOOP, WRONG_ENDS, NO_PATH, UNREAD, WRONG_NUMBER = range(8)


@njit(cache=True, nogil=True)
def pack(which: Any, a: Any, nodes: Any, edges_at: Any, indptr: Any) -> None:
    """Offsets of rows of steps that are sorted by graph and then by where they begin; all zero on entry.

    Step e is of graph ``which[e]`` and begins at ``a[e]``; graph w has ``indptr[nodes[w] : nodes[w + 1]]``,
    which count from ``edges_at[w]``.
    """
    for e in range(len(which)):
        edges_at[which[e] + 1] += 1
        indptr[nodes[which[e]] + a[e] + 1] += 1
    for w in range(len(nodes) - 1):
        edges_at[w + 1] += edges_at[w]
        for at in range(nodes[w] + 1, nodes[w + 1]):
            indptr[at] += indptr[at - 1]


@njit(cache=True, nogil=True)
def verify(
    indptr: Any,
    indices: Any,
    nodes: Any,
    edges_at: Any,
    world: Any,
    answers: Any,
    answer_at: Any,
    start: Any,
    goals: Any,
    goal_at: Any,
    omit: bool,
    codes: Any,
    begins: Any,
    steps: Any,
) -> None:
    """Judge each answer on its own graph.

    Graph w has rows ``indptr[nodes[w] : nodes[w + 1] + 1]`` (its n + 1 offsets, relative to ``edges_at[w]``)
    in ``indices``. Answer i is ``answers[answer_at[i] : answer_at[i + 1]]``, its goals likewise; unread ones
    are told by ``codes[i] == UNREAD`` on entry and left so. Out: ``codes`` (n,) int8, ``begins`` (n,) bool
    whether the start was left out and is taken as said, ``steps`` (n,) int32 the fewest steps to the nearest
    goal (-1: out of reach).
    """
    most = 0
    for w in range(len(nodes) - 1):
        most = max(most, nodes[w + 1] - nodes[w] - 1)
    far = np.empty(most, dtype=np.int32)
    queue = np.empty(most, dtype=np.int32)
    mark = np.full(most, -1, dtype=np.int64)
    for i in range(len(codes)):
        w = world[i]
        rows = nodes[w]
        n = nodes[w + 1] - rows - 1
        base = edges_at[w]
        far[:n] = -1
        far[start[i]] = 0
        queue[0] = start[i]
        head, tail = 0, 1
        while head < tail:
            here = queue[head]
            head += 1
            for e in range(indptr[rows + here], indptr[rows + here + 1]):
                there = indices[base + e]
                if far[there] < 0:
                    far[there] = far[here] + 1
                    queue[tail] = there
                    tail += 1
        best = -1
        for g in range(goal_at[i], goal_at[i + 1]):
            d = far[goals[g]]
            if d >= 0 and (best < 0 or d < best):
                best = d
        steps[i] = best
        if codes[i] == UNREAD:
            continue
        lo, hi = answer_at[i], answer_at[i + 1]
        size = hi - lo
        there_is = False  # the start, anywhere in the answer
        for k in range(lo, hi):
            there_is = there_is or answers[k] == start[i]
        prepend = False
        if omit and size > 0 and not there_is:
            first = answers[lo]
            for e in range(indptr[rows + start[i]], indptr[rows + start[i] + 1]):
                prepend = prepend or indices[base + e] == first
        begins[i] = prepend
        if prepend:
            size += 1
        if size == 0:
            codes[i] = NO_PATH
            continue
        previous = start[i] if prepend else -1
        if prepend:
            mark[start[i]] = i
        loops = False
        invented = False
        for k in range(lo, hi):
            node = answers[k]
            if node < 0:  # a name that no node has
                invented = True
                previous = -1
                continue
            if mark[node] == i:
                loops = True
            mark[node] = i
            if (k > lo or prepend) and previous >= 0 and previous != node:
                known = False
                for e in range(indptr[rows + previous], indptr[rows + previous + 1]):
                    known = known or indices[base + e] == node
                invented = invented or not known
            previous = node
        begin = start[i] if prepend else answers[lo]
        end = answers[hi - 1]
        ends = False
        for g in range(goal_at[i], goal_at[i + 1]):
            ends = ends or goals[g] == end
        if size == 1 and not (begin == start[i] and ends):
            codes[i] = NO_PATH
        elif invented:
            codes[i] = INVENTED
        elif begin != start[i] or not ends:
            codes[i] = WRONG_ENDS
        elif loops:
            codes[i] = LOOP
        elif size - 1 > far[end]:
            codes[i] = LONGER
        else:
            codes[i] = CORRECT
