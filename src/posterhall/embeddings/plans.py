"""Plans of training: what meets in a chunk of the corpus, drawn first and applied then.

    planner = Planner(settings, vocabulary.counts)
    plan = planner.plan(tokens, seed)
    loss, terms = apply(plan, inputs, outputs, settings, step)

A plan's rows are those of the whole matrices. `Plan.compact` renumbers them for a small private copy,
which is how workers of a parameter server train (pull the rows, apply, push the difference).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall import simd
from posterhall.embeddings import _kernels, _plan_kernels, _softmax_kernels
from posterhall.embeddings.huffman import huffman_tree
from posterhall.embeddings.sampling import (
    alias_table,
    keep_probability,
    keep_thresholds,
    noise_distribution,
)
from posterhall.embeddings.settings import Word2VecSettings

Matrix = NDArray[np.float32]


@dataclass
class Plan:
    """Arrays described in `_kernels`; they are reused from chunk to chunk and grow as needed."""

    n: int = 0
    kept: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    lo: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    hi: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    start: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    signs: Matrix = field(default_factory=lambda: np.zeros(0, np.float32))
    shifts: Matrix = field(default_factory=lambda: np.zeros(0, np.float32))
    repeated: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def reserve(self, positions: int, outputs: int) -> None:
        """Make room for so many positions and outputs, plus the lanes read past the end."""
        if len(self.kept) < positions + simd.LANES:
            size = positions + simd.LANES
            self.kept, self.lo, self.hi = (np.zeros(size, np.int32) for _ in range(3))
            self.start, self.repeated = np.zeros(size, np.int64), np.zeros(size, np.bool_)
        if len(self.rows) < outputs + simd.LANES:
            size = outputs + simd.LANES
            self.rows = np.zeros(size, np.int32)
            self.signs, self.shifts = np.zeros(size, np.float32), np.zeros(size, np.float32)

    def compact(self, inputs: Renumbering, outputs: Renumbering) -> None:
        """Renumber the rows of both matrices in order of first appearance, in place."""
        inputs.apply(self.kept, self.n)
        outputs.apply(self.rows, int(self.start[self.n]))


class Renumbering:
    """Row numbers of a whole matrix mapped to 0, 1, 2, ... as they appear.

    Args:
        rows: rows of the whole matrix.
    """

    def __init__(self, rows: int) -> None:
        self._local = np.full(rows, -1, np.int32)
        self._found = np.zeros(rows, np.int32)
        self._count = 0

    @property
    def rows(self) -> NDArray[np.int32]:
        """The rows seen since `clear`, int32, in local order (a view)."""
        return self._found[: self._count]

    def apply(self, ids: NDArray[np.int32], n: int) -> None:
        """Replace ids[:n] by their local numbers, in place."""
        self._count = int(_plan_kernels.renumber(ids, n, self._local, self._found, self._count))

    def clear(self) -> None:
        """Forget all rows."""
        self._local[self.rows] = -1
        self._count = 0


class Planner:
    """Draws plans for one vocabulary and one group of settings; safe to share between threads.

    Args:
        settings: model, loss, window, subsampling, noise.
        counts: int64 (V,), descending.

    Attributes:
        output_rows: rows of the output matrix: V for noise losses and the full softmax, V - 1 inner
            nodes for hierarchical softmax, both one after the other for `hierarchical+negative`.
        longest_path: inner nodes above the deepest word; 0 without a tree.
    """

    def __init__(self, settings: Word2VecSettings, counts: NDArray[np.int64]) -> None:
        self.settings = settings
        self.words = len(counts)
        self.keep = keep_thresholds(keep_probability(counts, settings.subsample, settings.subsample_formula))
        noise = noise_distribution(counts, settings.noise_exponent)
        self._alias_keep, self._alias = alias_table(noise)
        self._negative = settings.negative if settings.needs_noise else 0
        self._shift = np.zeros(0, np.float32)
        if settings.loss == "nce":  # Mnih & Teh 2012: logit of data against noise is s - log(k P_n)
            self._shift = (-np.log(settings.negative * noise)).astype(np.float32)
        self._path_start = np.zeros(0, np.int64)
        self._path_rows = np.zeros(0, np.int32)
        self._path_signs = np.zeros(0, np.float32)
        self.output_rows = self.words
        self.longest_path = 0
        if settings.needs_tree:
            tree = huffman_tree(counts)
            offset = self.words if settings.needs_noise else 0
            self._path_start = tree.start
            self.longest_path = int(np.diff(tree.start).max())
            self._path_rows = tree.nodes + np.int32(offset)
            self._path_signs = (1.0 - 2.0 * tree.bits).astype(np.float32)  # label 1 - code, as in the code
            self.output_rows = offset + self.words - 1

    def plan(self, tokens: NDArray[np.int32], seed: int, into: Plan | None = None) -> Plan:
        """Draw the plan of a chunk.

        Args:
            tokens: int32, word ids with -1 at sentence ends.
            seed: 63-bit; the same chunk and seed give the same plan.
            into: a plan whose arrays may be reused.
        """
        s = self.settings
        plan = into if into is not None else Plan()
        plan.reserve(len(tokens) + 1, 0)
        plan.n = int(
            _plan_kernels.plan_windows(
                tokens, self.keep, s.window, s.shrink_windows, s.max_sentence, np.uint64(seed),
                plan.kept, plan.lo, plan.hi,
            )
        )  # fmt: skip
        if s.loss == "softmax":
            plan.start[: plan.n + 1] = 0
            return plan
        outputs = plan.n * (self._negative + 1)
        if len(self._path_start):
            kept = plan.kept[: plan.n]
            outputs += int((self._path_start[kept + 1] - self._path_start[kept]).sum())
        plan.reserve(plan.n + 1, outputs)
        _plan_kernels.plan_outputs(
            plan.kept, plan.n, self._negative, s.noise_sharing, self._alias_keep, self._alias, self._shift,
            s.loss != "nce",
            self._path_start, self._path_rows, self._path_signs, np.uint64(seed ^ 0x5DEECE66D),
            plan.start, plan.rows, plan.signs, plan.shifts, plan.repeated,
        )  # fmt: skip
        return plan


def apply(
    plan: Plan, inputs: Matrix, outputs: Matrix, settings: Word2VecSettings, step: float
) -> tuple[float, int]:
    """Train a plan at rate `step`, updating both matrices in place.

    Releases the lock: threads may apply plans to the same matrices at once (Hogwild).

    Args:
        plan: from `Planner.plan`.
        inputs: float32 (V, stride), C-contiguous, stride = simd.padded(dim), zero beyond dim.
        outputs: float32 (output_rows, stride), likewise.
        settings: model and loss.
        step: learning rate.

    Returns:
        loss: summed over terms, in nats: -log sigmoid terms, or -log softmax.
        terms: (context, centre) pairs for skip-gram, positions with a context for CBOW.
    """
    stride = inputs.shape[1]
    flat_in, flat_out = inputs.reshape(-1), outputs.reshape(-1)
    window = (plan.kept, plan.lo, plan.hi, plan.n)
    cbow = settings.model == "cbow"
    averaging = (settings.cbow_mean, settings.cbow_divide_error)
    result: Any
    if settings.loss == "softmax":
        result = _softmax_kernels.apply_softmax(
            flat_in, flat_out, stride, outputs.shape[0], *window, np.float32(step), cbow, *averaging
        )
    else:
        drawn = (plan.start, plan.rows, plan.signs, plan.shifts, plan.repeated, np.float32(step))
        if cbow:
            result = _kernels.apply_cbow(flat_in, flat_out, stride, *window, *drawn, *averaging)
        else:
            result = _kernels.apply_skipgram(flat_in, flat_out, stride, *window, *drawn)
    return float(result[0]), int(result[1])


def empty_matrix(rows: int, dim: int) -> Matrix:
    """A float32 matrix of zeros with the kernels' row stride, (rows, simd.padded(dim))."""
    return np.zeros((rows, simd.padded(dim)), np.float32)
