"""Huffman tree over a vocabulary, for hierarchical softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@dataclass(frozen=True)
class HuffmanTree:
    """Paths from the root to every word, concatenated.

    Attributes:
        start: int64 (V + 1,); the path of word w is entries start[w] to start[w + 1] of the others.
        nodes: int32; inner nodes on the path, root first, numbered 0 to V - 2.
        bits: uint8; the branch taken at each node: the word's code.
    """

    start: NDArray[np.int64]
    nodes: NDArray[np.int32]
    bits: NDArray[np.uint8]

    def code(self, word: int) -> str:
        """The word's code as a string of 0 and 1."""
        return "".join(map(str, self.bits[self.start[word] : self.start[word + 1]]))


def huffman_tree(counts: NDArray[np.int64]) -> HuffmanTree:
    """Build the tree that minimises the expected path length under `counts`.

    Two sorted queues, as in word2vec.c; unlike there a code may be of any length (the original writes
    past its 40 slots on extreme count ratios).

    Args:
        counts: int64 (V,), V >= 2, in descending order.
    """
    return HuffmanTree(*_build(np.ascontiguousarray(counts, np.int64)))


@njit(cache=True)
def _build(counts: Any) -> Any:
    words = counts.shape[0]
    weight = np.empty(2 * words - 1, np.int64)
    weight[:words] = counts
    parent = np.zeros(2 * words - 1, np.int64)
    bit = np.zeros(2 * words - 1, np.uint8)
    leaf = words - 1  # the rarest leaf not yet merged
    inner = words  # the lightest inner node not yet merged
    for node in range(words, 2 * words - 1):
        weight[node] = 0
        for branch in range(2):
            if leaf >= 0 and (inner >= node or weight[leaf] < weight[inner]):
                child = leaf
                leaf -= 1
            else:
                child = inner
                inner += 1
            weight[node] += weight[child]
            parent[child] = node
            bit[child] = branch
    root = 2 * words - 2
    depth = np.zeros(2 * words - 1, np.int64)
    for node in range(root - 1, -1, -1):  # a parent is made after its children
        depth[node] = depth[parent[node]] + 1
    start = np.zeros(words + 1, np.int64)
    start[1:] = np.cumsum(depth[:words])
    nodes = np.empty(start[words], np.int32)
    bits = np.empty(start[words], np.uint8)
    for word in range(words):
        node = word
        for at in range(start[word + 1] - 1, start[word] - 1, -1):
            bits[at] = bit[node]
            node = parent[node]
            nodes[at] = node - words
    return start, nodes, bits
