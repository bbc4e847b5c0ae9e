"""Claims of Gu, Goel and Ré 2022 (S4) and of those who went on from it (S4D, Mamba).

That a linear system is one model in three forms, stable by its poles; that its poles must be complex, that it
sees further than recurrent networks and attention of its size, and at less cost; and that it must look at
its tokens to pick some of them.

- `systems`: the three forms agree; poles on the wrong side overflow when they must; Euler's steps.
- `digits`: handwritten digits, a pixel at a time.
- `costs`: time by length.
- `selective`: picking tokens out from among blanks, and finding one again however far back it stands.
"""

from __future__ import annotations

# In the order in which they are listed and reported.
from posterhall.claims.state_space import systems, digits, costs, selective  # isort: skip

__all__ = ["costs", "digits", "selective", "systems"]
