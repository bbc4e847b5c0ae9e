"""Claims of the two word2vec papers.

"Where" is a place in Mikolov, Sutskever, Chen, Corrado & Dean 2013, "Distributed Representations of Words and
Phrases and their Compositionality", unless it says "Efficient Estimation": Mikolov, Chen, Corrado & Dean
2013, "Efficient Estimation of Word Representations in Vector Space".

Most claims are tried on generated corpora whose truth is known (`posterhall.data.synthetic`): every word is
an entity in a slot, so every analogy question has an exact answer. Two are tried on real text: the
English found on every machine with Python, or the user's own (``--set corpus=PATH``).

Every arm of a comparison of losses may take the best of the same few learning rates, chosen by one half of
the questions and scored on the other (`_planted.Ground.train`).
"""

from __future__ import annotations

from posterhall.claims.word2vec import losses, meaning, noise, recurrence, text  # noqa: F401
