"""Adapters against the dense formula W + s B A in float64, on every kind of linear layer."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posterhall.adapters import LoraLinear, LoraSettings, add_lora, disabled, lora_parameters  # noqa: E402
from posterhall.adapters import dropout as dropping  # noqa: E402
from posterhall.adapters.lora import Part  # noqa: E402
from posterhall.adapters.placing import sites, target_names  # noqa: E402
from posterhall.errors import DataError  # noqa: E402
from posterhall.models import Decoder, DecoderConfig  # noqa: E402
from posterhall.models.layers import Linear  # noqa: E402
from posterhall.quantize import QuantizedLinear  # noqa: E402

OUTPUTS, INPUTS = 48, 40
PARTS = (Part("q", 0, 16), Part("k", 16, 24), Part("v", 32, 48))


class Conv1D(torch.nn.Module):
    """GPT-2's layer as transformers has it."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = torch.nn.Parameter(torch.empty(nx, nf))
        self.bias = torch.nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


def random(*shape, seed=0, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype).normal_(generator=torch.Generator().manual_seed(seed))


def base(kind, dtype=torch.float32):
    """A layer, its weight (outputs, inputs) and its bias."""
    layer = {
        "torch": lambda: torch.nn.Linear(INPUTS, OUTPUTS),
        "ours": lambda: Linear(INPUTS, OUTPUTS),
        "transposed": lambda: Conv1D(OUTPUTS, INPUTS),
        "nf4": lambda: torch.nn.Linear(INPUTS, OUTPUTS),
    }[kind]()
    with torch.no_grad():
        for i, each in enumerate(layer.parameters()):
            each.copy_(random(*each.shape, seed=i))
    layer = layer.to(dtype)
    bias = getattr(layer, "bias", None)
    if kind == "nf4":
        layer = QuantizedLinear.of(layer, rows=[16, 16, 16], double=True)
        return layer, layer.dequantized(torch.float64), bias.double()
    weight = layer.weight.t() if kind == "transposed" else layer.weight
    return layer, weight.detach().double().clone(), None if bias is None else bias.detach().double()


def filled(layer):
    with torch.no_grad():
        layer.lora_B.copy_(random(*layer.lora_B.shape, seed=7))
    return layer


def dense(layer, weight):
    """W + s B A of the parts, in float64 with gradients to copies of A and B."""
    a, b = (each.detach().double().requires_grad_() for each in (layer.lora_A, layer.lora_B))
    rank, at, rows = layer.settings.rank, 0, [weight[:0]]
    done = 0
    for i, part in enumerate(layer.parts):
        size = part.last - part.first
        rows.append(weight[done : part.first])
        delta = b[at : at + size] @ a[i * rank : (i + 1) * rank]
        rows.append(weight[part.first : part.last] + layer.settings.alpha / rank * delta)
        at, done = at + size, part.last
    return torch.cat([*rows, weight[done:]]), a, b


@pytest.mark.parametrize("parts", [None, PARTS])
@pytest.mark.parametrize("kind", ["torch", "ours", "transposed", "nf4"])
@pytest.mark.parametrize("shape", [(INPUTS,), (2, 5, INPUTS), (150, INPUTS)])
def test_outputs_and_gradients_are_those_of_the_dense_formula(kind, parts, shape):
    frozen, weight, bias = base(kind)
    layer = filled(LoraLinear(frozen, LoraSettings(rank=4, alpha=6.0), parts))
    whole, a, b = dense(layer, weight)
    x = random(*shape, seed=3).requires_grad_()
    same = x.detach().double().requires_grad_()
    y, expected = layer(x), torch.nn.functional.linear(same, whole, bias)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-4)
    slope = random(*y.shape, seed=4)
    y.backward(slope)
    expected.backward(slope.double())
    for found, wanted in ((x, same), (layer.lora_A, a), (layer.lora_B, b)):
        torch.testing.assert_close(found.grad.double(), wanted.grad, rtol=1e-4, atol=1e-3)
    assert all(each.grad is None for each in frozen.parameters())


def test_it_is_exact_in_float64():
    frozen, _, _ = base("torch", torch.float64)
    layer = filled(LoraLinear(frozen, LoraSettings(rank=4)))
    assert layer.lora_A.dtype == torch.float64
    x = random(3, INPUTS, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize("autocast", [False, True])
def test_it_computes_in_the_type_of_its_input_and_learns_in_float32(autocast):
    frozen, weight, _ = base("ours", torch.float32 if autocast else torch.bfloat16)
    layer = filled(LoraLinear(frozen, LoraSettings(rank=4)))
    x = random(6, INPUTS, dtype=torch.float32 if autocast else torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert (layer.lora_A.grad.dtype, x.grad.dtype) == (torch.float32, x.dtype)
    expected = x.detach().double() @ dense(layer, weight)[0].t()
    torch.testing.assert_close(y.double(), expected, rtol=0.03, atol=0.3)


def test_rank_stabilised_adapters_scale_by_the_root_of_the_rank():
    plain, stable = LoraSettings(rank=16, alpha=8.0), LoraSettings(rank=16, alpha=8.0, rank_stabilized=True)
    assert (plain.scaling, stable.scaling) == (0.5, 2.0)
    frozen, _, _ = base("torch")
    layer = filled(LoraLinear(frozen, stable))
    torch.testing.assert_close(layer.delta(), 2.0 * layer.lora_B @ layer.lora_A)


@pytest.mark.parametrize(
    ("name", "value"), [("rank", 0), ("alpha", 0.0), ("alpha", math.inf), ("dropout", 1.0), ("dropout", -0.1)]
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(DataError, match=f"{name} is"):
        LoraSettings(**{name: value})


# -- dropout ----------------------------------------------------------------------------------------


def test_dropout_drops_its_share_and_keeps_the_mean():
    x = torch.ones(400, 1000)
    for share in (0.05, 0.5, 0.9):
        y = dropping.drop(x, share, 12345678901234567)
        kept = y != 0
        n = x.numel()
        assert abs(float(kept.double().mean()) - (1 - share)) < 4 * math.sqrt(share * (1 - share) / n)
        torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / (1 - share)))


def test_dropout_masks_of_neighbouring_places_and_keys_are_independent():
    masks = np.stack(
        [
            (dropping.drop(torch.ones(1 << 16), 0.5, key) != 0).numpy()
            for key in (1, 2, 3, 1 << 33, (1 << 33) + 1)
        ]
    ).astype(float)
    for lag in (1, 2, 8, 64, 1024):  # within a mask
        for mask in masks:
            assert abs(np.corrcoef(mask[lag:], mask[:-lag])[0, 1]) < 5 / math.sqrt(mask.size)
    between = np.corrcoef(masks) - np.eye(len(masks))
    assert np.abs(between).max() < 5 / math.sqrt(masks.shape[1])


def test_gradients_with_dropout_are_those_of_the_mask_that_was_drawn():
    frozen, weight, bias = base("torch")
    layer = filled(LoraLinear(frozen, LoraSettings(rank=4, dropout=0.5))).train()
    x = random(9, INPUTS, seed=3).requires_grad_()
    with dropping.passing(77):
        key = layer._key()
        y = layer(x)
    mask = dropping.drop(torch.ones(9, INPUTS), 0.5, key).double()
    same = x.detach().double().requires_grad_()
    a, b = (each.detach().double().requires_grad_() for each in (layer.lora_A, layer.lora_B))
    expected = same @ weight.t() + bias + layer.settings.scaling * (same * mask) @ a.t() @ b.t()
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-4)
    slope = random(*y.shape, seed=4)
    y.backward(slope)
    expected.backward(slope.double())
    for found, wanted in ((x, same), (layer.lora_A, a), (layer.lora_B, b)):
        torch.testing.assert_close(found.grad.double(), wanted.grad, rtol=1e-4, atol=1e-3)


def test_evaluation_drops_nothing():
    frozen, _, _ = base("torch")
    layer = filled(LoraLinear(frozen, LoraSettings(rank=4, dropout=0.5))).eval()
    x = random(2, INPUTS)
    assert torch.equal(layer(x), layer(x))
    assert not torch.equal(layer.train()(x), layer(x))


# -- on models --------------------------------------------------------------------------------------

CONFIG = DecoderConfig(vocab_size=50, dim=32, layers=2, heads=4, kv_heads=2, ffn_dim=48, max_length=32)
IDS = torch.arange(20).view(2, 10)


def adapted(**settings):
    return add_lora(Decoder(CONFIG, seed=1), **{"rank": 4, **settings})


def shake(model):
    with torch.no_grad():
        for i, each in enumerate(lora_parameters(model)):
            each.copy_(random(*each.shape, seed=i) * 0.1)
    return model


def test_a_decoder_has_adapters_for_every_published_projection_and_begins_as_it_was():
    plain, model = Decoder(CONFIG, seed=1), adapted()
    assert torch.equal(model(IDS), plain(IDS))
    names = [
        part.name
        for _, layer in model.named_modules()
        if isinstance(layer, LoraLinear)
        for part in layer.parts
    ]
    ends = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    ends += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert sorted(names) == sorted(f"model.layers.{i}.{end}" for i in range(2) for end in ends)
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
    # r (in + out) of each: q 32+32, k and v 32+16, o 32+32, gate and up 32+48, down 48+32
    assert sum(each.numel() for each in lora_parameters(model)) == 2 * 4 * (64 + 48 + 48 + 64 + 80 + 80 + 80)


def test_only_the_named_projections_of_a_fused_matrix_get_adapters():
    model = shake(adapted(targets=["q_proj", "v_proj"]))
    assert target_names(model) == ["q_proj", "v_proj"]
    layer = model.blocks[0].mixer.qkv
    assert [(part.first, part.last) for part in layer.parts] == [(0, 32), (48, 64)]
    x = random(3, 32)
    changed = (layer(x) - layer.base(x)).abs().amax(0)
    untouched, touched = changed[32:48], torch.cat((changed[:32], changed[48:]))
    assert torch.equal(untouched, torch.zeros(16))
    assert (touched > 0).all()


def test_a_target_that_is_not_there_is_named_with_what_is():
    with pytest.raises(
        DataError, match=r"no layer is called 'q_pro'; there are q_proj, .*Did you mean: q_proj"
    ):
        adapted(targets=["q_pro"])


def test_adapters_are_put_on_once():
    with pytest.raises(DataError, match="has adapters already"):
        add_lora(adapted())


def test_adapters_switched_off_leave_the_model_that_they_were_put_on():
    plain, model = Decoder(CONFIG, seed=1), shake(adapted())
    on = model(IDS)
    with disabled(model):
        assert torch.equal(model(IDS), plain(IDS))
    assert torch.equal(model(IDS), on)
    assert not torch.equal(on, plain(IDS))
    with pytest.raises(DataError, match="no adapters"), disabled(plain):
        pass


def test_what_a_pass_drops_follows_from_its_number():
    model = shake(adapted(dropout=0.3)).train()
    first, second = model(IDS), model(IDS)
    assert not torch.equal(first, second)
    model.draws = 0
    assert torch.equal(model(IDS), first)


def test_checkpointed_blocks_drop_the_same_when_they_are_computed_again():
    model = shake(adapted(dropout=0.3)).train()
    grads = []
    for checkpointing in (False, True):
        model.gradient_checkpointing, model.draws = checkpointing, 0
        model.zero_grad()
        # Two passes before one backward, as in preference training: each repeats its own.
        (model(IDS).sum() + model(IDS + 1).square().sum()).backward()
        grads.append([each.grad.clone() for each in lora_parameters(model)])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6)


def test_the_seed_alone_decides_how_adapters_begin():
    one, same, other = adapted(seed=3), adapted(seed=3, targets=["q_proj"]), adapted(seed=4)
    a = one.blocks[0].mixer.qkv.lora_A
    assert torch.equal(same.blocks[0].mixer.qkv.lora_A, a[:4])
    assert not torch.equal(other.blocks[0].mixer.qkv.lora_A, a)
    bound = 1 / math.sqrt(32)  # kaiming uniform with a = sqrt 5
    assert 0.95 * bound < a.abs().max() <= bound


def test_plain_modules_take_adapters_by_their_own_names():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    add_lora(model, rank=2, targets=["2"])
    assert [site for site, layer in model.named_modules() if isinstance(layer, LoraLinear)] == ["2"]
    with pytest.raises(DataError, match="no linear layers"):
        sites(torch.nn.Sequential(torch.nn.ReLU()))
