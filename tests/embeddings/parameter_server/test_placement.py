from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.embeddings.parameter_server import Placement
from posterhall.embeddings.parameter_server.words import word_load
from posterhall.errors import DataError

ZIPF = 1.0 / np.arange(1, 50_001)


@given(rows=st.integers(1, 300), shards=st.integers(1, 9), kind=st.sampled_from(["dealt", "hash", "range"]))
def test_every_row_has_one_place(rows, shards, kind):
    placement = Placement.make(rows, shards, kind=kind)
    assert placement.sizes().sum() == rows
    found = np.concatenate([placement.rows_of(shard) for shard in range(shards)])
    assert sorted(found.tolist()) == list(range(rows))
    for shard in range(shards):
        mine = placement.rows_of(shard)
        assert placement.local_of[mine].tolist() == list(range(len(mine)))


@pytest.mark.parametrize("shards", [2, 4, 8])
def test_zipf_load_is_even_when_dealt_and_not_when_cut_into_ranges(shards):
    asked = np.minimum(1.0, ZIPF * 1000)  # a row is asked for at most once in a pull
    assert Placement.make(len(asked), shards, load=asked).imbalance(asked) < 1.01
    assert Placement.make(len(asked), shards, kind="range").imbalance(asked) > shards / 2


def test_hot_rows_are_dealt_wherever_they_stand_in_the_table():
    load = np.random.default_rng(0).permutation(ZIPF)
    placement = Placement.make(len(load), 4, load=load)
    hottest = np.argsort(-load)[:4]
    assert sorted(placement.shard_of[hottest].tolist()) == [0, 1, 2, 3]
    assert placement.sizes().tolist() == [12_500] * 4


def test_the_root_of_the_tree_is_the_hottest_output_row(small):
    settings = small.settings(loss="hierarchical")
    planner = small.planner(settings)
    load = word_load(planner, small.vocabulary.counts)[1]
    assert load.argmax() == planner.output_rows - 1
    assert load.max() == small.vocabulary.total


def test_no_shards_is_refused():
    with pytest.raises(DataError, match="1 to 1024"):
        Placement.make(10, 0)
