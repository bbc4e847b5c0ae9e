"""What is particular to the claims about state-space models, each at a tiny size."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from posterhall.claims import Budget, load

torch = pytest.importorskip("torch")

from posterhall.claims.state_space import _classifier, _in_context, _timing  # noqa: E402
from posterhall.claims.state_space._classifier import flattened, made  # noqa: E402
from posterhall.claims.state_space._in_context import Tail  # noqa: E402
from posterhall.data.synthetic.in_context import InductionHeads  # noqa: E402
from posterhall.evals.long_range.training import Tuned  # noqa: E402

CLAIMS = load(["posterhall.claims.state_space"])
TINY = Budget(length=64, width=8, layers=1, state=4, steps=2, batch=64, tested=20, rates="0.004,0.001")


@pytest.fixture(scope="module")
def check_rows():
    folder = str(Path(__file__).parent.parent / "contracts")
    sys.path.insert(0, folder)
    from claim import check_rows

    yield check_rows
    sys.path.remove(folder)


def rows(name, budget, seed=0):
    return {row.arm: row for row in CLAIMS[name]({}).run(budget, seed)}


def test_euler_grows_by_the_largest_eigenvalue_and_bilinear_by_its_own():
    """I + 0.1 A has -5.4; (1 - 0.05) / (1 + 0.05) is the largest of the bilinear rule's. Late, since the
    eigenvectors are far from orthogonal."""
    found = rows("euler-blows-up", Budget(steps=150))
    assert found["Euler"].number("growth") == pytest.approx(5.4, rel=0.2)
    assert found["bilinear"].number("growth") == pytest.approx(0.95 / 1.05, rel=0.1)
    assert found["Euler, steps of 0.01"].number("growth") < 1


def test_poles_on_the_left_never_overflow_and_those_on_the_right_when_foretold():
    found = rows("unstable-poles-overflow", Budget(poles=8))
    foretold = found["overflow foretold"].number("step")
    assert found["overflow seen"].number("step") == pytest.approx(foretold, rel=0.05)
    assert found["overflow seen, poles stable"].number("step") == pytest.approx(3 * foretold)


def test_forms_that_forget_differ_and_those_that_do_not_agree():
    found = rows("one-model-three-forms", Budget(width=4, length=30))
    assert found["whole, in chunks and by steps"].number("difference") < 1e-5
    assert found["the state forgotten between chunks"].number("difference") > 1e-2


def test_digits_are_read_row_by_row_and_enlarged_without_mixing():
    image = np.arange(64, dtype=np.float32)[None] / 64
    np.testing.assert_allclose(flattened(image, 64), image * 2 - 1)
    large = flattened(image, 256).reshape(16, 16)
    np.testing.assert_array_equal(large[::2, ::2], large[1::2, 1::2])
    np.testing.assert_allclose(large[::2, ::2].ravel(), image[0] * 2 - 1)


def test_arms_are_of_about_one_size_where_the_claim_is_decided():
    for scale in ("laptop", "full"):  # at smoke, heads allow few widths
        budget = CLAIMS["s4d-sees-further"].budget(scale)
        sizes = {
            arm: sum(p.numel() for p in made(arm, budget, 0).parameters())
            for arm in ("S4D-Lin", "LSTM", "GRU", "Transformer")
        }
        assert max(sizes.values()) < 1.35 * min(sizes.values()), (scale, sizes)


def test_real_poles_have_as_many_numbers_of_state_as_complex_ones():
    numbers = {}
    for arm in ("S4D-Lin", "S4D-Real"):
        state = made(arm, TINY, 0).blocks[0].mixer.new_state(1, 64, dtype=torch.float32, device="cpu").kept
        numbers[arm] = state.numel() * (2 if arm == "S4D-Lin" else 1)
    assert numbers["S4D-Lin"] == numbers["S4D-Real"] == 4 * 8


@pytest.mark.parametrize("name", ["S4D-Lin", "S4D-Real", "LSTM", "GRU", "Transformer"])
def test_an_arm_begins_and_ends_the_same_for_equal_seeds(name):
    first, again = (_classifier.accuracy(name, TINY, 1) for _ in range(2))
    assert first == again
    assert first["lr"] in (0.004, 0.001)
    assert 0 <= first["accuracy"] <= 1


def test_pixels_in_one_order_are_the_same_pixels_everywhere(monkeypatch):
    seen = {}

    def caught(build, data, rates, settings, *, seed):
        seen["data"] = data
        return Tuned(None, None, None, 0, [], {})

    monkeypatch.setattr(_classifier, "tune", caught)
    kept = {}
    for name in ("plain", "permuted", "shuffled"):
        found = _classifier.accuracy("S4D-Lin", TINY, 3, **({} if name == "plain" else {name: True}))
        assert np.isnan(found["accuracy"]), "every training failed"
        kept[name] = np.concatenate([seen["data"].train.inputs, seen["data"].test.inputs])[..., 0]
    # A pixel's values over all images tell it from the others, but for those that are always empty.
    columns = {name: sorted(map(tuple, x.T)) for name, x in kept.items()}
    assert columns["permuted"] == columns["plain"] != columns["shuffled"]
    assert (kept["permuted"] != kept["plain"]).any()
    np.testing.assert_array_equal(np.sort(kept["shuffled"], axis=1), np.sort(kept["plain"], axis=1))


LEARN = {"vocab": 6, "width": 16, "steps": 2, "batch": 4, "every": 2, "rates": "0.004,0.001"}


def test_learners_of_copying_are_of_one_size_in_parameters_and_in_state():
    """Mamba's short convolution remembers some tokens besides."""
    budget = Budget(length=8, copied=2, **{**LEARN, "width": 32, "steps": 1})
    found = {name: _in_context.copying(name, budget, 0) for name in ("mamba", "s4d")}
    assert found["s4d"]["parameters"] == pytest.approx(found["mamba"]["parameters"], rel=0.05)
    assert 0.8 * found["mamba"]["state_bytes"] < found["s4d"]["state_bytes"] < found["mamba"]["state_bytes"]
    assert found["s4d"]["state_bytes"] == pytest.approx(2 * 32 * 32 * 4, rel=0.06), "two layers"


def test_attention_is_of_mambas_size_whatever_its_positions():
    budget = Budget(trained=8, longest=64, tested=64, **LEARN)
    found = [
        _in_context.induction(mixer, positions, budget, 0)
        for mixer, positions in (("mamba", "none"), ("attention", "rotary"), ("attention", "learned"))
    ]
    sizes = [each["parameters"] for each in found]
    assert sizes[1] == sizes[2] == pytest.approx(sizes[0], rel=0.1)
    assert found[0]["lengths"] == [8, 16, 32, 64]
    assert len(found[0]["curve"]) == 4


def test_the_tail_of_a_row_asks_what_the_row_asks():
    task = InductionHeads(length=32, vocab=6)
    ids, labels = task.draw(50, np.random.default_rng(0))
    short, asked = Tail(task, 8).draw(50, np.random.default_rng(0))
    np.testing.assert_array_equal(short, ids[:, -8:])
    np.testing.assert_array_equal(asked[:, -1], labels[:, -1])


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("selection-needs-tokens", Budget(length=8, copied=2, **LEARN)),
        ("induction-extrapolates", Budget(trained=8, longest=32, tested=64, **LEARN)),
        ("neighbours-are-not-needed", TINY),
        ("s4d-leads-on-short-rows", TINY),
        ("convolutions-grow-slower", Budget(width=8, shortest=16, longest=64, repeats=1)),
    ],
)
def test_claims_at_a_tiny_size_keep_the_contract(check_rows, name, budget):
    cls = CLAIMS[name]
    first = list(cls().run(budget, 1))
    timed = name == "convolutions-grow-slower"
    again = None if timed else list(cls().run(budget, 1))
    check_rows(cls, first, again, 1, set())


def test_what_attention_has_not_learnt_is_not_held_against_it(monkeypatch):
    curves = {"none": [1.0, 0.9], "rotary": [0.7, 0.2], "learned": [1.0, 0.4]}

    def told(mixer, positions, budget, seed):
        return {"lengths": [8, 64], "curve": curves[positions], "cut": 0.1, "parameters": 1.0}

    monkeypatch.setattr(_in_context, "induction", told)
    found = rows("induction-extrapolates", Budget())
    assert found["Mamba"]["accuracy"] == 0.9
    # 0.2 of what it has, and 0.3 that it never had; against 0.4 of all.
    assert found["the better attention"]["accuracy"] == pytest.approx(0.5)


def test_costs_are_fitted_to_lengths_that_double():
    budget = Budget(width=8, shortest=16, longest=64, repeats=1)
    found = rows("convolutions-grow-slower", budget)
    steepest = found.pop("the steepest of S4D, long convolution and Mamba")
    for row in found.values():
        assert row["lengths"] == (16.0, 32.0, 64.0)
        slope = np.polyfit(np.log(row["lengths"]), np.log(row["times"]), 1)[0]
        assert row.number("slope") == pytest.approx(slope)
    quick = [found[arm].number("slope") for arm in ("S4D", "long convolution", "Mamba")]
    assert steepest.number("slope") == max(quick)


def test_times_are_of_one_thread_and_of_one_call(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(_timing, "_spent", lambda mixer, x, calls: 0.01 * calls * torch.get_num_threads())
    found = _timing.timed({"attention": "attention"}, [8, 16], Budget(width=8, repeats=3), 0)
    assert found == {"attention": [pytest.approx(0.01), pytest.approx(0.01)]}
    assert torch.get_num_threads() == before
