"""Claims of Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models".

That what efficient models lack is recall: to tell, many times in a text, what once followed a token.

- `budget`: many queries at one number of steps, with and without a short convolution before every mixer.
- `width`: how wide a model must be, by how long its rows are.
- `planted`: a text in which what can be recalled is known, and where a gap in perplexity lies.
- `table`: the published perplexities, whether they go with each other.
"""

from __future__ import annotations

# In the order in which they are listed and reported.
from posterhall.claims.recall import budget, width, planted, table  # isort: skip

__all__ = ["budget", "planted", "table", "width"]
