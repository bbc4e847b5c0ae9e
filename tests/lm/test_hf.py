"""Models of transformers in process: what transformers itself says and finds probable, in any company."""

from __future__ import annotations

import asyncio
import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from posterhall.data.tokenizer import ByteTokenizer  # noqa: E402
from posterhall.errors import DataError, MissingExtra  # noqa: E402
from posterhall.lm import LocalLM, Message, Request, connect  # noqa: E402
from posterhall.models import Decoder, causal  # noqa: E402
from posterhall.models.foreign import Foreign  # noqa: E402

torch.set_num_threads(1)

SHAPE = {
    "vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 128, "bos_token_id": 256, "eos_token_id": 256,
    "pad_token_id": 257,
}  # fmt: skip
GROUPED = {**SHAPE, "num_key_value_heads": 2}
SCALED = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
GPT2 = {"vocab_size": 258, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(**GPT2, bos_token_id=256, eos_token_id=256),
    "neox": lambda: transformers.GPTNeoXConfig(**SHAPE),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "llama": lambda: transformers.LlamaConfig(**GROUPED, rope_parameters=SCALED),
    "mistral": lambda: transformers.MistralConfig(**GROUPED, sliding_window=5),
    "gemma2": lambda: transformers.Gemma2Config(**GROUPED, head_dim=8, sliding_window=5),
    "bloom": lambda: transformers.BloomConfig(
        vocab_size=258, hidden_size=32, n_layer=2, n_head=4, bos_token_id=256, eos_token_id=256
    ),
}
FORGETFUL = {"bloom"}
"""Those that read the whole text anew with each token."""
PROMPTS = ["Once upon a time", "a", "The sea is deep, and the sky is high above it, so they say"]


def build(name):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in model.parameters():
            if each.dim() > 1:  # large enough that the model has opinions
                each.normal_(0, 0.2, generator=generator)
    return model


@pytest.fixture(scope="module", params=list(CONFIGS))
def saved(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    model = build(request.param)
    model.save_pretrained(directory)
    ByteTokenizer().save(directory)
    return request.param, model, directory


def said_by_transformers(model, prompt, size):
    ids = torch.tensor([[256, *prompt.encode()]])
    with torch.no_grad():
        new = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=size, do_sample=False, pad_token_id=257
        )
    return ByteTokenizer().decode(new[0, ids.shape[1] :].tolist())


def test_it_says_what_transformers_says_and_scores_alike(saved):
    name, theirs, directory = saved
    lm = connect(directory)
    assert isinstance(lm, LocalLM)
    assert isinstance(lm.model, Foreign)
    assert lm.model.remembers == (name not in FORGETFUL)
    requests = [Request(each, max_tokens=20, temperature=0.0) for each in PROMPTS]
    together = [sample.text for [sample] in lm.generate(requests)]
    assert together == [said_by_transformers(theirs, each, 20) for each in PROMPTS]

    continuations = [" is", " was here", "x"]
    for prompt, scored in zip(
        PROMPTS, lm.score_many([(each, continuations) for each in PROMPTS]), strict=True
    ):
        for each in scored:
            ids = torch.tensor([[256, *prompt.encode(), *each.continuation.encode()]])
            with torch.no_grad():
                logprobs = theirs(ids).logits[0, :-1].double().log_softmax(-1)
            own = logprobs.gather(-1, ids[0, 1:, None])[-len(each.continuation) :, 0].tolist()
            assert each.logprobs == pytest.approx(own, abs=1e-5)
    vector = lm.embed(["né"])[0]
    with torch.no_grad():
        states = theirs(torch.tensor([[256, *"né".encode()]]), output_hidden_states=True).hidden_states[-1]
    assert vector == pytest.approx(states[0].mean(0).numpy(), abs=1e-4)


def test_samples_do_not_depend_on_the_company(saved):
    _, theirs, _ = saved
    requests = [
        Request(prompt, max_tokens=6 + i, temperature=[0.7, 1.0][i % 2], top_p=[1.0, 0.9][i % 2], seed=i, n=2)
        for i, prompt in enumerate(PROMPTS * 2)
    ]
    alone = LocalLM(Foreign(theirs), ByteTokenizer(), batch=1, prefix_bytes=0)
    expected = [alone.generate([each])[0] for each in requests]
    lm = LocalLM(Foreign(theirs), ByteTokenizer())

    async def at_once():
        return await asyncio.gather(*(lm.agenerate([each]) for each in requests))

    assert [found for [found] in asyncio.run(at_once())] == expected
    assert lm.generate(requests[::-1])[::-1] == expected


def test_a_context_is_used_to_its_end():
    """Positions are learned here: none lies behind the last."""
    lm = LocalLM(Foreign(build("gpt2")), ByteTokenizer())
    requests = [Request("x" * size, max_tokens=50, temperature=0.0) for size in (120, 1, 126)]
    together = lm.generate(requests)
    assert together == [lm.generate([each])[0] for each in requests]
    assert together[0][0].finish_reason in ("length", "stop")
    with pytest.raises(DataError, match="context is 128"):
        lm.generate([Request("x" * 200)])


def test_plain_llamas_are_read_by_our_own_decoder(tmp_path):
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED)).save_pretrained(tmp_path)
    assert isinstance(causal.load(tmp_path), Decoder)


# -- conversations ----------------------------------------------------------------------------------

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def chatty(tmp_path):
    model = build("qwen2")
    model.generation_config.eos_token_id = [256, 65]  # a chat model ends its turns in a way of its own
    model.save_pretrained(tmp_path)
    ByteTokenizer().save(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": TEMPLATE}))
    return tmp_path


def test_a_conversation_is_put_as_the_template_has_it(chatty):
    lm = connect(chatty)
    turns = (Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Sing\n\nUser:"))
    [[sample], [plain]] = lm.generate(
        [Request(turns, max_tokens=9, temperature=0.0), Request("a", max_tokens=3, temperature=0.0)]
    )
    text = "[user]Hi[assistant]Yes?[user]Sing\n\nUser:[assistant]"
    assert sample.tokens_in == len(text)
    assert plain.tokens_in == 2
    ids = torch.tensor([list(text.encode())])
    with torch.no_grad():
        new = lm.model.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False,
            eos_token_id=[256, 65], pad_token_id=257,
        )  # fmt: skip
    said = [each for each in new[0, len(text) :].tolist() if each != 65]
    assert sample.text == ByteTokenizer().decode(said)
    with pytest.raises(DataError, match="no system turns"):
        lm.generate([Request((Message("system", "x"),))])


def test_the_template_is_part_of_what_results_are_stored_under(chatty):
    first = connect(chatty).fingerprint()
    config = chatty / "tokenizer_config.json"
    config.write_text(config.read_text().replace("[assistant]", "[model]"))
    assert connect(chatty).fingerprint() != first


# -- what is refused --------------------------------------------------------------------------------


def test_pickles_are_not_opened(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    ByteTokenizer().save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="is a pickle"):
        connect(tmp_path)


def test_a_model_with_code_of_its_own_is_refused(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    ByteTokenizer().save(tmp_path)
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.C"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="cannot read this"):
        connect(tmp_path)
    assert not marker.exists()


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    ByteTokenizer().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    with pytest.raises(DataError, match="tensors are missing"):
        connect(tmp_path)


def test_without_transformers_it_says_what_to_install(tmp_path, monkeypatch):
    build("gpt2").save_pretrained(tmp_path)
    ByteTokenizer().save(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"gpt2.*pip install 'posterhall\[hf\]'"):
        connect(tmp_path)
