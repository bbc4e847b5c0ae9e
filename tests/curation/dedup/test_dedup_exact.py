"""Equal texts, against a dictionary."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.curation.dedup import Exact, exact_duplicates
from posterhall.curation.dedup import exact as module
from posterhall.curation.dedup.texts import alphabet
from posterhall.errors import DataError

TEXTS = st.lists(
    st.sampled_from(["", " ", "a", "A", "a.", "ab", "é", "é!", "long " * 9, "long  " * 9]), max_size=20
)


def firsts(texts):
    seen = {}
    return [seen.setdefault(text, i) for i, text in enumerate(texts)]


@given(TEXTS, st.booleans(), st.sampled_from([None, 16]))
def test_the_first_of_equal_texts_stays(texts, normalise, memory):
    found = exact_duplicates(texts, Exact(normalise=normalise, memory=memory, threads=1))
    compared = [alphabet(True).normalise(t) for t in texts] if normalise else texts
    assert found.kept.tolist() == firsts(compared)
    assert found.dropped.tolist() == [i for i, f in enumerate(firsts(compared)) if i != f]


@given(TEXTS)
def test_texts_of_one_hash_are_told_apart(texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.kernels, "digest_all", lambda text, offsets, seed, out: out.fill(7))
        found = exact_duplicates(texts, Exact(threads=1))
    assert found.kept.tolist() == firsts(texts)


def test_it_reads_batches_and_uses_scores():
    texts = pa.array(["b", "a", "b", "c", "a", "b"])
    found = exact_duplicates(
        lambda: (texts[i : i + 2] for i in (0, 2, 4)),
        Exact(keep="best", threads=2),
        scores=np.array([1.0, 5, 3, 0, 9, 2]),
    )
    assert found.kept.tolist() == [2, 4, 2, 3, 4, 2]
    assert found.match.tolist() == [2, 4, 0, -1, 1, 0]
    assert found.similarity_kept.tolist() == [1, 1, 0, 0, 0, 1]


def test_the_longest_before_normalising_stays():
    assert (
        exact_duplicates(["a b", "A, b!", "a b."], Exact(normalise=True, keep="longest")).kept.tolist()
        == [1] * 3
    )


def test_settings_out_of_range_are_refused():
    with pytest.raises(DataError, match="threads is 0"):
        Exact(threads=0)
