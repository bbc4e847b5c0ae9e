"""Mega against its equations, token by token."""

from __future__ import annotations

import pytest

from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig

torch = pytest.importorskip("torch")
from posterhall.models.mixers import Placement, mega  # noqa: E402


def config(length=32, **given):
    torch.set_num_threads(1)
    return DecoderConfig(
        vocab_size=5,
        dim=6,
        heads=1,
        init_std=0.4,
        max_length=length,
        mixers=("mega",),
        mixer_settings={"mega": given},
    )


def made(**given):
    mixer = mega.make(config(**given), 0).double()
    generator = torch.Generator().manual_seed(0)
    mixer.initialise(generator)
    with torch.no_grad():  # what begins at zero or near it has to count too
        for parameter in (mixer.turn, mixer.bias, mixer.read_offset, mixer.values_offset):
            parameter.normal_(generator=generator)
    return mixer


def normal(*shape):
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(2))


def place(x, **more):
    return Placement(batch=len(x), tokens=x.shape[1], device=x.device, **more)


def averages(part, x):
    """Eq. 3 to 5 as a recurrence, forwards, and backwards over what comes after."""
    y = torch.zeros_like(x)
    for row, (alpha, delta, beta, eta) in enumerate(
        zip(part.alpha, part.delta, part.beta, part.eta, strict=True)
    ):
        alpha, delta = alpha.sigmoid(), delta.sigmoid()
        h = torch.zeros(len(x), *alpha.shape, dtype=x.dtype)
        steps = range(x.shape[1]) if row == 0 else range(x.shape[1] - 2, -1, -1)
        for t in steps:
            h = alpha * beta * x[:, t if row == 0 else t + 1, :, None] + (1 - alpha * delta) * h
            y[:, t] += (eta * h).sum(-1) / alpha.shape[1] ** 0.5
    return torch.nn.functional.silu(y + part.omega * x)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_averages_are_the_damped_recurrence(bidirectional):
    mixer = made(average=3, bidirectional=bidirectional)
    x = normal(2, 11, 6)
    with torch.no_grad():
        found = mixer.average(x, place(x), None)
        assert torch.allclose(found, averages(mixer.average, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("chunk", [None, 4])
def test_the_layer_is_its_equations(chunk, bidirectional):
    mixer = made(average=3, shared=5, values=7, chunk=chunk, bidirectional=bidirectional)
    x = normal(2, 11, 6)
    silu = torch.nn.functional.silu
    with torch.no_grad():
        read = mixer.read(averages(mixer.average, x)) + mixer.read_offset
        update, candidate, shared, reset = (
            read[..., :6],
            read[..., 6:12],
            silu(read[..., 12:17]),
            read[..., 17:],
        )
        values = silu(mixer.values(x) + mixer.values_offset)
        (of_q, of_k), (to_q, to_k) = mixer.turn
        queries, keys = shared * of_q + to_q, shared * of_k + to_k
        mixed = torch.zeros(2, 11, 7, dtype=x.dtype)
        for t in range(11):
            seen = [
                s
                for s in range(11)
                if (bidirectional or s <= t) and (chunk is None or s // chunk == t // chunk)
            ]
            lags = torch.tensor([t - s for s in seen])
            bias = mixer.bias[lags + mixer.limit - 1 if bidirectional else lags]
            scores = (queries[:, t, None] * keys[:, seen]).sum(-1) / 5**0.5 + bias
            mixed[:, t] = (scores.softmax(-1)[..., None] * values[:, seen]).sum(1)
        wanted = update.sigmoid() * (silu(candidate + mixer.gated(mixed * silu(reset))) - x)
        assert torch.allclose(mixer(x, place(x)), wanted, rtol=1e-9, atol=1e-11)


def test_padding_does_not_show_to_one_that_looks_ahead():
    x = normal(2, 9, 6)
    for chunk in (None, 4):
        mixer = made(bidirectional=True, chunk=chunk)
        with torch.no_grad():
            alone = mixer(x[:1, :5], place(x[:1, :5]))
            padded = mixer(x, place(x, valid=(5, 9)))
        assert torch.isfinite(padded).all()
        assert torch.allclose(padded[:1, :5], alone, rtol=1e-9, atol=1e-11)


def test_it_refuses_what_is_longer_and_to_stream_both_ways():
    with pytest.raises(DataError, match="33 tokens"):
        made()(normal(1, 33, 6), place(normal(1, 33, 6)))
    with pytest.raises(DataError, match="bidirectional Mega"):
        Decoder(config(bidirectional=True)).new_cache(1, 8)


def test_a_chunks_state_does_not_grow():
    sizes = [
        Decoder(config(length=4096, chunk=8)).new_cache(1, length).states[0].nbytes
        for length in (8, 64, 4096)
    ]
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("given", [{"average": 0}, {"shared": 0}, {"values": 0}, {"chunk": 0}])
def test_settings_out_of_range_are_refused(given):
    with pytest.raises(DataError, match="must be at least 1"):
        mega.MegaSettings(**given)
