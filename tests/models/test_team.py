"""Passes shared among torch's threads give the same on any number of them, and what one thread gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from posterhall.models import _ops, _rows, _team
from posterhall.models.mixers import Placement, branching

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not _team.is_there(), reason="this torch brings no OpenMP library to share")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results(threads: int, rows: int) -> list[torch.Tensor]:
    """Values and gradients of every shared pass, of `rows` rows (enough entries to be shared)."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.empty(shape).normal_(generator=generator).requires_grad_()

    x, gain, both = normal(rows, 640), normal(640), normal(rows, 2 * 512)
    heads = normal(3, rows, 8, 32)
    angles = normal(3, rows, 1, 16).detach()
    one = angles[:1]
    values = [
        _ops.rms_norm(x, gain, 1e-5),
        _ops.swiglu(both),
        *_ops.rotate(heads, angles.cos(), angles.sin(), 4, 2),
        *_ops.rotate(heads, one.cos(), one.sin(), 6, 1),
        _ops.attend_texts(heads, angles.cos(), angles.sin(), 4, branching.texts(Placement(3, rows, CPU))),
    ]
    slopes = [torch.empty_like(each).normal_(generator=generator) for each in values]
    torch.autograd.backward(values, slopes)
    with torch.no_grad():
        values.append(_rows.multiply(x[:3], torch.empty(rows, 640).normal_(generator=generator)))
    return [each.detach() for each in values] + [each.grad for each in (x, gain, both, heads)]


@pytest.mark.parametrize("rows", [64, 101])
def test_threads_do_not_change_what_comes_out(rows, monkeypatch):
    shared: list[str] = []
    real = _team.share
    monkeypatch.setattr(_team, "share", lambda body, *rest: (shared.append(body), real(body, *rest)))
    two = results(2, rows)
    assert set(shared) == set(_team._BODIES) - {"mamba"}  # which takes one thread
    for a, b in zip(two, results(3, rows), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    shared.clear()
    for a, b in zip(two, results(1, rows), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)  # sums in another order
    assert set(shared) == {"attend", "attend_backward"}  # which have no other form


def test_small_passes_stay_on_one_thread():
    torch.set_num_threads(2)
    assert _team.is_worth(1 << 20)
    assert not _team.is_worth(1000)
    torch.set_num_threads(1)
    assert not _team.is_worth(1 << 20)
