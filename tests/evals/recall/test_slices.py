"""Hits of recall, the share of a gap, the control, and the published table recomputed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.evals.recall import published, slices

tokens = st.lists(st.integers(0, 4), max_size=30).map(lambda each: np.array(each, np.int64))


def seen_before(context):
    """Token by token: where the pair ended first, and how often it was there."""
    found = []
    for t in range(len(context)):
        before = [
            s for s in range(1, t) if t and tuple(context[s - 1 : s + 1]) == tuple(context[t - 1 : t + 1])
        ]
        found.append((before[0] if before else -1, len(before)))
    return found


@given(tokens)
def test_earlier_pairs_are_those_found_by_looking(context):
    first, times = slices.earlier(context)
    assert list(zip(first.tolist(), times.tolist(), strict=True)) == seen_before(context)


@given(st.lists(tokens, max_size=6), tokens)
def test_counts_are_those_of_a_dictionary(documents, asked):
    plain = {}
    for document in documents:
        for pair in zip(document[:-1].tolist(), document[1:].tolist(), strict=True):
            plain[pair] = plain.get(pair, 0) + 1
    known = slices.count(iter(documents))
    assert known.tokens == sum(map(len, documents))
    pairs = list(zip(asked[:-1].tolist(), asked[1:].tolist(), strict=True))
    assert known.of(slices.pack(asked[:-1], asked[1:])).tolist() == [plain.get(pair, 0) for pair in pairs]


def test_counting_in_pieces_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    documents = [rng.integers(50, size=40) for _ in range(30)]
    whole = slices.count(documents)
    monkeypatch.setattr(slices, "_BATCH", 60)
    pieces = slices.count(documents)
    assert (whole.pairs == pieces.pairs).all()
    assert (whole.counts == pieces.counts).all()


def test_a_hit_is_repeated_here_and_rare_in_training():
    context = np.array([7, 8, 1, 2, 7, 8, 1, 2])
    assert slices.hits(context).nonzero()[0].tolist() == [5, 6, 7]
    known = slices.count([np.array([1, 2] * 20), np.array([7, 8])])
    assert known.cap == 10
    assert slices.hits(context, known).nonzero()[0].tolist() == [5, 6], "1 2 is known by heart"
    assert slices.hits(context, known, cap=0).nonzero()[0].tolist() == [6], "only 8 1 never occurred"


def test_the_threshold_grows_with_the_training_text():
    empty = np.zeros(0, np.int64)
    assert slices.Bigrams(int(10e9), empty, empty).cap == 1250
    assert slices.Bigrams(int(1e9), empty, empty).cap == 125
    assert slices.Bigrams(10, empty, empty).cap == 10


def test_the_share_of_a_gap_by_hand():
    chosen = np.array([True, False, False, True])
    worse = slices.cut(np.array([2.0, 1.0, 1.0, 3.0]), chosen)
    better = slices.cut(np.array([1.0, 1.5, 1.0, 1.0]), chosen)
    # 7 - 4.5 = 2.5 nats in all, of which 5 - 2 = 3 in the hits: the worse model is better on the rest.
    assert slices.gap_share(worse, better) == pytest.approx(1.2)
    assert worse[1].perplexity == pytest.approx(math.exp(2.5))


@pytest.mark.parametrize(
    ("worse", "better", "chosen", "said"),
    [
        ([1.0, 1.0], [2.0, 1.0], [True, False], "not above 0"),
        ([1.0, 1.0], [1.0, 1.0], [True, False], "not above 0"),
        ([2.0, 1.0], [1.0, 1.0], [False, False], "no token is a hit"),
    ],
)
def test_a_share_that_means_nothing_is_refused(worse, better, chosen, said):
    chosen = np.array(chosen)
    with pytest.raises(DataError, match=said):
        slices.gap_share(slices.cut(np.array(worse), chosen), slices.cut(np.array(better), chosen))


def test_gaps_are_between_models_on_the_same_tokens():
    one, other = np.ones(3), np.ones(4)
    with pytest.raises(DataError, match="same tokens"):
        slices.gap_share(slices.cut(one, one > 0), slices.cut(other, other > 0))


def test_the_published_rows_imply_seven_percent_and_two_of_them_do_not_fit():
    found = published.recompute()
    flagged = {(each.row.model, each.row.parameters): each.flags for each in found if each.flags}
    assert flagged == {("Hyena", 158): ("share",), ("Hyena", 358): ("share", "printed")}
    shares = [each.share for each in found if each.row.model in ("attention", "H3")]
    assert all(share == pytest.approx(0.0702, abs=2e-4) for share in shares)
    by_row = {(each.row.model, each.row.parameters): each.gap for each in found}
    assert by_row["Hyena", 358] == pytest.approx(71.7, abs=0.2)  # printed: 98.2
    assert by_row["H3", 168] == pytest.approx(87.8, abs=0.2)
    assert by_row["RWKV", 351] == pytest.approx(127, abs=0.6)
    assert by_row["attention", 360] is None


# -- of models --------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    """Makes tiny models of bytes, as checkpoints."""
    torch = pytest.importorskip("torch")
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.models import Decoder, DecoderConfig, hub

    torch.set_num_threads(1)

    def make(name, seed=0, vocab_size=None):
        tokenizer = ByteTokenizer()
        config = DecoderConfig(
            vocab_size=vocab_size or tokenizer.vocab_size, dim=16, layers=1, heads=2, max_length=48
        )
        hub.save(Decoder(config, seed=seed).eval(), tmp_path / name, tokenizer=tokenizer)
        return tmp_path / name

    return make


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("river=5502; lamp=1123; river=5502; stone=9; lamp=1123; " * 4)
    return path


def test_losses_are_those_of_whole_contexts_one_by_one(model, text):
    import torch

    from posterhall.data import tokenizer as tokenizers
    from posterhall.evals.recall import sliced
    from posterhall.models import causal

    place = model("one")
    loaded = causal.load(place).eval()
    cut = list(sliced.contexts([text], tokenizers.load(place), 20, 90))
    assert [len(context) for context in cut] == [20, 20, 20, 20, 10]
    together = sliced.nll(loaded, cut)
    for context, loss in zip(cut, together, strict=True):
        with torch.no_grad():
            logits = loaded.logits(loaded.hidden(torch.from_numpy(context)[None]))[0]
        wanted = torch.nn.functional.cross_entropy(
            logits[:-1], torch.from_numpy(context)[1:], reduction="none"
        )
        assert loss == pytest.approx(wanted.numpy(), abs=1e-5)


def test_a_run_tells_slices_gap_and_control(model, text, tmp_path):
    from posterhall.evals.recall import sliced

    one, other = model("one"), model("other", seed=1)
    result = sliced.evaluate(
        [one, other], [text], sliced.SliceSettings(context=48, control=9), out=tmp_path / "run"
    )
    first, second = result["models"]
    assert first["all"]["tokens"] == result["tokens"] == first["hits"]["tokens"] + first["others"]["tokens"]
    assert result["hits"] == first["hits"]["tokens"] / result["tokens"]
    nats = {each["model"]: math.log(each["all"]["perplexity"]) * result["tokens"] for each in (first, second)}
    (gap,) = result["gaps"]
    assert gap["nats"] * result["tokens"] == pytest.approx(abs(nats[str(one)] - nats[str(other)]), rel=1e-6)
    assert nats[gap["worse"]] > nats[gap["better"]]
    assert first["control"]["hits"] == 9
    assert first["control"]["nll"] != first["control"]["nll_without"]
    kept = json.loads((tmp_path / "run" / "artifacts" / sliced.SCORES).read_text())
    assert kept == json.loads(json.dumps(result))


def test_the_control_takes_out_the_first_pair_alone():
    from posterhall.evals.recall import sliced

    context = np.array([3, 7, 8, 4, 5, 7, 8, 9])
    assert sliced.without_first(context, 6, 2).tolist() == [3, 4, 5, 7, 8]


def test_a_gap_of_nothing_is_told_as_undefined(model, text):
    from posterhall.evals.recall import sliced

    one, same = model("one"), model("same")
    (gap,) = sliced.evaluate([one, same], [text], sliced.SliceSettings(context=48))["gaps"]
    assert gap["share"] is None
    assert "not above 0" in gap["why"]


def test_what_cannot_be_compared_or_scored_is_refused(model, text, tmp_path):
    import safetensors.torch

    from posterhall.data.tokenizer import train_bpe
    from posterhall.evals.recall import sliced

    one = model("one")
    with pytest.raises(DataError, match=r"a context of 1024 tokens .* whose longest is 48"):
        sliced.evaluate([one], [text])
    empty = tmp_path / "short.txt"
    empty.write_text("a")
    with pytest.raises(DataError, match="no context of 3 tokens"):
        sliced.evaluate([one], [empty], sliced.SliceSettings(context=48))
    broken = model("broken")
    weights = safetensors.torch.load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    safetensors.torch.save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"broken gives .* no finite probability"):
        sliced.evaluate([one, broken], [text], sliced.SliceSettings(context=48))
    other = model("other")
    (other / "tokenizer.json").unlink()
    train_bpe(["river lamp stone"], 280).save(other)
    with pytest.raises(DataError, match="has another tokenizer"):
        sliced.evaluate([one, other], [text], sliced.SliceSettings(context=48))


@pytest.mark.parametrize("given", [{"context": 2}, {"tokens": 2}, {"cap": -1}, {"control": -1}, {"batch": 0}])
def test_settings_out_of_range_are_refused(given):
    from posterhall.evals.recall import sliced

    with pytest.raises(DataError, match="must be at least"):
        sliced.SliceSettings(**given)
