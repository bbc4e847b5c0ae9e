"""Classifiers matched in size, made longer, and as files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from posterhall.errors import DataError

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from posterhall.models.classifier import (  # noqa: E402
    Classifier,
    ClassifierConfig,
    lengthened,
    load,
    parameters,
    save,
    sized,
)

SHAPE = ClassifierConfig(classes=4, channels=1, max_length=16, dim=16, layers=2, heads=2)


def of(name, **more):
    settings = {"linformer": {"rank": 4}, "mamba2": {"head_dim": 16, "state": 8}}.get(name)
    return replace(SHAPE, mixers=(name,), mixer_settings={name: settings} if settings else {}, **more)


def rows(length=16, seed=0):
    return torch.empty(3, length, 1).normal_(generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "multiple"), [("lstm", 1), ("gru", 1), ("attention", 4), ("mamba2", 4), ("mamba2", 3)]
)
def test_the_width_is_that_whose_parameters_come_nearest(name, multiple):
    wanted = parameters(Classifier(of("s4d", dim=24)))
    found = sized(of(name), wanted, multiple=multiple)
    apart = {}
    for dim in range(multiple, 80, multiple):
        try:
            model = Classifier(of(name, dim=dim), seed=None)
        except DataError:  # Mamba-2's heads
            continue
        apart[dim] = abs(parameters(model) - wanted)
    assert apart[found.dim] == min(apart.values())


def test_a_mixer_of_no_width_is_refused():
    with pytest.raises(DataError, match="Did you mean: mamba"):
        sized(of("mamab"), 1000, multiple=64)


@pytest.mark.parametrize("name", ["s4d", "s4", "mamba", "rwkv", "attention", "lstm"])
def test_models_of_no_fixed_length_go_on_as_they_were(name):
    model = Classifier(of(name), seed=0).eval()
    longer = lengthened(model, 40)
    assert longer.config.max_length == 40
    with torch.no_grad():
        torch.testing.assert_close(longer(rows()), model(rows()))
        assert longer(rows(40)).shape == (3, 4)


@pytest.mark.parametrize("name", ["linformer", "long_conv", "hyena", "base_conv", "mega"])
def test_models_bound_to_a_length_say_so(name):
    with pytest.raises(DataError, match=f"{name}: bound to rows of up to 16 positions; 40 need"):
        lengthened(Classifier(of(name), seed=0), 40)


def test_learned_positions_bind_to_a_length():
    with pytest.raises(DataError, match="attention with learned positions: bound to rows of up to 16"):
        lengthened(Classifier(of("attention", positions="learned"), seed=0), 40)


def test_a_scaled_rate_stays_when_a_model_is_made_longer():
    model = Classifier(of("s4d"), seed=0)
    model.rate = 0.5
    assert lengthened(model, 32).rate == 0.5


@pytest.mark.parametrize(
    "config",
    [
        of("s4d", both_ways=True),
        replace(SHAPE, mixers=("s4d", "attention"), mixer_settings={"s4d": {"state": 8}}, feed_forward=1.0),
        of("lstm"),
        of("attention", positions="learned", channels=None, vocab=9, pairs=True),
    ],
    ids=["s4d", "hybrid", "lstm", "pairs"],
)
def test_a_model_comes_back_as_it_was(tmp_path, config):
    model = Classifier(config, seed=1).eval()
    if config.vocab is None:
        model.standardise(rows(seed=3).numpy() * 5 + 1, torch.tensor([16, 16, 16]).numpy())
        inputs = rows()
    else:
        inputs = torch.arange(96).view(3, 2, 16) % 9
    again = load(save(model, tmp_path / "model"))
    assert again.config == config
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(inputs), model(inputs))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # nothing beside


def test_mixers_of_ones_own_work_and_are_not_saved(tmp_path):
    class Mean(torch.nn.Module):
        causal, growth = False, "constant"

        def forward(self, x, placement, state=None):
            return x.mean(dim=1, keepdim=True).expand_as(x)

    model = Classifier(of("mean"), seed=0, mixers={"mean": lambda config, layer: Mean()})
    assert model(rows()).shape == (3, 4)
    with pytest.raises(DataError, match="cannot save a classifier on mean"):
        save(model, tmp_path / "model")


def _edited(path, **changes):
    config = json.loads((path / "config.json").read_text())
    config.update(changes)
    (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def test_files_that_are_not_right_are_refused(tmp_path):
    model = Classifier(of("s4d"), seed=0)

    def saved(name):
        return save(model, tmp_path / name)

    with pytest.raises(DataError, match=r"config.json does not exist"):
        load(tmp_path / "nowhere")
    path = saved("other")
    _edited(path, model_type="llama")
    with pytest.raises(DataError, match="model_type is 'llama'; a classifier's is"):
        load(path)
    path = saved("strange")
    _edited(path, layer=3)
    with pytest.raises(DataError, match=r"unknown setting 'layer'. Did you mean: layers"):
        load(path)
    path = saved("impossible")
    _edited(path, classes=0)
    with pytest.raises(DataError, match=r"config.json: classes is 0"):
        load(path)
    path = saved("wrong type")
    _edited(path, layers="two")
    with pytest.raises(DataError, match="does not describe a classifier"):
        load(path)
    path = saved("larger")
    _edited(path, dim=32)
    with pytest.raises(DataError, match="its tensors do not fit"):
        load(path)
    path = saved("torn")
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        load(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(DataError, match="is missing"):
        load(path)
    path = saved("nan")
    tensors = safetensors.load_file(path / "model.safetensors")
    tensors["head.bias"][0] = float("nan")
    safetensors.save_file(tensors, path / "model.safetensors")
    with pytest.raises(DataError, match=r"head\.bias holds numbers that are not finite"):
        load(path)
