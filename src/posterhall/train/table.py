"""The table of finished trainings, which `scale fit` reads: one row a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall import runs
from posterhall.errors import DataError
from posterhall.train.lm_settings import KIND

_FACTS = ("params", "params_non_embedding", "tokens", "unique_tokens", "epochs", "flops", "loss", "best_loss")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text cell that begins so for a formula."""


@dataclass(frozen=True)
class Table:
    """Finished runs of `train lm`."""

    columns: tuple[str, ...]
    """run; params, tokens and so on; seed; then the settings in which the runs differ."""
    rows: tuple[dict[str, Any], ...]
    unfinished: tuple[Path, ...]
    """Runs that are left out."""

    def csv(self) -> str:
        """As CSV; text that a spreadsheet would take for a formula gets an apostrophe before it."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(row[column]) for column in self.columns] for row in self.rows)
        return stream.getvalue()


def collect(roots: Sequence[Path]) -> Table:
    """The finished runs of `train lm` in directories (three levels deep), in the order of their names.

    Columns: "params" (all, embeddings included), "params_non_embedding", "tokens" (labels trained on),
    "unique_tokens", "epochs", "flops" (6 params tokens), "loss" (held-out, of the last weights, nats a
    token), "best_loss" (of the best evaluation).

    Raises:
        DataError: if there is no finished one.
    """
    found = [path for root in roots for path in runs.find(root)]
    manifests = [(path, runs.read_manifest(path)) for path in found]
    manifests = [(path, manifest) for path, manifest in manifests if manifest["kind"] == KIND]
    finished = [(path, manifest) for path, manifest in manifests if manifest["status"] == "done"]
    if not finished:
        where = ", ".join(map(str, roots))
        unfinished = f" ({len(manifests)} unfinished)" if manifests else ""
        raise DataError(f"no finished run of '{KIND}' in {where}{unfinished}")
    names = list(dict.fromkeys(key for _, manifest in finished for key in manifest["config"]))
    varying = [
        name
        for name in names
        if name not in (*_FACTS, "seed")
        and len({repr(manifest["config"].get(name)) for _, manifest in finished}) > 1
    ]
    rows = tuple(
        {
            "run": str(path),
            **{name: manifest["facts"].get(name) for name in _FACTS},
            "seed": manifest["config"]["seed"],
            **{name: manifest["config"].get(name) for name in varying},
        }
        for path, manifest in finished
    )
    done = {path for path, _ in finished}
    unfinished_runs = tuple(path for path, _ in manifests if path not in done)
    return Table(("run", *_FACTS, "seed", *varying), rows, unfinished_runs)


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value
