"""S5 against a dense system of many inputs and outputs that scipy simulates."""

import numpy as np
import pytest
import torch
from scipy import signal

from posterhall.errors import DataError
from posterhall.models import DecoderConfig
from posterhall.models.mixers import Placement, hippo, s5


def layer(dim=3, **settings):
    config = DecoderConfig(
        vocab_size=2, dim=dim, heads=1, mixers=("s5",), positions="none", mixer_settings={"s5": settings}
    )
    mixer = s5.make(config, 0)
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer.double().eval()


def drawn(*shape, seed=1):
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_it_is_one_system_of_all_channels(method):
    mixer = layer(state=8, discretisation=method)
    system = mixer.system
    u = drawn(1, 3, 12)
    with torch.no_grad():
        step = 0.05
        system.log_step.fill_(np.log(step))
        poles = torch.complex(-system.log_decay.exp(), system.turn).numpy()
        b = torch.view_as_complex(system.inputs).numpy()
        c = torch.view_as_complex(system.weights)[0].numpy()
        # Real and imaginary parts as a real system. y looks at the state after the input: C A_bar, C B_bar.
        a = np.block(
            [[np.diag(poles.real), -np.diag(poles.imag)], [np.diag(poles.imag), np.diag(poles.real)]]
        )
        b, c = np.concatenate((b.real, b.imag)), 2 * np.concatenate((c.real, -c.imag), axis=1)
        bar, driven, _, _, _ = signal.cont2discrete((a, b, c, np.zeros((3, 3))), step, method)
        if method == "bilinear":  # scipy's states differ from x by the trapezoid of the input
            driven = np.linalg.solve(np.eye(8) - step * a / 2, step * b)
        _, wanted, _ = signal.dlsim((bar, driven, c @ bar, c @ driven, step), u[0].T.numpy())
        np.testing.assert_allclose(system.whole(u)[0].T.numpy(), wanted, atol=1e-12)


def test_the_beginning_is_hippos_matrix_in_blocks():
    system = layer(state=16, blocks=2).system
    wanted = hippo.split("legsd", 8).poles
    found = torch.complex(-system.log_decay.exp(), system.turn).detach().numpy()
    np.testing.assert_allclose(found, np.concatenate((wanted, wanted)), rtol=1e-6)


def test_gradients_are_finite_differences_and_also_with_a_beginning():
    a, v, begin = drawn(2, 3).mul(0.5), drawn(2, 6, 2, 3, seed=2), drawn(2, 2, 3, seed=3)
    assert torch.autograd.gradcheck(s5.recurrence, [each.requires_grad_() for each in (a, v, begin)])


@pytest.mark.parametrize("tokens", [1, 2, 7, 8])
def test_doubling_on_other_devices_is_the_same(tokens, monkeypatch):
    results = []
    for native in (True, False):
        monkeypatch.setattr(s5, "_is_native", lambda tensor, native=native: native)
        given = [drawn(2, 3).mul(0.5), drawn(2, tokens, 2, 3, seed=2), drawn(2, 2, 3, seed=3)]
        given = [each.requires_grad_() for each in given]
        found = s5.recurrence(*given)
        weights = drawn(*found.shape, seed=4)
        results.append((found.detach(), *torch.autograd.grad((found * weights).sum(), given)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_backwards_it_is_the_other_way_round():
    mixer = layer(bidirectional=True)
    with torch.no_grad():
        mixer.system.weights[1] = mixer.system.weights[0]
        u = drawn(2, 3, 9)
        torch.testing.assert_close(
            mixer.system.whole(u).flip(2), mixer.system.whole(u.flip(2)), atol=1e-12, rtol=0
        )


def test_a_row_without_a_token_keeps_its_state():
    mixer = layer()
    x = drawn(2, 4, 3)
    with torch.no_grad():
        state = mixer.new_state(2, 4, dtype=x.dtype, device=x.device)
        state.kept = drawn(*state.kept.shape)
        before = state.kept.clone()
        mixer(x, Placement(batch=2, tokens=4, device=x.device, past=(3, 3), valid=(0, 2)), state)
    assert torch.equal(state.kept[0], before[0])
    assert not torch.equal(state.kept[1], before[1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"state": 7}, "even"),
        ({"state": 8, "blocks": 8}, "even"),
        ({"blocks": 0}, "at least 1"),
        ({"discretisation": "euler"}, "zoh"),
        ({"rate": float("inf")}, "above 0"),
    ],
)
def test_settings_that_do_not_serve_are_errors(settings, words):
    with pytest.raises(DataError, match=words):
        layer(**settings)
