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

from typing import TYPE_CHECKING

from posterhall import lazy

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

_MODULES = (
    "allocate",
    "approaches",
    "checks",
    "constants",
    "effective",
    "emergence",
    "files",
    "fit",
    "intervals",
    "laws",
    "problems",
    "runs182",
    "settings",
    "table",
    "views",
)
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

# On first use, so that emergence does not load the kernels of the fits.
__getattr__, __dir__ = lazy.attributes(__name__, names=_PLACES, modules=_MODULES)
