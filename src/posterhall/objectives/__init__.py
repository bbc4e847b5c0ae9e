"""Pure loss functions on tensors, and the matrix products they share with the models.

Modules are imported on first use: `posterhall.objectives.lm`, `.ppo`, `.preference`, `.reward`,
`.products`.
"""

from __future__ import annotations

from posterhall import lazy

_MODULES = ("lm", "ppo", "preference", "products", "reward")

__getattr__, __dir__ = lazy.attributes(__name__, modules=_MODULES)
