"""Reads scores: plain tables here, lm-evaluation-harness and BIG-bench files in `harness`.

A plain table (CSV, TSV, JSON lines, a JSON list, Parquet) has one score a row::

    family,scale,task,metric,score,n,seed
    gpt,1.25e8,addition,exact_match,0.01,1000,0

``scale`` and ``score`` are needed. ``family``, ``task``, ``metric``, ``n``, ``seed``, ``item``, ``shots``,
``cluster``, ``chance``, ``higher_is_better`` and ``stderr`` are used where they are; with ``item``, each row
is one item of a test. The ``items.jsonl`` that `posterhall eval tasks` leaves in a run is such a table.
Other names are told by `columns`. Names in files (of models, of tasks) are data and never become paths.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from posterhall.errors import DataError, did_you_mean
from posterhall.scaling.emergence import harness
from posterhall.scaling.emergence.harness import Models
from posterhall.scaling.emergence.series import Row

NAMES: dict[str, tuple[str, ...]] = {
    "family": ("family", "model_family"),
    "model": ("model", "model_name"),
    "scale": ("scale", "params", "parameters", "n_params", "num_params", "total_params", "flops", "compute"),
    "task": ("task", "task_name", "dataset", "benchmark"),
    "metric": ("metric", "metric_name"),
    "score": ("score", "value"),
    "n": ("n", "items", "n_items", "num_items", "n_samples"),
    "seed": ("seed",),
    "shots": ("shots", "num_fewshot", "n_shot"),
    "cluster": ("cluster",),
    "item": ("item", "item_id", "doc_id", "example_id", "uid"),
    "chance": ("chance", "chance_level", "random_baseline"),
    "higher_is_better": ("higher_is_better",),
    "stderr": ("stderr", "std_err", "standard_error"),
}
"""What each column is called in the wild; the first is our name."""

TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".json")


def read(
    paths: Iterable[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    models: str | Path | None = None,
) -> list[Row]:
    """Rows of all files, in their order.

    Args:
        paths: tables, results files of the two harnesses, or directories (searched in depth for what the
            two harnesses and `posterhall eval tasks` write).
        columns: our names of columns to those in the tables: ``{"scale": "flops"}``; for BIG-bench files
            ``scale`` names the field of the model.
        models: table of model, scale and perhaps family, for harness files that do not say how large a
            model is.

    Raises:
        DataError: naming file and line.
    """
    wanted = dict(columns or {})
    for name in wanted:
        if name not in NAMES:
            raise DataError(
                f"no column is called {name!r}; columns are {', '.join(NAMES)}.{did_you_mean(name, NAMES)}"
            )
    known = {} if models is None else read_models(models)
    rows: list[Row] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = harness.read_directory(path, known, wanted)
            for table in sorted(path.rglob("items.jsonl")):
                found += _table_rows(table, wanted)
            if not found:
                raise DataError(
                    f"{path} holds no results of lm-evaluation-harness (results*.json), of BIG-bench "
                    "(scores*.json) or of posterhall eval tasks (items.jsonl); give tables by name"
                )
        else:
            found = _read_file(path, known, wanted)
        rows += found
    if not rows:
        raise DataError("no file holds a score")
    return rows


def read_models(path: str | Path) -> Models:
    """Model names with their family and scale, from a table of model, scale and perhaps family."""
    known: Models = {}
    for where, record in _records(Path(path)):
        model = _text(record.get("model"))
        if not model:
            raise DataError(
                f"{where}: a table of models needs a column 'model' with the name that results use"
            )
        known[model] = (_text(record.get("family")), _number(where, "scale", record.get("scale")))
    return known


def _read_file(path: Path, models: Models, columns: Mapping[str, str]) -> list[Row]:
    if path.suffix == ".json":
        data = harness.load_json(path)
        if not isinstance(data, list):
            return harness.rows(path, data, models, columns)
    return _table_rows(path, columns)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each record of a table stands, and its fields."""
    if path.suffix not in TABLES:
        raise DataError(f"{path} ends in {path.suffix or 'nothing'}; allowed are {', '.join(TABLES)}")
    if not path.is_file():
        raise DataError(f"{path} is no file")
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".json":
            for i, record in enumerate(harness.load_json(path)):
                yield _object(f"{path.name}, record {i + 1}", record)
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8-sig") as lines:
                for i, line in enumerate(lines, 1):
                    if line.strip():
                        where = f"{path.name}:{i}"
                        yield _object(where, harness.parse_json(where, line))
        else:
            with path.open(encoding="utf-8-sig", newline="") as lines:
                reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
                twice = [name for name, count in Counter(reader.fieldnames or ()).items() if count > 1]
                if twice:
                    raise DataError(f"{path.name}:1: two columns are called {twice[0]!r}; rename one")
                for record in reader:
                    where = f"{path.name}:{reader.line_num}"
                    if None in record or None in record.values():
                        raise DataError(
                            f"{where}: has not as many fields as the header ({len(reader.fieldnames or ())})"
                        )
                    yield where, record
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{path}: {error}; a table is text in UTF-8") from None


def _object(where: str, record: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(record, dict):
        raise DataError(f"{where}: holds {type(record).__name__}, not an object with named fields")
    return where, record


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path}: {error}") from None
    for i, record in enumerate(table.to_pylist(), 1):
        yield f"{path.name}, row {i}", record


def _table_rows(path: Path, columns: Mapping[str, str]) -> list[Row]:
    rows: list[Row] = []
    places: dict[str, str] = {}
    fields: tuple[str, ...] | None = None
    for where, record in _records(path):
        if tuple(record) != fields:  # objects may differ from line to line
            fields = tuple(record)
            places = _places(where, fields, columns)
        get = {name: record.get(place) for name, place in places.items()}
        metric = _text(get.get("metric")) or places["score"]
        rows.append(
            Row(
                where,
                _text(get.get("family")),
                _text(get.get("task")),
                metric,
                _number(where, "scale", get["scale"]),
                _number(where, "score", get["score"]),
                _optional(where, "n", get.get("n")),
                _text(get.get("seed")),
                _text(get.get("item")),
                _text(get.get("shots")),
                _text(get.get("cluster")),
                _optional(where, "chance", get.get("chance")),
                _flag(where, get.get("higher_is_better")),
                _optional(where, "stderr", get.get("stderr")),
            )
        )
    return rows


def _places(where: str, fields: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Our name of each column that is there, and its name in the file."""
    places = {}
    for name, names in NAMES.items():
        if name in columns:
            if columns[name] not in fields:
                raise DataError(
                    f"{where}: has no column {columns[name]!r}; columns are {', '.join(fields)}."
                    f"{did_you_mean(columns[name], fields)}"
                )
            places[name] = columns[name]
            continue
        present = [each for each in names if each in fields]
        if len(present) > 1 and name == "scale" and present[0] != "scale":
            raise DataError(
                f"{where}: {' and '.join(present)} could each be the scale; say --columns scale={present[0]}"
            )
        if present:
            places[name] = present[0]
    for name in ("scale", "score"):
        if name not in places:
            raise DataError(
                f"{where}: no column for the {name}; columns are {', '.join(fields)}. Say which with "
                f"--columns {name}=COLUMN"
            )
    return places


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


def _number(where: str, name: str, value: Any) -> float:
    text = _text(value)
    if not text or text.lower() in ("na", "n/a", "null", "none", "-"):
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: {name} is {text[:40]!r}, which is no number (1.3e9, not 1.3B)") from None


def _optional(where: str, name: str, value: Any) -> float | None:
    number = _number(where, name, value)
    return None if math.isnan(number) else number


def _flag(where: str, value: Any) -> bool | None:
    text = _text(value).lower()
    if text in ("true", "1", "1.0", "yes"):
        return True
    if text in ("false", "0", "0.0", "no"):
        return False
    if text:
        raise DataError(f"{where}: higher_is_better is {text[:40]!r}; allowed are true and false")
    return None
