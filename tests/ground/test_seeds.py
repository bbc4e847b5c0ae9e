"""Seeds: stable for ever, distinct by name, independent of order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.seeds import derive, generator

part = st.one_of(st.integers(), st.text(max_size=20))


def test_derived_seeds_never_change():  # saved results name only the seed, so these are a file format
    assert derive(0) == 9042727785052346413
    assert derive(1, "subsample", 3) == 1275458812297215359
    assert derive(-5, "ünïcode", 10**40) == 358991202089897247


def test_generator_is_numpys_philox_keyed_by_the_derived_seed():
    ours, numpys = generator(7, "noise", 2), np.random.Generator(np.random.Philox(key=derive(7, "noise", 2)))
    assert ours.integers(0, 2**62, 5).tolist() == numpys.integers(0, 2**62, 5).tolist()


@given(st.lists(part, max_size=4), st.lists(part, max_size=4))
def test_different_paths_give_different_seeds(a, b):
    assert 0 <= derive(1, *a) < 2**63
    assert (derive(1, *a) == derive(1, *b)) == (a == b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1, "ab", "c"), (1, "a", "bc")),
        ((1, "1"), (1, 1)),
        ((1, 12, 3), (1, 1, 23)),
        ((1,), (1, "")),
        ((11,), (1, 1)),
    ],
)
def test_parts_do_not_run_into_each_other(a, b):
    assert derive(*a) != derive(*b)


def test_numpy_integers_are_integers():
    assert derive(np.int64(3), np.uint8(4)) == derive(3, 4)


def test_a_float_is_refused_because_it_would_not_be_stable():
    with pytest.raises(TypeError):
        derive(1, 0.5)


def test_neighbouring_streams_are_uncorrelated():
    streams = np.array([generator(0, "x", i).standard_normal(20_000) for i in range(10)])
    correlation = np.corrcoef(streams) - np.eye(10)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)
