"""The claims of QLoRA: what they measure with is right, and each runs small."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from posterhall.claims import Budget, decide, load
from posterhall.claims.qlora import _bytes, _models, codes, tournament, tuning
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.data.tokens import from_texts
from posterhall.extras import torch
from posterhall.models import Decoder, DecoderConfig
from posterhall.quantize.codebooks import codebook

CLAIMS = load(["posterhall.claims.qlora"])
TINY = {
    "rows": Budget(rows=128, columns=128),
    "tuning": Budget(
        tokens=6400, tuning=3200, dim=32, layers=1, context=32, batch=8, lr=5e-3, held_out=2000, rank=4
    ),
    "tokens": Budget(tokens=6400, dim=32, layers=1, context=32, batch=8, lr=5e-3, held_out=2000),
    "least": Budget(least=64, most=64, steps=2),
    "orderings": Budget(orderings=100, resamples=100),
}


@pytest.mark.parametrize("id", CLAIMS)
def test_every_claim_runs_small(id):
    cls = CLAIMS[id]
    budget = next(each for name, each in TINY.items() if name in cls.scales["smoke"])
    rows = list(cls().run(budget, 0))
    claimed, control = decide(cls, rows)  # every arm and metric is there
    assert claimed.verdict == control.verdict == "inconclusive"
    assert cls().figure(rows) is not None


def test_errors_are_those_of_a_search_over_all_values():
    _, weights = codes.drawn(TINY["rows"], 1, "test")
    table = codebook("nf4").values.astype(np.float64)
    blocks = weights.reshape(-1, 64).astype(np.float64)
    tops = np.abs(blocks).max(axis=1, keepdims=True)
    nearest = table[np.abs((blocks / tops)[..., None] - table).argmin(axis=-1)] * tops
    expected = math.sqrt(((nearest - blocks) ** 2).sum() / (blocks**2).sum())
    assert codes.error(weights, "nf4").relative_rmse == pytest.approx(expected, rel=1e-4)


def test_bins_of_a_known_scale_would_hold_nearly_equal_mass():
    # With the scale at the quantile that NF4 was made for, and not at each block's largest weight, its inner
    # bins do hold nearly equal shares of N(0, 1): what the paper says is true of that, and of that alone.
    values = codebook("nf4").values.astype(np.float64) * norm.ppf(929 / 960)
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    mass = np.diff(norm.cdf(edges))
    assert -(mass * np.log2(mass)).sum() > 3.98


def test_held_bytes_are_those_of_tensors_alive():
    kept = torch.zeros(1000)
    with _bytes.counted(kept) as held:
        a = torch.ones(500)
        b = a.view(5, 100) + 1
        del a
        c = b * 2
        del b
        d = c[:2]
        del c
    assert held.most == 4 * (1000 + 500 + 500)
    assert held.now == 4 * (1000 + 500)
    del d
    assert held.now == 4 * 1000


def test_quantised_copies_leave_the_model_and_its_head_alone():
    model = Decoder(DecoderConfig(vocab_size=20, dim=32, layers=1, max_length=16), seed=0)
    before = {name: each.clone() for name, each in model.named_parameters()}
    for transposed in (False, True):
        made = dict(_models.quantised(model, "nf4", block=64, transposed=transposed).named_parameters())
        for name, each in model.named_parameters():
            assert torch.equal(each, before[name])
            same = torch.equal(made[name], each)
            assert same == (each.dim() < 2 or name == "embedding")
            assert (made[name] - each).abs().max() < 0.2 * each.abs().max()


def test_fewer_layers_get_as_many_parameters():
    shape = DecoderConfig(vocab_size=ByteTokenizer.vocab_size, dim=32, layers=1, ffn_dim=96, max_length=32)
    budget, text = TINY["tuning"], from_texts(["a text of bytes. "] * 400, ByteTokenizer())
    base = _models.Pretrained(Decoder(shape, seed=0), text, text)
    ways = {
        "all": _models.Way(1e-3, "nf4", "all-linear"),
        "few": _models.Way(1e-3, None, tuning._QV, rank=tuning._PER_LAYER),
    }
    counts = {name: _models.tuned(base, way, budget, 0)[1] for name, way in ways.items()}
    assert counts["all"] == counts["few"]


def test_the_released_verdicts_rank_as_published():
    rows = list(CLAIMS["elo-table-replayed"]().run(Budget(orderings=2000, resamples=0), 0))
    found = {row.arm: row.number("pairs_as_published") for row in rows}
    assert found["released verdicts"] == 1.0
    assert found["verdicts dealt anew"] < 0.9
    assert list(tournament.PUBLISHED.values()) == sorted(tournament.PUBLISHED.values(), reverse=True)


def test_resampled_prompts_say_less_than_a_point():
    rows = list(CLAIMS["elo-known-to-one-point"]().run(Budget(orderings=10_000, resamples=200), 0))
    width = {row.arm: row.number("half_width") for row in rows}
    assert width["mean over orders of the games"] < 2 < 15 < width["prompts resampled"]
