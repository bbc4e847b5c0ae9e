"""Pure scoring functions on arrays and texts: probability, text, emergence, agreement, frontier; in batches.

::

    from posterhall.metrics import probability, text
    probability.p_choices(logps, correct)           # (n, K) log-probabilities, (n,) right options
    text.token_edit_distance(predictions, targets)  # n sequences of tokens each
"""

from __future__ import annotations

from posterhall import lazy

__all__ = ["agreement", "emergence", "frontier", "probability", "text"]

__getattr__, __dir__ = lazy.attributes(__name__, modules=__all__)
