"""Word vectors as a job for the parameter server."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall import simd
from posterhall.config import to_dict
from posterhall.data.encoded import Encoded
from posterhall.embeddings.huffman import huffman_tree
from posterhall.embeddings.parameter_server import _kernels
from posterhall.embeddings.parameter_server.placement import Kind, Placement, Table
from posterhall.embeddings.parameter_server.recipe import Recipe
from posterhall.embeddings.parameter_server.replica import Selection
from posterhall.embeddings.parameter_server.shards import Matrix
from posterhall.embeddings.plans import Plan, Planner, Renumbering, apply
from posterhall.embeddings.sampling import keep_probability
from posterhall.embeddings.settings import Word2VecSettings
from posterhall.errors import DataError
from posterhall.seeds import derive


def word_load(planner: Planner, counts: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """How often each row of the input and output matrices is asked for, in proportion; float64 each."""
    occurrences = counts.astype(np.float64)
    outputs = np.zeros(planner.output_rows)
    settings = planner.settings
    if settings.needs_tree:
        tree = huffman_tree(counts)
        below = np.zeros(len(counts) - 1)  # occurrences under each inner node
        np.add.at(below, tree.nodes, np.repeat(occurrences, np.diff(tree.start)))
        outputs[len(outputs) - len(below) :] = below
    if settings.needs_noise or settings.loss == "softmax":
        outputs[: len(counts)] += occurrences
    return [occurrences, outputs]


class WordWindow:
    """Some mini-batches of a lease, its rows renumbered into a private copy; a `Window`."""

    def __init__(self, job: WordJob, first: int, last: int, whole: Plan) -> None:
        self._job, self._first, self._last = job, first, last
        self._positions = whole.n
        low, high = job.positions(first, last, whole.n)
        if (low, high) == (0, whole.n):  # nobody needs the whole's own numbering any more
            self._begin, self._plan = 0, whole
        else:
            self._begin = window_bounds(whole, low, high)[0]
            self._plan = cut_plan(whole, low, high, job.window_plan)
        self.selections: Sequence[Selection] = job.select(self._plan)

    def train(self, local: Sequence[Matrix], first: int, last: int, rate: float) -> tuple[float, int]:
        """See `Window`."""
        plan = self._plan
        if (first, last) != (self._first, self._last):
            low, high = self._job.positions(first, last, self._positions)
            plan = cut_plan(plan, low - self._begin, high - self._begin, self._job.step_plan)
        loss, terms = apply(plan, local[0], local[1], self._job.settings, rate)
        if terms and not loss / terms <= self._job.worst_loss:  # also true of NaN
            raise DataError(
                f"training diverges: mean loss {loss / terms:.3g} at rate {rate:.3g}; lower alpha, "
                "the number of workers or n_push"
            )
        return loss, terms


class WordCourse:
    """The plan of a lease, cut into mini-batches of centres; a `Course`."""

    def __init__(self, job: WordJob, plan: Plan, tokens: int) -> None:
        self._job, self._plan, self._tokens = job, plan, tokens
        self.steps = -(-plan.n // job.batch_words)

    def words(self, step: int) -> int:
        """Tokens of the lease, in proportion to the mini-batches done."""
        if step >= self.steps:
            return self._tokens
        return self._tokens * step * self._job.batch_words // self._plan.n

    def window(self, first: int, last: int) -> WordWindow:
        """See `Course`."""
        return WordWindow(self._job, first, last, self._plan)


class WordJob:
    """Training of word vectors; a `Job`. One a worker: it keeps that worker's plans.

    Tables are `inputs` (V, dim) and `outputs` (output rows, dim).

    Args:
        settings: model, loss, schedule, seed.
        planner: for the corpus's vocabulary.
        read: tokens of a chunk, int32, -1 at sentence ends.
        chunks: number of chunks.
        placements: of both tables (see `word_placements`).
        batch_words: surviving words (centres) in a mini-batch, >= 1.
        lease_chunks: chunks of the corpus that are leased together, >= 1.
        worst_loss: mean loss of a term above which training stops as diverged, in nats.
    """

    def __init__(
        self,
        settings: Word2VecSettings,
        planner: Planner,
        read: Callable[[int], NDArray[np.int32]],
        chunks: int,
        placements: Sequence[Placement],
        *,
        batch_words: int,
        lease_chunks: int = 1,
        worst_loss: float = float("inf"),
    ) -> None:
        self.settings = settings
        self.tables = word_tables(settings, planner)
        self.placements = tuple(placements)
        self.strides = (simd.padded(settings.dim),) * 2
        self.batch_words = batch_words
        self.worst_loss = worst_loss
        self._planner, self._read, self._chunks, self._lease_chunks = planner, read, chunks, lease_chunks
        self._plans = [Plan() for _ in range(lease_chunks)]
        self._joined, self.window_plan, self.step_plan = Plan(), Plan(), Plan()
        self._numberings = [Renumbering(table.rows) for table in self.tables]

    def rate(self, share: float) -> float:
        """The settings' linear schedule."""
        return self.settings.rate(share)

    def open(self, epoch: int, chunk: int) -> WordCourse:
        """Draw the plans of a lease's chunks, the same as `Trainer` draws."""
        first = chunk * self._lease_chunks
        numbers = range(first, min(first + self._lease_chunks, self._chunks))
        tokens, plans = 0, []
        for number, room in zip(numbers, self._plans, strict=False):
            stream = self._read(number)
            tokens += len(stream)
            seed = derive(self.settings.seed, "chunk", epoch, number)
            plans.append(self._planner.plan(stream, seed, room))
        plan = plans[0] if len(plans) == 1 else join_plans(plans, self._joined)
        return WordCourse(self, plan, tokens)

    def positions(self, first: int, last: int, n: int) -> tuple[int, int]:
        """Positions of a lease's plan that mini-batches first to last - 1 hold."""
        return min(first * self.batch_words, n), min(last * self.batch_words, n)

    def select(self, plan: Plan) -> tuple[Selection, Selection]:
        """Renumber a plan's rows in place, by shard; returns which rows the numbers stand for."""
        if self.settings.loss == "softmax":
            # Every output row is needed, and a word's number serves both matrices.
            rows = np.arange(self.tables[0].rows, dtype=np.int32)
            both = [Selection.of(rows, placement) for placement in self.placements]
            _kernels.relabel(plan.kept, plan.n, both[0][1])
            return both[0][0], both[1][0]
        plan.compact(*self._numberings)
        ids = ((plan.kept, plan.n), (plan.rows, int(plan.start[plan.n])))
        selections = []
        for numbering, placement, (numbers, n) in zip(self._numberings, self.placements, ids, strict=True):
            selection, rank = Selection.of(numbering.rows, placement)
            numbering.clear()
            _kernels.relabel(numbers, n, rank)
            selections.append(selection)
        return selections[0], selections[1]


def word_tables(settings: Word2VecSettings, planner: Planner) -> tuple[Table, Table]:
    """The two matrices as tables, without the kernels' padding."""
    return (
        Table("inputs", planner.words, settings.dim),
        Table("outputs", planner.output_rows, settings.dim),
    )


def word_placements(
    planner: Planner, counts: NDArray[np.int64], shards: int, kind: Kind = "dealt"
) -> list[Placement]:
    """Placements of both tables; hot rows are spread by their load unless `kind` says otherwise."""
    return [Placement.make(len(load), shards, load=load, kind=kind) for load in word_load(planner, counts)]


def word_recipe(
    settings: Word2VecSettings,
    counts: NDArray[np.int64],
    corpus: Encoded,
    *,
    shards: int,
    batch_words: int,
    lease_chunks: int = 1,
    worst_loss: float = float("inf"),
) -> Recipe:
    """How a worker builds its `WordJob`, wherever it is.

    Args:
        settings: model, loss, schedule, seed.
        counts: of the vocabulary, int64 (V,).
        corpus: must stay open while workers are started.
        shards, batch_words, lease_chunks, worst_loss: as for `WordJob`.
    """
    stream = corpus.stream
    arrays: dict[str, NDArray[Any]] = {"counts": counts, "offsets": corpus.chunks}
    files: dict[str, int] = {}
    if isinstance(stream, int):
        files["tokens"] = stream
    else:
        arrays["tokens"] = stream
    return Recipe(
        f"{__name__}:build_word_job",
        {
            "settings": to_dict(settings),
            "shards": shards,
            "batch_words": batch_words,
            "lease_chunks": lease_chunks,
            "worst_loss": worst_loss,
            "words": corpus.words,
        },
        arrays,
        files,
    )


def lease_size(settings: Word2VecSettings, counts: NDArray[np.int64], corpus: Encoded, centres: int) -> int:
    """Chunks to lease together so that about so many words survive subsampling in them, >= 1."""
    keep = keep_probability(counts, settings.subsample, settings.subsample_formula)
    survivors = float((counts * keep).sum() / max(counts.sum(), 1)) * corpus.words / len(corpus)
    return min(max(round(centres / max(survivors, 1e-9)), 1), len(corpus))


def lease_words(corpus: Encoded, lease_chunks: int) -> NDArray[np.int64]:
    """Tokens of each lease, int64."""
    return np.add.reduceat(np.diff(corpus.chunks), np.arange(0, len(corpus), lease_chunks))


def build_word_job(
    config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], files: Mapping[str, int]
) -> WordJob:
    """The job that `word_recipe` describes."""
    settings = Word2VecSettings(**config["settings"])
    counts = arrays["counts"]
    planner = Planner(settings, counts)
    tokens = os.dup(files["tokens"]) if "tokens" in files else arrays["tokens"]
    return WordJob(
        settings,
        planner,
        Encoded(tokens, arrays["offsets"], config["words"], "").read,
        len(arrays["offsets"]) - 1,
        word_placements(planner, counts, config["shards"]),
        batch_words=config["batch_words"],
        lease_chunks=config["lease_chunks"],
        worst_loss=config["worst_loss"],
    )


def window_bounds(plan: Plan, first: int, last: int) -> tuple[int, int]:
    """First and last + 1 of the tokens that positions first to last - 1 of a plan meet."""
    begin, end = _kernels.window_bounds(plan.lo, plan.hi, first, last)
    return int(begin), int(end)


def cut_plan(whole: Plan, first: int, last: int, into: Plan) -> Plan:
    """Positions first to last - 1 of a plan, with the tokens around them; `into` is reused.

    Applying the pieces of a plan one after the other is applying the plan.
    """
    begin, end = window_bounds(whole, first, last)
    into.reserve(end - begin + 1, int(whole.start[last] - whole.start[first]))
    into.n = end - begin
    _copy(whole, (first, last, begin, end), into, 0, 0)
    return into


def join_plans(plans: Sequence[Plan], into: Plan) -> Plan:
    """One plan after the other as one; `into` is reused."""
    into.n = sum(plan.n for plan in plans)
    into.reserve(into.n + 1, sum(int(plan.start[plan.n]) for plan in plans))
    at = behind = 0
    into.start[0] = 0
    for plan in plans:
        _copy(plan, (0, plan.n, 0, plan.n), into, at, behind)
        at, behind = at + plan.n, int(into.start[at + plan.n])
    return into


def _copy(whole: Plan, bounds: tuple[int, int, int, int], into: Plan, at: int, behind: int) -> None:
    _kernels.cut_plan(
        whole.kept, whole.lo, whole.hi, whole.start, whole.rows, whole.signs, whole.shifts, whole.repeated,
        *bounds,
        into.kept, into.lo, into.hi, into.start, into.rows, into.signs, into.shifts, into.repeated,
        at, behind,
    )  # fmt: skip
