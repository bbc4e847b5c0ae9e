"""Parts of a set of sequences: nothing twice, nothing lost, nothing cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.data.labelled import Sequences, divided, padded
from posterhall.errors import DataError


@given(st.integers(4, 200), st.integers(0, 5), st.sampled_from([0.0, 0.1, 0.3]))
def test_parts_hold_every_row_once(n, seed, test):
    inputs = np.arange(1, n + 1)[:, None]
    parts = divided(Sequences(inputs, np.zeros(n, np.int64), np.ones(n, np.int64)), seed=seed, test=test)
    assert len(parts) == (3 if test else 2)
    assert sorted(np.concatenate([part.inputs[:, 0] for part in parts]).tolist()) == inputs[:, 0].tolist()


def test_rows_are_padded_behind_and_never_cut():
    held, lengths = padded([np.array([3, 4]), np.array([5])], length=3)
    assert held.tolist() == [[3, 4, 0], [5, 0, 0]]
    assert lengths.tolist() == [2, 1]
    with pytest.raises(DataError, match=r"sequence 1 .* has 4 tokens, and the length is 3"):
        padded([np.ones(2, np.int64), np.ones(4, np.int64)], length=3)


def test_empty_sequences_and_sets_are_refused():
    with pytest.raises(DataError, match="there are no sequences"):
        Sequences(np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    with pytest.raises(DataError, match=r"sequence 1 .* is empty"):
        Sequences(np.zeros((2, 3)), np.zeros(2, np.int64), np.array([1, 0]))
    with pytest.raises(DataError, match="do not fit"):
        Sequences(np.zeros((2, 3)), np.zeros(3, np.int64), np.array([1, 1]))
    with pytest.raises(DataError, match="too few"):
        divided(Sequences(np.zeros((2, 3)), np.zeros(2, np.int64), np.array([1, 1])), seed=0)
