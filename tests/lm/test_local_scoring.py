"""Scores of a local model against one forward pass over the whole text, without any sharing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from posterhall.data.tokenizer import ByteTokenizer, train_bpe  # noqa: E402
from posterhall.errors import DataError  # noqa: E402
from posterhall.lm import LocalLM, _scoring  # noqa: E402
from posterhall.models import Decoder, DecoderConfig  # noqa: E402


def decoder(vocabulary, **changes):
    shape = {"dim": 32, "layers": 2, "heads": 4, "kv_heads": 2, "max_length": 128, "init_std": 0.3}
    return Decoder(DecoderConfig(vocab_size=vocabulary, **{**shape, **changes}), seed=5).eval()


@pytest.fixture(scope="module")
def lm():
    tokenizer = ByteTokenizer()
    return LocalLM(decoder(tokenizer.vocab_size), tokenizer)


def whole(lm, prompt, continuation):
    """log p of each token of the continuation, and whether all were greedy, from one plain pass."""
    before = lm.tokenizer.encode(prompt)
    ids = [lm.tokenizer.bos_id, *lm.tokenizer.encode(prompt + continuation)]
    with torch.no_grad():
        logprobs = lm.model(torch.tensor([ids[:-1]]))[0].double().log_softmax(-1)
    places = range(len(before), len(ids) - 1)
    return [logprobs[i, ids[i + 1]].item() for i in places], all(
        logprobs[i].argmax().item() == ids[i + 1] for i in places
    )


texts = st.text(alphabet="ab é", min_size=0, max_size=12)


@settings(max_examples=25)
@given(
    lead=st.sampled_from(["", "Examples that all items share, long enough.\n\n"]),
    items=st.lists(
        st.tuples(texts, st.lists(st.text("ab é", min_size=1, max_size=5), max_size=4)), max_size=5
    ),
)
def test_scores_are_those_of_the_whole_text(lm, lead, items):
    items = [(lead + prompt, continuations) for prompt, continuations in items]
    for (prompt, continuations), scored in zip(items, lm.score_many(items), strict=True):
        for continuation, each in zip(continuations, scored, strict=True):
            logprobs, greedy = whole(lm, prompt, continuation)
            assert each.logprobs == pytest.approx(logprobs, abs=2e-5)
            assert each.is_greedy == greedy
            assert each.total == pytest.approx(sum(logprobs), abs=1e-4)


def test_a_small_cache_gives_the_same_scores(lm):
    items = [("a shared beginning, then " + "ab" * i, ["x", "yy", "z" * 9]) for i in range(7)]
    small = LocalLM(lm.model, lm.tokenizer, cache_bytes=1)
    for a, b in zip(lm.score_many(items), small.score_many(items), strict=True):
        for one, other in zip(a, b, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)


def test_what_is_shared_is_read_once(lm, monkeypatch):
    read = 0
    plain = lm.model.hidden

    def counting(ids, **given):
        nonlocal read
        read += ids.numel()
        return plain(ids, **given)

    monkeypatch.setattr(lm.model, "hidden", counting)
    lead = "x" * 80
    lm.score_many([(lead + end, [" A", " B", " C", " D"]) for end in ("1", "2", "3")])
    # The lead and its first token once, then for each of 3 items: its own last token and the space, once
    # for all four letters.
    assert read <= 81 + 3 * 1 + 3 * 2


def test_is_greedy_says_what_temperature_zero_would_say(lm):
    from posterhall.lm import Request

    [[sample]] = lm.generate([Request("Once", max_tokens=4, temperature=0.0)])
    if "\ufffd" not in sample.text and sample.text:
        assert lm.score("Once", [sample.text])[0].is_greedy


def test_a_token_across_the_seam_is_scored_whole():
    tokenizer = train_bpe(["the cat sat on the mat. the cat ran. the hat " * 5], 300)
    lm = LocalLM(decoder(tokenizer.vocab_size), tokenizer)
    prompt, continuation = "the cat on th", "e mat"
    before, after = tokenizer.encode(prompt), tokenizer.encode(prompt + continuation)
    same = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    assert same < len(before)  # they do merge, or this tests nothing
    [scored] = lm.score(prompt, [continuation])
    assert len(scored.tokens) == len(after) - same
    with torch.no_grad():
        ids = [tokenizer.bos_id, *after]
        logprobs = lm.model(torch.tensor([ids[:-1]]))[0].double().log_softmax(-1)
    expected = [logprobs[i, ids[i + 1]].item() for i in range(same, len(after))]
    assert scored.logprobs == pytest.approx(expected, abs=2e-5)
    # The same continuation beside one that does not merge.
    pair = lm.score(prompt, [" x", continuation])
    assert pair[1].logprobs == pytest.approx(expected, abs=2e-5)


def test_probabilities_of_all_next_tokens_sum_to_one(lm):
    scored = lm.score("b", [chr(i) for i in range(128)])
    with torch.no_grad():
        logits = lm.model(torch.tensor([[256, 98]]))[0, -1].double()
    expected = logits.softmax(-1)[:128].sum().item()
    assert sum(math.exp(each.total) for each in scored) == pytest.approx(expected, abs=1e-5)


def test_texts_that_just_fit_and_just_do_not(lm):
    # The beginning and 127 of 128 bytes are read; the last byte is only predicted.
    [scored] = lm.score("a" * 120, ["b" * 8])
    assert len(scored.tokens) == 8
    with pytest.raises(DataError, match=r"130 tokens.*context is 128"):
        lm.score("a" * 120, ["b", "b" * 9])
    # Items that fit one by one, and would not when padded to each other's lengths.
    lm.score_many([("a" * 120, ["b"]), ("a", ["b" * 120])])


def test_small_chunks_of_logits_change_nothing(lm, monkeypatch):
    items = [("some prompt", ["abc", "de", "f"])]
    before = lm.score_many(items)
    monkeypatch.setattr(_scoring, "LOGITS", 1)
    for a, b in zip(before[0], lm.score_many(items)[0], strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_a_tokeniser_of_another_model_is_refused(lm):
    with pytest.raises(DataError, match="same checkpoint"):
        LocalLM(decoder(100), lm.tokenizer)


def test_no_token_before_the_first_is_refused():
    tokenizer = ByteTokenizer()
    tokenizer.bos_id = tokenizer.eos_id = None
    lm = LocalLM(decoder(tokenizer.vocab_size), tokenizer)
    with pytest.raises(DataError, match="begins a text"):
        lm.score("", ["a"])
    assert len(lm.score("a", ["b"])[0].tokens) == 1
