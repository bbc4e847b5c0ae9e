"""Reads what lm-evaluation-harness and BIG-bench write.

lm-evaluation-harness: ``results_*.json`` with ``results[task]["acc,none"]``, and beside it, where samples
were logged, ``samples_<task>_<same date>.jsonl`` with a score an item. The file names the model, and its
number of parameters for Hugging Face models; where it does not, a table of models must.

BIG-bench: ``<task>/results/scores_*.json`` with ``model`` (family, numbers of parameters) and ``scores``,
one entry a subtask and number of shots, each a dictionary of metrics of which one is preferred. Entries
of different shots are different tasks here. Nothing of a task's texts is read, so no canary is due.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from posterhall.errors import DataError
from posterhall.scaling.emergence.series import Row

Models: TypeAlias = dict[str, tuple[str, float]]
"""Name of a model: its family and scale."""

# Of BIG-bench's numbers of parameters the paper's figures use the first that a model has: for sparse
# models the size of a dense one of the same cost.
_BIG_BENCH_SIZES = ("flop_matched_non_embedding_params", "non_embedding_params", "total_params")

_NOT_SCORES = {"alias", "samples", "name", "sample_len", "sample_count"}


def parse_json(where: str, text: str) -> Any:
    """JSON, with its place if it is not."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no valid JSON ({error})") from None


def load_json(path: Path) -> Any:
    """A JSON file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; give a JSON file in UTF-8") from None
    return parse_json(str(path), text)


def read_directory(path: Path, models: Models, columns: Mapping[str, str]) -> list[Row]:
    """Rows of every results file of either harness below a directory."""
    found: list[Row] = []
    for each in sorted(path.rglob("*.json")):
        if each.name.startswith(("results", "scores", "harness-")) and each.name != "scores.json":
            found += rows(each, load_json(each), models, columns)
    return found


def rows(path: Path, data: Any, models: Models, columns: Mapping[str, str]) -> list[Row]:
    """Rows of one results file.

    Raises:
        DataError: if it is neither harness's, or does not say how large the model is.
    """
    if isinstance(data, dict):
        if isinstance(data.get("scores"), list) and isinstance(data.get("model"), dict):
            return list(_big_bench(path, data, columns))
        if isinstance(data.get("results"), dict):
            return list(_lm_eval(path, data, models))
    raise DataError(
        f"{path}: neither results of lm-evaluation-harness (an object 'results') nor of BIG-bench (a list "
        "'scores' and an object 'model')"
    )


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def _big_bench(path: Path, data: Mapping[str, Any], columns: Mapping[str, str]) -> Iterator[Row]:
    model = data["model"]
    field = columns.get("scale")
    sizes = {name: _float(model.get(name)) for name in ([field] if field else _BIG_BENCH_SIZES)}
    scale = next((size for size in sizes.values() if size is not None and size > 0), None)
    if scale is None:
        fields = ", ".join(str(name) for name in model)
        raise DataError(
            f"{path}: the model has no number under {', '.join(sizes)}; its fields are {fields}. Say which "
            "with --columns scale=FIELD"
        )
    about = data.get("task")
    named = about.get("task_name") or about.get("name") if isinstance(about, dict) else None
    task = str(named or (path.parent.parent.name if path.parent.name == "results" else path.stem))
    for i, entry in enumerate(data["scores"]):
        where = f"{path.name}, score {i + 1}"
        if not isinstance(entry, dict) or not isinstance(entry.get("score_dict"), dict):
            raise DataError(f"{where}: has no score_dict")
        subtask = str(entry.get("subtask_description") or "")
        # The whole task is described by its own name or not at all.
        inner = "" if subtask in ("", task, "generic_subtask_description") else f": {subtask}"
        shots = entry.get("number_of_shots", 0)
        preferred = entry.get("preferred_score")
        for metric, value in entry["score_dict"].items():
            score = _float(value)
            if score is None:
                continue
            chosen = metric == preferred
            yield Row(
                where,
                str(model.get("model_family") or ""),
                f"{task}{inner} ({shots}-shot)",
                str(metric),
                scale,
                score,
                # low_score belongs to the preferred metric alone.
                chance=_float(entry.get("low_score")) if chosen else None,
                preferred=chosen,
            )


def _lm_eval(path: Path, data: Mapping[str, Any], models: Models) -> Iterator[Row]:
    config = data.get("config")
    config = config if isinstance(config, dict) else {}
    name = data.get("model_name") or _argument(config.get("model_args"), "pretrained") or config.get("model")
    model = str(name or "")
    family, scale = models.get(model, ("", math.nan))
    if math.isnan(scale):
        size = _float(config.get("model_num_parameters"))
        if size is None or size <= 0:
            raise DataError(
                f"{path}: does not say how large {model or 'the model'} is; give --models TABLE with columns "
                "model, scale and family"
            )
        scale = size
    seen = _under(data, "n-samples")
    better = _under(data, "higher_is_better")
    shots = _under(data, "n-shot")
    for task, metrics in data["results"].items():
        if not isinstance(metrics, dict):
            continue
        items = seen.get(task)
        n = _float(items.get("effective")) if isinstance(items, dict) else None
        direction = better.get(task)
        direction = direction if isinstance(direction, dict) else {}
        samples = _samples(path, str(task))
        examples = str(shots.get(task, ""))
        for key, value in metrics.items():
            metric, _, kept = str(key).partition(",")
            score = _float(value)
            if score is None or metric in _NOT_SCORES or metric.endswith("_stderr"):
                continue
            label = metric if kept in ("", "none") else str(key)
            said = direction.get(metric)
            side = said if isinstance(said, bool) else None
            where = f"{path.name}, {task}"
            each = [] if samples is None else _item_scores(samples, metric, kept)
            if each:
                for place, item, one in each:
                    yield Row(
                        place,
                        family,
                        str(task),
                        label,
                        scale,
                        one,
                        item=item,
                        shots=examples,
                        higher_is_better=side,
                    )
                continue
            stderr = metrics.get(f"{metric}_stderr,{kept}" if kept else f"{metric}_stderr")
            yield Row(
                where,
                family,
                str(task),
                label,
                scale,
                score,
                n,
                shots=examples,
                stderr=_float(stderr),
                higher_is_better=side,
            )


def _under(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _argument(arguments: Any, name: str) -> str | None:
    """One of model_args, which is a dictionary or text: pretrained=EleutherAI/pythia-70m,dtype=float32."""
    if isinstance(arguments, dict):
        return arguments.get(name)
    found = re.search(rf"(?:^|,)\s*{name}=([^,]+)", arguments) if isinstance(arguments, str) else None
    return found[1].strip() if found else None


def _samples(path: Path, task: str) -> list[tuple[str, dict[str, Any]]] | None:
    """The logged samples of a task, from the file beside its results; None if there is none.

    The name is compared with what stands in the directory, so a task called ../x leads nowhere.
    """
    date = path.stem.removeprefix("results").removeprefix("_")
    wanted = f"samples_{task}_{date}.jsonl" if date else f"samples_{task}.jsonl"
    file = next((each for each in path.parent.glob("samples_*.jsonl") if each.name == wanted), None)
    if file is None:
        return None
    records = []
    with file.open(encoding="utf-8", errors="strict") as lines:
        try:
            for i, line in enumerate(lines, 1):
                where = f"{file.name}:{i}"
                record = parse_json(where, line)
                if not isinstance(record, dict) or "doc_id" not in record:
                    raise DataError(f"{where}: no logged sample (an object with a doc_id)")
                records.append((where, record))
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: {error}; samples are JSON lines in UTF-8") from None
    return records


def _item_scores(
    samples: list[tuple[str, dict[str, Any]]], metric: str, kept: str
) -> list[tuple[str, str, float]]:
    """(where, item, score) of each sample; nothing unless each has a number for the metric."""
    found = []
    for where, record in samples:
        if kept and record.get("filter", kept) != kept:
            continue
        score = record.get(metric)
        if isinstance(score, bool):
            score = float(score)
        number = _float(score)
        if number is None:  # perplexity and the like exist for the whole test only
            return []
        found.append((where, str(record["doc_id"]), number))
    return found
