"""Mixtures of sources to a budget, with repetition: so much prose and so much code, over so many epochs.

Each source is shuffled once, and its unique part is the beginning of that one permutation: a smaller part
is contained in every larger one (Muennighoff et al. 2023 take `head -n` of a shuffled file). It is then
repeated, shuffled anew in every epoch, until the source has its share of the budget; the last epoch may be
a part of one. Sources are interleaved so that any stretch of the result has about their shares. Everything
follows from the seed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from posterhall.config import plain
from posterhall.curation._writing import refuse_input, write
from posterhall.curation.pool import TEXT, UID, Pool
from posterhall.errors import DataError, UsageError
from posterhall.runs import write_atomic
from posterhall.seeds import generator

Measure = Callable[[Any], NDArray[np.int64]]
"""Size of each of an Arrow array of texts, in the unit of the budget."""

_WRITE_ROWS = 1024
_SCHEMA = pa.schema(
    [
        pa.field(UID, pa.string()),
        pa.field(TEXT, pa.large_string()),
        pa.field("source", pa.string()),
        pa.field("epoch", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Source:
    """Where a part of a mixture comes from.

    Attributes:
        pool: the texts.
        weight: its share of the budget, relative to the other sources'; >= 0.
        name: what it is called in the result.
    """

    pool: Pool
    weight: float
    name: str


@dataclass(frozen=True)
class Part:
    """What a source gave.

    Attributes:
        name: of the source.
        files: read.
        share_asked: of the budget.
        share: of the result.
        available: size of the source, in the unit of the budget.
        unique: size of the part of it that was used.
        size: what went into the result.
        epochs: size / unique.
        documents: in the result.
        unique_documents: distinct ones.
    """

    name: str
    files: tuple[str, ...]
    share_asked: float
    share: float
    available: int
    unique: int
    size: int
    epochs: float
    documents: int
    unique_documents: int


@dataclass(frozen=True)
class Mixture:
    """What was mixed.

    Attributes:
        output: the file.
        unit: of sizes.
        budget: asked for.
        size: got; whole documents, so up to half a document a source more or less.
        unique: unique part asked for; None for all there is.
        seed: what everything drawn at random followed from.
        sources: what each gave.
    """

    output: str
    unit: str
    budget: int
    size: int
    unique: int | None
    seed: int
    sources: tuple[Part, ...]


def mix(
    sources: Sequence[Source],
    out: Path | str,
    *,
    budget: int,
    measure: Measure | None = None,
    unit: str = "bytes",
    unique: int | None = None,
    seed: int = 1,
    watch: Callable[[str, int, int | None], None] | None = None,
) -> Mixture:
    """Write a mixture, and beside it `OUT.manifest.json` with what came from where.

    Args:
        sources: what to mix; those of weight 0 are left out.
        out: see `posterhall.curation.pool.write`; columns uid, text, source and epoch (from 1). Texts that
            are repeated keep their uid.
        budget: size of the result, in the unit of `measure`.
        measure: size of texts; None counts bytes of UTF-8.
        unit: what `measure` counts, for the manifest.
        unique: size of the unique texts of all sources together, at the same shares; None: as many as the
            budget takes.
        seed: decides the permutations.
        watch: called with stage, amount done and total, for progress.

    Raises:
        UsageError: for a budget, weight or unique part out of range.
        DataError: if a source is empty, or has less than the unique part wants.
    """
    out = Path(out)
    _check(sources, budget, unique)
    for source in sources:
        refuse_input(out, source.pool.paths)
    total = sum(source.weight for source in sources)
    measure = measure or byte_sizes
    watch = watch or (lambda stage, done, total: None)
    # The texts of the unique parts, in a file that the system keeps in memory as far as there is some.
    with tempfile.TemporaryDirectory(prefix=".mix-", dir=out.resolve().parent) as folder:
        takes: list[_Take] = []
        for number, source in enumerate(sources):
            if source.weight == 0:
                continue  # its number stays its own: another share must not change what others give
            share = source.weight / total
            sizes = _sizes(source, measure, watch)
            order = generator(seed, "mix", number, "unique").permutation(len(sizes))
            wanted = budget * share if unique is None else unique * share
            if unique is not None and sizes.sum() < wanted * (1 - 1e-9):
                raise DataError(
                    f"source '{source.name}' holds {sizes.sum():,} {unit}, and the unique part wants "
                    f"{wanted:,.0f} of it; ask for less, or add texts to the source"
                )
            chosen = order[: _until(sizes[order], wanted)]
            texts = _spool(source, chosen, Path(folder, f"{number}.arrow"), watch)
            goal = budget * share
            if unique is None and len(chosen) < len(order):
                goal = float(sizes[chosen].sum())  # near enough, and no text need come twice
            takes.append(_repeat(source, number, share, sizes, chosen, texts, goal, seed))
        rows = sum(len(take.rows) for take in takes)
        write(_interleaved(takes, lambda done: watch("write", done, rows)), out)
        for take in takes:
            take.texts.close()
    size = sum(take.size for take in takes)
    result = Mixture(str(out), unit, budget, size, unique, seed, tuple(take.part(size) for take in takes))
    write_atomic(
        out.with_name(f"{out.name}.manifest.json"),
        json.dumps({"version": 1, **plain(result)}, indent=2, ensure_ascii=False) + "\n",
    )
    return result


def byte_sizes(texts: Any) -> NDArray[np.int64]:
    """Bytes of UTF-8 of each text."""
    lengths = pa.compute.binary_length(texts.cast(pa.large_string()))
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


def token_sizes(tokenizer: Any) -> Measure:
    """Tokens of each text, with one more for what ends a document.

    Args:
        tokenizer: of `posterhall.data.tokenizer`.
    """
    ending = int(tokenizer.eos_id is not None)

    def measure(texts: Any) -> NDArray[np.int64]:
        return np.array([len(ids) + ending for ids in tokenizer.encode_batch(texts.to_pylist())], np.int64)

    return measure


class _Texts:
    """Texts in a file, in any order."""

    def __init__(self, path: Path) -> None:
        self._map = pa.memory_map(str(path))
        self.table = pa.ipc.open_file(self._map).read_all()

    def close(self) -> None:
        del self.table
        self._map.close()


@dataclass
class _Take:
    """What is taken of a source: rows of its spooled texts, one after the other."""

    source: Source
    share: float
    available: int
    unique: int
    unique_documents: int
    texts: _Texts
    rows: NDArray[np.int64]
    epochs: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def size(self) -> int:
        return int(self.sizes.sum())

    def part(self, total: int) -> Part:
        return Part(
            name=self.source.name,
            files=tuple(map(str, self.source.pool.paths)),
            share_asked=self.share,
            share=self.size / total,
            available=self.available,
            unique=self.unique,
            size=self.size,
            epochs=self.size / self.unique,
            documents=len(self.rows),
            unique_documents=self.unique_documents,
        )


def _check(sources: Sequence[Source], budget: int, unique: int | None) -> None:
    for source in sources:
        if not 0 <= source.weight < float("inf"):
            raise UsageError(f"the weight of '{source.name}' is {source.weight}; it must be 0 or more")
    if not any(source.weight > 0 for source in sources):
        raise UsageError("no source has a weight above 0; there is nothing to mix")
    if budget < 1:
        raise UsageError(f"the budget is {budget}; it must be at least 1")
    if unique is not None and not 1 <= unique <= budget:
        raise UsageError(
            f"the unique part is {unique:,} and the budget {budget:,}; give at least 1, and at most the "
            "budget, because no more is seen"
        )


def _sizes(source: Source, measure: Measure, watch: Callable[..., None]) -> NDArray[np.int64]:
    parts = [np.zeros(0, np.int64)]
    rows = 0
    for batch in source.pool.batches([TEXT]):
        parts.append(measure(batch.column(TEXT)))
        rows += batch.num_rows
        watch(f"measure {source.name}", rows, None)
    sizes = np.concatenate(parts)
    if sizes.sum() == 0:
        raise DataError(f"source '{source.name}' holds no text")
    return sizes


def _until(sizes: NDArray[np.int64], wanted: float) -> int:
    """How many to take, at least one, so that their sum is nearest to what is wanted."""
    sums = np.cumsum(sizes)
    many = int(np.searchsorted(sums, wanted)) + 1  # the first that reaches it
    if many > len(sums):
        return len(sums)
    before = sums[many - 2] if many > 1 else 0
    nearer = many > 1 and before > 0 and wanted - before < sums[many - 1] - wanted
    return many - 1 if nearer else many


def _spool(source: Source, chosen: NDArray[np.int64], path: Path, watch: Callable[..., None]) -> _Texts:
    """Copy the chosen texts, in the order of the source, into a file for random access."""
    wanted = np.zeros(int(chosen.max()) + 1, np.bool_)
    wanted[chosen] = True
    begin = 0
    schema = pa.schema([_SCHEMA.field(UID), _SCHEMA.field(TEXT)])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in source.pool.batches([UID, TEXT]):
            mask = wanted[begin : begin + batch.num_rows]
            writer.write_batch(batch.slice(0, len(mask)).filter(pa.array(mask)))
            begin += batch.num_rows
            watch(f"read {source.name}", begin, None)
            if begin >= len(wanted):
                break
    return _Texts(path)


def _repeat(
    source: Source,
    number: int,
    share: float,
    sizes: NDArray[np.int64],
    chosen: NDArray[np.int64],
    texts: _Texts,
    wanted: float,
    seed: int,
) -> _Take:
    """The chosen texts, epoch after epoch, until there are as many as wanted."""
    spooled = np.empty(int(chosen.max()) + 1, np.int64)  # row of the source to row of the spool
    spooled[np.sort(chosen)] = np.arange(len(chosen))
    unique = int(sizes[chosen].sum())
    rows: list[NDArray[np.int64]] = []
    epochs: list[NDArray[np.int64]] = []
    taken: list[NDArray[np.int64]] = []
    left = wanted
    epoch = 0
    while left > 0:
        epoch += 1
        order = chosen
        if epoch > 1:
            order = chosen[generator(seed, "mix", number, "epoch", epoch).permutation(len(chosen))]
        many = len(order) if left >= unique else _until(sizes[order], left)
        if left < unique and taken and sizes[order[0]] > 2 * left:
            break  # even one more document would be further off than none
        rows.append(spooled[order[:many]])
        epochs.append(np.full(many, epoch))
        taken.append(sizes[order[:many]])
        left -= int(taken[-1].sum())
        if many < len(order):
            break
    return _Take(
        source, share, int(sizes.sum()), unique, len(chosen), texts,
        np.concatenate(rows), np.concatenate(epochs), np.concatenate(taken),
    )  # fmt: skip


def _interleaved(takes: Sequence[_Take], observe: Callable[[int], None]) -> Iterator[Any]:
    """Batches of all takes, each document where its middle falls within its source."""
    places = np.concatenate([(np.cumsum(t.sizes) - 0.5 * t.sizes) / max(t.size, 1) for t in takes])
    which = np.repeat(np.arange(len(takes)), [len(t.rows) for t in takes])
    within = np.concatenate([np.arange(len(t.rows)) for t in takes])
    order = np.lexsort((within, which, places))
    for begin in range(0, len(order), _WRITE_ROWS):
        at = order[begin : begin + _WRITE_ROWS]
        tables = []
        back = []
        for number, take in enumerate(takes):
            mine = np.flatnonzero(which[at] == number)
            if mine.size == 0:
                continue
            inner = within[at[mine]]
            table = take.texts.table.take(pa.array(take.rows[inner]))
            names = pa.array([take.source.name] * len(mine), pa.string())
            table = table.append_column("source", names)
            tables.append(table.append_column("epoch", pa.array(take.epochs[inner], pa.int64())))
            back.append(mine)
        joined = pa.concat_tables(tables).cast(_SCHEMA)
        order_back = np.empty(len(at), np.int64)
        order_back[np.concatenate(back)] = np.arange(len(at))
        yield from joined.take(pa.array(order_back)).combine_chunks().to_batches()
        observe(begin + len(at))
