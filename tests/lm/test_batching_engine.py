"""Many callers at once: the same answers as alone, in turn, from shared passes; and what can go wrong."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import aclosing
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from posterhall.data.tokenizer import ByteTokenizer  # noqa: E402
from posterhall.errors import DataError  # noqa: E402
from posterhall.lm import LocalLM, Message, Request  # noqa: E402
from posterhall.models import Decoder, DecoderConfig  # noqa: E402
from posterhall.models.batching import Batch, Row  # noqa: E402
from posterhall.models.prefixes import BLOCK, Prefixes  # noqa: E402
from posterhall.models.sampling import Draws, Sampling  # noqa: E402

torch.set_num_threads(1)


def decoder(seed=2, **more):
    shape = {"vocab_size": 258, "dim": 32, "layers": 2, "heads": 4, "max_length": 96, "init_std": 0.3}
    return Decoder(DecoderConfig(**{**shape, **more}), seed=seed)


class Counting(Decoder):
    """Counts the passes and the tokens that were read."""

    def __init__(self, config, **more):
        super().__init__(config, **more)
        self.passes = self.tokens = self.widest = 0

    def hidden(self, ids, *, valid=None, **given):
        self.passes += 1
        self.tokens += sum(valid) if valid is not None else ids.numel()
        self.widest = max(self.widest, len(ids))
        return super().hidden(ids, valid=valid, **given)


def lm_of(model=None, **more):
    return LocalLM(model or decoder(), ByteTokenizer(), **more)


REQUESTS = [
    Request("Once upon a time there was " + "a very " * (i % 4) + "small " + "x" * i,
            max_tokens=3 + i % 9, temperature=[0.0, 0.7, 1.0, 1.3][i % 4], top_p=[1.0, 0.8][i % 2],
            seed=i, n=1 + i % 3, logprobs=i % 5 == 0, stop=("e", "~~")[: i % 3])
    for i in range(24)
]  # fmt: skip


def assert_same(found, expected):
    assert len(found) == len(expected)
    for samples, others in zip(found, expected, strict=True):
        for a, b in zip(samples, others, strict=True):
            assert replace(a, logprobs=None) == replace(b, logprobs=None)
            assert (a.logprobs is None) == (b.logprobs is None)
            if a.logprobs is not None:
                assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.fixture(scope="module")
def alone():
    """Each request by itself, nothing kept from the one before."""
    lm = lm_of(prefix_bytes=0, batch=1)
    return [lm.generate([each])[0] for each in REQUESTS]


@pytest.mark.parametrize(
    "options", [{}, {"batch": 3}, {"prefix_bytes": 0}, {"cache_bytes": 1}, {"prefix_bytes": 5000}]
)
def test_answers_do_not_depend_on_the_company(alone, options):
    lm = lm_of(**options)

    async def each_by_itself():
        found = await asyncio.gather(*(lm.agenerate([request]) for request in REQUESTS))
        return [samples for [samples] in found]

    assert_same(asyncio.run(each_by_itself()), alone)
    assert_same(lm.generate(REQUESTS), alone)
    assert_same(lm.generate(REQUESTS[::-1])[::-1], alone)


def test_callers_at_the_same_time_share_passes():
    model = Counting(decoder().config, seed=2)
    lm = lm_of(model)
    requests = [Request(f"{i}", max_tokens=20, temperature=0.0) for i in range(20)]

    async def all_at_once():
        await asyncio.gather(*(lm.agenerate([each]) for each in requests))

    asyncio.run(all_at_once())
    assert model.widest >= 15
    assert model.passes < 20 * 20 / 4


def test_concurrent_scores_share_a_pass_and_do_not_change():
    model = Counting(decoder().config, seed=2)
    lm = lm_of(model)
    items = [(f"The {i}th prompt says", [" this", " that or so"]) for i in range(20)]
    alone = [lm.score(*item) for item in items]
    before = model.passes

    async def all_at_once():
        return await asyncio.gather(*(lm.ascore([item]) for item in items))

    together = asyncio.run(all_at_once())
    assert model.passes - before < before / 3
    for [found], expected in zip(together, alone, strict=True):
        for a, b in zip(found, expected, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_a_mistake_of_one_caller_is_not_the_others():
    lm = lm_of()

    async def mixed():
        return await asyncio.gather(
            lm.ascore([("a", ["b"])]),
            lm.ascore([("a", [""])]),
            lm.agenerate([Request("y" * 200)]),
            lm.agenerate([Request("y", max_tokens=2)]),
            return_exceptions=True,
        )

    fine, empty, long, also_fine = asyncio.run(mixed())
    assert len(fine[0]) == 1
    assert isinstance(empty, DataError)
    assert isinstance(long, DataError)
    assert also_fine[0][0].tokens_out <= 2


def test_a_short_request_does_not_wait_for_a_long_queue():
    lm = lm_of(batch=4)
    done = []

    async def ask(name, requests):
        await lm.agenerate(requests)
        done.append(name)

    async def both():
        crowd = asyncio.create_task(ask("crowd", [Request(f"{i}", max_tokens=8) for i in range(80)]))
        await asyncio.sleep(0.01)
        await asyncio.gather(crowd, ask("one", [Request("z", max_tokens=8)]))

    asyncio.run(both())
    assert done == ["one", "crowd"]


def test_who_is_cancelled_leaves_and_the_others_go_on():
    model = Counting(decoder(max_length=4096).config, seed=2)
    lm = lm_of(model)

    async def story():
        long = asyncio.create_task(lm.agenerate([Request("a", max_tokens=4000, n=3)]))
        await asyncio.sleep(0.05)
        long.cancel()
        [[sample]] = await lm.agenerate([Request("b", max_tokens=5, temperature=0.0)])
        passes = model.passes
        await asyncio.sleep(0.1)
        return sample, model.passes - passes

    sample, later = asyncio.run(story())
    assert sample == lm.generate([Request("b", max_tokens=5, temperature=0.0)])[0][0]
    assert later <= 1  # nothing goes on for those who are gone
    assert model.passes < 2000


def test_a_failure_reaches_whom_it_concerns_and_the_model_works_again():
    model = Counting(decoder().config, seed=2)
    lm = lm_of(model)
    hidden = model.hidden

    def fails(*_, **__):
        raise RuntimeError("out of memory")

    model.hidden = fails
    with pytest.raises(RuntimeError, match="out of memory"):
        lm.generate([Request("a")])
    with pytest.raises(RuntimeError, match="out of memory"):
        lm.score("a", ["b"])
    model.hidden = hidden
    assert lm.generate([Request("a", max_tokens=2)])


# -- prefixes ---------------------------------------------------------------------------------------


def test_what_prompts_share_is_read_once():
    model = Counting(decoder().config, seed=2)
    lm = lm_of(model)
    lead = "Use the numbers once each. " * 2  # 54 tokens, 3 whole blocks
    requests = [Request(f"{lead}{i:02}", max_tokens=1, temperature=0.0, n=2) for i in range(10)]
    lm.generate(requests)
    whole = len(lead) + 3
    shared = whole // BLOCK * BLOCK
    assert model.tokens <= whole + 9 * (whole - shared)
    before = model.tokens
    lm.generate(requests)
    assert model.tokens - before == 10 * (whole - shared)


def test_prefixes_are_forgotten_when_the_weights_change():
    lm = lm_of()
    request = Request("A prompt that is longer than a block of tokens", max_tokens=6, temperature=0.0)
    [[before]] = lm.generate([request])
    with torch.no_grad():
        for each in lm.model.parameters():
            each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3)
    [[after]] = lm.generate([request])
    assert after == lm_of(lm.model).generate([request])[0][0]
    assert after != before


def test_training_mode_is_given_back():
    lm = lm_of(decoder(dropout=0.5))
    lm.model.train()
    request = Request("ab", max_tokens=8, temperature=0.0)
    assert lm.generate([request]) == lm.generate([request])
    assert lm.model.training


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5 * BLOCK), min_size=1, max_size=12),
    st.integers(0, 6),
)
def test_the_store_gives_back_what_was_put_and_keeps_to_its_size(prompts, blocks):
    class State:
        """Remembers of each token the token."""

        def __init__(self, rows=()):
            self.rows = [list(each) for each in rows]

        def select(self, rows): ...
        def join(self, other, rows): ...
        def keep(self, rows): ...
        def resize(self, max_length): ...

        def read(self, row, start, stop):
            return torch.tensor(self.rows[row][start:stop], dtype=torch.uint8)

        def write(self, row, start, pieces):
            self.rows[row][start:] = torch.cat(list(pieces)).tolist()

    class Cache:
        def __init__(self, rows):
            self.states, self.lengths = [State(rows)], [0] * len(rows)

    store = Prefixes(blocks * BLOCK)
    for prompt in prompts:
        found = store.find(prompt)
        assert len(found) * BLOCK < len(prompt)
        empty = Cache([[]])
        store.fill(empty, 0, found)
        assert empty.states[0].rows[0] == prompt[: len(found) * BLOCK]
        store.put(prompt, Cache([prompt]), 0)
        assert store.bytes <= blocks * BLOCK
        if len(prompt) // BLOCK <= blocks:
            again = store.find([*prompt, 0])
            assert len(again) == len(prompt) // BLOCK


# -- the batch itself -------------------------------------------------------------------------------


def test_rows_join_and_leave_between_tokens():
    model = decoder().eval()

    def row(i):
        return Row([i, i + 1, *range(i)], max_new_tokens=4 + i, sampling=Sampling(0.8), seed=i)

    def finish(batch, rows):
        while batch.rows:
            batch.step()
        return [each.ids for each in rows]

    with torch.no_grad():
        expected = []
        for i in range(6):
            batch = Batch(model, most_rows=1, most_tokens=1)
            only = [row(i)]
            batch.join(only)
            expected += finish(batch, only)
        rows = [row(i) for i in range(6)]
        gone = row(9)
        batch = Batch(model, most_rows=9, most_tokens=10_000, prefixes=Prefixes(1 << 20))
        batch.join(rows[:3])
        batch.step()
        batch.join([gone, *rows[3:5]])
        batch.step()
        batch.leave([gone])
        batch.join(rows[5:])
        assert finish(batch, rows) == expected
    assert len(gone.ids) == 1


def test_rows_are_admitted_as_memory_allows():
    batch = Batch(decoder(), most_rows=5, most_tokens=60)

    def row(size):
        return Row([1] * size, max_new_tokens=10, sampling=Sampling())

    assert len(batch.admit([row(10) for _ in range(9)])) == 3
    assert len(batch.admit([row(2) for _ in range(9)])) == 5
    assert len(batch.admit([row(80)])) == 1  # larger than the memory, but alone
    assert len(batch.admit([row(2), row(80)])) == 1


def test_mixed_settings_draw_as_each_does_alone():
    settings = [Sampling(), Sampling(0.0), Sampling(0.5, top_k=3), Sampling(2.0, top_p=0.4), Sampling(1.0, 1)]
    settings = settings * 20
    generator = torch.Generator().manual_seed(0)
    logits = torch.empty(len(settings), 50).normal_(generator=generator)
    uniforms = torch.rand(len(settings), dtype=torch.float64, generator=generator)
    together = Draws(settings)(logits, [iter([each]).__next__ for each in uniforms.tolist()])
    for i, each in enumerate(settings):
        assert each.draw(logits[i : i + 1], uniforms[i : i + 1]).item() == together[i].item()
        best = logits[i].argsort(descending=True).tolist()
        if each.is_greedy:
            assert together[i] == best[0]
        elif each.top_k:
            assert together[i].item() in best[:3]


# -- streams ----------------------------------------------------------------------------------------


async def pieces_of(lm, request):
    async with aclosing(lm.astream(request)) as stream:
        return [piece async for piece in stream]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [{}, {"logprobs": True}, {"stop": ("e", "\n"), "logprobs": True}, {"stop": ("qu",)}, {"n": 3}],
)
def test_pieces_add_up_to_the_sample(options, seed):
    lm = lm_of(decoder(seed=5))
    request = Request("Say: ", max_tokens=40, temperature=1.0, seed=seed, **options)
    expected = lm.generate([request])[0]
    pieces = asyncio.run(pieces_of(lm, request))
    for index, sample in enumerate(expected):
        own = [each for each in pieces if each.index == index]
        assert "".join(each.text for each in own) == sample.text
        assert own[-1].sample == sample
        assert all(each.sample is None for each in own[:-1])
        if request.logprobs:
            assert tuple(t for each in own for t in each.tokens) == sample.tokens
            assert sum((each.logprobs for each in own), ()) == pytest.approx(sample.logprobs, abs=1e-4)
    assert len(pieces) > len(expected)


def test_a_stream_that_is_closed_stops_the_model():
    model = Counting(decoder(max_length=2048).config, seed=2)
    lm = lm_of(model)

    async def first_only():
        async with aclosing(lm.astream(Request("a", max_tokens=2000))) as stream:
            return await anext(stream)

    assert asyncio.run(first_only()).text
    lm.generate([Request("b", max_tokens=1)])
    assert model.passes < 1000


def test_a_conversation_may_be_streamed():
    lm = lm_of()
    pieces = asyncio.run(pieces_of(lm, Request((Message("user", "hi"),), max_tokens=9)))
    assert "".join(each.text for each in pieces) == pieces[-1].sample.text


# -- identity ---------------------------------------------------------------------------------------


def test_the_fingerprint_follows_the_weights_and_the_tokeniser():
    lm = lm_of()
    assert lm.fingerprint() == lm.fingerprint() == lm_of(name="other").fingerprint()
    assert lm.fingerprint() != lm_of(decoder(seed=3)).fingerprint()
    assert lm.fingerprint() != lm_of(decoder().bfloat16()).fingerprint()
    other = ByteTokenizer()
    other.bos_id = None
    assert lm.fingerprint() != LocalLM(lm.model, other).fingerprint()
    before = lm.fingerprint()
    with torch.no_grad():
        next(lm.model.parameters())[0, 0] += 1
    assert lm.fingerprint() != before


def test_a_process_ends_cleanly_while_the_engine_is_warm():
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from posterhall.lm import LocalLM, Request\n"
        "from posterhall.models import Decoder, DecoderConfig\n"
        "from posterhall.data.tokenizer import ByteTokenizer\n"
        "lm = LocalLM(Decoder(DecoderConfig(vocab_size=258, dim=16, layers=1, heads=2)), ByteTokenizer())\n"
        "print(len(lm.generate([Request('a', max_tokens=3)])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, timeout=100
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
