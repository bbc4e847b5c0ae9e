"""The short convolution against torch's own, in all its forms."""

import itertools

import pytest
import torch

from posterhall.errors import DataError
from posterhall.models.mixers import Placement
from posterhall.models.mixers.short_conv import ShortConv


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype).normal_(generator=torch.Generator().manual_seed(seed))


def made(width=20, taps=4, **options):
    conv = ShortConv(width, taps, **options)
    conv.initialise(torch.Generator().manual_seed(1))
    return conv


def place(batch, tokens, past=None, **more):
    return Placement(batch=batch, tokens=tokens, device=torch.device("cpu"), past=past, **more)


def reference(conv, x):
    """torch's depthwise convolution, padded in front."""
    padded = torch.nn.functional.pad(x.transpose(1, 2), (conv.taps - 1, 0))
    y = torch.nn.functional.conv1d(padded, conv.weight, conv.bias, groups=len(conv.weight)).transpose(1, 2)
    return torch.nn.functional.silu(y) if conv.silu else y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # numba's pass and torch's
@pytest.mark.parametrize(("taps", "bias", "silu"), [(4, True, True), (3, False, False), (1, True, False)])
def test_it_is_torchs_depthwise_convolution_with_its_gradients(taps, bias, silu, dtype):
    conv = made(taps=taps, bias=bias, silu=silu).to(dtype)
    x = drawn(2, 9, 20, dtype=dtype).requires_grad_()
    grad = drawn(2, 9, 20, seed=3, dtype=dtype)
    wanted = torch.autograd.grad(reference(conv, x), [x, *conv.parameters()], grad)
    found = torch.autograd.grad(conv(x, place(2, 9)), [x, *conv.parameters()], grad)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(conv(x, place(2, 9)), reference(conv, x), atol=tolerance, rtol=tolerance)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=5 * tolerance, rtol=5 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("taps", [1, 2, 4])
def test_every_way_to_cut_a_sequence_gives_the_same(taps, dtype):
    conv = made(taps=taps, silu=True).to(dtype)
    x = drawn(2, 7, 20, dtype=dtype)
    with torch.no_grad():
        whole = conv(x, place(2, 7))
        for count in range(4):
            for inner in itertools.combinations(range(1, 7), count):
                state = conv.new_state(2, dtype=dtype, device=x.device)
                cuts = (0, *inner, 7)
                parts = [conv(x[:, a:b], place(2, b - a, (a, a)), state) for a, b in itertools.pairwise(cuts)]
                torch.testing.assert_close(torch.cat(parts, 1), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_padding_and_other_documents_leave_no_trace(dtype):
    conv = made().to(dtype)
    x = drawn(2, 8, 20, dtype=dtype)
    with torch.no_grad():
        whole = conv(x, place(2, 8))
        state = conv.new_state(2, dtype=dtype, device=x.device)
        conv(x[:, :4], place(2, 4, (0, 0), valid=(1, 3)), state)
        rest = torch.stack((x[0, 1:3], x[1, 3:5]))
        further = conv(rest, place(2, 2, (1, 3)), state)
        torch.testing.assert_close(further, torch.stack((whole[0, 1:3], whole[1, 3:5])))
        segments = torch.tensor([[0] * 3 + [1] * 5, [4] * 7 + [2]])
        packed = conv(x, place(2, 8, segments=segments))
        torch.testing.assert_close(packed[:1, 3:], conv(x[:1, 3:], place(1, 5)))
        torch.testing.assert_close(packed[1:, 7:], conv(x[1:, 7:], place(1, 1)))
        torch.testing.assert_close(packed[0, :3], whole[0, :3])


def test_gradients_do_not_cross_documents():
    conv = made()
    x = drawn(1, 6, 20).requires_grad_()
    segments = torch.tensor([[0, 0, 0, 1, 1, 1]])
    conv(x, place(1, 6, segments=segments))[:, 3:].sum().backward()
    assert (x.grad[:, :3] == 0).all()
    assert (x.grad[:, 3:] != 0).all()


def test_no_taps_is_an_error():
    with pytest.raises(DataError, match="at least 1"):
        ShortConv(4, 0)
