"""Scaling laws of loss: fits with their width, compute-optimal allocation, repeated data; and emergence.

    law = ph.scaling.DataConstrained().fit("runs.csv")
    law.params_, law.minima_, law.interval_, law.flags_
    law.allocate(flops=1e21, unique_tokens=25e9)

- `laws`: Chinchilla's, the data-constrained one in all its variants, and two in which loss rises with epochs;
- `table`: runs from a file, with columns and units made explicit and impossible tables refused;
- `fit`, `intervals`, `allocate`, `approaches`, `views`: what can be done with them;
- `emergence`: whether a jump in a score is the model's or the metric's.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posterhall.scaling.allocate import Allocation
    from posterhall.scaling.constants import PUBLISHED, Constants
    from posterhall.scaling.effective import effective_data, effective_params, useful_params
    from posterhall.scaling.fit import Fit, Minimum
    from posterhall.scaling.laws import (
        Chinchilla,
        DataConstrained,
        ExponentDecay,
        Law,
        OverfittingPenalty,
        Saturating,
        Symbol,
    )
    from posterhall.scaling.settings import FitSettings
    from posterhall.scaling.table import Runs, read

_PLACES = {
    "PUBLISHED": "constants",
    "Allocation": "allocate",
    "Chinchilla": "laws",
    "Constants": "constants",
    "DataConstrained": "laws",
    "ExponentDecay": "laws",
    "Fit": "fit",
    "FitSettings": "settings",
    "Law": "laws",
    "Minimum": "fit",
    "OverfittingPenalty": "laws",
    "Runs": "table",
    "Saturating": "laws",
    "Symbol": "laws",
    "effective_data": "effective",
    "effective_params": "effective",
    "read": "table",
    "useful_params": "effective",
}

__all__ = [
    "PUBLISHED",
    "Allocation",
    "Chinchilla",
    "Constants",
    "DataConstrained",
    "ExponentDecay",
    "Fit",
    "FitSettings",
    "Law",
    "Minimum",
    "OverfittingPenalty",
    "Runs",
    "Saturating",
    "Symbol",
    "effective_data",
    "effective_params",
    "read",
    "useful_params",
]


def __getattr__(name: str) -> Any:
    # On first use, so that emergence does not load the kernels of the fits.
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module '{__name__}' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
