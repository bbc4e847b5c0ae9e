"""Mixers of long sums under autocast and in half precision."""

import pytest
import torch

from posterhall.models import DecoderConfig
from posterhall.models.mixers import Placement, factory

NAMES = ("s4", "s4d", "s5", "h3", "long_conv", "hyena", "base_conv")


def layer(name):
    config = DecoderConfig(vocab_size=2, dim=8, heads=1, max_length=64, mixers=(name,))
    mixer = factory(name)(config, 1)
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer.eval()


def inputs(tokens=40):
    x = torch.empty(2, tokens, 8).normal_(generator=torch.Generator().manual_seed(1))
    return x, Placement(batch=2, tokens=tokens, device=x.device)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_reaches_only_the_projections(name):
    mixer = layer(name)
    x, placement = inputs()
    exact = mixer(x, placement)
    with torch.autocast("cpu", torch.bfloat16):
        found = mixer(x, placement)
    # Two or three roundings to 8 bits; a kernel of powers in 8 bits would be off by the size of the result.
    assert float((found.float() - exact).detach().abs().max()) < 0.03 * float(exact.detach().abs().max())
    found.float().square().sum().backward()
    assert all(torch.isfinite(each.grad).all() for each in mixer.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_goes_in_and_comes_out_also_in_steps(name, dtype):
    mixer = layer(name)
    x, placement = inputs()
    with torch.no_grad():
        exact = mixer(x, placement)
        mixer.to(dtype)
        x = x.to(dtype)
        found = mixer(x, placement)
        state = mixer.new_state(2, 40, dtype=dtype, device=x.device)
        head = Placement(batch=2, tokens=30, device=x.device, past=(0, 0))
        parts = [mixer(x[:, :30], head, state)]
        for t in range(30, 40):
            step = Placement(batch=2, tokens=1, device=x.device, past=(t, t))
            parts.append(mixer(x[:, t : t + 1], step, state))
    assert found.dtype == dtype
    scale = float(exact.abs().max())
    assert float((found.float() - exact).abs().max()) < 0.05 * scale
    assert float((torch.cat(parts, 1).float() - found.float()).abs().max()) < 0.05 * scale
