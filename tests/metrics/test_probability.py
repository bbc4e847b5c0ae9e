"""The chain from log-probabilities to accuracy, against closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax, softmax

from posterhall.errors import DataError
from posterhall.metrics import probability as score

LOGPS = np.log([[0.2, 0.1, 0.1], [0.05, 0.3, 0.15]])  # mass outside the options: 0.6 and 0.5


def test_the_chain_of_a_hand_computed_item():
    chain = score.chain(LOGPS, [0, 2])
    assert chain["nll"] == pytest.approx([-math.log(0.2), -math.log(0.15)])
    assert chain["p_vocab"] == pytest.approx([0.2, 0.15])
    assert chain["p_choices"] == pytest.approx([0.5, 0.3])
    assert chain["brier_single"] == pytest.approx([0.25, 0.49])
    assert chain["brier"] == pytest.approx([0.25 + 2 * 0.25**2, 0.49 + 0.1**2 + 0.6**2])
    assert chain["accuracy"].tolist() == [1, 0]


def test_several_right_targets_add_their_probabilities():
    assert score.nll(np.log([[0.1, 0.3]])) == pytest.approx([-math.log(0.4)])  # not the mean of the logs
    assert score.p_choices(LOGPS, [[0, 1], [2]]) == pytest.approx([0.75, 0.3])
    assert score.brier(score.distribution(LOGPS), [[0, 1], [2]])[0] == pytest.approx(0.25**2 + 0.25**2)


def test_right_options_may_be_given_as_indices_lists_or_a_mask():
    mask = score.right_options([[0, 1], [2]], 2, 3)
    assert mask.tolist() == [[True, True, False], [False, False, True]]
    assert (score.right_options(mask, 2, 3) == mask).all()
    assert score.right_options(np.array([2, 0]), 2, 3).tolist() == [
        [False, False, True],
        [True, False, False],
    ]
    assert (score.right_options([[0, 1], [1, 2]], 2, 3).sum(axis=1) == 2).all()


def test_brier_can_worsen_while_accuracy_rises():  # mass moves among the wrong options
    before, after = (
        np.log([[0.34, 0.33, 0.33], [0.45, 0.55, 1e-9]]),
        np.log([[0.34, 0.33, 0.33], [0.05, 0.95, 1e-9]]),
    )
    brier = [score.brier(score.distribution(logps), [0, 0]).mean() for logps in (before, after)]
    assert brier[1] > brier[0]
    assert score.accuracy(after, [0, 0]).mean() == score.accuracy(before, [0, 0]).mean()


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(-800, 0)),
    st.integers(0, 2**32 - 1),
)
def test_shares_among_the_options_are_scipys_softmax(logps, seed):
    correct = np.random.default_rng(seed).integers(0, logps.shape[1], len(logps))
    expected = softmax(logps, axis=1)[np.arange(len(logps)), correct]
    assert score.p_choices(logps, correct) == pytest.approx(expected, abs=1e-12)
    assert score.distribution(logps) == pytest.approx(np.exp(log_softmax(logps, axis=1)), abs=1e-12)


@given(st.lists(st.lists(st.floats(-50, 0), min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_padding_changes_no_score(rows, data):
    correct = [data.draw(st.integers(0, len(row) - 1)) for row in rows]
    lengths = [[float(j + 1) for j in range(len(row))] for row in rows]
    whole = score.chain(rows, correct, lengths=lengths)
    for i, row in enumerate(rows):
        alone = score.chain([row], [correct[i]], lengths=[lengths[i]])
        for name, values in alone.items():
            assert values[0] == pytest.approx(whole[name][i], abs=1e-12), name


def test_probability_zero_is_an_infinite_loss_and_no_accident():
    logps = [[-math.inf, -1.0], [-2.0, -math.inf]]
    with np.errstate(all="raise"):
        assert score.nll([-math.inf, 0.0]).tolist() == [math.inf, 0.0]
        assert score.p_choices(logps, [0, 0]).tolist() == [0.0, 1.0]
        assert score.accuracy(logps, [0, 0]).tolist() == [0.0, 1.0]
    with pytest.raises(DataError, match="item 1: every option"):
        score.p_choices([[-1.0, -2.0], [-math.inf, -math.inf]], [0, 0])


def test_ties_are_shared_as_by_guessing_or_go_to_the_first():
    tied = [[-1.0, -1.0, -3.0], [-1.0, -1.0, -1.0]]
    assert score.accuracy(tied, [0, 2]) == pytest.approx([0.5, 1 / 3])
    assert score.accuracy(tied, [0, 2], ties="first").tolist() == [1, 0]
    assert score.accuracy(tied, [1, 0], ties="first").tolist() == [0, 1]


def test_length_normalisation_undoes_the_advantage_of_short_options():
    logps, lengths = [[-4.0, -6.0]], [[2, 6]]
    assert score.accuracy(logps, [1]).tolist() == [0]
    assert score.accuracy_norm(logps, lengths, [1]).tolist() == [1]  # -2 against -1 a character


def test_bits_per_byte_weighs_texts_by_their_length():
    # A uniform model over 256 bytes needs 8 bits for each, however the bytes are cut into texts.
    sizes = np.array([3, 50, 7])
    assert score.bits_per_byte(-sizes * math.log(256), sizes) == pytest.approx(8.0)
    assert score.bits_per_byte([-math.log(2), 0.0], [1, 9]) == pytest.approx(0.1)


def test_rescaled_is_zero_at_chance_and_one_at_the_top():
    assert score.rescaled([0.25, 1.0, 0.0], 0.25) == pytest.approx([0, 1, -1 / 3])
    with pytest.raises(DataError, match="per cent"):
        score.rescaled(55.0, 0.25)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: score.p_choices([[-1.0, math.nan]], [0]), "item 0, option 1"),
        (lambda: score.p_choices([[-1.0, -2.0]], [2]), "count from 0"),
        (lambda: score.p_choices([[-1.0, -2.0]], [0, 1]), "right options for 2 items"),
        (lambda: score.p_choices([[-1.0, -2.0]] * 2, [[0, 1], [1, -1]]), "item 1: right option -1"),
        (lambda: score.p_choices([[-1.0, -2.0]], [0.5]), "item 0: right option 0.5"),
        (lambda: score.p_choices([[-1.0, -2.0]], [True]), "item 0: right option True"),
        (lambda: score.p_choices([[-1.0, -2.0]], ["B"]), "item 0: right option B"),
        (lambda: score.p_choices([[-1.0, -2.0]], [[]]), "no right option"),
        (lambda: score.p_choices([[-1.0, "a"]], [0]), "no number"),
        (lambda: score.p_choices([], []), "shape"),
        (lambda: score.nll([0.3]), "negative log-likelihoods"),
        (lambda: score.brier([[-1.0, -2.0]], [0]), "no probability"),
        (lambda: score.brier([[0.2, 0.1]], [0]), "renormalise"),
        (lambda: score.brier_single([55.0]), "per cent"),
        (lambda: score.accuracy_norm([[-1.0, -2.0]], [[1, 0]], [0]), "option 1 has length 0"),
        (lambda: score.accuracy_norm([[-1.0, -2.0]], [[1]], [0]), "must be equal"),
        (lambda: score.bits_per_byte([], []), "no byte"),
        (lambda: score.accuracy([[-1.0]], [0], ties="last"), "share and first"),
    ],
)
def test_what_is_no_score_is_refused_by_name(call, match):
    with pytest.raises(DataError, match=match):
        call()
