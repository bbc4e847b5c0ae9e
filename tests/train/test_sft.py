"""Fine-tuning on conversations: only answers are learnt, on any model, to the same bits after a kill."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time

import pytest

from posterhall.data import chat_template, tokenizer
from posterhall.data.chat import read
from posterhall.data.chat_batches import ChatBatches
from posterhall.data.chat_tokens import encode
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import DataError, Interrupted
from posterhall.runs import read_manifest, read_metrics
from posterhall.train import fit
from posterhall.train.sft_settings import GuanacoSettings, SftSettings

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")
QUICK = {"lr": 3e-3, "warmup": 2, "batch": 4, "accumulate": 1, "log_every": 1, "eval_fraction": 0.0}
OPTIONS = ["--lr", 3e-3, "--batch", 4, "--accumulate", 1, "--set", "warmup=2", "--threads", 1, "--quiet"]


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def conversations(rows=40, seed=0):
    """Questions whose answers follow from them; several of two turns."""
    draw = random.Random(seed)
    words = {"cat": "meow", "dog": "woof", "cow": "moo", "bee": "buzz"}
    found = []
    for number in range(rows):
        messages = []
        for _ in range(1 + number % 2):
            name = draw.choice(list(words))
            messages.append({"role": "user", "content": f"what says the {name} {draw.randint(1, 99)}?"})
            messages.append({"role": "assistant", "content": f"{words[name]}."})
        found.append({"messages": messages})
    return found


def decoder(seed=0, **more):
    from posterhall.models import Decoder, DecoderConfig

    config = DecoderConfig(vocab_size=258, dim=16, layers=2, heads=2, max_length=128, **more)
    return Decoder(config, seed=seed)


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in conversations()))
    return path


@pytest.fixture
def model(tmp_path):
    from posterhall.models import hub

    return hub.save(decoder(), tmp_path / "model", tokenizer=ByteTokenizer())


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory):
    """A random GPT-2 with dropout, as transformers saves it, and a tokeniser with a chat template."""
    transformers = pytest.importorskip("transformers")
    directory = tmp_path_factory.mktemp("gpt2")
    ByteTokenizer().save(directory)
    made = transformers.AutoTokenizer.from_pretrained(directory)
    made.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    made.chat_template = CHATML
    made.save_pretrained(directory)
    config = transformers.GPT2Config(
        vocab_size=260, n_positions=160, n_embd=16, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=256
    )
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


def test_the_loss_is_that_of_the_answers_alone_however_batches_are_laid_out(tmp_path, chats):
    from posterhall.train.sft import answers

    model = decoder(init_std=0.3)
    tokens = encode(
        read(chats).rows, ByteTokenizer(), chat_template.built_in(ByteTokenizer()), max_length=128
    )
    total = count = 0
    for ids, learnt in zip(tokens.ids[:8], tokens.learnt[:8], strict=True):
        logp = model(torch.tensor(ids[None, :-1]).long())[0].log_softmax(-1)
        wanted = torch.tensor(ids[1:]).long()
        chosen = logp.gather(1, wanted[:, None]).squeeze(1)[torch.tensor(learnt[1:])]
        total, count = total - chosen.sum().item(), count + len(chosen)
    found = {}
    for layout in ("trees", "rows"):
        data = ChatBatches(tokens, shuffle=False, layout=layout)
        batch = {name: torch.as_tensor(each) for name, each in data.take(0, 8).items()}
        loss, said = answers(model, batch)
        assert said["tokens"] == count
        assert loss.item() == pytest.approx(total / count, rel=1e-6)
        found[layout] = torch.autograd.grad(loss, list(model.parameters()))
    for one, other in zip(found["trees"], found["rows"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_passes_of_a_step_weigh_their_tokens(chats):
    from posterhall.train.sft import answers

    tokens = encode(
        read(chats).rows, ByteTokenizer(), chat_template.built_in(ByteTokenizer()), max_length=128
    )
    found = []
    for batch, accumulate in ((8, 1), (1, 8), (3, 3)):
        model = decoder()
        settings = SftSettings(**{**QUICK, "batch": batch, "accumulate": accumulate, "steps": 2, "eps": 1e-3})
        found.append(fit(model, ChatBatches(tokens), objective=answers, settings=settings).history)
    assert found[1][1]["loss"] == pytest.approx(found[0][1]["loss"], rel=1e-5)
    assert found[2][0]["tokens"] > found[0][0]["tokens"]


def test_the_command_leaves_a_model_that_answers(posterhall, model, chats, tmp_path):
    out = tmp_path / "run"
    arguments = (model, chats, "-o", out, *OPTIONS, "--epochs", 25, "--lr", 1e-2, "--eval-fraction", 0.2)
    done = json.loads(posterhall("train", "sft", *arguments, "--json").out)
    assert done["conversations"] == 32
    assert done["eval_conversations"] == 8
    assert done["saved"] == "model"
    assert done["template"] == "built-in"
    assert done["params_trained"] == done["params"]
    assert done["loss"] < 0.9
    assert read_manifest(out)["facts"] == done
    assert not list((out / "checkpoints").iterdir())
    assert json.loads(posterhall("train", "sft", *arguments, "--resume", "--json").out) == done
    kept = chat_template.load(out / "artifacts" / "model")
    assert kept.render([{"role": "user", "content": "x"}]).text.endswith("\n\nHuman: x")

    from posterhall.lm.local import LocalLM
    from posterhall.lm.protocol import Message, Request

    lm = LocalLM.load(out)
    (samples,) = lm.generate(
        [Request((Message("user", "what says the cow 5?"),), max_tokens=12, temperature=0.0)]
    )
    assert samples[0].text.strip().endswith(".")


def test_models_of_transformers_learn_as_ours_do_and_come_back_to_it(posterhall, gpt2, chats, tmp_path):
    transformers = pytest.importorskip("transformers")
    out = tmp_path / "run"
    done = json.loads(
        posterhall("train", "sft", gpt2, chats, "-o", out, *OPTIONS, "--epochs", 4, "--json").out
    )
    assert done["template"] == "the model's"
    lines = [line["loss"] for line in read_metrics(out) if "loss" in line]
    assert lines[-1] < lines[0] - 1
    directory = out / "artifacts" / "model"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory)
    assert transformers.AutoTokenizer.from_pretrained(directory).chat_template
    assert set(theirs.generation_config.eos_token_id) == {256, 259}
    # The first loss is the plain mean over answers, as transformers computes it with labels.
    started = transformers.AutoModelForCausalLM.from_pretrained(gpt2)
    form, words = chat_template.load(gpt2), tokenizer.load(gpt2)
    tokens = encode(read(chats).rows, words, form, max_length=160)
    kept = ChatBatches(tokens, layout="rows", group=4)
    batch = kept.take(0, 4)
    labels = torch.full(batch["ids"].shape, -100).flatten()
    labels[torch.as_tensor(batch["sources"])] = torch.as_tensor(batch["labels"])
    logits = started.eval()(torch.as_tensor(batch["ids"])).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels)
    assert lines[0] != pytest.approx(0)
    again = json.loads(
        posterhall(
            "train", "sft", gpt2, chats, "-o", tmp_path / "first", *OPTIONS, "--steps", 1, "--json",
            "--eval-fraction", 0,
        ).out
    )  # fmt: skip
    assert again["train_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_checkpointing_and_precision_are_settings_like_others(posterhall, gpt2, chats, tmp_path):
    arguments = (gpt2, chats, *OPTIONS, "--steps", 3, "--json", "--eval-fraction", 0)
    losses = [
        json.loads(posterhall("train", "sft", *arguments, "-o", tmp_path / name, *more).out)["train_loss"]
        for name, more in (
            ("plain", ()),
            ("again", ("--set", "gradient_checkpointing=true")),
            ("half", ("--dtype", "bfloat16")),
        )
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=2e-2)
    assert losses[2] != losses[0]


def test_adapters_on_models_of_transformers_drop_the_same_after_a_stop(gpt2, chats, tmp_path):
    from posterhall.adapters import lora_parameters
    from posterhall.train import starting
    from posterhall.train.sft import answers

    words, form = tokenizer.load(gpt2), chat_template.load(gpt2)
    tokens = encode(read(chats).rows, words, form, max_length=160)
    calls = 0

    def stopping(model, batch):
        nonlocal calls
        calls += 1
        if calls == 7:
            signal.raise_signal(signal.SIGINT)
        return answers(model, batch)

    def trained(objective, name, dropout=0.2):
        settings = SftSettings(
            **{**QUICK, "steps": 8, "accumulate": 2, "lora_rank": 4, "lora_dropout": dropout}
        )
        model = starting.begin(settings, gpt2, device="cpu").model
        data = ChatBatches(tokens, layout="rows", group=4)
        fit(model, data, objective=objective, settings=settings, out=tmp_path / name, resume=True)
        return model

    plain = trained(answers, "plain")
    with pytest.raises(Interrupted):
        trained(stopping, "cut")
    resumed = trained(answers, "cut")
    other = trained(answers, "other", dropout=0.0)
    for one, two, three in zip(*map(lora_parameters, (plain, resumed, other)), strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
    assert torch.equal(plain.model.transformer.wte.weight, resumed.model.transformer.wte.weight)


def weights(run):
    """All tensors that a run has left, by name."""
    from safetensors import safe_open

    found = {}
    for file in sorted((run / "artifacts" / "model").glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    return found


QLORA = ["--quantize", "nf4", "--lora-rank", 4, "--set", "lora_dropout=0.1", "--set", "paged=true"]


@pytest.mark.slow
def test_killed_twice_and_resumed_equals_uninterrupted(posterhall, model, chats, tmp_path):
    def command(name):
        arguments = [*OPTIONS, *QLORA, "--steps", 40, "--eval-every", 15, "--eval-fraction", 0.1, "--resume",
                     "--set", "log_every=1", "--checkpoint-seconds", 0, "--device", "cpu"]  # fmt: skip
        return ["train", "sft", model, chats, "-o", tmp_path / name, *map(str, arguments)]

    def logged():
        path = tmp_path / "killed" / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    for until in (9, 24):
        process = subprocess.Popen(
            [sys.executable, "-m", "posterhall", *command("killed")],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        while logged() < until:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert read_manifest(tmp_path / "killed")["status"] == "killed"
    for name in ("killed", "plain"):
        posterhall(*command(name))
    assert read_manifest(tmp_path / "killed")["resumes"] == 2
    told = [
        [{k: v for k, v in line.items() if k != "elapsed"} for line in read_metrics(tmp_path / name)]
        for name in ("killed", "plain")
    ]
    assert told[0] == told[1]
    killed, plain = weights(tmp_path / "killed"), weights(tmp_path / "plain")
    assert killed.keys() == plain.keys()
    assert all(torch.equal(killed[name], plain[name]) for name in plain)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # which it sets itself
@pytest.mark.parametrize("kind", ["ours", "gpt2"])
def test_an_adapter_over_four_bits_is_learnt_kept_and_aligned(posterhall, model, gpt2, chats, tmp_path, kind):
    from posterhall.models import causal
    from posterhall.train.sft import answers

    base = model if kind == "ours" else gpt2
    out = tmp_path / "sft"
    done = json.loads(
        posterhall(
            "train", "sft", base, chats, "-o", out, *OPTIONS, *QLORA, "--lr", 1e-2, "--epochs", 8, "--json",
            "--eval-fraction", 0.2, "--device", "cpu",
        ).out
    )  # fmt: skip
    directory = out / "artifacts" / "model"
    assert done["saved"] == "adapter"
    assert done["base"] == str(base)
    assert 0 < done["params_trained"] < done["params"]
    lines = [line for line in read_metrics(out) if "loss" in line]
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.05
    # What is read back is what was trained: the same held-out loss.
    words, form = tokenizer.load(directory), chat_template.load(directory)
    tokens = encode(read(chats).rows, words, form, max_length=128)
    from posterhall.train.sft import held_out_split

    again = causal.load(out, dtype="float32")
    layout = "trees" if kind == "ours" else "rows"
    held = ChatBatches(tokens, shuffle=False, layout=layout, keep=held_out_split(tokens, 0.2, 0)[1])
    batch = {name: torch.as_tensor(each) for name, each in held.take(0, held.items).items()}
    with torch.no_grad():
        assert answers(again, batch)[0].item() == pytest.approx(done["best_loss"], rel=1e-4)
    # The adapter is trained on by preferences, and is its own reference.
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": row["messages"][:1], "chosen": "no.", "rejected": row["messages"][1]["content"]}
            for row in conversations(24)]  # fmt: skip
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    aligned = json.loads(
        posterhall(
            "train", "dpo", out, pairs, "-o", tmp_path / "dpo", "--lr", 1e-2, "--batch", 4, "--accumulate", 1,
            "--epochs", 4, "--set", "warmup=2", "--threads", 1, "--quiet", "--json", "--device", "cpu",
        ).out
    )  # fmt: skip
    assert aligned["start_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert aligned["saved"] == "adapter"
    assert aligned["params_trained"] == done["params_trained"]
    assert aligned["train"]["reward_accuracy"] > 0.9
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    theirs = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path / "dpo" / "artifacts" / "model"
    )
    merged = sum(1 for name, _ in theirs.named_parameters() if "lora_B" in name)
    assert merged == (14 if kind == "ours" else 8)


def test_what_cannot_be_trained_is_refused(posterhall, model, chats, tmp_path):
    def refused(base, *more):
        return posterhall("train", "sft", base, chats, "-o", tmp_path / "no", *OPTIONS, *more, code=4).err

    assert "--lora-rank 64" in refused(model, "--quantize", "nf4")
    assert "Did you mean" in refused(model, "--lora-rank", 2, "--lora-targets", "q_prj")
    out = tmp_path / "sft"
    posterhall("train", "sft", model, chats, "-o", out, *OPTIONS, "--lora-rank", 2, "--steps", 2)
    assert "model merge" in refused(out, "--lora-rank", 2)
    from safetensors.torch import load_file, save_file

    other = model / "model.safetensors"
    tensors = load_file(other)
    save_file({name: each + 1 for name, each in tensors.items()}, other, metadata={"format": "pt"})
    assert "other weights" in refused(out)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lora_rank": 0}, "at least 1"),
        ({"lora_alpha": 0.0}, "above 0"),
        ({"lora_dropout": 1.0}, "below 1"),
        ({"lora_targets": ()}, "empty"),
        ({"lora_targets": ("all-linear", "q_proj")}, "alone"),
        ({"eval_fraction": 1.0}, "below 1"),
        ({"max_length": 1}, "at least 2"),
        ({"tokens": 5}, "give steps or epochs"),
    ],
)
def test_settings_outside_their_range_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        SftSettings(**given)


def test_the_preset_is_that_of_the_published_runs_and_options_win(posterhall, model, chats, tmp_path):
    guanaco = GuanacoSettings()
    assert (guanaco.lora_rank, guanaco.lora_alpha, guanaco.quantize) == (64, 16.0, "nf4")
    assert (guanaco.lr, guanaco.schedule, guanaco.warmup, guanaco.beta2) == (2e-4, "constant", 0.03, 0.999)
    assert (guanaco.clip, guanaco.weight_decay, guanaco.rows_a_step, guanaco.steps) == (0.3, 0.0, 16, 1875)
    arguments = ("train", "sft", model, chats, "-o", tmp_path / "x", "--threads", 1, "--quiet")
    assert "guanaco" in posterhall(*arguments, "--preset", "guanca", code=2).err
    assert "takes at most 128" in posterhall(*arguments, "--preset", "guanaco", code=4).err
    posterhall(
        *arguments, "--preset", "guanaco", "--lora-rank", 2, "--epochs", 1, "--max-length", 100, "--lr", 1e-3
    )
    config = read_manifest(tmp_path / "x")["config"]
    assert (config["lora_rank"], config["steps"], config["epochs"], config["lr"]) == (2, None, 1.0, 1e-3)
    assert (config["lora_dropout"], config["quantize"], config["paged"]) == (0.1, "nf4", True)


def test_bad_input_ends_with_code_4(posterhall, model, chats, tmp_path):
    def refused(*arguments):
        return posterhall("train", "sft", *arguments, "-o", tmp_path / "run", code=4).err

    assert "none.jsonl" in refused(model, tmp_path / "none.jsonl")
    assert "takes at most 128" in refused(model, chats, "--max-length", 999)
    assert "unknown setting 'ranks'" in refused(model, chats, "--set", "ranks=3")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    assert "train dpo" in refused(model, pairs)
    assert "no row is left" in refused(model, chats, "--max-length", 5)
