"""The claims of "Are Emergent Abilities a Mirage?": what they measure with is right, and each runs small."""

from __future__ import annotations

import importlib
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from posterhall.claims import Row, decide, load
from posterhall.claims.mirage import _family, _images, arithmetic, transition, vision
from posterhall.claims.mirage._family import Family, Outputs, checkpoints, trained
from posterhall.claims.mirage._measure import emergence, onset
from posterhall.data.synthetic.arithmetic import Arithmetic
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig, hub
from posterhall.scaling.emergence import Toy

CLAIMS = load(["posterhall.claims.mirage"])


# What is measured.


def test_a_straight_line_has_sharpness_one_and_begins_at_a_tenth():
    scales = np.geomspace(1e3, 1e6, 9)
    line = np.linspace(0.2, 0.7, 9)
    assert emergence(scales, line) == pytest.approx(1)
    assert emergence(scales, 1 - line, higher_is_better=False) == pytest.approx(1)
    assert onset(scales, line) == pytest.approx(0.1)
    assert onset(scales[::-1], 1 - line[::-1], higher_is_better=False) == pytest.approx(0.1)


def test_a_jump_is_as_sharp_as_the_test_is_fine_and_no_sharper():
    jump = [0.0, 0.0, 0.0, 0.0, 0.5, 0.5]
    assert math.isinf(emergence(range(1, 7), jump))
    assert emergence(range(1, 7), jump, resolution=0.01) == pytest.approx(0.5 / 0.01 / 5)
    assert emergence(range(1, 7), jump[::-1], resolution=0.01) == pytest.approx(-10)
    assert onset([1, 10, 100, 1000], [0, 0, 0, 1.0]) == pytest.approx((2 + 0.1) / 3)


def test_the_papers_own_model_is_late_but_not_sharp_on_short_answers():
    toy, sizes = Toy(), np.geomspace(1e8, 3e11, 12)
    right, wrong = toy.accuracy(sizes, 5), toy.edit_distance(sizes, 5)
    assert emergence(sizes, right) / emergence(sizes, wrong, higher_is_better=False) == pytest.approx(
        0.87, abs=0.01
    )
    assert onset(sizes, right) == pytest.approx(0.28, abs=0.01)
    assert onset(sizes, wrong, higher_is_better=False) == pytest.approx(0.07, abs=0.01)


@pytest.mark.parametrize("right", [0, 2, 7, 10])
def test_share_of_sets_without_an_error_is_that_of_all_sets(right):
    hits = [i < right for i in range(10)]
    for k in (1, 3, 5):
        sets = list(combinations(hits, k))
        assert vision._all_right(right, 10, k) == pytest.approx(np.mean([all(s) for s in sets]))


@pytest.mark.parametrize(("hits", "n", "p"), [(0, 200, 1e-4), (3, 20_000, 1e-4), (40, 2000, 0.01)])
def test_tail_of_the_binomial(hits, n, p):
    assert arithmetic._tail(hits, n, p) == pytest.approx(stats.binom.sf(hits - 1, n, p), rel=1e-9)


FAMILY = Family(
    [[1, 2, 3], [4, 5, 6]],
    3,
    (
        Outputs(10, [[1, 2, 4], [9, 9, 9]], np.ones((2, 3))),
        Outputs(100, [[1, 2, 3], [5, 6, 9]], np.zeros((2, 3))),
    ),
)


def test_scores_of_a_family_by_hand():
    assert FAMILY.scores("exact match").tolist() == [0, 0.5]
    assert FAMILY.scores("exact match", 2).tolist() == [0.5, 0.5]
    assert FAMILY.scores("edit distance").tolist() == [2, 1]  # 5, 6, 9 for 4, 5, 6: two edits, not three
    assert FAMILY.scores("likelihood").tolist() == [1, 0]


def test_chance_is_what_answers_dealt_out_anew_score():
    rng = np.random.default_rng(0)
    targets, said = rng.integers(0, 3, (2, 300, 2)).tolist()
    family = Family(targets, 2, (Outputs(1, said, np.zeros((300, 2))),))
    dealt = [family.dealt(rng.permutation(300)).exact().mean() for _ in range(300)]
    assert family.chance()[0] == pytest.approx(np.mean(dealt), abs=0.005)


def test_share_of_the_first_digits_that_is_right():
    assert arithmetic._share_right(FAMILY)[:, 0] == pytest.approx([0.5, 0.5, 2 / 6])
    assert arithmetic._share_right(FAMILY)[:, 1] == pytest.approx([0.5, 0.5, 3 / 6])


def test_a_step_is_a_break_and_a_line_is_not():
    x, noise = np.arange(1, 13), np.random.default_rng(0).normal(size=12) * 0.01
    assert transition.break_evidence(x, (x > 7) + noise) > 20
    assert transition.break_evidence(x, np.log(x) / 3 + noise) < 0
    assert transition.break_evidence(x[:4], noise[:4]) == 0


# Models.


def test_a_decoder_learns_what_it_is_shown_and_its_likelihood_says_so():
    shown = Arithmetic("+", 1).split(12, 10, seed=0)[0]
    untrained, model = (_family._train(shown, shown, 16, 1, steps, seed=1) for steps in (1, 80))
    family = Family(shown.targets().tolist(), 2, (untrained, model))
    assert family.scores("exact match")[1] > 0.7
    assert family.scores("likelihood")[1] < 0.7 < math.log(10) < family.scores("likelihood")[0] + 0.5


def test_a_family_is_in_order_of_size_and_follows_from_its_seed():
    family = trained(Arithmetic("+", 1), (4, 8), steps=3, items=20, seed=1)
    assert family.sizes == sorted(family.sizes)
    again = trained.__wrapped__(Arithmetic("+", 1), (8,), steps=3, items=20, seed=1)
    np.testing.assert_array_equal(again.models[0].nll, family.models[1].nll)


def test_greedy_answers_are_where_the_likelihood_is(monkeypatch):
    monkeypatch.setattr(_family, "_ROWS", 7)  # several batches, the last one short
    shown = Arithmetic("+", 1).split(12, 10, seed=0)[0]
    model = _family._train(shown, shown, 16, 1, 60, seed=1)
    sure = np.exp(-model.nll).min(axis=1) > 0.5  # each right token more probable than all others
    assert sure.any()
    assert Family(shown.targets().tolist(), 2, (model,)).exact()[0][sure].all()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("family")
    tokens = ByteTokenizer()
    for dim in (8, 16, 24):
        config = DecoderConfig(vocab_size=tokens.vocab_size, dim=dim, layers=1, heads=2, max_length=64)
        hub.save(Decoder(config, seed=dim), root / f"d{dim}", tokenizer=tokens)
    return [str(root / f"d{dim}") for dim in (24, 8, 16)]


@pytest.mark.parametrize(("operation", "digits", "length"), [("*", 2, 4), ("+", 4, 5)])
def test_a_family_of_checkpoints_is_asked_in_order_of_size(folders, operation, digits, length):
    family = checkpoints(", ".join(folders), Arithmetic(operation, digits), items=6, seed=0)
    assert family.sizes == sorted(family.sizes)
    assert family.length == length
    assert len(family.targets) == 6
    assert {len(target) for target in family.targets} == {length}
    assert (family.scores("likelihood") > 1).all(), "untrained: near log 259 a byte"
    assert (family.scores("edit distance") > 0).all()


def test_a_family_of_one_size_or_two_is_refused(folders):
    with pytest.raises(DataError, match="three or more"):
        checkpoints(",".join(folders[:2]), Arithmetic("*", 2), items=5, seed=0)
    with pytest.raises(DataError, match="equally many"):
        checkpoints(",".join([folders[0]] * 3), Arithmetic("*", 2), items=2, seed=0)


# Images.


def test_digits_are_divided_by_the_seed():
    pytest.importorskip("sklearn")
    a, b = _images.digits(1), _images.digits(2)
    assert a.train.shape == (1197, 64)
    assert a.test.shape == (600, 64)
    assert 0 <= a.train.min() < a.train.max() == 1
    assert set(a.test_classes) == set(range(10))
    assert not np.array_equal(a.test, b.test)
    assert a.spread == pytest.approx(4.7, abs=0.1)  # the variance of all pixels / 16, summed


def cifar(folder, count, seed=0):
    rng = np.random.default_rng(seed)
    for name, n in (("train", count), ("test", count // 2)):
        records = rng.integers(0, 256, (n, 3074)).astype(np.uint8)
        records[:, 1] = np.arange(n) % 100
        records[:, 2] = records[:, 1]  # the first pixel tells the label
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return str(folder)


def test_cifar_is_read_from_its_binary_version(tmp_path):
    images = _images.cifar100(cifar(tmp_path, 40), 3, 30, 10)
    assert images.train.shape == (30, 3072)
    assert images.test.shape == (10, 3072)
    np.testing.assert_allclose(images.train[:, 0] * 255, images.train_classes, rtol=1e-5)
    assert len(set(images.train_classes)) == 30, "no image twice"


def test_other_files_than_cifars_are_refused(tmp_path):
    (tmp_path / "train").write_bytes(b"\x80\x04.")  # as a pickle begins
    with pytest.raises(DataError, match="pickles"):
        _images.cifar100(str(tmp_path), 0, 5, 5)
    (tmp_path / "train.bin").write_bytes(b"0" * 3073)
    with pytest.raises(DataError, match="3,074 for each"):
        _images.cifar100(str(tmp_path), 0, 5, 5)
    (tmp_path / "train.bin").write_bytes(b"\xff" * 3074)
    with pytest.raises(DataError, match="label of 255"):
        _images.cifar100(str(tmp_path), 0, 5, 5)


def test_an_epoch_has_every_row_once():
    data = _images.Shuffled(0, x=np.arange(10))
    drawn = np.concatenate([data.take(first, 4)["x"] for first in range(0, 20, 4)])
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert not np.array_equal(drawn[:10], drawn[10:])


# Each claim, small.

TINY = {
    "sharp-metric-smooth-models": {"tested": 10_000},
    "few-items-look-emergent": {"tests": 3},
    "exact-match-starts-later": {"widths": 3, "steps": 5, "tested": 50},
    "metric-swap-multiplication": {"widths": 3, "steps": 5, "tested": 50},
    "metric-swap-addition": {"widths": 3, "steps": 5, "tested": 50},
    "errors-compound-with-length": {"widths": 2, "steps": 5, "tested": 50},
    "more-items-show-every-model": {"widths": 1, "steps": 5, "tested": 300},
    "reconstruction-below-a-threshold": {"widest": 8, "steps": 5},
    "k-of-k-right": {"networks": 3, "steps": 5},
    "whole-sequences-right": {"networks": 3, "steps": 5, "tested": 100},
    "true-transition-under-every-metric": {"contexts": 6, "steps": 5, "widths": 3, "family_steps": 2},
}


def test_every_claim_is_tried_below():
    assert set(TINY) == set(CLAIMS)


@pytest.mark.parametrize("id", TINY)
def test_claim_runs_at_a_tiny_size(id, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "contracts"))
    check_rows = importlib.import_module("claim").check_rows
    cls = CLAIMS[id]
    budget = cls.budget("smoke").replace(**TINY[id])
    rows = list(cls().run(budget, 1))
    trained.cache_clear()  # what is computed again must be the same, not be remembered
    check_rows(cls, rows, list(cls().run(budget, 1)), 1, set())


def test_autoencoders_take_cifar_from_a_folder(tmp_path):
    cls = CLAIMS["reconstruction-below-a-threshold"]
    budget = cls.budget("smoke").replace(widest=4, steps=3, images=40)
    rows = list(cls({"cifar": cifar(tmp_path, 60)}).run(budget, 0))
    assert {row.arm for row in rows} >= set(cls.kind.arms)
    error = next(row for row in rows if row.arm == "squared error")
    assert 150 < error["scores"][0] < 350  # 3,072 pixels of variance 1/12


def test_checkpoints_take_the_place_of_training(folders):
    cls = CLAIMS["exact-match-starts-later"]
    budget = cls.budget("full").replace(tested=4)
    rows = list(cls({"family": ",".join(folders)}).run(budget, 0))
    assert set(cls.kind.arms) | set(cls.control_arms) <= {row.arm for row in rows}
    assert len(rows[0]["scales"]) == 3


def verdict(exact, gentle, control):
    """Of onsets as given, the same in five seeds but for a little."""
    cls = CLAIMS["exact-match-starts-later"]
    (a, b), (c, d) = cls.kind.arms, cls.control_arms
    rows = [
        Row(arm, seed, onset=value + seed / 1000 * (arm in (a, c)))
        for seed in range(5)
        for arm, value in ((a, exact), (b, gentle), (c, control), (d, 0.1))
    ]
    return decide(cls, rows)[0].verdict


def test_the_claim_about_onsets_can_fail():
    assert verdict(0.4, 0.1, 0.1) == "supported"
    assert verdict(0.09, 0.1, 0.1) == "refuted"
    assert verdict(0.15, 0.1, 0.1) == "inconclusive"
    assert verdict(0.4, 0.1, 0.4) == "inconclusive", "a test that passes anything"
