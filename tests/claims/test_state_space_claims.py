"""What is particular to the claims about state-space models, each at a tiny size."""

from __future__ import annotations

import numpy as np
import pytest

from posterhall.claims import Budget, load

torch = pytest.importorskip("torch")

from posterhall.claims.state_space import _classifier, _copying  # noqa: E402
from posterhall.claims.state_space._classifier import flattened, made  # noqa: E402

CLAIMS = load(["posterhall.claims.state_space"])
TINY = Budget(length=64, width=8, layers=1, state=4, steps=2, tested=20, rates="0.004,0.001")


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


def test_both_learners_of_copying_have_states_of_about_one_size():
    """Mamba's short convolution remembers some tokens besides."""
    budget = Budget(length=8, copied=2, width=32, steps=1, batch=2)
    held = {name: _copying.trained(name, budget, 0)["state_bytes"] for name in ("mamba", "s4d")}
    assert held["s4d"] <= held["mamba"] < 1.25 * held["s4d"]


def test_costs_are_fitted_to_lengths_that_double():
    budget = Budget(width=8, shortest=16, longest=64, repeats=1)
    for row in rows("convolutions-grow-slower", budget).values():
        assert row["lengths"] == (16.0, 32.0, 64.0)
        slope = np.polyfit(np.log(row["lengths"]), np.log(row["times"]), 1)[0]
        assert row.number("slope") == pytest.approx(slope)
