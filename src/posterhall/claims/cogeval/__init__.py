"""Claims of Momennejad et al. 2023, "Evaluating Cognitive Maps and Planning in Large Language Models".

That models know the connections of a graph and cannot put them together into plans. Here the model is one
small transformer a seed that learns the paper's six graphs by heart, from walks and from shortest paths,
under names dealt out anew by each seed; a third of the pairs at every distance is never taught (`_world`),
so that plans of a length that was never seen are not what is tested. ``--set model=http://HOST/v1#NAME`` puts
the same questions to any other model, which is told of the graph in the prompt, as in the paper.

- `planning`: steps are known, plans are not made, search over the same steps makes them.
- `structure`: bridges, trees and lines, at equal distance.
- `behaviour`: what follows from a change, temperature, kinds of failure.

The paper's numbers beside ours are those computed anew from the conversations that its authors published.
Failures are named in its abstract: edges invented, ways longer than necessary, loops.
"""

from __future__ import annotations

# In the order in which they are listed and reported.
from posterhall.claims.cogeval import planning, structure, behaviour  # isort: skip

__all__ = ["behaviour", "planning", "structure"]
