"""Pure loss functions on tensors, and the matrix products they share with the models.

Modules are imported on first use: `posterhall.objectives.lm`, `.ppo`, `.preference`, `.reward`,
`.products`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = ("lm", "ppo", "preference", "products", "reward")


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'posterhall.objectives' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_MODULES))
