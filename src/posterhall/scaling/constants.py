"""Constants of published laws, with where they are from. Defaults, never more than a starting point.

Rounding matters: Chinchilla's constants as printed miss the points they were fitted to by 3.3 times the
objective of the unrounded ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from posterhall.errors import DataError, did_you_mean

BASE: tuple[str, ...] = ("E", "A", "B", "alpha", "beta")
"""Constants of Chinchilla's law, which most others share."""
LIVES: tuple[str, ...] = ("R_D", "R_N")
"""Lives of repeated data and of surplus parameters."""


@dataclass(frozen=True)
class Constants:
    """Published values of a law.

    Attributes:
        name: short name, as on the command line.
        values: E, A, B, alpha, beta, and where there are any R_D and R_N (repetitions, 1/e lives).
            Losses in nats a token; parameters and tokens as counts.
        source: paper and place.
    """

    name: str
    values: Mapping[str, float]
    source: str


def _of(
    name: str, source: str, *, E: float, A: float, B: float, alpha: float, beta: float, **more: float
) -> Constants:
    values = {"E": E, "A": A, "B": B, "alpha": alpha, "beta": beta, **more}
    return Constants(name, MappingProxyType(values), source)


_LIVES = {"R_D": 15.387756, "R_N": 5.309743}

PUBLISHED: dict[str, Constants] = {
    each.name: each
    for each in (
        _of(
            "c4",
            "Muennighoff et al. 2023 (arXiv 2305.16264), C4 with GPT-2's tokens; the lives from 182 runs",
            E=math.exp(0.6254804),
            A=math.exp(6.255414),
            B=math.exp(7.3049974),
            alpha=0.3526596,
            beta=0.3526596,
            **_LIVES,
        ),
        _of(
            "massivetext",
            "Muennighoff et al. 2023, Chinchilla's points refitted; the lives are those of C4",
            E=math.exp(0.5247285),
            A=math.exp(6.0073379),
            B=math.exp(6.0161572),
            alpha=0.34,
            beta=0.28,
            **_LIVES,
        ),
        _of(
            "chinchilla-rounded",
            "Hoffmann et al. 2022 (arXiv 2203.15556), eq. 10, as printed",
            E=1.69,
            A=406.4,
            B=410.7,
            alpha=0.34,
            beta=0.28,
        ),
        _of(
            "chinchilla",
            "Hoffmann et al. 2022, unrounded as in the TeX source of the paper",
            E=math.exp(0.5267228),
            A=math.exp(6.0073404),
            B=math.exp(6.0179186),
            alpha=0.33917084,
            beta=0.2849083,
        ),
        _of(
            "epoch",
            "Besiroglu et al. 2024 (arXiv 2404.10102), 240 points read off Chinchilla's figure",
            E=1.8172,
            A=482.01,
            B=2085.43,
            alpha=0.3478,
            beta=0.3658,
        ),
    )
}


def published(name: str) -> Constants:
    """Published constants by name; "paper" is C4's of the data-constrained paper.

    Raises:
        DataError: if there are none of that name.
    """
    key = "c4" if name == "paper" else name
    if key not in PUBLISHED:
        raise DataError(
            f"no published constants are called '{name}'; there are: {', '.join(PUBLISHED)}."
            f"{did_you_mean(name, PUBLISHED)}"
        )
    return PUBLISHED[key]
