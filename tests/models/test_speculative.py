"""Speculative decoding: the large model's text and distribution, whoever drafts, in any company."""

from __future__ import annotations

import itertools
import json
from collections import deque

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")

from tiny import decoder  # noqa: E402

from posterhall.cli.main import run  # noqa: E402
from posterhall.data.tokenizer import ByteTokenizer, train_bpe  # noqa: E402
from posterhall.errors import DataError  # noqa: E402
from posterhall.lm import LocalLM, Request, connect  # noqa: E402
from posterhall.models import Decoder, DecoderConfig, save  # noqa: E402
from posterhall.models.batching import Batch, Row  # noqa: E402
from posterhall.models.generate import generate  # noqa: E402
from posterhall.models.prefixes import Prefixes  # noqa: E402
from posterhall.models.sampling import Sampling, chances  # noqa: E402
from posterhall.models.speculative import Draft, Speculation, Speculative  # noqa: E402


def like(model, noise):
    """A model that mostly, or hardly, agrees with another."""
    small = Decoder(model.config, seed=None).eval()
    small.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for each in small.parameters():
            each.add_(torch.empty(each.shape).normal_(generator=generator), alpha=noise)
    return small


def finish(batch, rows):
    waiting = deque(rows)
    with torch.no_grad():
        while waiting or batch.rows:
            joining = batch.admit(waiting)
            for _ in joining:
                waiting.popleft()
            batch.join(joining)
            batch.step()
    return [each.ids for each in rows]


def some_rows(sampling, count=14, **more):
    return [
        Row(
            [1 + i % 5] * (1 + i % 7), max_new_tokens=1 + 3 * i, sampling=sampling, seed=i,
            wants_logprobs=True, **more,
        )
        for i in range(count)
    ]  # fmt: skip


def batch_of(model, draft, *, rows=5, **more):
    return Speculative(model, draft, most_rows=rows, most_tokens=100_000, **more)


DRAFTS = {
    "itself": lambda model: model,
    "close": lambda model: like(model, 0.03),
    "stranger": lambda _: decoder("grouped", seed=9, max_length=40),
    "another shape": lambda _: decoder(vocab_size=50, seed=4, max_length=40),
    "short context": lambda _: decoder("grouped", seed=1, max_length=12),
    "fewer tokens": lambda _: decoder("grouped", seed=1, max_length=40, vocab_size=30),
    "more tokens": lambda _: decoder("grouped", seed=1, max_length=40, vocab_size=70),
}


@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("lookahead", [1, 4])
def test_greedy_text_is_the_large_models_own(name, lookahead):
    model = decoder("grouped", seed=1, max_length=40)
    expected = some_rows(Sampling(0.0))
    finish(Batch(model, most_rows=5, most_tokens=100_000), expected)
    rows = some_rows(Sampling(0.0))
    counts = Speculation()
    draft = Draft(DRAFTS[name](model), lookahead, cost=0.01)
    found = finish(batch_of(model, draft, counts=counts, prefixes=Prefixes(1 << 20)), rows)
    assert found == [each.ids for each in expected]
    assert [each.stopped for each in rows] == [each.stopped for each in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert 0 <= counts.accepted <= counts.judged <= counts.proposed
    if name == "itself":
        assert counts.acceptance == 1.0
        assert counts.rounds < sum(map(len, found)) / (0.7 * (lookahead + 1))


@pytest.mark.parametrize("sampling", [Sampling(0.8), Sampling(1.2, top_k=9), Sampling(1.0, top_p=0.8)])
def test_samples_follow_from_seed_and_prompt_alone(sampling):
    model = decoder("grouped", seed=1, max_length=40)
    draft = Draft(like(model, 0.05))
    alone = [finish(batch_of(model, draft), [row])[0] for row in some_rows(sampling)]
    assert finish(batch_of(model, draft, rows=20), some_rows(sampling)) == alone
    assert finish(batch_of(model, draft, rows=3), some_rows(sampling)[::-1])[::-1] == alone
    assert any(
        a != b for a, b in zip(finish(batch_of(model, draft), some_rows(Sampling(0.0))), alone, strict=True)
    )


def test_a_longer_text_begins_as_a_shorter_one():
    model = decoder("grouped", seed=1, max_length=40)
    draft = Draft(like(model, 0.05))

    def say(size):
        return finish(batch_of(model, draft), [Row([3], max_new_tokens=size, sampling=Sampling(), seed=1)])[0]

    whole = say(20)
    assert all(say(size) == whole[:size] for size in range(1, 20))


def test_in_a_large_batch_greedy_rows_do_without_drafts_and_others_do_not():
    model = decoder("grouped", seed=1, max_length=40)
    draft = Draft(model, rows=3, cost=0.01)
    for sampling, drafts in ((Sampling(0.0), False), (Sampling(1.0), True)):
        batch = batch_of(model, draft)
        with torch.no_grad():
            batch.join([Row([i], max_new_tokens=30, sampling=sampling) for i in range(4)])
            batch.step()
        assert (batch.counts.proposed > 0) == drafts
        with torch.no_grad():
            batch.leave(batch.rows[:1])
            before = batch.counts.proposed
            batch.step()
        assert batch.counts.proposed > before


def test_rows_leave_and_stop_in_the_middle_of_a_draft():
    model = decoder("grouped", seed=1, max_length=40)
    [free] = finish(batch_of(model, Draft(model)), [Row([3], max_new_tokens=20, sampling=Sampling(0.0))])
    stop = free[6]
    row = Row([3], max_new_tokens=20, sampling=Sampling(0.0), stop_ids=frozenset([stop]), wants_logprobs=True)
    other = Row([2, 2], max_new_tokens=20, sampling=Sampling(0.0))
    gone = Row([4], max_new_tokens=20, sampling=Sampling(0.0))
    batch = batch_of(model, Draft(model))
    with torch.no_grad():
        batch.join([gone, row, other])
        batch.step()
        batch.leave([gone])
        while batch.rows:
            batch.step()
    assert row.ids == free[: free.index(stop)]
    assert row.stopped
    assert len(row.logprobs) == len(row.ids)
    assert other.ids == finish(
        Batch(model, most_rows=1, most_tokens=1), [Row([2, 2], max_new_tokens=20, sampling=Sampling(0.0))]
    )[0]  # fmt: skip
    assert len(gone.ids) < 20


# -- the distribution -------------------------------------------------------------------------------


class Table(Decoder):
    """The next token's probabilities follow from the last token alone, as a table has them."""

    def __init__(self, table):
        size = len(table)
        super().__init__(DecoderConfig(vocab_size=size, dim=2 * size, layers=1, heads=1, max_length=16))
        self.table = torch.tensor(np.log(table), dtype=torch.float32)

    def hidden(self, ids, **given):
        super().hidden(ids, **given)  # for the cache
        return self.table[ids]

    def head_weight(self):
        return torch.eye(len(self.table))


LARGE = np.array([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.4, 0.1], [0.7, 0.1, 0.1, 0.1]])
SMALL = np.array([[0.2, 0.5, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6], [0.6, 0.2, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1]])


def shaped(row, sampling):
    """A row of the table with temperature and cuts, in numpy."""
    p = row ** (1 / sampling.temperature)
    p = p / p.sum()
    order = np.argsort(-p, kind="stable")
    if sampling.top_k is not None:
        p[order[sampling.top_k :]] = 0
        p = p / p.sum()
    if sampling.top_p is not None:
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= sampling.top_p]] = 0
    return p / p.sum()


@pytest.mark.parametrize(
    "sampling", [Sampling(1.0), Sampling(0.6), Sampling(1.0, top_k=3), Sampling(1.4, None, 0.7)]
)
def test_texts_are_distributed_as_the_large_models(sampling):
    """Chi-square of whole texts of three tokens against their closed-form probabilities."""
    seeds, length = 4000, 3
    large, small = Table(LARGE), Table(SMALL)
    batch = Speculative(large, Draft(small, 2, cost=0.01), most_rows=500, most_tokens=1 << 30)
    rows = [Row([0], max_new_tokens=length, sampling=sampling, seed=i) for i in range(seeds)]
    counted = dict.fromkeys(itertools.product(range(4), repeat=length), 0)
    for ids in finish(batch, rows):
        counted[tuple(ids)] += 1
    given = [shaped(row, sampling) for row in LARGE]
    expected = {
        text: seeds * np.prod([given[a][b] for a, b in itertools.pairwise((0, *text))]) for text in counted
    }
    assert all(counted[text] == 0 for text, mean in expected.items() if mean == 0)
    common = [text for text, mean in expected.items() if mean >= 5]
    rare = seeds - sum(expected[text] for text in common)
    observed = [counted[text] for text in common]
    means = [expected[text] for text in common]
    if rare > 1:
        observed.append(seeds - sum(observed))
        means.append(rare)
    assert stats.chisquare(observed, means, sum_check=False).pvalue > 0.001
    # The first draft is kept with chance 1 - TV (Leviathan et al. 2023, corollary 3.6).
    drafted = [shaped(row, sampling) for row in SMALL]
    agreement = [np.minimum(p, q).sum() for p, q in zip(given, drafted, strict=True)]
    assert min(agreement) - 0.05 < batch.counts.acceptance < max(agreement) + 0.05


def test_probabilities_are_what_draws_follow():
    logits = torch.log(torch.tensor(LARGE, dtype=torch.float32))
    for sampling in (Sampling(0.0), Sampling(0.5), Sampling(1.0, top_k=2), Sampling(2.0, 3, 0.6)):
        found = chances(logits, [sampling] * 4).numpy()
        if sampling.temperature:
            np.testing.assert_allclose(found, [shaped(row, sampling) for row in LARGE], atol=1e-6)
        else:
            assert (found.argmax(1) == LARGE.argmax(1)).all()
        np.testing.assert_allclose(found.sum(1), 1)


# -- giving up, and being refused -------------------------------------------------------------------


def test_a_row_whose_drafts_do_not_pay_stops_drafting():
    model = decoder("grouped", seed=1, max_length=300)
    stranger = decoder("grouped", seed=9, max_length=300)
    counts = Speculation()
    row = Row([3], max_new_tokens=250, sampling=Sampling(1.0), seed=1)
    finish(batch_of(model, Draft(stranger, cost=0.8), counts=counts), [row])
    assert 32 <= counts.judged <= 40
    assert len(row.ids) == 250


@pytest.mark.parametrize(("lookahead", "cost"), [(0, None), (2, 0.0), (2, -1.0)])
def test_settings_out_of_range_are_named(lookahead, cost):
    with pytest.raises(DataError, match=r"lookahead is 0|cost is"):
        Draft(decoder(), lookahead, cost)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    tokenizer = ByteTokenizer()
    shape = {"vocab_size": 258, "dim": 32, "heads": 4, "max_length": 96, "init_std": 0.3}
    for name, layers in (("large", 3), ("small", 1)):
        model = Decoder(DecoderConfig(**shape, layers=layers), seed=layers)
        save(model, place / name, tokenizer=tokenizer)
    other = train_bpe(["some words of a text"], 270)
    save(Decoder(DecoderConfig(**{**shape, "vocab_size": 270}, layers=1)), place / "other", tokenizer=other)
    return place


def test_another_tokeniser_is_refused(checkpoints):
    with pytest.raises(DataError, match="another tokeniser"):
        connect(checkpoints / "large", draft=checkpoints / "other")


def test_a_model_with_a_draft_answers_as_without(checkpoints):
    plain = connect(checkpoints / "large")
    drafted = connect(checkpoints / "large", draft=checkpoints / "small", batch=4)
    assert isinstance(drafted, LocalLM)
    requests = [
        Request("ab" * i, max_tokens=30, temperature=0.0, stop=("e",), logprobs=True) for i in range(1, 9)
    ]
    for [own], [other] in zip(drafted.generate(requests), plain.generate(requests), strict=True):
        assert (own.text, own.finish_reason, own.tokens) == (other.text, other.finish_reason, other.tokens)
        assert own.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert drafted.speculation.judged > 0
    assert plain.speculation is None
    assert drafted.fingerprint() != plain.fingerprint()


def test_the_command_says_the_same_and_tells_how_often_drafts_were_right(checkpoints, capsys):
    command = ["model", "generate", str(checkpoints / "large"), "-p", "ab", "-n", "20", "--temperature", "0"]
    command += ["--threads", "1", "--json"]
    assert run(command) == 0
    plain = json.loads(capsys.readouterr().out)
    assert run([*command, "--draft", str(checkpoints / "small"), "--lookahead", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"][0]["text"] == plain["samples"][0]["text"]
    assert plain["draft"] is None
    assert found["draft"]["proposed"] >= found["draft"]["judged"] >= found["draft"]["accepted"] >= 0
    assert run([*command, "--lookahead", "2"]) == 2
    assert run([*command, "--draft", str(checkpoints / "other")]) == 4
    assert "another tokeniser" in capsys.readouterr().err


def test_a_drafting_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    from posterhall.models.foreign import Foreign

    def gpt2(layers, context=64):
        torch.manual_seed(layers)
        config = transformers.GPT2Config(
            vocab_size=50, n_embd=32, n_layer=layers, n_head=4, n_positions=context, bos_token_id=0,
            eos_token_id=0, initializer_range=0.3,
        )  # fmt: skip
        return Foreign(transformers.GPT2LMHeadModel(config).eval())

    model = gpt2(2)
    prompts = [[1, 2, 3], [4], [5] * 61]
    expected = generate(model, prompts, max_new_tokens=70, temperature=0.0)
    for small in (gpt2(1), model, decoder("grouped", max_length=64)):
        counts = Speculation()
        found = generate(
            model, prompts, max_new_tokens=70, temperature=0.0, draft=Draft(small, cost=0.01), counts=counts
        )
        assert [each.ids for each in found] == [each.ids for each in expected]
    assert counts.judged > 0
