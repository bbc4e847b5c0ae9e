"""H3 against its definition, written down head by head."""

import numpy as np
import pytest
import torch

from posterhall.errors import DataError
from posterhall.models import DecoderConfig
from posterhall.models.mixers import Placement, h3


def layer(dim=4, **settings):
    config = DecoderConfig(vocab_size=2, dim=dim, heads=1, mixers=("h3",), mixer_settings={"h3": settings})
    mixer = h3.make(config, 0)
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer.double().eval()


def drawn(*shape, seed=1):
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))


def place(x, **more):
    return Placement(batch=len(x), tokens=x.shape[1], device=x.device, **more)


@pytest.mark.parametrize("size", [1, 2])
def test_it_is_a_shift_and_a_diagonal_system_between_gates(size):
    mixer = layer(head_dim=size, state=6)
    x = drawn(1, 9, 4)
    with torch.no_grad():
        q, k, v = (each.numpy() for each in mixer.projections(x)[0].chunk(3, dim=-1))
        taps = mixer.shift.weight[:, 0].flip(1).numpy()
        k = np.stack([np.convolve(taps[h], k[:, h])[:9] for h in range(4)], 1) + mixer.keys_skip.numpy() * k
        kernel, y = mixer.system.kernel(9)[0].numpy(), np.zeros((9, 4))
        for head in range(4 // size):
            own = slice(head * size, (head + 1) * size)
            product = k[:, own, None] * v[:, None, own]
            for i in range(size):
                for j in range(size):
                    u = product[:, i, j]
                    mixed = np.convolve(kernel[head], u)[:9] + mixer.skip[head].item() * u
                    y[:, head * size + j] += q[:, head * size + i] * mixed
        wanted = torch.from_numpy(y) @ mixer.out.weight.t()
        torch.testing.assert_close(mixer(x, place(x))[0], wanted, atol=1e-12, rtol=0)


def test_gradients_are_finite_differences():
    mixer = layer(dim=2, head_dim=2, state=4)
    x = drawn(1, 5, 2).requires_grad_()
    parameters = dict(mixer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(mixer, dict(zip(parameters, values, strict=True)), (x, place(x)))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()))


def test_its_state_is_the_last_keys_and_the_products_systems():
    mixer = layer(head_dim=2, state=6)
    state = mixer.new_state(3, 100, dtype=torch.float32, device=torch.device("cpu"))
    # 5 keys of 4 numbers, and 2 heads of 4 products with 3 complex numbers each
    assert state.nbytes == 3 * (5 * 4 * 4 + 2 * 4 * 3 * 8)


def test_the_rate_is_that_of_the_diagonal_system():
    mixer = layer()
    mixer.rate = 0.5
    assert mixer.system.rate == 0.5
    with pytest.raises(DataError, match="above 0"):
        mixer.rate = 0.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"head_dim": 3}, "divide"),
        ({"head_dim": 0}, "at least 1"),
        ({"state": 7}, "even"),
        ({"init": "x"}, "lin"),
    ],
)
def test_settings_that_do_not_serve_are_errors(settings, words):
    with pytest.raises(DataError, match=words):
        layer(**settings)
