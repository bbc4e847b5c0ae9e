"""Duplicates in text: near ones, shared passages, and equal texts.

- `near_duplicates`: MinHash and banding, each proposed pair compared by its true Jaccard similarity.
- `shared_spans`: documents that share a passage of so many characters, by suffix sorting.
- `exact_duplicates`: equal texts.
- `deduplicate`: any of the three on a pool of files.
- `Mapped`: texts in files that are read by several processes or machines, for any of the three.
"""

from posterhall.curation.dedup.exact import Exact, exact_duplicates
from posterhall.curation.dedup.minhash import MinHash, near_duplicates, s_curve
from posterhall.curation.dedup.passes import Mapped
from posterhall.curation.dedup.pools import Outcome, deduplicate
from posterhall.curation.dedup.result import Duplicates
from posterhall.curation.dedup.substring import SharedSpans, Substring, shared_spans

__all__ = [
    "Duplicates",
    "Exact",
    "Mapped",
    "MinHash",
    "Outcome",
    "SharedSpans",
    "Substring",
    "deduplicate",
    "exact_duplicates",
    "near_duplicates",
    "s_curve",
    "shared_spans",
]
