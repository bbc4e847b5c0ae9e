"""Every backend keeps the contract of `LM`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lm import check_lm
from posterhall.lm import EchoLM, LocalLM, ScriptedLM


def scripted():
    return ScriptedLM(
        [
            {"contains": "Who", "reply": "A script."},
            {
                "scores": {
                    **{each: [-1.5, -0.5] for each in (" is blue", " is", " is high and blue")},
                    " was": -1,
                    "A beginning": -2,
                    "x": -1,
                    **dict.fromkeys("abcdefgh", -3),
                },
                "reply": "some words, as written down",
                "embedding": [0.5, 1],
            },
        ]
    )


def local():
    pytest.importorskip("torch")
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.models import Decoder, DecoderConfig

    tokenizer = ByteTokenizer()
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, dim=32, layers=2, heads=4, kv_heads=2, max_length=96
    )
    # Weights large enough that the model has opinions.
    return LocalLM(Decoder(DecoderConfig(**{**vars(config), "init_std": 0.4}), seed=1), tokenizer)


def of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.models.foreign import Foreign

    config = transformers.GPT2Config(
        vocab_size=258, n_embd=32, n_layer=2, n_head=4, n_positions=96, bos_token_id=256, eos_token_id=256
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(1)
    for each in model.parameters():
        if each.dim() > 1:
            each.data.normal_(0, 0.2, generator=generator)
    return LocalLM(Foreign(model), ByteTokenizer())


def drafted():
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.models.speculative import Draft

    large, small = local(), local()
    return LocalLM(large.model, ByteTokenizer(), draft=Draft(small.model))


@pytest.mark.parametrize(
    ("make", "can"),
    [
        pytest.param(EchoLM, {}, id="echo"),
        pytest.param(scripted, {"samples": False}, id="scripted"),
        pytest.param(local, {}, id="local"),
        pytest.param(of_transformers, {}, id="transformers"),
        pytest.param(drafted, {}, id="drafted"),
    ],
)
def test_backend_keeps_the_contract(make, can):
    check_lm(make, **can)


@pytest.mark.parametrize("fan_out", [False, True])
def test_a_model_behind_a_server_keeps_the_contract(fan_out, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "lm"))
    from servers import EchoAnswers, serving

    from posterhall.lm.http import HttpLM, HttpSettings

    with serving(EchoAnswers()) as server:
        check_lm(lambda: HttpLM(f"{server.base}#echo", HttpSettings(fan_out=fan_out)))


def test_a_poor_server_keeps_the_contract_as_far_as_it_goes(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "lm"))
    from servers import EchoAnswers, serving

    from posterhall.lm.http import HttpLM

    answers = EchoAnswers(gives_n=False, chat_only=True, refuses=("seed",), drops=("usage",))
    with serving(answers) as server:
        check_lm(lambda: HttpLM(f"{server.base}#echo"), scores=False, embeds=False)


def test_what_stands_around_a_model_keeps_the_contract(tmp_path):
    from posterhall.lm import stack

    def around():
        return stack.connect("echo", cache=tmp_path / "cache", log=tmp_path / "log", concurrency=3)

    check_lm(around)
    check_lm(around)  # all of it from the cache
    check_lm(lambda: stack.connect(f"replay:{tmp_path / 'log'}"))
