"""Fits as JSON, and laws read back from it: what `scale fit --json` prints and `scale allocate` reads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from posterhall.errors import DataError
from posterhall.scaling.approaches import PowerLaws
from posterhall.scaling.fit import Fit, Minimum
from posterhall.scaling.laws import LAWS, Law
from posterhall.stats import Interval

_MOST_DRAWS = 400
_LARGEST = 1 << 26
"""Bytes of a fit; a larger file is something else."""


def to_json(fit: Fit) -> dict[str, Any]:
    """A fit as one JSON object; null is a life that never ends, or the open end of an interval."""
    draws = fit.draws[:: max(1, -(-len(fit.draws) // _MOST_DRAWS))]
    held = fit.held_out
    return {
        "law": fit.law,
        "options": dict(fit.options),
        "params": _finite(fit.values),
        "fitted": list(fit.free),
        "objective": fit.objective,
        "r2": fit.r2,
        "runs": fit.n,
        "interval": {name: interval_json(each) for name, each in fit.intervals.items()},
        "interval_bootstrap": {name: interval_json(each) for name, each in fit.resampled.items()},
        "minima": [{"params": _finite(m.values), "objective": m.objective, "r2": m.r2} for m in fit.minima],
        "profile": {
            name: [{"value": _number(v), "objective": o} for v, o in zip(*map(list, pair), strict=True)]
            for name, pair in fit.profiles.items()
        },
        "held_out": None
        if held is None
        else {
            "runs": held.runs,
            "above_flops": held.above,
            "mean_error": held.mean,
            "worst_error": held.worst,
            "bias": held.bias,
        },
        "outliers": [{"run": name, "residual": residual} for name, residual in fit.outliers],
        "ranges": {name: list(ends) for name, ends in fit.ranges.items()},
        "flags": list(fit.flags),
        "draws": [[_number(float(f"{x:.8g}")) for x in row] for row in draws.tolist()],
    }


def powers_json(found: PowerLaws) -> dict[str, Any]:
    """Approaches 1 and 2 as one JSON object."""
    return {
        "law": f"approach-{found.approach}",
        "params": dict(found.values),
        "objective": found.objective,
        "interval": {name: interval_json(each) for name, each in found.intervals.items()},
        "minima": [],
        "optima": [
            dict(zip(("flops", "params", "tokens", "loss"), row, strict=True))
            for row in found.optima.tolist()
        ],
        "flags": list(found.flags),
    }


def read_law(path: Path) -> Law:
    """A fitted law from a file that holds what `scale fit --json` printed.

    Raises:
        DataError: if it holds something else.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is too large for a fit; give what `scale fit --json` printed")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); give what `scale fit --json` printed") from None
    if isinstance(data, dict) and str(data.get("law", "")).startswith("approach-"):
        raise DataError(
            f"{path} holds approach {str(data['law'])[-1]}, which gives no law of loss; fit --approach 3"
        )
    try:
        kind = LAWS[data["law"]]
        values = _read(data["params"])
        law = kind(values, **data["options"])
        law.fit_ = Fit(
            law=kind.name,
            options=MappingProxyType(dict(data["options"])),
            values=MappingProxyType({s.name: values[s.name] for s in kind.symbols}),
            free=tuple(data["fitted"]),
            objective=float(data["objective"]),
            r2=_float(data["r2"], math.nan),
            n=int(data["runs"]),
            minima=tuple(
                Minimum(
                    MappingProxyType(_read(m["params"])), float(m["objective"]), _float(m["r2"], math.nan)
                )
                for m in data["minima"]
            ),
            intervals=_intervals(data["interval"], values, int(data["runs"])),
            resampled=_intervals(data["interval_bootstrap"], values, int(data["runs"])),
            profiles=MappingProxyType(
                {
                    name: (
                        np.array([_float(p["value"]) for p in points]),
                        np.array([_float(p["objective"]) for p in points]),
                    )
                    for name, points in data["profile"].items()
                }
            ),
            draws=np.array([[_float(x) for x in row] for row in data["draws"]]).reshape(
                -1, len(kind.symbols)
            ),
            held_out=None,
            outliers=(),
            ranges=MappingProxyType({k: (float(v[0]), float(v[1])) for k, v in data["ranges"].items()}),
            flags=tuple(map(str, data["flags"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"{path} is not a fit ({type(error).__name__}: {error}); give what `scale fit --json` printed"
        ) from None
    return law


def _intervals(data: Any, values: Mapping[str, float], n: int) -> MappingProxyType[str, Interval]:
    found = {
        name: Interval(
            values[name],
            _float(i["low"], -math.inf),
            _float(i["high"]),
            float(i["level"]),
            n,
            str(i["method"]),
        )
        for name, i in data.items()
    }
    return MappingProxyType(found)


def interval_json(interval: Interval) -> dict[str, Any]:
    """An interval; null is an end that the runs do not bound."""
    ends = [x if math.isfinite(x) else None for x in (interval.low, interval.high)]
    return {"low": ends[0], "high": ends[1], "level": interval.level, "method": interval.method}


def _number(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(x) for name, x in values.items()}


def _float(x: Any, missing: float = math.inf) -> float:
    return missing if x is None else float(x)


def _read(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): _float(x) for name, x in values.items()}
