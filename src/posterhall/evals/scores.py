"""Over the items of a task: means, intervals, and what is above chance."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from posterhall.evals.items import METRICS, Row
from posterhall.evals.shots import Plan
from posterhall.seeds import derive
from posterhall.stats import Interval, bca_interval, cluster_bootstrap, wilson

Rows = Mapping[int, Sequence[Row]]
"""By number of examples, the rows of a plan's items in their order."""


def summarise(plan: Plan, rows: Rows, *, seed: int, resamples: int) -> dict[str, Any]:
    """The scores of a task: each metric by number of examples, and averaged over them.

    The average is taken over the numbers of examples first, item by item (Muennighoff et al. 2023, §7:
    0 to 5 shots averaged), so that the interval over items knows that they are the same items. It is a
    BCa bootstrap over clusters, or over items where no clusters are given; where all items are right, or
    none is, there is nothing to draw and it is Wilson's. Scores that guessing reaches are rescaled,
    (x - chance) / (1 - chance), and so are the interval's ends.

    Args:
        plan: what was asked.
        rows: what came out.
        seed: of the resampling.
        resamples: of the bootstrap, >= 100.

    Returns:
        The object that `scores.json` has for a task.
    """
    shots = sorted(rows)
    named = [item.cluster if item.cluster is not None else f"item {item.id}" for item in plan.items]
    names, clusters = np.unique(named, return_inverse=True)
    scores: dict[str, Any] = {}
    for name, metric in METRICS.items():
        table = _table(rows, shots, name)
        if table is None:
            continue
        # An item counts where it has a score at every number of examples.
        whole = ~np.isnan(table).any(axis=0)
        averaged = table[:, whole].mean(axis=0)
        chance = plan.task.chance if metric.guessed else None
        found = _interval(
            averaged,
            clusters[whole],
            share=metric.guessed,
            seed=derive(seed, "evals", plan.task.name, name),
            resamples=resamples,
        )
        score, low, high = found
        scores[name] = {
            "score": score,
            "low": low,
            "high": high,
            "items": int(whole.sum()),
            "higher_is_better": metric.higher_is_better,
            "chance": chance,
            "rescaled": _rescaled(found, chance),
            "by_shots": {str(k): _mean(table[i][~np.isnan(table[i])]) for i, k in enumerate(shots)},
        }
    return {
        "task": plan.task.name,
        "kind": plan.task.kind,
        "items": len(plan.items),
        "clusters": len(names),
        "shots": shots,
        "contaminated": plan.contaminated,
        "primary": plan.task.primary,
        "scores": scores,
    }


def overall(tasks: Sequence[Mapping[str, Any]], *, seed: int, resamples: int) -> dict[str, Any] | None:
    """The mean over tasks of the primary metric above chance, each task counting the same.

    The interval is over tasks, as if they had been drawn from many; with few of them it is wide.
    Tasks none of whose items has that metric are left out; None if no task is left.
    """
    primary = [task["scores"].get(task["primary"]) for task in tasks]
    above = [each["rescaled"]["score"] for each in primary if each is not None]
    if not above:
        return None
    score, low, high = _interval(
        np.array(above), np.arange(len(above)), seed=derive(seed, "evals", "overall"), resamples=resamples
    )
    return {"metric": "primary, rescaled", "score": score, "low": low, "high": high, "tasks": len(above)}


def long_rows(
    plan: Plan, rows: Rows, *, model: str, family: str | None, scale: float | None
) -> Iterator[dict[str, Any]]:
    """One row an item, number of examples and metric: what `scale emergence` reads, item by item.

    Items without a score (an answer that is no number) have no row.
    """
    chance = plan.task.chance
    for shots in sorted(rows):
        for item, row in zip(plan.items, rows[shots], strict=True):
            for name, score in row.scores.items():
                if score is None:
                    continue
                metric = METRICS[name]
                yield {
                    "family": family,
                    "scale": scale,
                    "model": model,
                    "task": plan.task.name,
                    "shots": shots,
                    "item": item.id,
                    "cluster": item.cluster,
                    "metric": name,
                    "score": score,
                    "chance": chance if metric.guessed else None,
                    "higher_is_better": metric.higher_is_better,
                }


def as_line(value: Mapping[str, Any]) -> str:
    """A JSON line; infinities, which JSON lacks, become null."""
    from posterhall.config import finite

    return json.dumps(finite(dict(value)), ensure_ascii=False) + "\n"


def _table(rows: Rows, shots: Sequence[int], name: str) -> npt.NDArray[np.float64] | None:
    """Scores of one metric, (numbers of examples, items), NaN where there is none; None if nowhere."""
    if not any(name in row.scores for k in shots for row in rows[k]):
        return None
    values = [[row.scores.get(name) for row in rows[k]] for k in shots]
    return np.array([[math.nan if each is None else each for each in row] for row in values])


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None


def _interval(
    values: npt.NDArray[np.float64],
    clusters: npt.NDArray[Any],
    *,
    share: bool = False,
    seed: int,
    resamples: int,
) -> tuple[float | None, float | None, float | None]:
    """Mean and ends; no ends for fewer than two clusters, or where a value is infinite."""
    mean = _mean(values)
    units = len(np.unique(clusters))
    if mean is None or not np.isfinite(values).all() or units < 2:
        return mean, None, None
    found: Interval
    if share and np.isin(mean, (0, 1)):
        found = wilson(mean * units, units)
    elif units == len(values):
        found = bca_interval(values, np.mean, seed=seed, resamples=resamples)
    else:
        found = cluster_bootstrap(values, clusters, "mean", seed=seed, resamples=resamples)
    return found.estimate, found.low, found.high


def _rescaled(
    found: tuple[float | None, float | None, float | None], chance: float | None
) -> dict[str, float | None] | None:
    if chance is None:
        return None
    above = [None if each is None else (each - chance) / (1 - chance) for each in found]
    return dict(zip(("score", "low", "high"), above, strict=True))
