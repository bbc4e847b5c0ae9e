"""Where the time of a decoder goes, by a clock that only what is timed moves."""

from __future__ import annotations

import math

import pytest
import torch

from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig, profile
from posterhall.models.mixers import MIXERS
from posterhall.models.operations import Work, of_parts, of_row
from posterhall.models.profile import Part, Profile, ProfileSettings, ShapeSettings


class Clock:
    """Stands for the module `time`."""

    now = 0.0

    def perf_counter(self):
        return self.now

    def process_time(self):
        return 2 * self.now


class Delay(torch.autograd.Function):
    """Takes 3 seconds forward, and twice as long back."""

    @staticmethod
    def forward(ctx, x):
        profile.time.now += 3.0
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        profile.time.now += 6.0
        return grad


class Slow(torch.nn.Module):
    causal, growth = True, "constant"

    def forward(self, x, placement, state=None):
        return Delay.apply(x)


of_row.register(Slow)(lambda mixer, tokens: Work(others=1000 * tokens))


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(profile, "time", Clock())


def slow(**more):
    shape = {"vocab_size": 11, "dim": 8, "layers": 2, "heads": 2, "ffn_dim": 16, "max_length": 32}
    config = DecoderConfig(**{**shape, "mixers": ("slow",), **more})
    return Decoder(config, seed=0, mixers={"slow": lambda config, layer: Slow()})


def seconds(found):
    return {name: part.seconds for name, part in found.parts.items()}


@pytest.mark.parametrize("backward", [False, True])
def test_each_part_gets_what_it_takes(clock, monkeypatch, backward):
    """Two mixers of 3 s forward; a feed-forward layer, a norm and the head that take other times."""
    model = slow()

    def takes(module, forward):
        inside = module.forward
        monkeypatch.setattr(module, "forward", lambda *args: waited(inside(*args), forward))

    def waited(x, forward):
        profile.time.now += forward
        return x

    takes(model.blocks[0].feed_forward, 10.0)
    takes(model.blocks[1].mixer_norm, 100.0)
    takes(model.norm, 1000.0)
    found = profile.measure({"slow": model}, ProfileSettings(lengths=(4,), repeats=3, backward=backward))
    [measured] = found["slow"]
    mixers = 2 * 9.0 if backward else 2 * 3.0
    assert seconds(measured) == {"mixer": mixers, "feed_forward": 10.0, "norms": 1100.0, "embedding": 0.0}
    assert measured.total.seconds == mixers + 1110.0
    assert measured.total.cpu_seconds == 2 * measured.total.seconds
    assert measured.parts["mixer"].work.total == 2 * 4 * 1000 * (3 if backward else 1)
    assert model.training is True  # as it was
    assert all(each.grad is None for each in model.parameters())
    assert not model.blocks[0].mixer._forward_hooks


def test_the_median_of_the_passes_after_the_first_counts(clock, monkeypatch):
    model, waits = slow(layers=1), iter([1e6, 5.0, 1.0, 90.0])
    inside = model.blocks[0].feed_forward.forward

    def forward(x):
        profile.time.now += next(waits)
        return inside(x)

    monkeypatch.setattr(model.blocks[0].feed_forward, "forward", forward)
    [measured] = profile.measure({"slow": model}, ProfileSettings(lengths=(4,), repeats=3))["slow"]
    assert measured.parts["feed_forward"].seconds == 5.0


def test_models_are_taken_in_turn(clock):
    order = []

    class Noted(Slow):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x, placement, state=None):
            order.append(self.name)
            return x

    of_row.register(Noted)(lambda mixer, tokens: Work())

    def noted(name):
        config = DecoderConfig(vocab_size=11, dim=8, layers=1, heads=2, mixers=("noted",))
        return Decoder(config, seed=0, mixers={"noted": lambda config, layer: Noted(name)})

    settings = ProfileSettings(lengths=(4, 2), repeats=2)
    found = profile.measure({"a": noted("a"), "b": noted("b")}, settings)
    assert order == ["a", "b"] * 6
    assert [each.tokens for each in found["b"]] == [4, 2]


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_can_be_profiled_forward_and_backward(name):
    settings = {"mamba2": {"head_dim": 16}}.get(name, {})
    config = DecoderConfig(
        vocab_size=13,
        dim=16,
        layers=2,
        heads=2,
        max_length=12,
        mixers=(name,),
        mixer_settings={name: settings},
    )
    model = Decoder(config, seed=0)
    for backward in (False, True):
        [measured] = profile.measure(
            {name: model}, ProfileSettings(lengths=(12,), batch=2, repeats=1, backward=backward)
        )[name]
        assert all(part.seconds > 0 and part.work.total > 0 for part in measured.parts.values())
        assert measured.parts["mixer"].work == of_parts(model, 12, batch=2, training=backward)["mixer"]


# -- where the two cross ----------------------------------------------------------------------------


def measured(tokens, mixer, feed_forward):
    parts = {"mixer": Part(mixer, mixer, Work()), "feed_forward": Part(feed_forward, feed_forward, Work())}
    return Profile(tokens, 1, parts)


def test_power_laws_cross_where_they_are_equal():
    """t^2 / 300 against t: at 300, which a straight line between logarithms finds exactly."""
    profiles = [measured(tokens, tokens**2 / 300, tokens) for tokens in (64, 128, 512, 4096)]
    found = profile.crossing_of_seconds(profiles[::-1])
    assert found.length == pytest.approx(300)
    assert found.dearer == "mixer"


def test_what_does_not_cross_says_which_costs_more():
    profiles = [measured(tokens, 2.0 * tokens, tokens) for tokens in (64, 128)]
    assert profile.crossing_of_seconds(profiles) == profile.Crossing(None, "mixer")
    profiles = [measured(tokens, 0.5 * tokens, tokens) for tokens in (64, 128)]
    assert profile.crossing_of_seconds(profiles) == profile.Crossing(None, "feed_forward")
    assert profile.crossing_of_seconds(profiles[:1]) == profile.Crossing(None, "feed_forward")


def test_a_mixer_may_become_the_cheaper_one():
    profiles = [measured(tokens, 10.0, tokens) for tokens in (5, 20)]
    found = profile.crossing_of_seconds(profiles)
    assert found.length == pytest.approx(10.0)
    assert found.dearer == "feed_forward"


def test_operations_of_attention_cross_where_the_closed_form_says():
    """8 D^2 + 2 D (T + 1) + heads (T + 1) 5 / 2 + 6 D against 6 D F + 5 F a token and layer."""
    dim, heads, width = 64, 4, 192
    model = Decoder(
        DecoderConfig(vocab_size=5, dim=dim, layers=3, heads=heads, ffn_dim=width, max_length=8), seed=0
    )
    found = profile.crossing_of_work(model)
    gap = 6 * dim * width + 5 * width - 8 * dim**2 - 6 * dim
    assert found.dearer == "mixer"
    assert found.length == math.floor(gap / (2 * dim + 2.5 * heads) - 1) + 1


def test_a_mixer_that_is_dearer_or_cheaper_at_every_length_does_not_cross():
    shape = {"vocab_size": 5, "dim": 32, "layers": 1, "heads": 2, "max_length": 8}
    mamba = Decoder(DecoderConfig(**shape, mixers=("mamba",), ffn_dim=16), seed=0)
    assert profile.crossing_of_work(mamba) == profile.Crossing(None, "mixer")
    conv = Decoder(
        DecoderConfig(**shape, mixers=("base_conv",), mixer_settings={"base_conv": {"taps": (3,)}}), seed=0
    )
    assert profile.crossing_of_work(conv) == profile.Crossing(None, "feed_forward")


# -- what is given ----------------------------------------------------------------------------------


def test_variants_have_other_feed_forward_layers_and_nothing_else():
    settings = ProfileSettings(ffn=("dense", "monarch"), ffn_blocks=2)
    config = DecoderConfig(vocab_size=11, dim=8, layers=2, heads=2, ffn_dim=16, max_length=32)
    model = Decoder(config, seed=0).to(torch.bfloat16)
    found = profile.variants(model, settings)
    assert found["dense"] is model
    assert (found["monarch"].config.ffn, found["monarch"].config.ffn_blocks) == ("monarch", 2)
    assert found["monarch"].embedding.dtype == torch.bfloat16
    assert [*profile.variants(model, ProfileSettings())] == ["dense"]


def test_arms_are_read_as_those_of_recall():
    settings = ShapeSettings(mixers=("based:feature_dim=8", "attention+mamba:state=4"), dim=32, layers=3)
    shapes = settings.shapes()
    assert shapes["based:feature_dim=8"].mixer_settings == {"based": {"feature_dim": "8"}}
    assert shapes["attention+mamba:state=4"].mixers == ("attention", "mamba", "attention")
    assert shapes["attention+mamba:state=4"].max_length == 2048


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lengths": ()}, "lengths are \\[\\]"),
        ({"lengths": (16, 0)}, "lengths are \\[16, 0\\]; .* at least 1, each once"),
        ({"lengths": (16, 16)}, "each once"),
        ({"batch": 0}, "batch is 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"ffn": ("dense", "dense")}, "ffn is \\['dense', 'dense'\\]"),
        ({"mixers": ()}, "mixers is \\[\\]"),
        ({"mixers": ("mamba:state",)}, "'mamba:state' among the mixers"),
        ({"dim": 30}, "dim is 30 with 4 heads"),
    ],
)
def test_settings_out_of_range_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        ShapeSettings(**given)


def test_lengths_beyond_a_model_are_refused():
    with pytest.raises(DataError, match="slow: 33 tokens for a model of max_length 32"):
        profile.measure({"slow": slow()}, ProfileSettings(lengths=(8, 33)))


def test_a_quantised_model_is_timed_forward_and_has_no_training_step():
    from posterhall.models.quantized import Quantization, quantize_layers

    config = DecoderConfig(vocab_size=11, dim=64, layers=1, heads=2, ffn_dim=64, max_length=16)
    plain = Decoder(config, seed=0)
    model = quantize_layers(Decoder(config, seed=0), Quantization("nf4"))
    [found] = profile.measure({"four bits": model}, ProfileSettings(lengths=(8,), repeats=1))["four bits"]
    assert found.parts["mixer"].work == of_parts(plain, 8)["mixer"]
    with pytest.raises(DataError, match="four bits is quantised"):
        profile.measure({"four bits": model}, ProfileSettings(lengths=(8,), backward=True))
