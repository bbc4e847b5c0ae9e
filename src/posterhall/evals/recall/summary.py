"""What a grid came to: for each arm and size its best rate, and how its seeds did with it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from posterhall.evals.recall.settings import RecallSettings

_KIND = ("length", "pairs", "width", "mixer")


def summarise(settings: RecallSettings, done: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row an arm and size, in the grid's order.

    Args:
        settings: of the grid.
        done: what `training.train` told of each model.

    Returns:
        Rows with "mixer", "length", "pairs", "width"; "lr", the rate with the best mean accuracy on
        validation rows; "accuracy", its mean over seeds on test rows, and "accuracies" by seed (None where
        training failed, which counts as 0 in the mean); "rows", the mean share of rows without a mistake;
        "solved", how many seeds got above `enough` in validation; medians over seeds of "steps" and "seconds"
        (CPU) of a training; "parameters"; "state_bytes"; "plateau", what guessing among the possible answers
        scores.
    """
    found = []
    for kind, models in itertools.groupby(done, key=lambda each: tuple(each[name] for name in _KIND)):
        by_rate: dict[float, list[Mapping[str, Any]]] = {}
        for each in models:
            by_rate.setdefault(each["lr"], []).append(each)
        best = max(by_rate, key=lambda lr: _worth(by_rate[lr]))
        chosen = by_rate[best]
        length, pairs, width, mixer = kind
        found.append(
            {
                "mixer": mixer,
                "length": length,
                "pairs": pairs,
                "width": width,
                "lr": best,
                "accuracy": _mean(chosen, "accuracy"),
                "accuracies": [each["accuracy"] for each in chosen],
                "rows": _mean(chosen, "rows"),
                "solved": sum(each["solved"] for each in chosen),
                "steps": statistics.median(each["steps"] for each in chosen),
                "seconds": statistics.median(each["seconds"] for each in chosen),
                "parameters": chosen[0]["parameters"],
                "state_bytes": chosen[0]["state_bytes"],
                "plateau": settings.made(length, pairs).plateau,
            }
        )
    return found


def frontier(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Which models recall most for their state: those that no other beats with as few bytes, by size of the
    task, from the smallest state to the largest."""
    found = []
    for (length, pairs), group in itertools.groupby(sorted(rows, key=_size), key=_size):
        best = -1.0
        streaming = [row for row in group if row["state_bytes"] is not None]
        for row in sorted(streaming, key=lambda row: (row["state_bytes"], -row["accuracy"])):
            if row["accuracy"] > best:
                best = row["accuracy"]
                found.append(
                    {
                        "length": length,
                        "pairs": pairs or None,
                        "state_bytes": row["state_bytes"],
                        "accuracy": row["accuracy"],
                        "mixer": row["mixer"],
                        "width": row["width"],
                    }
                )
    return found


def _worth(models: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """By which rates are compared: first how many trainings failed."""
    return -sum(each["error"] is not None for each in models), _mean(models, "validation")


def _size(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["length"], row["pairs"] or 0


def _mean(models: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.fmean(each[name] or 0.0 for each in models)
