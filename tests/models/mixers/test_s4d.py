"""S4D: poles against the published formulas, forms against each other, and what must be refused."""

import math

import numpy as np
import pytest
import torch

from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig
from posterhall.models.mixers import Placement, _vandermonde, hippo, s4d
from posterhall.models.mixers.diagonal import Diagonal, poles


def layer(dim=6, *, max_length=64, dtype=torch.float64, **settings):
    config = DecoderConfig(
        vocab_size=2,
        dim=dim,
        heads=1,
        max_length=max_length,
        mixers=("s4d",),
        mixer_settings={"s4d": settings},
    )
    mixer = s4d.make(config, 0)
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer.to(dtype).eval()


def drawn(*shape, dtype=torch.float64, seed=1):
    return torch.empty(shape, dtype=dtype).normal_(generator=torch.Generator().manual_seed(seed))


def place(x, **more):
    return Placement(batch=len(x), tokens=x.shape[1], device=x.device, **more)


@pytest.mark.parametrize(
    ("init", "wanted"),
    [
        ("lin", [0, math.pi, 2 * math.pi, 3 * math.pi]),
        # N is 8, the whole state: with 4, the number of pairs, the first would be 3.82
        ("inv", [8 / math.pi * (8 / d - 1) for d in (1, 3, 5, 7)]),
        ("inv2", [8 / math.pi * (8 / d - 1) for d in (1, 2, 3, 4)]),
        ("quad", [d**2 / math.pi for d in (1, 3, 5, 7)]),
        ("legs", sorted(np.linalg.eigvals(sum(np.array(each) for each in [
            hippo.transition("legs", 8)[0], np.outer(*[np.sqrt(np.arange(8) + 0.5)] * 2)])).imag)[4:]),
    ],
)  # fmt: skip
def test_poles_are_the_published_ones(init, wanted):
    found = poles(init, 8)
    np.testing.assert_allclose(found.imag.numpy(), wanted, atol=1e-10)
    np.testing.assert_allclose(found.real.numpy(), -0.5)


def test_the_greatest_frequencies_of_64_states_are_those_of_the_paper():
    greatest = {init: float(poles(init, 64).imag.max()) for init in ("lin", "inv", "legs")}
    assert {name: round(value) for name, value in greatest.items()} == {"lin": 97, "inv": 1283, "legs": 1303}


def test_real_poles_are_the_first_whole_numbers():
    np.testing.assert_array_equal(poles("real", 5).numpy(), [-1, -2, -3, -4, -5])
    assert not hasattr(Diagonal(2, 4, init="real"), "turn")


@pytest.mark.parametrize("init", ["lin", "real"])
def test_the_kernel_of_zero_order_hold_is_the_integral_of_the_impulse_response(init):
    system = Diagonal(1, 4, init=init).double()
    system.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        step = float(system.steps())
        a = system.poles()[0].numpy()
        c = (
            system.weights[0, 0].numpy()
            if init == "real"
            else torch.view_as_complex(system.weights)[0, 0].numpy()
        )
        edges = np.arange(11)[:, None] * step
        primitive = (c / a * np.exp(a * edges)).sum(1)  # of C exp(t a)
        wanted = np.diff(primitive.real) * (1 if init == "real" else 2)
        np.testing.assert_allclose(system.kernel(10)[0, 0].numpy(), wanted, rtol=1e-10)


def test_dss_is_a_softmax_over_all_positions_also_where_poles_grow():
    system = Diagonal(3, 6, discretisation="dss", limit=50).double()
    system.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        system.decay[0] *= -1
        z = system.steps()[:, None] * system.poles()
        powers = torch.exp(z[..., None] * torch.arange(50).double())
        weights = torch.view_as_complex(system.weights)[0] / system.poles()
        wanted = 2 * (weights[..., None] * powers / powers.sum(-1, keepdim=True)).real.sum(1)
        torch.testing.assert_close(system.kernel(50)[0], wanted, atol=1e-7, rtol=1e-7)
        torch.testing.assert_close(system.kernel(20)[0], wanted[:, :20], atol=1e-7, rtol=1e-7)


def test_half_the_step_at_twice_the_rate_hears_the_same():
    # Piecewise constant input: zero-order hold is exact at either rate.
    mixer = layer()
    x = drawn(1, 20, 6)
    with torch.no_grad():
        slow = mixer(x, place(x))
        mixer.rate = 0.5
        twice = x.repeat_interleave(2, dim=1)
        fast = mixer(twice, place(twice))
    torch.testing.assert_close(fast[:, 1::2], slow, atol=1e-12, rtol=0)
    assert mixer.rate == 0.5


def test_gradients_are_finite_differences():
    mixer = layer(dim=2, state=4)
    x = drawn(1, 7, 2).requires_grad_()
    parameters = dict(mixer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(mixer, dict(zip(parameters, values, strict=True)), (x, place(x)))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()))


def test_looking_ahead_is_the_sum_of_two_kernels_and_never_sees_padding():
    mixer = layer(bidirectional=True)
    x = drawn(2, 9, 6)
    with torch.no_grad():
        ahead, behind = mixer.system.kernel(9).numpy()
        whole = np.zeros((9, 9, 6))
        for t in range(9):
            for s in range(9):
                whole[t, s] = ahead[:, t - s] if s <= t else behind[:, s - t - 1]
        u = x[0].numpy()
        y = np.einsum("tsh,sh->th", whole, u) + u * mixer.skip.numpy()
        gates = torch.nn.functional.gelu(torch.from_numpy(y)) @ mixer.out.weight.t()
        torch.testing.assert_close(mixer(x, place(x))[0], torch.nn.functional.glu(gates), atol=1e-12, rtol=0)
        padded = mixer(x, place(x, valid=(9, 4)))
        alone = mixer(x[1:, :4], place(x[1:, :4]))
        torch.testing.assert_close(padded[1:, :4], alone, atol=1e-12, rtol=0)


def test_a_million_tokens_in_steps_need_no_more_memory_than_one():
    mixer = layer(dim=2, state=4, dtype=torch.float32)
    states = [
        mixer.new_state(1, length, dtype=torch.float32, device=torch.device("cpu")) for length in (1, 10**6)
    ]
    assert states[0].nbytes == states[1].nbytes == 2 * 2 * 8


def test_half_precision_is_computed_in_float32_and_poles_stay():
    mixer = layer(dtype=torch.float32)
    x = drawn(1, 30, 6, dtype=torch.float32)
    with torch.no_grad():
        exact = mixer(x, place(x))
        half = mixer.to(torch.bfloat16)
        found = half(x.to(torch.bfloat16), place(x))
    assert found.dtype == torch.bfloat16
    assert half.out.weight.dtype == torch.bfloat16
    assert {each.dtype for each in half.system.parameters()} == {torch.float32}
    torch.testing.assert_close(found.float(), exact, atol=0.1, rtol=0.05)


def test_weights_that_would_grow_are_refused():
    mixer = layer()
    for name, value, words in [
        ("system.log_decay", -math.inf, "Re a >= 0"),
        ("system.log_decay", math.nan, "Re a >= 0"),
        ("system.log_step", math.nan, "steps of 0 or infinity"),
    ]:
        broken = {key: each.clone() for key, each in mixer.state_dict().items()}
        broken[name].view(-1)[1] = value
        with pytest.raises(DataError, match=words):
            mixer.load_state_dict(broken)


def test_steps_that_a_bad_update_broke_are_an_error():
    mixer = layer()
    with torch.no_grad():
        mixer.system.log_step[0] = math.nan
    x = drawn(1, 3, 6)
    with pytest.raises(DataError, match="earlier checkpoint"):
        mixer(x, place(x))


def test_an_unstable_pole_overflows_when_it_must():
    z = torch.tensor([[0.2 + 0j]], dtype=torch.complex64)
    found = _vandermonde.kernel(torch.full((1, 1, 1), 0.5 + 0j), z, 460)[0, 0]
    first = int((~torch.isfinite(found)).int().argmax())
    # Powers pass float32's largest number at ln(3.4e38) / 0.2 = 444; a block of the table may do so together.
    assert abs(first - math.log(torch.finfo(torch.float32).max) / 0.2) <= 16


def test_what_has_no_state_is_told_apart():
    with pytest.raises(DataError, match="bidirectional"):
        layer(bidirectional=True).new_state(1, 4, dtype=torch.float32, device=torch.device("cpu"))
    with pytest.raises(DataError, match="no recurrence"):
        layer(discretisation="dss").new_state(1, 4, dtype=torch.float32, device=torch.device("cpu"))


def test_too_long_for_dss_is_an_error_and_never_cut():
    mixer = layer(discretisation="dss", max_length=10)
    x = drawn(1, 11, 6)
    with pytest.raises(DataError, match="11 tokens"):
        mixer(x, place(x))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"init": "lim"}, "lin"),
        ({"state": 5}, "even"),
        ({"state": 0}, "at least 1"),
        ({"copies": 4}, "divide"),
        ({"bandlimit": 0.0}, "above 0"),
        ({"discretisation": "zho"}, "zoh"),
        ({"rate": -1.0}, "above 0"),
        ({"step_min": 0.0}, "step_min"),
    ],
)
def test_settings_that_do_not_serve_are_errors(settings, words):
    with pytest.raises(DataError, match=words):
        layer(**settings)


def test_a_decoder_of_it_goes_on_where_it_was():
    config = DecoderConfig(
        vocab_size=11, dim=8, layers=2, heads=1, max_length=32, mixers=("s4d",), positions="none",
        mixer_settings={"s4d": {"state": 4}},
    )  # fmt: skip
    model = Decoder(config, seed=1).eval()
    ids = torch.randint(0, 11, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cache = model.new_cache(2)
        parts = [
            model(ids[:, :7], cache=cache),
            *(model(ids[:, t : t + 1], cache=cache) for t in range(7, 20)),
        ]
        torch.testing.assert_close(torch.cat(parts, 1), model(ids), atol=1e-5, rtol=1e-5)


def test_one_token_is_a_sequence():
    mixer = layer()
    x = drawn(1, 1, 6)
    with torch.no_grad():
        assert torch.isfinite(mixer(x, place(x))).all()
