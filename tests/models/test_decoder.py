"""The decoder: what must agree with what, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SHAPES, decoder, tokens

from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig, flops_per_token, parameters_count
from posterhall.objectives.lm import lm_loss


def gradients(model, ids, **more):
    model.zero_grad()
    loss, _ = lm_loss(model.hidden(ids[:, :-1], **more), model.head_weight(), ids[:, 1:])
    loss.backward()
    return {name: each.grad.clone() for name, each in model.named_parameters()}


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    first = decoder(seed=5).state_dict()
    torch.manual_seed(2)
    torch.rand(3)
    state = torch.random.get_rng_state()
    second = decoder(seed=5).state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embedding"], decoder(seed=6).state_dict()["embedding"])


def test_weights_begin_with_the_stated_spread():
    model = Decoder(DecoderConfig(vocab_size=500, dim=128, layers=8))
    assert model.embedding.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.blocks[3].mixer.qkv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.blocks[3].feed_forward.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert model.norm.weight.eq(1).all()


@pytest.mark.parametrize("name", SHAPES)
def test_a_cache_changes_nothing(name):
    model = decoder(name)
    ids = tokens(model, 3, 12)
    with torch.no_grad():
        whole = model(ids)
        cache = model.new_cache(3, 12)
        parts = [model(ids[:, a:b], cache=cache) for a, b in ((0, 5), (5, 6), (6, 12))]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)
    assert cache.lengths == [12] * 3


def test_rows_of_a_cache_can_be_taken_again():
    model = decoder("grouped")
    ids = tokens(model, 2, 10)
    with torch.no_grad():
        cache = model.new_cache(2, 20)
        model.hidden(ids, cache=cache)
        several = cache.select([1, 0, 1])
        more = tokens(model, 3, 4, seed=1)
        got = model(more, cache=several)
        for at, row in enumerate((1, 0, 1)):
            alone = model(torch.cat((ids[row], more[at]))[None])[0, 10:]
            torch.testing.assert_close(got[at], alone, rtol=1e-5, atol=1e-5)
        assert cache.lengths == [10, 10]  # the original goes on from where it was
    with pytest.raises(DataError, match="cache with 2 rows"):
        cache.select([2])


@settings(max_examples=30)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 3))
def test_packed_documents_are_as_rows_of_their_own(lengths, seed):
    model = decoder("grouped", seed=seed)
    ids = tokens(model, 1, sum(lengths), seed=seed)
    numbers = torch.repeat_interleave(torch.arange(len(lengths)) * 3 + 1, torch.tensor(lengths))[None]
    with torch.no_grad():
        packed = model(ids, segments=numbers)
        apart = torch.cat([model(part) for part in ids.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, apart, rtol=1e-5, atol=1e-5)


def test_gradients_of_packed_documents_are_those_of_rows():
    model = decoder("plain").double()
    ids = tokens(model, 1, 12)
    labels = ids.roll(-1, 1)
    labels[0, [4, 11]] = -100
    numbers = (torch.arange(12) > 4).long()[None]
    found = torch.autograd.grad(
        lm_loss(model.hidden(ids, segments=numbers), model.head_weight(), labels, reduction="sum")[0],
        list(model.parameters()),
    )
    parts = [
        lm_loss(model.hidden(ids[:, cut]), model.head_weight(), labels[:, cut], reduction="sum")[0]
        for cut in (slice(0, 5), slice(5, 12))
    ]
    torch.testing.assert_close(found, torch.autograd.grad(sum(parts), list(model.parameters())))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradient_checkpointing_changes_no_gradient(dropout):
    model = decoder("grouped", dropout=dropout).train()
    ids = tokens(model, 3, 12)
    plain = gradients(model, ids)
    model.gradient_checkpointing = True
    model.draws = 0
    again = gradients(model, ids)
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], rtol=1e-6, atol=1e-7)


def test_dropout_follows_from_the_seed_and_the_pass():
    model = decoder("plain", dropout=0.3).train()
    ids = tokens(model)
    first, second = model(ids), model(ids)
    assert not torch.equal(first, second)
    torch.rand(5)
    model.draws = 0
    assert torch.equal(model(ids), first)
    assert torch.equal(model.eval()(ids), model(ids))


def test_dropout_keeps_the_mean():
    from posterhall.models.decoder import drop

    dropped = drop(torch.ones(400, 400), 0.25, 1, "here")
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_bfloat16_runs_and_is_close():
    model = decoder("grouped", init_std=0.05)
    ids = tokens(model, 2, 16)
    exact = gradients(model.train(), ids)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = gradients(model, ids)
    low = model.to(torch.bfloat16)
    whole = gradients(low, ids)
    assert low(ids).dtype == torch.bfloat16
    for found in (mixed, whole):
        total = sum((found[name].float() - exact[name]).square().sum() for name in exact) ** 0.5
        assert total < 0.05 * sum(each.square().sum() for each in exact.values()) ** 0.5


class Shift(torch.nn.Module):
    """A mixer of someone else's: the token before."""

    causal, growth = True, "constant"

    def __init__(self, dim):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.full((dim, 1), 0.5))

    def forward(self, x, placement, state=None):
        return torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1] * self.gain[:, 0]


def test_a_layer_can_have_a_mixer_of_ones_own():
    config = DecoderConfig(vocab_size=9, dim=16, layers=2, heads=2, mixers=("shift", "attention"))
    model = Decoder(config, mixers={"shift": lambda config, layer: Shift(config.dim + layer)})
    assert isinstance(model.blocks[0].mixer, Shift)
    assert model.blocks[0].mixer.gain.eq(0.5).all()  # its beginning is its own affair
    assert model(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 9)
    with pytest.raises(DataError, match="no mixer 'shift'"):
        Decoder(config)
    with pytest.raises(DataError, match="shift"):
        parameters_count(config)


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_counted(name):
    model = decoder(name)
    parts = parameters_count(model.config)
    assert parts.total == sum(each.numel() for each in model.parameters())
    assert parts.non_embedding == sum(each.numel() for n, each in model.named_parameters() if "." in n)
    for part, key in (("attention", "mixer."), ("feed_forward", "feed_forward."), ("norms", "norm.")):
        named = [each for n, each in model.named_parameters() if key in n]
        assert getattr(parts, part) == sum(each.numel() for each in named)


@pytest.mark.parametrize("name", ["plain", "grouped", "one key head, untied"])
def test_operations_are_those_that_torch_counts(name):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = decoder(name)
    ids = tokens(model, 1, 16)
    # The plain form of attention: its products are counted, those of fused kernels are not.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(ids)
    counts = counter.get_flop_counts()["Global"]
    products = sum(value for key, value in counts.items() if "bmm" not in str(key))
    square = sum(value for key, value in counts.items() if "bmm" in str(key))
    # Backward costs twice as much as forward; of attention's square, what is before a token counts.
    forward = products + square * (16 + 1) / 2 / 16
    assert 3 * forward == pytest.approx(16 * flops_per_token(model.config, 16))


def test_settings_that_do_not_fit_are_refused():
    for change, said in (
        ({"dim": 30}, "multiple of 8"),
        ({"kv_heads": 3}, "must divide"),
        ({"layers": 0}, "at least 1"),
        ({"kv_heads": 0}, "at least 1"),
        ({"ffn_dim": -1}, "at least 0"),
        ({"positions": "sinus"}, "one of: rotary, learned, none"),
        ({"mixer_settings": {"mamba": {}}}, "the model mixes by attention"),
        ({"norm_eps": 0.0}, "above 0"),
        ({"rope_theta": float("inf")}, "above 0"),
        ({"dropout": 1.0}, "below 1"),
        ({"mixers": ("attention",) * 3}, "3 names for 4 layers"),
        ({"mixers": ("",)}, "one for all"),
    ):
        with pytest.raises(DataError, match=said):
            DecoderConfig(**{"vocab_size": 10, "dim": 32, "heads": 4, **change})
    assert DecoderConfig(vocab_size=10, dim=256).feed_forward_dim == 704  # 8/3 dim is 682.7


def test_inputs_that_do_not_fit_are_refused():
    model = decoder("plain")
    ids = tokens(model)
    cache = model.new_cache(2, 20)
    for call, said in (
        (lambda: model(ids + 60), "knows 0 to 60"),
        (lambda: model(ids - 60), "knows 0 to 60"),
        (lambda: model(ids.float()), "integers"),
        (lambda: model(ids[0]), "integers"),
        (lambda: model(ids[:, :0]), "integers"),
        (lambda: model(tokens(model, 1, 49)), "max_length 48"),
        (lambda: model(ids, segments=ids[:, :3]), "give the same"),
        (lambda: model(ids, segments=ids, cache=cache), "packed documents have none"),
        (lambda: model(ids[:1], cache=cache), "the cache 2"),
        (lambda: model(tokens(model, 2, 21), cache=cache), "21 tokens after 0 exceed the 20"),
        (lambda: model.hidden(ids, valid=[1, 2], padding="left", segments=ids), "padding on the left"),
        (lambda: model(ids, cache=cache, valid=[1, 18]), "from 0 to 17"),
        (lambda: model.new_cache(1, 100), "100 tokens for a model"),
    ):
        with pytest.raises(DataError, match=said):
            call()
    assert cache.lengths == [0, 0]


@pytest.mark.parametrize(
    "shape",
    [
        {"mixers": ("mamba",), "ffn_dim": 0},
        {"mixers": ("mamba2", "attention"), "mixer_settings": {"mamba2": {"head_dim": 8}}},
        {"positions": "learned", "heads": 8, "dim": 24},
        {"positions": "none"},
    ],
)
def test_padding_leaves_no_trace_on_either_side(shape):
    model = decoder("plain", **shape)
    ids = tokens(model, 3, 9)
    lengths = [9, 4, 1]
    with torch.no_grad():
        alone = [model.hidden(ids[row : row + 1, :count])[0] for row, count in enumerate(lengths)]
        for side in ("left", "right"):
            padded = torch.full_like(ids, 3)
            places = [slice(9 - count, 9) if side == "left" else slice(0, count) for count in lengths]
            for row, place in enumerate(places):
                padded[row, place] = ids[row, : lengths[row]]
            cache = model.new_cache(3, 20)
            for filled in (None, cache):
                states = model.hidden(padded, cache=filled, valid=lengths, padding=side)
                for row, place in enumerate(places):
                    torch.testing.assert_close(states[row, place], alone[row], rtol=1e-4, atol=1e-5)
            assert cache.lengths == lengths
            after = model.hidden(ids[:, :1], cache=cache)
            for row, count in enumerate(lengths):
                whole = model.hidden(torch.cat((ids[row, :count], ids[row, :1]))[None])[0, -1]
                torch.testing.assert_close(after[row, 0], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [{"mixers": ("mamba",), "ffn_dim": 0}, {"positions": "learned"}])
def test_parameters_of_other_decoders_are_counted(shape):
    model = decoder("plain", **shape)
    assert parameters_count(model.config).total == sum(each.numel() for each in model.parameters())
