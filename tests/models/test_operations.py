"""Operations of decoders, against torch's counter of products and scalar programs that count as they run."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig
from posterhall.models.mixers import MIXERS, Placement
from posterhall.models.mixers.preceded import preceded
from posterhall.models.operations import PARTS, Work, of_feed_forward, of_mixer, of_parts, of_row

DIM, ROWS, LENGTHS = 32, 2, (5, 64, 130)
SETTINGS = {
    "mamba2": {"head_dim": 16, "state": 8, "chunk": 32, "groups": 2},
    "s4": {"state": 16},
    "base_conv": {"taps": (-1,)},
    "linear_attention": {"feature": "elu", "chunk": 48},
    "performer": {"chunk": 48},
    "mega": {"chunk": 40},
}
ARMS = [
    *((name, SETTINGS.get(name, {})) for name in MIXERS),
    ("performer", {"bidirectional": True}),
    ("mega", {"bidirectional": True}),
    ("s4d", {"bidirectional": True}),
    ("s5", {"bidirectional": True}),
    ("long_conv", {"bidirectional": True}),
    ("hyena", {"order": 3}),
    ("h3", {"head_dim": 4}),
    ("linear_attention", {"feature": "taylor", "compressed": False}),
    ("sliding_window", {"window": 16}),
]


def mixers(name, given, **more):
    """Each kind of mixer that stands in some layer."""
    shape = {"vocab_size": 16, "dim": DIM, "layers": 4, "heads": 4, "max_length": 160, "mixers": (name,)}
    config = DecoderConfig(**{**shape, "mixer_settings": {name: given}, **more})
    found = {type(block.mixer): block.mixer for block in Decoder(config, seed=0).blocks}
    return [each.eval() for each in found.values()]


def counted(mixer, tokens, *, gradients):
    """Products that torch sees in a forward pass, attention as plain products; kernels are kept by then."""
    x = torch.randn(ROWS, tokens, DIM, generator=torch.Generator().manual_seed(0))
    placement = Placement(batch=ROWS, tokens=tokens, device=x.device)
    with torch.set_grad_enabled(gradients), sdpa_kernel(SDPBackend.MATH):
        mixer(x, placement)
        with FlopCounterMode(display=False) as counter:
            mixer(x, placement)
    return counter.get_total_flops()


def hidden_by_causality(mixer, tokens):
    """What plain products do and the kernel of causal attention does not: pairs above the diagonal."""
    name = type(mixer).__name__
    if name == "Attention" or (name == "SlidingWindow" and tokens <= mixer.window):
        return ROWS * 4 * DIM * tokens * (tokens - 1) / 2
    return 0.0


@pytest.mark.parametrize(("name", "given"), ARMS, ids=str)
def test_products_are_those_that_torch_counts(name, given):
    for mixer in mixers(name, given):
        for tokens in LENGTHS:
            missing = hidden_by_causality(mixer, tokens)
            assert of_mixer(mixer, tokens, batch=ROWS).products + missing == counted(
                mixer, tokens, gradients=False
            )
            if name != "s4":
                step = of_mixer(mixer, tokens, batch=ROWS, training=True)
                assert step.products / 3 + missing == pytest.approx(
                    counted(mixer, tokens, gradients=True), rel=1e-12
                )


def test_grouped_heads_are_counted():
    [mixer] = mixers("attention", {}, kv_heads=2)
    missing = hidden_by_causality(mixer, 20)
    assert of_mixer(mixer, 20, batch=ROWS).products + missing == counted(mixer, 20, gradients=False)


def test_the_kernel_of_s4_counts_its_powers_too():  # by numpy, whose products torch does not see
    [mixer] = mixers("s4", {"state": 16})
    tokens = 130
    squarings = DIM * 2 * 16**3 * (tokens.bit_length() - 1)
    step = of_mixer(mixer, tokens, batch=ROWS, training=True)
    assert step.products / 3 == pytest.approx(counted(mixer, tokens, gradients=True) + squarings, rel=0.02)


# -- what is no product of matrices: scalar programs that count -------------------------------------


class Number:
    """A number that counts what is done with it."""

    operations = 0

    def __init__(self, value=0.5):
        self.value = value

    @classmethod
    def _made(cls, value):
        cls.operations += 1
        return cls(value)

    def __add__(self, other):
        return self._made(self.value + other.value)

    def __sub__(self, other):
        return self._made(self.value - other.value)

    def __mul__(self, other):
        return self._made(self.value * other.value)

    def __truediv__(self, other):
        return self._made(self.value / other.value)

    def exp(self):
        return self._made(math.exp(self.value))

    def log1p(self):
        return self._made(math.log1p(self.value))

    def most(self, other):
        return self._made(max(self.value, other.value))


def operations(run):
    Number.operations = 0
    run()
    return Number.operations


def silu(x):
    return x / (Number(1.0) + x.exp()) * Number(1.0)  # an exponential, a sum, a quotient, a product


def beside_projections(mixer, tokens):
    return of_row(mixer, tokens).others


def test_a_short_convolution_counts_its_taps():
    from posterhall.models.mixers.short_conv import ShortConv

    tokens, channels, taps = 7, 3, 4
    number = Number()

    def run():
        for _ in range(tokens * channels):
            total = number * number
            for _ in range(taps - 1):
                total = total + number * number
            silu(total + number)

    assert beside_projections(ShortConv(channels, taps, silu=True), tokens) == operations(run)


def test_a_selective_scan_counts_what_its_recurrence_does():
    [mixer] = mixers("mamba", {"state": 4})
    tokens = 3
    number = Number()

    def run():
        for _ in range(tokens * mixer.width):
            step = (number + number).exp().log1p()
            push, y = step * number, number * number
            for _ in range(4):
                h = (step * number).exp() * number + push * number
                y = y + h * number
            y * silu(number)

    scanned = beside_projections(mixer, tokens) - beside_projections(mixer.conv, tokens)
    assert scanned == operations(run)


def test_rwkv_counts_its_averages():
    [mixer] = mixers("rwkv", {})
    tokens, number = 3, Number()

    def run():
        for _ in range(tokens * DIM):
            for _ in range(3):
                number + (number - number) * number  # between two tokens
            most = number.most(number + number)
            old, new = (number - most).exp(), (number + number - most).exp()
            (old * number + new * number) / (old * number + new)
            left = number - number
            most = left.most(number)
            old, new = (left - most).exp(), (number - most).exp()
            old * number + new * number
            old * number + new
            number / (number + number.exp()) * number  # sigmoid(r) times the average

    assert beside_projections(mixer, tokens) == pytest.approx(operations(run), abs=tokens * DIM)


def test_attention_counts_a_softmax_of_what_is_seen():
    [mixer] = mixers("attention", {}, positions="none")
    tokens, number = 6, Number()

    def run():
        for _ in range(mixer.heads):
            for seen in range(1, tokens + 1):
                for _ in range(seen):
                    number + (number * number - number.most(number)).exp()

    assert beside_projections(mixer, tokens) == operations(run)


def test_a_convolution_counts_two_transforms_and_a_product_of_spectra():
    [mixer] = mixers("long_conv", {})
    tokens = 33  # 65 entries fit into 72 = 2^3 3^2, which has no prime factor above 5
    transform = 2.5 * 72 * math.log2(72)
    convolution = DIM * (2 * transform + 6 * 37)
    activations = 11 * DIM * tokens  # the skip (2), gelu (5), and a sigmoid by its other half (4)
    assert beside_projections(mixer, tokens) == convolution + activations


def test_a_convolutions_kernel_is_made_once_a_step_and_not_for_every_row():
    [mixer] = mixers("s4d", {})
    rows = [of_mixer(mixer, 64, batch=batch, training=True).total for batch in (1, 2, 3)]
    assert rows[1] - rows[0] == pytest.approx(rows[2] - rows[1])
    assert rows[0] > 3 * of_mixer(mixer, 64).total


# -- a whole decoder --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense", "monarch", "block_diagonal"])
def test_a_decoders_products_are_those_that_torch_counts(kind):
    config = DecoderConfig(
        vocab_size=50, dim=32, layers=2, heads=2, max_length=64, ffn=kind, positions="learned"
    )
    model, tokens = Decoder(config, seed=0).eval(), 20
    work = of_parts(model, tokens, batch=3)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros((3, tokens), dtype=torch.int64))
    above = 2 * 3 * 4 * 32 * tokens * (tokens - 1) / 2
    assert sum(each.products for each in work.values()) + above == counter.get_total_flops()
    assert tuple(work) == PARTS


def test_a_step_counts_three_times_a_pass_and_its_loss():
    config = DecoderConfig(vocab_size=50, dim=32, layers=2, heads=2, max_length=64)
    model = Decoder(config, seed=0)
    once, step = of_parts(model, 16), of_parts(model, 16, training=True)
    for part in ("mixer", "feed_forward", "norms"):
        assert step[part].total == 3 * once[part].total
    assert step["embedding"].products == 3 * once["embedding"].products
    assert step["embedding"].others == 3 * 5 * 50 * 16


def test_norms_count_what_a_scalar_program_does():
    model = Decoder(DecoderConfig(vocab_size=5, dim=16, layers=2, heads=2, max_length=8), seed=0)
    number = Number()

    def norm():
        for _ in range(16):
            number + number * number
            number * number * number

    def run():
        for _ in range(3):  # tokens
            for _ in range(4):  # a mixer and a feed-forward layer, twice
                norm()
                for _ in range(16):
                    number + number  # onto the residual stream
            norm()

    assert of_parts(model, 3)["norms"] == Work(0.0, operations(run))


def test_feed_forward_layers_count_two_a_weight_and_their_activation():
    config = DecoderConfig(vocab_size=5, dim=32, ffn_dim=64, ffn="monarch", ffn_blocks=2)
    held = 32 * (32 + 128) // 2 + 32 * (64 + 32) // 2
    number = Number()
    assert of_feed_forward(config) == Work(2 * held, 64 * operations(lambda: silu(number) * number))


def test_a_short_convolution_before_a_mixer_is_added():
    config = DecoderConfig(vocab_size=5, dim=16, heads=2, layers=1, max_length=32)
    factory = preceded(lambda config, layer: mixers("attention", {})[0], 3)
    mixer = factory(config, 0)
    inside = of_mixer(mixer.mixer, 10)
    assert of_mixer(mixer, 10) == inside + of_row(mixer.conv, 10)


def test_a_mixer_of_ones_own_has_to_say_what_it_does():
    class Mine(torch.nn.Module):
        pass

    with pytest.raises(DataError, match=r"operations of Mine; do so with .*of_row\.register"):
        of_mixer(Mine(), 10)
    of_row.register(Mine)(lambda mixer, tokens: Work(others=7 * tokens))
    assert of_mixer(Mine(), 10, batch=2).total == 140


def test_no_tokens_are_refused():
    model = Decoder(DecoderConfig(vocab_size=5, dim=16, heads=2), seed=0)
    with pytest.raises(DataError, match="1 rows of 0 tokens"):
        of_parts(model, 0)
