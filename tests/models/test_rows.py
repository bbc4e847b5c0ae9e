"""Products of a few rows against float64, and that generating text takes them."""

from __future__ import annotations

import pytest
import torch

from posterhall.models import Decoder, DecoderConfig, _rows, _team
from posterhall.models.layers import Linear


def drawn(*shape):
    return torch.empty(shape, dtype=torch.float64).normal_(
        generator=torch.Generator().manual_seed(sum(shape))
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize(
    ("rows", "outputs", "inputs"), [(1, 7, 768), (1, 33, 130), (2, 16, 66), (3, 5, 18), (4, 9, 96)]
)
def test_they_are_the_product(dtype, tolerance, rows, outputs, inputs):
    x, weight = drawn(rows, inputs).to(dtype), drawn(outputs, inputs).to(dtype)
    exact = x.double() @ weight.double().t()
    found = _rows.multiply(x[:, None], weight)
    assert found.shape == (rows, 1, outputs)
    assert found.dtype == dtype
    assert (found[:, 0].double() - exact).abs().max() <= tolerance * exact.abs().max()


def test_rows_in_memory_that_is_not_contiguous_are_taken_as_they_are():
    x, weight = drawn(32, 2).float().t(), drawn(6, 32).float()
    torch.testing.assert_close(_rows.multiply(x, weight), x @ weight.t())


def test_only_few_rows_of_many_weights_without_gradients_are_taken():
    layer = Linear(768, 1024)
    x = torch.zeros(1, 4, 768)
    assert not _rows.takes(x, layer.weight)
    with torch.no_grad():
        assert _rows.takes(x, layer.weight)
        assert not _rows.takes(torch.zeros(1, 5, 768), layer.weight)
        assert not _rows.takes(torch.zeros(0, 1, 768), layer.weight)
        assert not _rows.takes(x, layer.weight[:8])
        assert not _rows.takes(x.bfloat16(), layer.weight)
        assert not _rows.takes(x.double(), layer.weight.double())
        assert not _rows.takes(x, torch.zeros(768, 1024).t())
        with torch.autocast("cpu", torch.bfloat16):
            assert not _rows.takes(x, layer.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings", [{}, {"rank": 5, "state": 3, "conv": 1, "conv_bias": False}, {"conv": 2}]
)
def test_a_token_of_mamba_is_one_call_and_goes_on_as_a_chunk_does(dtype, settings, monkeypatch):
    config = DecoderConfig(
        vocab_size=11,
        dim=64,
        layers=2,
        heads=1,
        ffn_dim=0,
        mixers=("mamba",),
        mixer_settings={"mamba": settings},
    )
    model = Decoder(config).eval().to(dtype)
    ids = torch.randint(0, 11, (3, 9), generator=torch.Generator().manual_seed(0))
    called: list[str] = []
    real = _team.alone
    monkeypatch.setattr(_team, "alone", lambda body, *rest: (called.append(body), real(body, *rest)))
    with torch.no_grad():
        cache = model.new_cache(3)
        model.hidden(ids[:, :5], cache=cache)
        stepped = [model.hidden(ids[:, t : t + 1], cache=cache) for t in range(5, 9)]
        whole = model.hidden(ids)[:, 5:]
    takes = dtype == torch.float32 or settings.get("rank", 4) % 2 == 0  # odd rows of halves are in no word
    assert called == ["mamba"] * (8 if takes else 0)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    assert (torch.cat(stepped, 1) - whole).abs().max() <= tolerance * whole.abs().max()
