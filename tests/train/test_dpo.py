"""Training on preferences: shared prompts change nothing, the start is ln 2, kills change nothing."""

from __future__ import annotations

import json
import math
import os
import random
import signal

import numpy as np
import pytest

from posterhall.data.preference import Preference, read
from posterhall.data.preference_tokens import PreferenceBatches, encode
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import DataError, Interrupted, PosterhallError
from posterhall.runs import read_manifest, read_metrics
from posterhall.train import DpoSettings, fit

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
QUICK = {"lr": 1e-3, "warmup": 2, "batch": 4, "accumulate": 1, "log_every": 1, "eval_fraction": 0.0}


@pytest.fixture
def decoder():
    """`decoder()`: a small random model, the same each time."""
    from posterhall.models import Decoder, DecoderConfig

    def make(*, heads=2, kv_heads=None, dropout=0.0, max_length=64):
        config = DecoderConfig(
            vocab_size=258, dim=16, layers=2, heads=heads, kv_heads=kv_heads, max_length=max_length,
            init_std=0.3, dropout=dropout,
        )  # fmt: skip
        return Decoder(config, seed=0)

    return make


def preferences(rows=30, answers=2, seed=0):
    """Answers that begin with "good" before those that begin with "bad"; several of each prompt."""
    draw = random.Random(seed)
    words = ["cat", "dog", "sun", "sea", "oak"]
    starts = [" good", " fair", " bad"][:: 2 if answers == 2 else 1]
    return [
        Preference(
            f"say {draw.choice(words)}:",
            tuple(f"{start} {' '.join(draw.choices(words, k=draw.randint(1, 3)))}{i}" for start in starts),
            f"row {i}",
        )
        for i in range(rows)
    ]


@pytest.fixture
def pairs():
    return encode(preferences(), ByteTokenizer(), max_length=64)


def tensors(batch):
    return {name: torch.as_tensor(array) for name, array in batch.items()}


@pytest.mark.parametrize("kv_heads", [None, 2, 1])
def test_a_shared_prompt_gives_the_log_probabilities_of_each_text_alone(decoder, kv_heads):
    from posterhall.train.references import answer_logprobs, reference_logprobs

    model = decoder(heads=4, kv_heads=kv_heads).double()
    tokens = encode(preferences(8, answers=3), ByteTokenizer(), max_length=64, compare="rankings")
    wanted = []
    for place, answer in zip(tokens.prompt_of, tokens.answers, strict=True):
        ids = torch.tensor([[*tokens.prompts[place].tolist(), *answer.tolist()]])
        logp = model(ids)[0, :-1].log_softmax(-1)
        start = len(tokens.prompts[place]) - 1
        wanted.append(sum(logp[start + i, token].item() for i, token in enumerate(answer.tolist())))
    found = {
        layout: reference_logprobs(model, tokens, layout=layout, dtype="float32")
        for layout in ("trees", "rows")
    }
    np.testing.assert_allclose(found["trees"], wanted, rtol=1e-10)
    np.testing.assert_allclose(found["rows"], wanted, rtol=1e-10)
    gradients = {}
    for layout in ("trees", "rows"):
        batch = tensors(PreferenceBatches(tokens, layout=layout).take(0, 8))
        weights = torch.linspace(-1, 1, len(batch["lengths"]), dtype=torch.float64)
        loss = (answer_logprobs(model, batch) * weights).sum()
        gradients[layout] = torch.autograd.grad(loss, list(model.parameters()))
    for shared, alone in zip(gradients["trees"], gradients["rows"], strict=True):
        torch.testing.assert_close(shared, alone, rtol=1e-9, atol=1e-10)


def test_a_branch_never_sees_another(decoder):
    from posterhall.models.mixers import Tree

    model = decoder()
    ids = torch.randint(0, 256, (1, 15), generator=torch.Generator().manual_seed(1))
    trees = [Tree(4, (3, 0, 2)), Tree(2, (4,))]
    before = model.hidden(ids, trees=trees)
    changed = ids.clone()
    changed[0, 4:7] += 1
    after = model.hidden(changed, trees=trees)
    same = (before == after).all(-1)[0].tolist()
    assert same == [True] * 4 + [False] * 3 + [True] * 8
    model.config = model.config.__class__(**{**model.config.__dict__, "max_length": 6})
    with pytest.raises(DataError, match="7 tokens for"):
        model.hidden(ids, trees=trees)
    with pytest.raises(DataError, match="trees of 14 tokens"):
        model.hidden(ids, trees=[Tree(4, (3, 0, 2)), Tree(2, (3,))])


def test_dense_mask_of_trees_is_what_attention_computes(decoder):
    from posterhall.models.mixers import Placement, Tree

    trees = (Tree(2, (1, 2)), Tree(1, (1,)))
    placement = Placement(batch=1, tokens=7, device=torch.device("cpu"), trees=trees)
    assert placement.positions().tolist() == [[0, 1, 2, 2, 3, 0, 1]]
    seen = [[0], [0, 1], [0, 1, 2], [0, 1, 3], [0, 1, 3, 4], [5], [5, 6]]
    mask = placement.mask()
    assert [row.nonzero().squeeze(1).tolist() for row in mask[0, 0]] == seen


def test_the_start_is_ln_2_and_other_references_or_dropout_are_noticed(decoder, pairs):
    from posterhall.train.dpo import check_start
    from posterhall.train.references import reference_logprobs

    reference = reference_logprobs(decoder(), pairs)
    settings = DpoSettings(**QUICK)
    assert (
        abs(check_start(decoder(), PreferenceBatches(pairs, reference=reference), settings) - math.log(2))
        < 1e-6
    )
    shuffled = PreferenceBatches(pairs, reference=reference[::-1].copy())
    with pytest.raises(PosterhallError, match="not ln 2"):
        check_start(decoder(), shuffled, settings)
    with pytest.raises(PosterhallError, match="dropout"):
        check_start(decoder(dropout=0.5), PreferenceBatches(pairs, reference=reference), settings)


def test_cached_references_go_with_weights_and_tokens(decoder, pairs, tmp_path):
    from posterhall.train.references import reference_logprobs

    first = reference_logprobs(decoder(), pairs, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    model = decoder()
    model.hidden = None  # nothing is computed again
    assert np.array_equal(reference_logprobs(model, pairs, cache=tmp_path), first)
    other = decoder()
    with torch.no_grad():
        other.norm.weight.mul_(1.01)
    assert not np.array_equal(reference_logprobs(other, pairs, cache=tmp_path), first)
    fewer = encode(preferences(5), ByteTokenizer(), max_length=64)
    assert len(reference_logprobs(decoder(), fewer, cache=tmp_path)) == len(fewer.answers)
    assert len(list(tmp_path.iterdir())) == 3
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match="delete it"):
        reference_logprobs(decoder(), pairs, cache=tmp_path)


def test_a_reference_that_is_not_a_number_is_refused(decoder, pairs):
    from posterhall.train.references import reference_logprobs

    model = decoder()
    with torch.no_grad():
        model.norm.weight[0] = math.nan
    with pytest.raises(DataError, match="weights are damaged"):
        reference_logprobs(model, pairs)


@pytest.mark.parametrize(
    ("loss", "more"),
    [
        ("dpo", {}), ("dpo", {"label_smoothing": 0.1}), ("dpo", {"reference_free": True}),
        ("robust", {"label_smoothing": 0.1}), ("ipo", {}), ("ipo", {"normalisation": "mean"}), ("hinge", {}),
        ("kto", {}), ("unlikelihood", {"alpha": 0.3}), ("simpo", {"beta": 2.0}),
        ("orpo", {"odds_weight": 1.0}),
    ],
)  # fmt: skip
def test_every_loss_makes_the_model_prefer_what_is_chosen(decoder, loss, more):
    from posterhall.train import PreferenceObjective
    from posterhall.train.references import reference_logprobs

    tokens = encode(preferences(40), ByteTokenizer(), max_length=64)
    model = decoder()
    before = reference_logprobs(model, tokens)
    settings = DpoSettings(**{**QUICK, "epochs": 4, "loss": loss, **more})
    reference = before if settings.has_reference else None
    trained = fit(
        model, PreferenceBatches(tokens, reference=reference), objective=PreferenceObjective(settings),
        settings=settings,
    )  # fmt: skip
    after = reference_logprobs(model, tokens)
    h = (after - before)[tokens.items]
    assert (h[:, 0] > h[:, 1]).mean() > 0.9
    assert trained.tokens == 4 * 40
    assert trained.history[-1]["reward_margin"] > trained.history[0]["reward_margin"]


def test_rankings_train_whole_and_fine_tuning_raises_what_is_chosen(decoder):
    from posterhall.train import PreferenceObjective
    from posterhall.train.references import reference_logprobs

    tokens = encode(preferences(30, answers=3), ByteTokenizer(), max_length=64, compare="rankings")
    model = decoder()
    before = reference_logprobs(model, tokens)
    settings = DpoSettings(**{**QUICK, "epochs": 4, "loss": "plackett_luce"})
    data = PreferenceBatches(tokens, reference=before)
    trained = fit(model, data, objective=PreferenceObjective(settings), settings=settings)
    h = (reference_logprobs(model, tokens) - before)[tokens.items]
    assert ((h[:, 0] > h[:, 1]) & (h[:, 1] > h[:, 2])).mean() > 0.8
    assert trained.history[0]["loss"] == pytest.approx(math.log(6), abs=1e-5)  # of 3! orders
    with pytest.raises(DataError, match="needs reference"):
        PreferenceObjective(settings)(model, tensors(PreferenceBatches(tokens).take(0, 2)))
    plain = DpoSettings(**{**QUICK, "loss": "preferred_ft", "epochs": 2})
    pairs = encode(preferences(30), ByteTokenizer(), max_length=64)
    model = decoder()
    lines = fit(model, PreferenceBatches(pairs), objective=PreferenceObjective(plain), settings=plain).history
    assert lines[-1]["logp_chosen"] > lines[0]["logp_chosen"] + 1


def test_how_a_step_is_cut_into_passes_does_not_matter(decoder, pairs):
    from posterhall.train import PreferenceObjective
    from posterhall.train.references import reference_logprobs

    reference = reference_logprobs(decoder(), pairs)
    found = []
    for batch, accumulate in ((8, 1), (1, 8), (3, 3)):
        model = decoder()
        settings = DpoSettings(**{**QUICK, "batch": batch, "accumulate": accumulate, "steps": 2, "eps": 1e-3})
        trained = fit(
            model, PreferenceBatches(pairs, reference=reference),
            objective=PreferenceObjective(settings), settings=settings,
        )  # fmt: skip
        found.append((trained.history, dict(model.named_parameters())))
    (whole, weights), (single, others), (uneven, _) = found
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=1e-4, atol=1e-6)
    for key in ("loss", "reward_margin", "reward_accuracy", "logp_chosen"):
        assert single[1][key] == pytest.approx(whole[1][key], rel=1e-4, abs=1e-6)
    assert uneven[0]["tokens"] == 9


def test_models_of_transformers_get_the_losses_of_ours(decoder, tmp_path):
    pytest.importorskip("transformers")
    from posterhall.models import foreign, hub
    from posterhall.train import PreferenceObjective
    from posterhall.train.references import reference_logprobs

    tokens = encode(preferences(12), ByteTokenizer(), max_length=64)
    hub.save(decoder(), tmp_path / "model", tokenizer=ByteTokenizer())
    settings = DpoSettings(**{**QUICK, "steps": 6, "optimiser": "rmsprop", "eps": 1e-4})
    found = []
    for model, layout in ((decoder(), "trees"), (foreign.load(tmp_path / "model"), "rows")):
        reference = reference_logprobs(model, tokens, layout=layout)
        data = PreferenceBatches(tokens, layout=layout, reference=reference)
        found.append(fit(model, data, objective=PreferenceObjective(settings), settings=settings).history)
    for ours, theirs in zip(*found, strict=True):
        for name in ("loss", "reward_margin", "logp_chosen"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-5, abs=1e-5)
    assert found[0][-1]["loss"] < found[0][0]["loss"] - 0.05


@pytest.fixture
def job(decoder, tmp_path):
    """A model's directory and a file of pairs."""
    from posterhall.models import hub

    hub.save(decoder(), tmp_path / "model", tokenizer=ByteTokenizer())
    lines = [{"prompt": r.prompt, "chosen": r.answers[0], "rejected": r.answers[1]} for r in preferences(40)]
    lines += [
        {"prompt": "p", "chosen": "same", "rejected": "same"},
        {"prompt": "x" * 90, "chosen": "a", "rejected": "b"},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "model", tmp_path / "pairs.jsonl"


def test_the_command_leaves_a_model_that_prefers_what_is_chosen(posterhall, job, tmp_path):
    model, pairs = job
    out = tmp_path / "run"
    arguments = (model, pairs, "-o", out, "--lr", 1e-3, "--epochs", 3, "--batch", 4, "--accumulate", 1,
                 "--set", "warmup=2", "--eval-fraction", 0.4, "--threads", 1, "--quiet")  # fmt: skip
    done = json.loads(posterhall("train", "dpo", *arguments, "--json").out)
    assert done["comparisons"] + done["eval_comparisons"] == 40
    assert done["eval_comparisons"] > 0
    assert done["refused"] == {"identical answers": 1, "too long": 1}
    assert done["start_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert done["eval"]["reward_accuracy"] > 0.9
    assert done["loss"] < 0.6
    assert read_manifest(out)["facts"] == done
    assert not (out / "checkpoints" / "references").exists()
    again = json.loads(posterhall("train", "dpo", *arguments, "--resume", "--json").out)
    assert again == done
    from posterhall.models import hub
    from posterhall.train.references import reference_logprobs

    tokens = encode(read(pairs).rows, ByteTokenizer(), max_length=64)
    before, after = (reference_logprobs(hub.load(each), tokens) for each in (model, out))
    h = (after - before)[tokens.items]
    assert (h[:, 0] > h[:, 1]).mean() > 0.9


def test_killed_and_resumed_equals_uninterrupted(job, tmp_path):
    from posterhall.models import hub
    from posterhall.train import PreferenceObjective, train_dpo

    model, pairs = job
    settings = DpoSettings(**{**QUICK, "epochs": 2, "log_every": 3})
    plain = train_dpo(settings, model, [pairs], tmp_path / "plain", device="cpu")
    calls = 0
    ordinary = PreferenceObjective.__call__

    def stopping(self, *arguments):
        nonlocal calls
        calls += 1
        if calls in (5, 12):
            os.kill(os.getpid(), signal.SIGINT)
        return ordinary(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreferenceObjective, "__call__", stopping)
        for _ in range(2):
            with pytest.raises(Interrupted):
                train_dpo(settings, model, [pairs], tmp_path / "cut", device="cpu", resume=True)
        resumed = train_dpo(settings, model, [pairs], tmp_path / "cut", device="cpu", resume=True)
    assert resumed["train_loss"] == plain["train_loss"]
    one, other = (hub.load(tmp_path / name) for name in ("plain", "cut"))
    for (name, mine), (_, theirs) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    told = [
        [{k: v for k, v in line.items() if k != "elapsed"} for line in read_metrics(tmp_path / name)]
        for name in ("plain", "cut")
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss": "dpoo"}, "Did you mean: dpo"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"label_smoothing": 0.5}, "below 0.5"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "ipo has none"),
        ({"reference_free": True, "loss": "hinge"}, "goes with loss dpo"),
        ({"normalisation": "tokens"}, "sum or mean"),
        ({"tokens": 100}, "give steps or epochs"),
        ({"alpha": 2.0}, "from 0 to 1"),
        ({"max_length": 1}, "at least 2"),
        ({"eval_fraction": 1.0}, "below 1"),
    ],
)
def test_settings_outside_their_range_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        DpoSettings(**given)


def test_bad_input_ends_with_code_4_and_leaves_the_run_free(posterhall, job, tmp_path):
    model, pairs = job
    done = posterhall("train", "dpo", model, tmp_path / "none.jsonl", "-o", tmp_path / "run", code=4)
    assert "none.jsonl" in done.err
    done = posterhall("train", "dpo", model, pairs, "-o", tmp_path / "run", "--set", "max_length=999", code=4)
    assert "takes at most 64" in done.err
    done = posterhall("train", "dpo", model, pairs, "-o", tmp_path / "run", "--loss", "dppo", code=4)
    assert "Did you mean: dpo" in done.err
