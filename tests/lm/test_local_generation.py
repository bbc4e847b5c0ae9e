"""What a local model generates: stop texts, seeds, log-probabilities, the end of its context; loading."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")


from posterhall import lm as room  # noqa: E402
from posterhall.data.tokenizer import ByteTokenizer, train_bpe  # noqa: E402
from posterhall.errors import DataError  # noqa: E402
from posterhall.lm import LocalLM, Message, Request, _sampling  # noqa: E402
from posterhall.models import Decoder, DecoderConfig, save  # noqa: E402
from posterhall.runs import Run  # noqa: E402


class Reciter(Decoder):
    """Says a text by heart, from any prompt on: after the byte b it says the one that follows b there."""

    def __init__(self, text, *, max_length=64):
        super().__init__(DecoderConfig(vocab_size=258, dim=258 * 2, layers=1, heads=1, max_length=max_length))
        self.read = 0
        follows = torch.full((258,), 256)
        ids = text.encode()
        for a, b in itertools.pairwise(ids):
            follows[a] = b
        self.follows = follows

    def hidden(self, ids, **given):
        self.read += ids.numel()
        super().hidden(ids, **given)  # for the cache
        logits = torch.nn.functional.one_hot(self.follows[ids], 258).float() * 30
        return torch.nn.functional.pad(logits, (0, 258))

    def head_weight(self):
        return torch.eye(258, 516)


@pytest.fixture(scope="module")
def reciter():
    return LocalLM(Reciter("abc, def.\nghi"), ByteTokenizer())


@pytest.fixture(scope="module")
def random():
    config = DecoderConfig(vocab_size=258, dim=32, layers=2, heads=4, max_length=64, init_std=0.3)
    return LocalLM(Decoder(config, seed=2), ByteTokenizer())


def say(lm, prompt, **options):
    [[sample]] = lm.generate([Request(prompt, **{"temperature": 0.0, **options})])
    return sample


@pytest.mark.parametrize(
    ("options", "text", "reason", "tokens"),
    [
        ({}, "bc, def.\nghi", "stop", 12),  # to the end of the text, which is a token of its own
        ({"max_tokens": 3}, "bc,", "length", 3),
        ({"stop": ("\n",)}, "bc, def.", "stop", 9),
        ({"stop": (", d", "e")}, "bc", "stop", 5),
        ({"stop": ("def.", "c, d")}, "b", "stop", 5),
        ({"stop": ("xyz",)}, "bc, def.\nghi", "stop", 12),
        ({"stop": ("bc",)}, "", "stop", 2),
        ({"stop": (", d",), "max_tokens": 4}, "bc, ", "length", 4),
    ],
)
def test_a_sample_ends_where_it_should(reciter, options, text, reason, tokens):
    sample = say(reciter, "a", **options)
    assert (sample.text, sample.finish_reason, sample.tokens_out) == (text, reason, tokens)
    assert sample.tokens_in == 2


def test_nothing_is_decoded_after_a_stop_text(reciter):
    reciter.model.read = 0
    say(reciter, "a", stop=("c",), max_tokens=50)
    assert reciter.model.read <= 2 + 1


def test_requests_with_settings_of_their_own_come_back_in_their_order(reciter):
    requests = [
        Request("a", max_tokens=3, temperature=0.0),
        Request("d", max_tokens=2, temperature=0.0, n=2),
        Request("g", max_tokens=3, temperature=1e-3, stop=("i",)),
        Request("a", max_tokens=3, temperature=0.0, stop=("c",)),
    ]
    texts = [[each.text for each in samples] for samples in reciter.generate(requests)]
    assert texts == [["bc,"], ["ef", "ef"], ["h"], ["b"]]


def test_log_probabilities_are_those_of_scoring(random):
    sample = say(random, "Once", max_tokens=12, logprobs=True, temperature=0.0)
    scored = random.score("Once", [sample.text]) if "\ufffd" not in sample.text else None
    # Whatever the bytes say, the same ids scored in one plain pass.
    ids = [256, *b"Once"]
    with torch.no_grad():
        for token, logprob in zip(sample.tokens, sample.logprobs, strict=True):
            row = random.model(torch.tensor([ids]))[0, -1].log_softmax(-1)
            best = int(row.argmax())
            assert logprob == pytest.approx(row[best].item(), abs=1e-4)
            assert random.tokenizer.decode([best]) == token
            ids.append(best)
    if scored:
        assert scored[0].logprobs == pytest.approx(sample.logprobs, abs=1e-4)


def test_log_probabilities_end_with_the_text(reciter):
    sample = say(reciter, "a", stop=(", d",), logprobs=True)
    assert sample.text == "bc"
    assert sample.tokens == ("b", "c")
    assert len(sample.logprobs) == 2


def test_samples_follow_from_the_seed_alone(random):
    request = Request("The", max_tokens=10, seed=1, n=3)
    [three] = random.generate([request])
    assert len({each.text for each in three}) == 3
    crowd = [Request(f"{i}" * (i % 20 + 1), max_tokens=10, seed=i) for i in range(1, 40)]
    assert random.generate([*crowd, request])[-1] == three
    [unseeded] = random.generate([Request("The", max_tokens=10, n=3)])
    [zero] = random.generate([Request("The", max_tokens=10, seed=0, n=3)])
    assert unseeded == zero


def test_top_p_keeps_to_the_most_probable_tokens(random):
    greedy = say(random, "The", max_tokens=6)
    [narrow] = random.generate([Request("The", max_tokens=6, top_p=1e-6, n=4)])
    assert {each.text for each in narrow} == {greedy.text}


def test_a_conversation_ends_before_the_next_turn(monkeypatch):
    monkeypatch.setattr(_sampling, "NEXT_TURN", "|User")  # no byte twice
    lm = LocalLM(Reciter(": y|User"), ByteTokenizer())
    [[sample]] = lm.generate([Request((Message("user", "x"),), temperature=0.0, max_tokens=30)])
    assert (sample.text, sample.finish_reason) == (" y", "stop")


def test_prompts_that_do_not_fit_are_refused(random):
    assert say(random, "x" * 63, max_tokens=5).tokens_out == 1
    with pytest.raises(DataError, match=r"prompt has 65 tokens.*context is 64.*fewer examples"):
        say(random, "x" * 64)
    with pytest.raises(DataError, match="text 1 has 71 tokens"):
        random.embed(["fits", "x" * 70])
    tokenizer = ByteTokenizer()
    tokenizer.bos_id = tokenizer.eos_id = None
    with pytest.raises(DataError, match="prompt is empty"):
        say(LocalLM(random.model, tokenizer), "")


def test_an_embedding_is_the_mean_state(random):
    with torch.no_grad():
        expected = random.model.hidden(torch.tensor([[256, *"né".encode()]]))[0].mean(0)
    assert random.embed(["né"])[0] == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_model_is_loaded_from_its_directory_or_its_run(tmp_path):
    tokenizer = train_bpe(["the cat sat on the mat " * 9], 280)
    model = Decoder(DecoderConfig(vocab_size=tokenizer.vocab_size, dim=32, layers=2, heads=2, max_length=40))
    with Run.start(tmp_path / "run", kind="train lm", config={}) as run:
        save(model, run.artifact("model"), tokenizer=tokenizer)
    by_run = room.connect(tmp_path / "run")
    by_model = room.connect(str(tmp_path / "run" / "artifacts" / "model"), dtype="float32")
    assert by_run.name == str(tmp_path / "run")
    assert by_run.source == tmp_path / "run" / "artifacts" / "model"
    assert by_run.parameters == sum(each.numel() for each in model.parameters())
    assert by_run.score("the cat", [" sat"]) == by_model.score("the cat", [" sat"])
    half = room.connect(tmp_path / "run", dtype="bfloat16")
    assert half.score("the cat", [" sat"])[0].total == pytest.approx(
        by_run.score("the cat", [" sat"])[0].total, rel=0.05
    )
    assert half.embed(["the"]).dtype.name == "float32"
    with pytest.raises(DataError, match="dtype is 'int7'"):
        room.connect(tmp_path / "run", dtype="int7")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError):
        room.connect(tmp_path / "nothing")
