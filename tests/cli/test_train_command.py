"""`posterhall train lm` as a user runs it: what comes out, kills, equivalences, bad input."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

torch = pytest.importorskip("torch")
load_file = pytest.importorskip("safetensors.torch").load_file

TINY = ("--dim", 16, "--layers", 1, "--heads", 2, "--context", 16, "--batch", 8, "--lr", 3e-3, "--seed", 3)
ONE = (*TINY, "--threads", 1, "--quiet", "--json")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Forty short files in a folder."""
    folder = tmp_path_factory.mktemp("text")
    draw = random.Random(0)
    words = ["king", "queen", "france", "italy", "paris", "rome", "lives", "of", "in", "the", "a"]
    for i in range(40):
        body = " ".join(draw.choice(words) for _ in range(60))
        (folder / f"{i:02}.txt").write_text(body + "\n")
    return folder


@pytest.fixture
def train(posterhall):
    """`posterhall train lm ...` in this process."""

    def invoke(*arguments, code=0):
        done = posterhall("train", "lm", *arguments, code=code)
        return json.loads(done.out) if code == 0 and "--json" in arguments else done

    return invoke


def weights(run):
    return load_file(run / "artifacts" / "model" / "model.safetensors")


def largest_difference(one, two):
    one, two = weights(one), weights(two)
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def test_a_folder_of_text_becomes_a_model_that_transformers_loads(text, tmp_path, train):
    transformers = pytest.importorskip("transformers")
    run = tmp_path / "run"
    facts = train(text, "-o", run, *ONE, "--steps", 40, "--tokenizer", "bpe:300")
    model = transformers.AutoModelForCausalLM.from_pretrained(run / "artifacts" / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "artifacts" / "model")
    assert model.num_parameters() == facts["params"]
    assert len(tokenizer) == facts["vocab_size"] <= 300
    assert facts["tokens"] == 40 * 8 * 16
    assert facts["flops"] == 6 * facts["params"] * facts["tokens"]
    assert facts["epochs"] == pytest.approx(facts["tokens"] / facts["unique_tokens"])
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert len(manifest["inputs"]) == 40
    assert not list((run / "checkpoints").iterdir())


def test_held_out_loss_and_bits_are_those_of_the_text(text, tmp_path, train):
    """Checked by the saved model, token by token."""
    from posterhall.models import hub

    held = tmp_path / "held.txt"
    held.write_text("the old king of rome")
    run = tmp_path / "run"
    facts = train(text, "-o", run, *ONE, "--steps", 30, "--eval", held)
    model = hub.load(run / "artifacts" / "model")
    ids = torch.tensor([256, *held.read_bytes(), 256])
    # Rows of 16 from the start; each begins anew.
    total = 0.0
    for at in range(0, len(ids) - 1, 16):
        row = ids[at : at + 17]
        with torch.no_grad():
            logits = model(row[None, :-1]).double()
        total += float(torch.nn.functional.cross_entropy(logits[0], row[1:], reduction="sum"))
    assert facts["eval_tokens"] == 21
    assert facts["loss"] == pytest.approx(total / 21, abs=1e-5)
    assert facts["bits_per_byte"] == pytest.approx(total / 20 / 0.6931471805599453, abs=1e-5)


def test_threads_are_as_before_afterwards(text, tmp_path, train):
    before = torch.get_num_threads(), dict(os.environ)
    train(text, "-o", tmp_path / "run", *ONE, "--steps", 1)
    assert (torch.get_num_threads(), dict(os.environ)) == before


def test_the_table_shows_losses_speed_and_place(text, tmp_path, train):
    out = train(text, "-o", tmp_path / "run", *TINY, "--steps", 4, "--quiet").out
    names = [line.split("  ")[0] for line in out.splitlines()]
    assert names == ["model", "parameters", "trained", "train loss", "held-out loss", "speed", "run"]


def test_eight_rows_at_once_are_one_row_eight_times(text, tmp_path, train):
    common = (text, *ONE, "--steps", 12)
    train(*common, "-o", tmp_path / "whole")
    train(*common, "-o", tmp_path / "parts", "--batch", 1, "--accumulate", 8)
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") < 2e-5


def command(*arguments):
    return [sys.executable, "-m", "posterhall", "train", "lm", *map(str, arguments)]


def test_two_processes_are_one(text, tmp_path, train):
    common = (text, *ONE, "--steps", 12)
    one = train(*common, "-o", tmp_path / "one")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    crew = [
        subprocess.Popen(
            command(*common, "-o", tmp_path / "two"),
            env={**os.environ, **meeting, "RANK": str(rank), "WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in crew]
    assert [process.returncode for process in crew] == [0, 0], said
    assert said[1][0] == ""
    two = json.loads(said[0][0])
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-5
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
    assert two["tokens"] == one["tokens"]


@pytest.mark.slow
def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(text, tmp_path, train):
    common = (text, *ONE, "--steps", 300, "--eval-every", 50, "--set", "dropout=0.1", "--set", "log_every=1")
    whole = train(*common, "-o", tmp_path / "whole")
    part = (*common, "-o", tmp_path / "part", "--checkpoint-seconds", 0, "--resume")
    state = tmp_path / "part" / "checkpoints" / "state.safetensors"
    process = subprocess.Popen(command(*part), stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not state.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(random.Random(time.time_ns()).uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "part" / "artifacts" / "model").exists()
    resumed = train(*part)
    assert largest_difference(tmp_path / "whole", tmp_path / "part") == 0.0
    timed = {"seconds", "tokens_per_second", "run", "model"}
    assert {k: v for k, v in resumed.items() if k not in timed} == {
        k: v for k, v in whole.items() if k not in timed
    }
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k != "elapsed"}
            for line in (tmp_path / name / "metrics.jsonl").open()
        ]
        for name in ("whole", "part")
    ]
    assert logs[0] == logs[1]
    # What is finished is not done again, and not passed off as something else.
    assert train(*part) == resumed
    assert "lr 0.003 (now 0.1)" in train(*part, "--lr", 0.1, code=4).err


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(text, tmp_path, train):
    run = tmp_path / "run"
    log = run / "metrics.jsonl"

    def interrupt():
        until = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    done = train(text, "-o", run, *TINY, "--steps", 100_000, "--set", "log_every=1", "--quiet", code=130)
    watcher.join()
    assert "--resume" in done.err
    assert (run / "checkpoints" / "state.safetensors").exists()
    assert json.loads((run / "manifest.json").read_text())["status"] == "interrupted"


def test_a_model_can_be_trained_further(text, tmp_path, train):
    first = train(text, "-o", tmp_path / "first", *ONE, "--steps", 60, "--tokenizer", "bpe:280")
    model = tmp_path / "first" / "artifacts" / "model"
    more = train(text, "-o", tmp_path / "more", *ONE, "--steps", 1, "--lr", 1e-9, "--init", model)
    assert more["loss"] == pytest.approx(first["loss"], abs=1e-4)
    assert more["vocab_size"] == first["vocab_size"]


def test_smaller_unique_texts_and_epochs_give_the_tokens_asked_for(text, tmp_path, train):
    facts = train(text, "-o", tmp_path / "run", *ONE, "--unique-tokens", "800", "--epochs", 3)
    assert (facts["unique_tokens"], facts["tokens"], facts["epochs"]) == (800, 2400, 3.0)


def test_a_cache_is_shared_between_runs(text, tmp_path, train):
    cache = tmp_path / "cache"
    one = train(text, "-o", tmp_path / "a", *ONE, "--steps", 2, "--cache", cache)
    before = sorted((path, path.stat().st_mtime_ns) for path in cache.rglob("*.bin"))
    two = train(text, "-o", tmp_path / "b", *ONE, "--steps", 2, "--cache", cache)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in cache.rglob("*.bin"))
    assert before
    assert one["loss"] == two["loss"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--heads", 3), "dim is 16 with 3 heads"),
        (("--epochs", 1, "--steps", 3), "epochs all say how long|steps and epochs"),
        (("--tokenizer", "bpe:12"), "at least 258"),
        (("--tokenizer", "nowhere"), "no tokenizer.json there"),
        (("--context", 100_000), "smaller context"),
        (("--unique-tokens", 10**9), "unique_tokens is 1,000,000,000"),
        (("--set", "layer=3"), "Did you mean: layers"),
        (("--eval", "gone.txt"), "gone.txt: no such file"),
        (("--schedule", "cosin"), "Did you mean: cosine"),
        (("--init", "."), "no tokenizer.json there"),
    ],
)
def test_bad_input_is_named(text, tmp_path, train, monkeypatch, arguments, said):
    import re

    monkeypatch.chdir(tmp_path)
    done = train(text, "-o", tmp_path / "run", *TINY, *arguments, "--quiet", code=4)
    assert re.search(said, done.err), done.err


def test_bad_text_is_named_with_its_place(tmp_path, train):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"txt": "not"}\n')
    done = train(tmp_path / "a.jsonl", "-o", tmp_path / "run", *TINY, "--quiet", code=4)
    assert "a.jsonl, line 2: no field 'text'" in done.err
    (tmp_path / "b.txt").write_text("")
    done = train(tmp_path / "b.txt", "-o", tmp_path / "run2", *TINY, "--quiet", code=4)
    assert "the text is empty" in done.err
