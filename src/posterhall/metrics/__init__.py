"""Pure scoring functions on arrays and texts: probability, text, emergence, agreement, frontier; in batches.

::

    from posterhall.metrics import probability, text
    probability.p_choices(logps, correct)           # (n, K) log-probabilities, (n,) right options
    text.token_edit_distance(predictions, targets)  # n sequences of tokens each
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["agreement", "emergence", "frontier", "probability", "text"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
