"""What a grid came to: for each arm and length, how its seeds did."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from posterhall.stats import mean_interval


def summarise(mixers: Sequence[str], done: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row an arm and length, lengths in the grid's order and arms within.

    Args:
        mixers: arms, in order.
        done: what `training.train` told of each model.

    Returns:
        Rows with "mixer", "length", "width", "parameters", "looks_ahead", "continuous"; "accuracy", its mean
        over seeds on test rows, "sd" and "interval" (95 %, Student t; None for a single seed), "accuracies"
        by seed (None where all trainings failed, which counts as 0), "lr", the rates chosen, by seed;
        "chance"; medians of "steps" and "seconds" (CPU); "at" and "rates": mean "accuracy" at other lengths
        and sampling rates, or why it was "refused".
    """
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for each in done:
        groups.setdefault((each["length"], each["mixer"]), []).append(each)
    lengths = list(dict.fromkeys(length for length, _ in groups))
    return [
        _row(groups[length, mixer]) for length in lengths for mixer in mixers if (length, mixer) in groups
    ]


def _row(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = models[0]
    counted = [each["accuracy"] or 0.0 for each in models]
    interval = mean_interval(counted)
    alike = ("mixer", "length", "width", "parameters", "looks_ahead", "continuous")
    return {
        **{name: first[name] for name in alike},
        "accuracy": statistics.fmean(counted),
        "sd": statistics.stdev(counted) if len(counted) > 1 else None,
        "interval": [interval.low, interval.high] if math.isfinite(interval.low) else None,
        "accuracies": [each["accuracy"] for each in models],
        "lr": [each["lr"] for each in models],
        "chance": statistics.fmean(each["chance"] for each in models),
        "steps": statistics.median(each["steps"] for each in models),
        "seconds": statistics.median(each["seconds"] for each in models),
        "at": _means(models, "at", ("length",)),
        "rates": _means(models, "rates", ("rate", "length")),
    }


def _means(models: Sequence[Mapping[str, Any]], kind: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Over seeds; a model that could not be trained counts as 0 as it does elsewhere."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for model in models:
        for each in model[kind]:
            found.setdefault(tuple(each[key] for key in keys), []).append(each)
    rows = []
    for place, tested in found.items():
        refused = next((each["refused"] for each in tested if each["refused"]), None)
        total = math.fsum(each["accuracy"] or 0.0 for each in tested)
        rows.append(
            {
                **dict(zip(keys, place, strict=True)),
                "accuracy": None if refused else total / len(models),
                "refused": refused,
            }
        )
    return rows
