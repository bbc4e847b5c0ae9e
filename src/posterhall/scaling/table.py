"""Tables of training runs: columns and units made explicit, and what cannot be right refused.

A run is a row: parameters, tokens trained on, unique tokens among them, final loss. Read from CSV, TSV,
JSONL or Parquet, from a mapping of columns or from `posterhall runs export`. Usual names of columns are
recognised; `columns` settles the rest. Names of runs are never parsed for sizes.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError, UsageError, did_you_mean
from posterhall.scaling import checks

Array = npt.NDArray[np.float64]

NAMES: dict[str, tuple[str, ...]] = {
    "params": ("params", "n", "n_params", "num_params", "parameters", "param_count", "model_size"),
    "tokens": ("tokens", "d", "n_tokens", "num_tokens", "training_tokens", "train_tokens", "tokens_seen"),
    "unique_tokens": ("unique_tokens", "u", "unique", "n_unique_tokens", "tokens_unique"),
    "loss": ("loss", "val_loss", "valid_loss", "validation_loss", "eval_loss", "test_loss", "final_loss"),
    "epochs": ("epochs", "n_epochs", "num_epochs"),
    "flops": ("flops", "c", "compute", "training_flops", "training_flop", "flop"),
    "run": ("run", "name", "run_id", "id"),
    "seed": ("seed",),
}
"""Columns and the names by which they are recognised; case, spaces and hyphens do not matter."""

UNITS: dict[str, float] = {
    "ones": 1.0,
    "thousands": 1e3,
    "millions": 1e6,
    "billions": 1e9,
    "trillions": 1e12,
    "nats": 1.0,
    "bits": math.log(2),
}
"""What a column may count in; all but nats and bits are for everything except the loss."""

_NUMBERS = ("params", "tokens", "unique_tokens", "loss", "epochs", "flops")
LARGEST = 1 << 28
"""Bytes; a table of runs is small, so a larger file is something else."""


@dataclass(frozen=True)
class Runs:
    """Training runs as aligned arrays.

    Attributes:
        params: N, shape (n,), > 0.
        tokens: D, tokens trained on, > 0.
        unique_tokens: U, distinct tokens among them, in (0, D].
        loss: final validation loss in nats a token, > 0.
        names: the run's name, or "row K" where the table has none.
        repeats: whether the table says how many tokens were unique (else U = D is assumed).
        flags: what is odd but may be right.
    """

    params: Array
    tokens: Array
    unique_tokens: Array
    loss: Array
    names: tuple[str, ...]
    repeats: bool = True
    flags: tuple[str, ...] = ()
    source: str = field(default="", compare=False)

    def __len__(self) -> int:
        return int(self.loss.size)

    def take(self, keep: npt.NDArray[Any]) -> Runs:
        """Some of the runs, by mask or index."""
        names = tuple(np.array(self.names, dtype=object)[keep].tolist())
        arrays = (self.params[keep], self.tokens[keep], self.unique_tokens[keep], self.loss[keep])
        return replace(
            self, params=arrays[0], tokens=arrays[1], unique_tokens=arrays[2], loss=arrays[3], names=names
        )

    @property
    def epochs(self) -> Array:
        """D / U."""
        return self.tokens / self.unique_tokens

    @property
    def flops(self) -> Array:
        """6 N D, training compute (Kaplan et al. 2020)."""
        return 6 * self.params * self.tokens

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """For each run the number of its (N, D, U), so that runs that differ by their seed share one."""
        keys = np.stack([self.params, self.tokens, self.unique_tokens], axis=1)
        return np.asarray(np.unique(keys, axis=0, return_inverse=True)[1], np.int64).reshape(-1)


def read(
    source: Runs | Mapping[str, npt.ArrayLike] | Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str | float] | None = None,
    drop_unfinished: bool = False,
) -> Runs:
    """Read and check a table of runs.

    Args:
        source: a file (.csv, .tsv, .jsonl, .parquet), a mapping of columns, or runs already read.
        columns: our name to the table's, as ``{"loss": "val_loss"}``; overrides recognition.
        units: our name to a unit of `UNITS` or a factor, as ``{"params": "billions", "loss": "bits"}``.
        drop_unfinished: leave out runs whose loss is 0, NaN or empty, instead of refusing the table.

    Raises:
        DataError: naming the column or rows and the likely cause.
    """
    if isinstance(source, Runs):
        return source
    if isinstance(source, Mapping):
        table, where = {str(k): list(np.asarray(v).tolist()) for k, v in source.items()}, "the table"
    else:
        table, where = _load(Path(source)), str(source)
    if not table or not next(iter(table.values())):
        raise DataError(f"{where} holds no runs; give a row for each run")
    chosen = _choose(table, dict(columns or {}), where)
    factors = _factors(dict(units or {}))
    count = len(next(iter(table.values())))
    names = [str(v) for v in table[chosen["run"]]] if "run" in chosen else []
    names = names or [f"row {i + 1}" for i in range(count)]
    numbers = {
        what: _numbers(table[chosen[what]], what, chosen[what], names, where) * factors.get(what, 1.0)
        for what in _NUMBERS
        if what in chosen
    }
    keep = checks.finished(numbers["loss"], names, chosen["loss"], drop_unfinished)
    dropped = int((~keep).sum())
    if dropped:
        numbers = {what: column[keep] for what, column in numbers.items()}
        names = [name for name, kept in zip(names, keep, strict=True) if kept]
        if not names:
            raise DataError(f"{where}: none of the {dropped} runs has finished; there is nothing to fit")
    repeats = "unique_tokens" in numbers or "epochs" in numbers
    checks.amounts(numbers, names)
    if "unique_tokens" not in numbers:
        numbers["unique_tokens"] = numbers["tokens"] / numbers.get("epochs", 1.0)
        if "epochs" in numbers and (numbers["epochs"] < 1).any():  # part of one pass: nothing is repeated
            numbers["unique_tokens"] = np.minimum(numbers["unique_tokens"], numbers["tokens"])
    checks.unique(numbers, names, chosen)
    flags = [f"{dropped} unfinished runs were left out"] if dropped else []
    flags += checks.suspicions(numbers, names)
    return Runs(
        params=numbers["params"],
        tokens=numbers["tokens"],
        unique_tokens=np.minimum(numbers["unique_tokens"], numbers["tokens"]),
        loss=numbers["loss"],
        names=tuple(names),
        repeats=repeats,
        flags=tuple(flags),
        source=where,
    )


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """Read ``["loss=val_loss,params=n", ...]`` as given to an option.

    Raises:
        UsageError: on a part without "=", or a name given twice.
    """
    found: dict[str, str] = {}
    for part in (piece for text in given for piece in text.split(",") if piece.strip()):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not name or not value:
            raise UsageError(f"{option} {part}: expected OURS=THEIRS, as in {option} loss=val_loss,params=n")
        if name in found:
            raise UsageError(f"{option}: '{name}' is given twice")
        found[name] = value
    return found


def _choose(table: Mapping[str, Any], columns: dict[str, str], where: str) -> dict[str, str]:
    """Our name to the table's for every column that there is."""
    there = ", ".join(table)
    for ours, theirs in columns.items():
        if ours not in NAMES:
            raise DataError(
                f"column '{ours}' is not one that is read; they are: {', '.join(NAMES)}."
                f"{did_you_mean(ours, NAMES)}"
            )
        if theirs not in table:
            raise DataError(
                f"{where} has no column '{theirs}'; it has: {there}.{did_you_mean(theirs, table)}"
            )
    chosen = dict(columns)
    for ours, known in NAMES.items():
        if ours in chosen:
            continue
        matching = [c for c in table if _plain(c) in known and c not in columns.values()]
        if len(matching) > 1:
            raise DataError(
                f"{where}: any of the columns {', '.join(matching)} could be the {ours}; choose with "
                f"--columns {ours}={matching[0]}"
            )
        if matching:
            chosen[ours] = matching[0]
    for needed in ("params", "tokens", "loss"):
        if needed not in chosen:
            raise DataError(
                f"{where} has no column that is known to be the {needed}; it has: {there}. "
                f"Name it: --columns {needed}=COLUMN"
            )
    return chosen


def _plain(name: str) -> str:
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


def _factors(units: dict[str, str | float]) -> dict[str, float]:
    factors: dict[str, float] = {}
    for ours, unit in units.items():
        if ours not in _NUMBERS:
            raise DataError(f"units are for {', '.join(_NUMBERS)}, not for '{ours}'")
        allowed = [u for u in UNITS if (u in ("nats", "bits")) == (ours == "loss")]
        try:
            factor = UNITS[unit] if unit in allowed else float(unit)
        except (ValueError, TypeError):
            raise DataError(
                f"'{unit}' is no unit of {ours}; allowed are {', '.join(allowed)} and a factor, as 1e9"
            ) from None
        if not 0 < factor < math.inf:
            raise DataError(f"the unit of {ours} is {unit}; a factor must be above 0")
        factors[ours] = factor
    return factors


def _numbers(values: Sequence[Any], what: str, column: str, names: Sequence[str], where: str) -> Array:
    out = np.empty(len(values))
    for i, value in enumerate(values):
        try:
            empty = value is None or (isinstance(value, str) and not value.strip())
            out[i] = math.nan if empty else float(value)
        except (TypeError, ValueError):
            raise DataError(
                f"{where}, {names[i]}: {column} is {str(value)[:40]!r}; {what} must be a number, as 2.8e9"
            ) from None
    return out


def _load(path: Path) -> dict[str, list[Any]]:
    """The columns of a file as lists."""
    kind = path.suffix.lower()
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes; a table of runs has under {LARGEST:,}"
            )
        if kind == ".parquet":
            return _parquet(path)
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; give CSV, JSONL or Parquet") from None
    if kind in (".jsonl", ".ndjson", ".json"):
        return _json_lines(path, text)
    if kind in (".csv", ".tsv", ".txt"):
        return _delimited(path, text, "\t" if kind == ".tsv" else ",")
    raise DataError(f"{path}: tables of runs end in .csv, .tsv, .jsonl or .parquet")


def _parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        table: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from None
    return table


def _delimited(path: Path, text: str, delimiter: str) -> dict[str, list[Any]]:
    rows = list(csv.reader(text.splitlines(), delimiter=delimiter))
    if not rows or not rows[0]:
        raise DataError(f"{path} is empty; it needs a line of column names and a row for each run")
    header = [name.strip() for name in rows[0]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: column '{twice[0]}' occurs twice; give every column a name of its own")
    table: dict[str, list[Any]] = {name: [] for name in header}
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(row)} cells for {len(header)} columns; is a comma inside a "
                "number or a name? Quote it"
            )
        for name, cell in zip(header, row, strict=True):
            table[name].append(cell)
    return table


def _json_lines(path: Path, text: str) -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}); give one object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not an object; give one object a line")
        rows.append(row)
    header = dict.fromkeys(key for row in rows for key in row)
    return {str(key): [row.get(key) for row in rows] for key in header}
