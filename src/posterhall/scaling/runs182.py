"""The 182 runs from which the published lives R_D* and R_N* come.

Table of Muennighoff et al. 2023 (https://github.com/huggingface/datablations, Apache-2.0; see the README
beside the file): name, params, tokens, unique_tokens and val_loss of models of 7 M to 8.7 B parameters on C4.
The 44-epoch runs that failed are not among them: the authors took them for outliers.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import numpy as np

from posterhall.scaling.effective import Array
from posterhall.scaling.table import Runs, read

if TYPE_CHECKING:
    from posterhall.scaling.laws import Law

FILE = "datablations-runs-182.csv"
DRAWS = 200


@lru_cache(maxsize=1)
def runs() -> Runs:
    """The 182 runs."""
    with as_file(files("posterhall.scaling") / "data" / FILE) as path:
        return read(path)


def draws(law: Law) -> Array:
    """Constants of a data-constrained law whose lives are refitted to resamples of these runs.

    The other five stay as published. Empty for other laws, for constants that are not C4's, and for none
    that is fitted.

    Returns:
        (200, constants), in the order of the law's values.
    """
    from posterhall.scaling.constants import BASE, published
    from posterhall.scaling.laws import DataConstrained

    c4 = published("c4").values
    if not isinstance(law, DataConstrained) or any(law.values[k] != c4[k] for k in BASE):
        return np.empty((0, 0))
    return _draws(law.decay, law.effects)


@lru_cache(maxsize=8)
def _draws(decay: str, effects: str) -> Array:
    from posterhall.scaling.laws import DataConstrained
    from posterhall.scaling.settings import FitSettings

    law = DataConstrained(decay=decay, effects=effects)  # type: ignore[arg-type]
    settings = FitSettings(bootstrap=DRAWS, profile=False, held_out=0)
    return law.fit(runs(), frozen="c4", settings=settings).fit_.draws
