"""Claims of Schaeffer, Miranda & Koyejo 2023, "Are Emergent Abilities of Large Language Models a Mirage?".

That abilities seem to appear suddenly with scale because of how they are measured: by metrics that turn a
smooth improvement into a jump, and by tests too small to see small models. The authors published no
code and few settings, so sizes, lengths of training and thresholds here are this package's.

- `toy`: the paper's mathematical model, sampled.
- `arithmetic`: transformers that multiply and add, one set of outputs by many metrics; or a family of
  checkpoints (``--set family=PATH,PATH,PATH``).
- `vision`: emergence induced on purpose, on handwritten digits or CIFAR-100 (``--set cifar=FOLDER``).
- `transition`: what a true transition looks like, as the counter-example.

Everywhere sharpness is the emergence score over that of a straight line, ES / (n - 1), so that families of
different numbers of sizes compare (`_measure.emergence`).
"""

from __future__ import annotations

# In the order in which they are listed and reported.
from posterhall.claims.mirage import toy, arithmetic, vision, transition  # isort: skip

__all__ = ["arithmetic", "toy", "transition", "vision"]
