"""Which parameters decay, and which learn slowly."""

from posterhall.models import Decoder, DecoderConfig
from posterhall.train import TrainSettings, fit, next_token
from posterhall.train.optimiser import groups


def names_in(model, group):
    own = {id(each) for each in group["params"]}
    return {name for name, each in model.named_parameters() if id(each) in own}


def test_steps_and_poles_do_not_decay_and_learn_at_a_thousandth_at_most():
    config = DecoderConfig(vocab_size=5, dim=4, layers=1, heads=2, mixers=("s4d",), positions="none")
    model = Decoder(config)
    found = groups(model, TrainSettings(steps=1, lr=4e-3, weight_decay=0.1))
    assert [(each["weight_decay"], each["lr_scale"]) for each in found] == [
        (0.1, 1.0),
        (0.0, 0.25),
        (0.0, 1.0),
    ]
    decaying, slow, others = (names_in(model, each) for each in found)
    system = "blocks.0.mixer.system."
    assert slow == {system + "log_step", system + "log_decay", system + "turn"}
    assert system + "weights" in decaying
    assert "blocks.0.mixer.skip" in others
    below = groups(model, TrainSettings(steps=1, lr=5e-4))
    assert {each["lr_scale"] for each in below} == {1.0}  # the rate is lower than what they bear


def test_the_loop_multiplies_the_rate_by_a_groups_factor(small):
    model, data, _ = small()
    model.norm.weight.lr_most = 1e-4
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    fit(
        model, data, objective=next_token,
        settings=TrainSettings(steps=1, batch=4, lr=1e-2, warmup=0, schedule="constant", weight_decay=0.0),
    )  # fmt: skip
    moved = {
        name: float((each.detach() - before[name]).abs().max()) for name, each in model.named_parameters()
    }
    # The first step of Adam is as long as the rate, in every entry.
    assert abs(moved["norm.weight"] / 1e-4 - 1) < 0.01
    assert abs(moved["blocks.0.mixer_norm.weight"] / 1e-2 - 1) < 0.01
