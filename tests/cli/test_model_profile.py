"""`posterhall model profile`."""

from __future__ import annotations

import json

import pytest
import torch

from posterhall.models import Decoder, DecoderConfig, save

torch.set_num_threads(1)
QUICK = ("--lengths", "8,16", "--repeats", 1, "--threads", 1)
TINY = ("--dim", 16, "--layers", 1, "--heads", 2, "--set", "vocab_size=32", "--set", "ffn_dim=32")


def profiled(posterhall, *options):
    return json.loads(posterhall("model", "profile", *options, *QUICK, "--json").out)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = DecoderConfig(vocab_size=30, dim=16, layers=2, heads=2, ffn_dim=32, max_length=16)
    return save(Decoder(config), tmp_path_factory.mktemp("models") / "tiny")


def test_random_models_of_several_mixers_and_feed_forward_layers(posterhall):
    given = ("--mixers", "attention,mamba:state=4", "--ffn", "dense,monarch", "--ffn-blocks", 2, *TINY)
    found = profiled(posterhall, *given)
    names = [each["name"] for each in found["models"]]
    assert names == [
        f"{mixer}, {kind}" for mixer in ("attention", "mamba:state=4") for kind in ("dense", "monarch")
    ]
    assert (found["threads"], found["batch"], found["backward"], found["repeats"]) == (1, 1, False, 1)
    dense, monarch = found["models"][:2]
    assert (dense["ffn_blocks"], monarch["ffn"], monarch["ffn_blocks"]) == (None, "monarch", 2)
    assert dense["parameters"]["feed_forward"] == 3 * 16 * 32
    assert monarch["parameters"]["feed_forward"] == (16 * (16 + 64) + 16 * (32 + 16)) // 2
    for each in dense["lengths"]:
        parts = each["parts"]
        assert [*parts] == ["mixer", "feed_forward", "norms", "embedding"]
        assert sum(part["share_of_seconds"] for part in parts.values()) == pytest.approx(1)
        assert sum(part["operations"] for part in parts.values()) == each["operations"]
    assert [each["tokens"] for each in dense["lengths"]] == [8, 16]


def test_a_checkpoint_beside_its_shape_with_other_feed_forward_layers(posterhall, model):
    found = profiled(posterhall, model)
    assert [each["name"] for each in found["models"]] == [f"{model}, dense"]
    found = profiled(posterhall, model, "--ffn", "dense,block_diagonal")
    assert [each["ffn"] for each in found["models"]] == ["dense", "block_diagonal"]


def test_a_model_without_feed_forward_layers_has_no_crossing(posterhall):
    [found] = profiled(posterhall, "--mixers", "mamba", *TINY, "--set", "ffn_dim=0")["models"]
    assert found["crossing"] is None
    assert found["ffn"] is None
    assert found["lengths"][0]["parts"]["feed_forward"]["operations"] == 0


def test_a_training_step_takes_three_times_the_products(posterhall):
    once, step = (
        profiled(posterhall, *TINY, *more)["models"][0]["lengths"][0]["parts"]
        for more in ((), ("--backward",))
    )
    assert all(step[part]["products"] == 3 * once[part]["products"] for part in once)


def test_the_table_says_where_the_two_cross(posterhall):
    out = posterhall("model", "profile", *TINY, *QUICK).out
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["model", "length", "part", "seconds"]
    assert [line.split("  ")[-1] for line in lines].count("") == 1  # between the two tables
    for part in ("mixer", "feed-forward", "norms, residual", "embedding, head", "all"):
        assert sum(f"  {part} " in line for line in lines) >= 2
    last = lines[-1].split("  ")
    assert last[0] == "attention, dense"
    assert last[-1].strip() == "29 tokens"  # 1088 / 37 - 1: (6 D F + 5 F - 8 D^2 - 6 D) / (2 D + 5)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--lengths", "0"], 4, "at least 1"),
        (["--lengths", "8,eight"], 4, "lengths"),
        (["--threads", "0"], 2, "--threads"),
        (["--mixers", "mamba", "--set", "heads=0"], 4, "heads is 0"),
        (["--mixers", "mambo"], 4, "Did you mean: mamba"),
        (["--ffn", "monarch", "--dim", "24", "--heads", "2"], 4, "2 would"),
        (["--ffn", "butterfly"], 4, "monarch"),
        (["--device", "abacus"], 4, "--device abacus"),
        (["missing"], 4, "no model at missing"),
        (["missing", "--dim", "8"], 2, "--dim makes a model with random weights"),
        (["missing", "--set", "dim=8"], 4, "dim"),
    ],
)
def test_what_cannot_be_is_refused(posterhall, options, code, said):
    assert said in posterhall("model", "profile", *options, code=code).err


def test_lengths_beyond_the_model_are_refused(posterhall, model):
    err = posterhall("model", "profile", model, "--lengths", "17", "--threads", 1, code=4).err
    assert "17 tokens for a model of max_length 16" in err


def test_monarch_models_are_trained_and_generate(posterhall, tmp_path):
    """`train lm --set ffn=monarch`, `model info`, `model generate`, `model profile`, one after the other."""
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 200)
    shape = ["dim=16", "layers=1", "heads=2", "ffn_dim=32", "ffn=monarch", "ffn_blocks=2", "context=16"]
    sets = [part for each in [*shape, "steps=3", "batch=4"] for part in ("--set", each)]
    posterhall("train", "lm", tmp_path / "text.txt", "-o", tmp_path / "run", *sets, "--threads", 1, "--quiet")
    told = json.loads(posterhall("model", "info", tmp_path / "run", "--json").out)
    assert (told["architecture"], told["ffn"], told["ffn_blocks"]) == ("PosterhallDecoder", "monarch", 2)
    assert told["parameters"]["total"] == told["stored_parameters"]
    assert "feed-forward 32 (monarch, 2 blocks)" in posterhall("model", "info", tmp_path / "run").out
    made = posterhall(
        "model", "generate", tmp_path / "run", "-p", "the", "-n", 4, "--threads", 1, "--json"
    ).out
    assert json.loads(made)["samples"][0]["tokens"] <= 4
    found = profiled(posterhall, tmp_path / "run", "--ffn", "monarch,dense")
    assert [each["ffn"] for each in found["models"]] == ["monarch", "dense"]
