"""Claims of Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward
Model".

That a policy can be trained on preferences directly, without a reward model and without sampling, and ends
nearer to the best that its divergence from the reference allows. Everything is measured in a laboratory small
enough for all answers to be enumerated: divergences, expected rewards and the frontier itself are sums, not
estimates.

- `frontier`: DPO against PPO on the true reward, Preferred-FT, Unlikelihood, and what no policy can exceed. -
  `costs`: seconds, drawn words and weights, to come equally far. - `overoptimisation`: a learned reward
  pushed far, by PPO and by the best of n. - `learning`: the gradient's weights, chosen answers, rankings
  against pairs, what the implicit reward becomes.
- `shift`: temperatures and prompts other than in training.
- `text`: lines of real text, a lexicon or a reward of one's own, and divergences from samples.
"""

from __future__ import annotations

# In the order in which they are listed and reported.
from posterhall.claims.dpo import frontier, costs, overoptimisation, learning, shift, text  # isort: skip

__all__ = ["costs", "frontier", "learning", "overoptimisation", "shift", "text"]
