"""From a pool to a smaller one: scores, decisions, and what was dropped and why.

Scores are computed shard by shard and kept in memory as columns, 8 bytes a row and score; the texts stream
by twice, once to be scored and once to be written. Filters that are given one after the other each see
what the ones before have left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from posterhall.curation import scores as scoring
from posterhall.curation.filters import Filter, Fitted, Reason, keep
from posterhall.curation.ngram import KenLM, NGramModel, open_model
from posterhall.curation.pool import TEXT, Pool, Written, write, write_kept
from posterhall.curation.shards import map_shards
from posterhall.errors import DataError, UsageError, did_you_mean
from posterhall.runs import fingerprint

PERPLEXITY = "perplexity"
"""The score that needs a language model."""

Scores = dict[str, NDArray[np.float64]]
_TASK = "posterhall.curation.filtering:score_shard"


@dataclass(frozen=True)
class Decision:
    """Which rows stay.

    Attributes:
        kept: (rows,) bool.
        dropped_by: rows that each filter drops, as `Reason.filter` names it, most first.
    """

    kept: NDArray[np.bool_]
    dropped_by: Mapping[str, int]
    _stages: tuple[tuple[Fitted, NDArray[np.int64]], ...] = field(repr=False)

    def reason(self, row: int) -> Reason:
        """Why a row goes.

        Raises:
            UsageError: if it stays.
        """
        for fitted, rows in self._stages:
            place = int(np.searchsorted(rows, row))
            if not fitted.kept[place]:
                return fitted.reason(place)
        raise UsageError(f"row {row} is kept; only dropped rows have a reason")

    def why(self, row: int) -> tuple[str, float | None, str]:
        """What `write_kept` asks for."""
        reason = self.reason(row)
        return reason.filter, reason.value, reason.text


def decide(filters: Sequence[Filter], scores: Scores, rows: int) -> Decision:
    """Apply filters one after the other.

    Args:
        filters: each is fitted on what the ones before have left.
        scores: columns (rows,).
        rows: items.

    Raises:
        DataError: if there are no rows, a score is missing, or nothing would be left.
    """
    if rows == 0:
        raise DataError("the pool is empty: there is nothing to filter")
    alive = np.arange(rows)
    stages = []
    counts: Counter[str] = Counter()
    for each in filters:
        fitted = keep(each, {name: scores[name][alive] for name in scores if name in each.columns})
        stages.append((fitted, alive))
        counts.update(fitted.reason(place).filter for place in np.flatnonzero(~fitted.kept).tolist())
        alive = alive[fitted.kept]
    kept = np.zeros(rows, np.bool_)
    kept[alive] = True
    return Decision(kept, dict(counts.most_common()), tuple(stages))


def score_pool(
    pool: Pool,
    names: Collection[str],
    *,
    model: Path | str | NGramModel | KenLM | None = None,
    unit: str | None = None,
    directory: Path | None = None,
    workers: int = 1,
    ray: str | None = None,
    observe: Callable[[int], None] | None = None,
) -> tuple[Scores, int]:
    """Scores of all items, and how many there are.

    Args:
        pool: the items.
        names: of `posterhall.curation.scores.NAMES`, or "perplexity".
        model: language model for the perplexity, or its file; a file if there is a directory.
        unit: how to cut text where the file does not say, and where a tokeniser is; see `NGramModel.load`.
        directory: compute file by file and keep the results there, so that a killed computation goes on.
        workers, ray: see `map_shards`; they need a directory.
        observe: called with the files finished if there is a directory, otherwise with the rows.
    """
    ordinary = [name for name in names if name != PERPLEXITY]
    scoring.check(ordinary)
    if PERPLEXITY in names and model is None:
        raise UsageError("perplexity needs a language model: give its file, or texts to train one on")
    if directory is None:
        opened = open_model(model, unit=unit) if isinstance(model, Path | str) else model
        return _scored(pool, names, opened, observe)
    if isinstance(model, NGramModel | KenLM):
        raise UsageError("shards are scored with the file of a model; save it first")
    config = {
        "names": list(names),
        "unit": unit,
        "model": str(Path(model).resolve()) if model is not None and PERPLEXITY in names else None,
        "model_sha256": fingerprint(Path(model))["sha256"]
        if model is not None and PERPLEXITY in names
        else None,
        "pool": pool.reading,
    }
    done = map_shards(_TASK, config, pool.paths, directory, workers=workers, ray=ray, observe=observe)
    tables = [parquet.read_table(each.out) for each in done]
    rows = sum(int(each.facts["rows"]) for each in done)
    found = {}
    for name in names:
        parts = [table.column(name).to_numpy() for table in tables]
        found[name] = np.concatenate([np.asarray(part, np.float64) for part in parts])
    return found, rows


def score_shard(shard: Path, config: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The task of `score_pool`: the scores of one file as Parquet, a row an item."""
    pool = Pool((shard,), **config["pool"])
    model = open_model(config["model"], unit=config["unit"]) if config["model"] else None
    names = config["names"]
    found, rows = _scored(pool, names, model, None)
    columns = [pa.array(found[name], pa.float64()) for name in names]
    write([pa.RecordBatch.from_arrays(columns, names=names)] if names else [_rows_only(rows)], out)
    return {"rows": rows}


def stored_scores(pool: Pool, names: Collection[str]) -> tuple[Scores, int]:
    """Columns of numbers that the pool has already; null becomes NaN.

    Raises:
        DataError: if a column is missing, or does not hold numbers.
    """
    parts: dict[str, list[NDArray[np.float64]]] = {name: [np.zeros(0)] for name in names}
    for name in names:
        kind = pool.schema.field(name).type if name in pool.schema.names else None
        if kind is None or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            what = "no score" if kind is None else f"'{kind}', not a number, in the column"
            known = [*scoring.NAMES, PERPLEXITY, *numbers(pool)]
            near = did_you_mean(name, known) or f" There are: {', '.join(known)}."
            raise DataError(f"{what} '{name}'.{near}")
    rows = 0
    for batch in pool.batches([*names, TEXT]):
        rows += batch.num_rows
        for name in names:
            column = batch.column(name).cast(pa.float64()).fill_null(np.nan)
            parts[name].append(column.to_numpy(zero_copy_only=False))
    return {name: np.concatenate(each) for name, each in parts.items()}, rows


def numbers(pool: Pool) -> list[str]:
    """The pool's columns of numbers."""
    return [
        each.name for each in pool.schema if pa.types.is_integer(each.type) or pa.types.is_floating(each.type)
    ]


@dataclass(frozen=True)
class Filtered:
    """What filtering did.

    Attributes:
        written: how many rows were kept and dropped.
        decision: which, and why.
        scores: columns (rows,) of all rows.
        computed: the names of those that were computed now.
    """

    written: Written
    decision: Decision
    scores: Scores
    computed: tuple[str, ...]


def filter_pool(
    pool: Pool,
    out: Path | str,
    *,
    keep: Sequence[Filter] = (),
    scores: Sequence[str] = (),
    model: Path | str | NGramModel | KenLM | None = None,
    unit: str | None = None,
    dropped: Path | str | None = None,
    directory: Path | None = None,
    workers: int = 1,
    ray: str | None = None,
    watch: Callable[[str, int, int | None], None] | None = None,
) -> Filtered:
    """Score a pool, filter it and write what is kept, with its scores as columns.

    Args:
        pool: where from; a column of a score's name that it has already is used as it is, unless the score
            is in `scores`.
        out: where to; see `posterhall.curation.pool.write`.
        keep: filters, applied one after the other; none keeps everything.
        scores: scores to compute beside those that the filters look at.
        model, unit, directory, workers, ray: see `score_pool`.
        dropped: where to write uid, filter, value and reason of dropped rows.
        watch: called with stage, amount done and total, for progress.

    Raises:
        DataError: for bad input, or if nothing would be kept; then nothing is written.
    """
    if not keep and not scores:
        raise UsageError("nothing would come of it: give filters, scores to compute, or both")
    used = sorted({name for each in keep for name in each.columns})
    known = {*scoring.NAMES, PERPLEXITY}
    asked = list(dict.fromkeys(scores))
    later = [name for name in used if name not in asked]
    has = set(numbers(pool)) if later else set()
    stored = [name for name in later if name in has or name not in known]
    computed = [*asked, *(name for name in later if name not in stored)]

    columns, rows = stored_scores(pool, stored) if stored else ({}, -1)
    if computed:
        total = len(pool.paths) if directory is not None else None
        stage = "score files" if directory is not None else "score"
        watching = None if watch is None else lambda done: watch(stage, done, total)
        found, many = score_pool(
            pool,
            computed,
            model=model,
            unit=unit,
            directory=directory,
            workers=workers,
            ray=ray,
            observe=watching,
        )
        if rows not in (-1, many):
            raise DataError("the pool has changed while it was read; try again")
        columns, rows = {**columns, **found}, many
    decision = decide(keep, columns, rows)
    written = write_kept(
        pool,
        decision.kept,
        out,
        dropped,
        why=decision.why,
        extra={name: columns[name] for name in computed},
        observe=None if watch is None else lambda done: watch("write", done, rows),
    )
    return Filtered(written, decision, columns, tuple(computed))


def _scored(
    pool: Pool,
    names: Collection[str],
    model: NGramModel | KenLM | None,
    observe: Callable[[int], None] | None,
) -> tuple[Scores, int]:
    ordinary = [name for name in names if name != PERPLEXITY]
    parts: dict[str, list[NDArray[np.float64]]] = {name: [np.zeros(0)] for name in names}
    rows = 0
    for batch in pool.batches([TEXT]):
        texts = batch.column(TEXT)
        for name, column in scoring.compute(ordinary, texts).items():
            parts[name].append(column)
        if model is not None and PERPLEXITY in names:
            parts[PERPLEXITY].append(model.perplexity(texts))
        rows += batch.num_rows
        if observe is not None:
            observe(rows)
    return {name: np.concatenate(each) for name, each in parts.items()}, rows


def _rows_only(rows: int) -> Any:
    return pa.RecordBatch.from_arrays([pa.nulls(rows)], names=["nothing"])
