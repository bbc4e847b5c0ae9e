"""What deduplication returns, whatever the method: which texts stay, and why the others go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterhall.curation.dedup import _lsh_kernels as kernels
from posterhall.errors import DataError

Keep = Literal["first", "longest", "best"]


@dataclass(frozen=True)
class Duplicates:
    """Clusters of duplicates; one text of each stays. Arrays have one value a text, in the order given.

    Attributes:
        keep: whether the text stays.
        kept: the text that stays in its cluster (its own number for a text without duplicates).
        match: the most similar text it was found equal to; -1 where there is none.
        similarity: Jaccard similarity with ``match``, at least the threshold; 1 for equal texts, 0 where
            there is none.
        similarity_kept: with the text that stays. It may lie below the threshold: clusters are chained, A
            like B and B like C.
        facts: what was done: documents, bytes, candidate pairs, pairs compared, and so on.
    """

    keep: NDArray[np.bool_]
    kept: NDArray[np.int64]
    match: NDArray[np.int64]
    similarity: NDArray[np.float64]
    similarity_kept: NDArray[np.float64]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def dropped(self) -> NDArray[np.int64]:
        """Numbers of the texts that go."""
        return np.flatnonzero(~self.keep)

    def clusters(self) -> list[NDArray[np.int64]]:
        """Clusters of two and more, by the text that stays in each; members ascending."""
        order = np.argsort(self.kept, kind="stable")
        cuts = np.flatnonzero(np.diff(self.kept[order])) + 1
        return [group for group in np.split(order, cuts) if group.size > 1]

    def table(self, uids: pa.Array | Sequence[str] | None = None) -> pa.Table:
        """A row for each dropped text: uid, kept, match, similarity, similarity_kept.

        Args:
            uids: names of all texts; None means their numbers.
        """
        gone = self.dropped
        names = pa.array(np.arange(self.keep.size)) if uids is None else pa.array(uids)
        return pa.table(
            {
                "uid": names.take(pa.array(gone)),
                "kept": names.take(pa.array(self.kept[gone])),
                "match": names.take(pa.array(self.match[gone])),
                "similarity": self.similarity[gone],
                "similarity_kept": self.similarity_kept[gone],
            }
        )


def equal_heads(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each row of 128-bit hashes (n, 2) the first row that is equal to it, (n,)."""
    head = np.arange(len(hashes))
    kernels.equal(np.argsort(hashes[:, 0]), hashes, head)
    return head


def survivors(
    head: NDArray[np.int64], policy: Keep, lengths: NDArray[np.int64], scores: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """The text that stays in each text's cluster, (n,).

    Args:
        head: (n,) the cluster of each text, named by one of its members.
        policy: ``first``, ``longest`` (most characters) or ``best`` (highest score); of equals the first.
        lengths: (n,) characters.
        scores: (n,) for ``best``; NaN is the lowest.

    Raises:
        DataError: for ``best`` without scores, or scores of another number of texts.
    """
    n = head.size
    if policy == "best":
        if scores is None:
            raise DataError("keep=best needs scores, one a text; give a score column, or keep=first")
        if scores.shape != (n,):
            raise DataError(f"{scores.shape} scores for {n:,} texts; there must be one a text")
        rank = np.where(np.isnan(scores), -np.inf, scores)
    else:
        rank = lengths.astype(np.float64) if policy == "longest" else np.zeros(n)
    order = np.lexsort((np.arange(n), -rank, head))
    first = np.ones(n, np.bool_)
    first[1:] = head[order[1:]] != head[order[:-1]]
    best = np.empty(n, np.int64)
    best[order] = order[first][np.cumsum(first) - 1]
    return best
