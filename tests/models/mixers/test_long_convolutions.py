"""Long convolutions, Hyena and BaseConv against sums written down, and lengths that they must not exceed."""

import math

import numpy as np
import pytest
import torch

from posterhall.adapters.dropout import passing
from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig
from posterhall.models.mixers import MIXERS, Placement, Recall, factory
from posterhall.models.mixers.hyena import Implicit

NAMES = ("long_conv", "hyena", "base_conv")


def layer(name, dim=6, *, layer=1, max_length=32, **settings):
    config = DecoderConfig(
        vocab_size=2, dim=dim, heads=1, max_length=max_length, mixers=(name,), mixer_settings={name: settings}
    )
    mixer = factory(name)(config, layer)
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer.double().eval()


def drawn(*shape, seed=1):
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))


def place(x, **more):
    return Placement(batch=len(x), tokens=x.shape[1], device=x.device, **more)


def causal(kernel, u):
    """sum over s <= t of kernel[:, t - s] u_s, by numpy, of (H, L) and (T, H)."""
    return np.stack([np.convolve(kernel[h], u[:, h])[: len(u)] for h in range(u.shape[1])], axis=1)


def test_a_free_kernel_is_pressed_towards_zero_and_convolved():
    mixer = layer("long_conv", threshold=0.001)
    x = drawn(1, 9, 6)
    with torch.no_grad():
        free = mixer.convolution.weights[0].numpy()
        kernel = np.maximum(np.abs(free) - 0.001, 0) * np.sign(free)
        assert 0.2 < (kernel == 0).mean() < 0.6  # half a standard deviation: 38 %
        y = causal(kernel[:, :9], x[0].numpy()) + x[0].numpy() * mixer.convolution.bias.numpy()
        wanted = torch.nn.functional.glu(torch.nn.functional.gelu(torch.from_numpy(y)) @ mixer.out.weight.t())
        torch.testing.assert_close(mixer(x, place(x))[0], wanted, atol=1e-12, rtol=0)


def test_hyenas_filter_is_the_network_times_a_window():
    long = Implicit(5, 20, width=8, layers=2, embedding=5, frequency=3.0)
    long.initialise(torch.Generator().manual_seed(0))
    long.double()
    with torch.no_grad():
        found = long.kernel(20)[0].numpy()
        t = np.arange(20) / 19
        w = 2 * np.pi * np.arange(20) / 20
        z = np.stack([t, *(f(b * w) for f in (np.cos, lambda a: -np.sin(a)) for b in (1e-4, 1.0))], axis=1)
        for linear in (long.first, *long.inner):
            z = np.sin(3.0 * (z @ linear.weight.numpy().T + linear.bias.numpy()))
        decays = np.linspace(-math.log(0.01) / 1.5, -math.log(0.01) / 0.3, 5)
        wanted = (z @ long.last.weight.numpy().T) * np.exp(-t[:, None] * decays)
        np.testing.assert_allclose(found, wanted.T, atol=1e-12)
        # A window falls to a hundredth after 0.3 (fast) and 1.5 (slow) of the length.
        np.testing.assert_allclose(np.exp(-decays[[0, -1]] * [1.5, 0.3]), 0.01)
        torch.testing.assert_close(long.kernel(7), long.kernel(20)[..., :7])


@pytest.mark.parametrize("order", [2, 3])
def test_hyena_is_gates_and_convolutions_in_turn(order):
    mixer = layer("hyena", order=order)
    x = drawn(1, 8, 6)
    with torch.no_grad():
        *gates, v = (
            mixer.short(mixer.projections(x), place(x))[0].numpy().reshape(8, order + 1, 6).swapaxes(0, 1)
        )
        for gate, long in zip(gates[:0:-1], mixer.convolutions, strict=True):
            v = v * gate
            v = causal(long.kernel(8)[0].numpy(), v) + v * long.bias.numpy()
        wanted = torch.from_numpy(v * gates[0]) @ mixer.out.weight.t()
        torch.testing.assert_close(mixer(x, place(x))[0], wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("number", "taps"), [(0, 3), (1, -1), (2, 3)])
def test_base_conv_is_a_gated_convolution_and_takes_its_taps_in_turn(number, taps):
    mixer = layer("base_conv", layer=number)
    x = drawn(1, 8, 6)
    with torch.no_grad():
        if taps == -1:
            conv = causal(mixer.convolution.kernel(8)[0].numpy(), x[0].numpy())
            conv = conv + x[0].numpy() * mixer.convolution.bias.numpy()
        else:
            conv = causal(mixer.convolution.weight[:, 0].flip(1).numpy(), x[0].numpy())
            conv = conv + mixer.convolution.bias.numpy()
        wanted = torch.from_numpy(conv) * (x[0] @ mixer.projection.weight.t() + mixer.bias) + x[0]
        torch.testing.assert_close(mixer(x, place(x))[0], wanted, atol=1e-12, rtol=0)
    assert mixer.growth == ("linear" if taps == -1 else "constant")


def test_looking_ahead_is_a_second_kernel_from_the_next_token_on():
    mixer = layer("long_conv", bidirectional=True, threshold=0.0)
    x = drawn(2, 7, 6)
    with torch.no_grad():
        ahead, behind = mixer.convolution.kernel(7).numpy()
        u = x[0].numpy()
        y = causal(ahead, u) + u * mixer.convolution.bias.numpy()
        y[:-1] += causal(behind, u[::-1])[::-1][1:]
        wanted = torch.nn.functional.glu(torch.nn.functional.gelu(torch.from_numpy(y)) @ mixer.out.weight.t())
        torch.testing.assert_close(mixer(x, place(x))[0], wanted, atol=1e-12, rtol=0)
        padded = mixer(x, place(x, valid=(7, 3)))
        torch.testing.assert_close(padded[1:, :3], mixer(x[1:, :3], place(x[1:, :3])), atol=1e-12, rtol=0)
    with pytest.raises(DataError, match="bidirectional"):
        mixer.new_state(1, 4, dtype=x.dtype, device=x.device)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_longer_than_the_kernel_is_an_error_and_never_cut(name):
    mixer = layer(name, max_length=10)
    x = drawn(1, 11, 6)
    with pytest.raises(DataError, match=r"11 tokens .* 10 long"):
        mixer(x, place(x))
    state = mixer.new_state(1, 10, dtype=x.dtype, device=x.device)
    mixer(x[:, :10], place(x[:, :10], past=(0,)), state)
    with pytest.raises(DataError, match="nothing is cut off"):
        mixer(x[:, 10:], place(x[:, 10:], past=(10,)), state)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_differences(name):
    mixer = layer(name, dim=2, max_length=6, **({"threshold": 0.0} if name == "long_conv" else {}))
    x = drawn(1, 5, 2).requires_grad_()
    chosen = {key: value for key, value in mixer.named_parameters() if value.numel() < 300}

    def run(x, *values):
        return torch.func.functional_call(mixer, dict(zip(chosen, values, strict=True)), (x, place(x)))

    assert torch.autograd.gradcheck(run, (x, *chosen.values()))


def test_dropped_entries_of_a_kernel_follow_from_the_pass():
    mixer = layer("long_conv", threshold=0.0, kernel_dropout=0.5).train()
    with passing(3):
        first, again = mixer.convolution.kernel(32), mixer.convolution.kernel(32)
    with passing(4):
        other = mixer.convolution.kernel(32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.3 < float((first == 0).double().mean()) < 0.7
    kept = first != 0
    torch.testing.assert_close(first[kept], 2 * mixer.convolution.weights[kept])
    assert (mixer.eval().convolution.kernel(32) != 0).all()


def test_a_kept_spectrum_is_forgotten_with_its_weights():
    mixer = layer("long_conv", threshold=0.0)
    x = drawn(1, 9, 6)
    with torch.no_grad():
        before = mixer(x, place(x))
        assert torch.equal(mixer(x, place(x)), before)
        mixer.convolution.weights.mul_(2)
        assert not torch.allclose(mixer(x, place(x)), before)


def test_the_state_of_a_long_convolution_can_be_given_on_token_by_token():
    mixer = layer("long_conv")
    x = drawn(2, 9, 6)
    with torch.no_grad():
        state = mixer.new_state(2, 9, dtype=x.dtype, device=x.device)
        assert isinstance(state, Recall)
        mixer(x[:, :6], place(x[:, :6], past=(0, 0)), state)
        other = mixer.new_state(1, 9, dtype=x.dtype, device=x.device)
        other.write(0, 0, [state.read(1, 0, 2), state.read(1, 2, 6)])
        found = mixer(x[1:, 6:7], place(x[1:, 6:7], past=(6,)), other)
        torch.testing.assert_close(found, mixer(x, place(x))[1:, 6:7], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("long_conv", {"threshold": -1.0}, "at least 0"),
        ("long_conv", {"kernel_dropout": 1.0}, "below 1"),
        ("hyena", {"order": 1}, "at least 2"),
        ("hyena", {"embedding": 4}, "odd"),
        ("hyena", {"taps": 0}, "at least 1"),
        ("base_conv", {"taps": (3, 0)}, "-1 for a long one"),
        ("base_conv", {"tabs": 3}, "taps"),
    ],
)
def test_settings_that_do_not_serve_are_errors(name, settings, words):
    with pytest.raises(DataError, match=words):
        layer(name, **settings)


def test_they_are_known_by_name_and_mix_in_hybrids():
    assert set(NAMES) <= set(MIXERS)
    config = DecoderConfig(
        vocab_size=7, dim=8, layers=4, heads=2, max_length=16, positions="none",
        mixers=("hyena", "attention", "base_conv", "long_conv"),
    )  # fmt: skip
    model = Decoder(config).eval()
    ids = torch.randint(0, 7, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cache = model.new_cache(2)
        parts = [
            model(ids[:, :5], cache=cache),
            *(model(ids[:, t : t + 1], cache=cache) for t in range(5, 12)),
        ]
        torch.testing.assert_close(torch.cat(parts, 1), model(ids), atol=1e-5, rtol=1e-5)
