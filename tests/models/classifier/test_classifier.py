"""Classifiers of whole sequences: padding that never counts, layers that are torch's, shapes that fit."""

from __future__ import annotations

import numpy as np
import pytest

from posterhall.errors import DataError

torch = pytest.importorskip("torch")

from posterhall.models.classifier import RECURRENT, Classifier, ClassifierConfig  # noqa: E402
from posterhall.models.classifier.layers import FullAttention, Recurrent  # noqa: E402
from posterhall.models.config import DecoderConfig  # noqa: E402
from posterhall.models.mixers import MIXERS, Placement  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def small(name, **more):
    settings = {
        "mamba2": {"head_dim": 8, "state": 8}, "linformer": {"rank": 4}, "sliding_window": {"window": 3},
        "based": {"feature_dim": 4, "window": 4},
    }.get(name)  # fmt: skip
    given = {
        "classes": 3, "channels": 2, "max_length": 12, "dim": 16, "layers": 2, "heads": 2, "mixers": (name,),
        "mixer_settings": {name: settings} if settings else {},
    }  # fmt: skip
    return ClassifierConfig(**{**given, **more})


def drawn(*shape, seed=0):
    return torch.empty(*shape).normal_(generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("name", [*MIXERS, *RECURRENT])
def test_padding_is_neither_seen_nor_counted(name, both_ways):
    model = Classifier(small(name, both_ways=both_ways), seed=1).eval()
    rows, lengths = drawn(3, 12, 2), [12, 7, 1]
    with torch.no_grad():
        together = model(rows, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = model(rows[row : row + 1, :length])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*MIXERS, *RECURRENT])
def test_what_is_said_to_look_ahead_does_and_nothing_else(name):
    """Later positions reach the means of all layers anyway; here, the first position's own state."""
    for both_ways in (False, True):
        model = Classifier(small(name, both_ways=both_ways), seed=1).eval()
        rows = drawn(1, 12, 2)
        other = rows.clone()
        other[:, 6:] += 1.0
        with torch.no_grad():
            first, second = (model(each, torch.tensor([12])) for each in (rows, other))
            ends = [_states(model, each)[:, :6] for each in (rows, other)]
        assert not torch.equal(first, second)
        assert torch.allclose(*ends, atol=1e-5) != model.looks_ahead


def _states(model, rows):
    """All positions after the last layer."""
    placement = model._placement(rows, None)
    x = model._embedded(rows)
    if model.config.recurrent:
        return model.stack(x, None, 0.0, None)
    for block in model.blocks:
        x = block(x, placement)
    return x


@pytest.mark.parametrize(("cell", "kind"), [("lstm", "LSTM"), ("gru", "GRU")])
@pytest.mark.parametrize("both_ways", [False, True])
def test_recurrent_baselines_are_those_of_torch(cell, kind, both_ways):
    stack = Recurrent(cell, 3, 5, 2, both_ways=both_ways)
    theirs = getattr(torch.nn, kind)(3, 5, 2, batch_first=True, bidirectional=both_ways)
    for layer, mine in enumerate(stack.layers):
        for name, weight in mine.named_parameters():
            getattr(theirs, name.replace("_l0", f"_l{layer}")).data.copy_(weight.data)
    rows = drawn(2, 9, 3)
    torch.testing.assert_close(stack(rows, None, 0.0, None), theirs(rows)[0])


def test_attention_both_ways_is_that_of_torch():
    config = DecoderConfig(vocab_size=1, dim=8, layers=1, heads=2, max_length=6, positions="none")
    mine = FullAttention(config)
    theirs = torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    for weight, their in (
        (mine.qkv.weight, theirs.in_proj_weight),
        (mine.out.weight, theirs.out_proj.weight),
    ):
        weight.data.normal_(generator=torch.Generator().manual_seed(weight.numel()))
        their.data.copy_(weight.data)
    rows = drawn(2, 6, 8)
    padding = torch.arange(6) >= torch.tensor([6, 4])[:, None]
    wanted = theirs(rows, rows, rows, key_padding_mask=padding, need_weights=False)[0]
    given = mine(rows, Placement(2, 6, rows.device, valid=(6, 4)))
    torch.testing.assert_close(given[~padding], wanted[~padding], rtol=1e-4, atol=1e-5)


def test_attention_both_ways_has_no_state():
    model = Classifier(small("attention", both_ways=True))
    with pytest.raises(DataError, match="give it whole rows"):
        model.blocks[0].mixer.new_state(1, 4, dtype=torch.float32, device="cpu")


def test_pairs_are_told_apart_by_their_means_differences_and_products():
    model = Classifier(small("s4d", pairs=True, channels=None, vocab=7), seed=0).eval()
    ids = torch.randint(1, 7, (4, 2, 12), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([[12, 3], [4, 5], [1, 12], [7, 7]])
    with torch.no_grad():
        u, v = (model.means(ids[:, side], lengths[:, side]) for side in (0, 1))
        wanted = torch.cat((u, v, u - v, u * v), dim=1) @ model.head.weight.t() + model.head.bias
        torch.testing.assert_close(model(ids, lengths), wanted)


def test_samples_are_standardised_over_real_positions_only():
    rng = np.random.default_rng(0)
    samples = rng.normal(3.0, 2.0, (5, 12, 2)).astype(np.float32)
    lengths = np.array([12, 1, 5, 7, 3])
    model = Classifier(small("gru"))
    model.standardise(samples, lengths)
    real = np.concatenate([row[:length] for row, length in zip(samples, lengths, strict=True)])
    np.testing.assert_allclose(model.shift, real.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.scale, real.std(axis=0), rtol=1e-5)
    constant = np.full((2, 4, 2), 7.0, np.float32)
    model.standardise(constant, np.array([4, 4]))
    assert model.scale.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["s4d", "lstm", "long_conv"])
def test_dropout_follows_from_the_number_of_the_pass(name):
    model = Classifier(small(name, dropout=0.5), seed=3).train()
    rows = drawn(2, 12, 2)
    first, second = model(rows), model(rows)
    assert not torch.equal(first, second)
    model.draws = 0
    torch.testing.assert_close(model(rows), first)
    model.eval()
    torch.testing.assert_close(model(rows), model(rows))


def test_an_lstm_begins_by_remembering():
    torch_has = torch.nn.LSTM(16, 16)  # gates of inputs, forgetting, cells, outputs
    assert torch_has.bias_ih_l0.shape == (64,)
    for layer in Classifier(small("lstm", both_ways=True), seed=0).stack.layers:
        for end in ("", "_reverse"):
            both = getattr(layer, f"bias_ih_l0{end}") + getattr(layer, f"bias_hh_l0{end}")
            assert both[16:32].tolist() == [1.0] * 16
            assert bool((both[:16].abs() < 0.5 + 1e-6).all())


@pytest.mark.parametrize("name", ["attention", "mamba", "lstm"])
def test_equal_seeds_give_equal_weights_whatever_was_drawn_before(name):
    first = Classifier(small(name), seed=5).state_dict()
    torch.rand(3)
    again, other = (Classifier(small(name), seed=seed).state_dict() for seed in (5, 6))
    assert all(torch.equal(first[each], again[each]) for each in first)
    assert not all(torch.equal(first[each], other[each]) for each in first)


def test_feed_forward_layers_stand_where_mixers_have_no_gate_of_their_own():
    config = small("s4d", mixers=("s4d", "attention"))
    assert [block.feeds for block in Classifier(config).blocks] == [False, True]
    assert [config.shape(layer).feed_forward_dim for layer in (0, 1)] == [0, 32]
    for given, wanted in ((0.0, [False, False]), (1.5, [True, True])):
        blocks = Classifier(small("s4d", mixers=("s4d", "attention"), feed_forward=given)).blocks
        assert [block.feeds for block in blocks] == wanted


def test_steps_of_time_are_scaled_together_and_only_where_there_are_some():
    model = Classifier(small("s4d", mixers=("s4d", "s5")))
    assert model.continuous
    model.rate = 0.5
    assert [block.mixer.rate for block in model.blocks] == [0.5, 0.5]
    for name in ("mamba", "attention", "lstm"):
        model = Classifier(small(name))
        assert not model.continuous
        with pytest.raises(DataError, match="counts positions and has no time"):
            model.rate = 0.5


def test_a_signal_held_twice_as_long_is_the_same_to_steps_of_half_the_size():
    """A zero-order hold: (e^{a d/2})^2 = e^{a d}, so that every second output is the old one."""
    config = small("s4d", layers=1, max_length=24, mixer_settings={"s4d": {"discretisation": "zoh"}})
    mixer = Classifier(config, seed=2).blocks[0].mixer
    x = drawn(1, 12, 16)
    with torch.no_grad():
        wanted = mixer(x, Placement(1, 12, x.device))
        mixer.rate = 0.5
        given = mixer(x.repeat_interleave(2, dim=1), Placement(1, 24, x.device))[:, 1::2]
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"classes": 1}, "classes is 1"),
        ({"vocab": 9}, "give one of them"),
        ({"channels": None}, "give one of them"),
        ({"channels": 0}, "channels is 0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"mixers": ("lstm", "s4d")}, "a model by itself"),
        ({"mixers": ("gru",), "mixer_settings": {"gru": {"state": 2}}}, "a model by itself"),
        ({"dim": 10, "heads": 4}, "multiple of 8"),
        ({"feed_forward": -1.0}, "feed_forward is -1.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"mixer_settings": {"s4": {"state": 2}}}, "the model mixes by s4d"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(given, said):
    with pytest.raises(DataError, match=said):
        small("s4d", **given)


@pytest.mark.parametrize("name", ["s4dd", "mamab", "lstmm"])
def test_an_unknown_mixer_is_refused_with_the_nearest_name(name):
    with pytest.raises(DataError, match="Did you mean"):
        Classifier(small("s4d", mixers=(name,)))


@pytest.mark.parametrize(
    ("shape", "lengths", "said"),
    [
        ((2, 13, 2), None, "13 positions for a model of max_length 12; nothing is cut silently"),
        ((2, 0, 2), None, "at least one of each"),
        ((0, 3, 2), None, "at least one of each"),
        ((2, 3, 1), None, r"give floats \(rows, positions, 2\)"),
        ((2, 3), None, "give floats"),
        ((2, 3, 2), [3, 0], "from 1 to 3"),
        ((2, 3, 2), [3, 4], "from 1 to 3"),
        ((2, 3, 2), [3], "one for each row"),
    ],
)
def test_rows_that_do_not_fit_are_refused(shape, lengths, said):
    model = Classifier(small("s4d"))
    with pytest.raises(DataError, match=said):
        model(torch.zeros(shape), None if lengths is None else torch.tensor(lengths))


def test_tokens_that_do_not_fit_are_refused():
    model = Classifier(small("lstm", channels=None, vocab=5))
    assert model(torch.tensor([[1]])).shape == (1, 3)
    with pytest.raises(DataError, match=r"knows 0 \(padding\) to 4"):
        model(torch.tensor([[1, 5]]))
    with pytest.raises(DataError, match="give integers"):
        model(torch.zeros(1, 3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_samples_of_any_precision_are_taken(dtype):
    model = Classifier(small("s4d"), seed=0).eval()
    rows = drawn(2, 12, 2).to(getattr(torch, dtype))
    with torch.no_grad():
        torch.testing.assert_close(model(rows), model(rows.float()))
