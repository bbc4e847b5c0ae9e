"""`posterhall embed train` as a user runs it: files, names, kills, bad input."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from posterhall.embeddings import load


@pytest.fixture
def train(posterhall):
    """`posterhall embed train ...` in this process; any exit code."""
    return lambda *arguments: posterhall("embed", "train", *arguments, code=None)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    with path.open("w") as file:
        for _ in range(20_000):
            topic = rng.integers(0, 30)
            file.write(" ".join(f"t{topic}w{w}" for w in rng.zipf(1.5, 12) % 40) + "\n")
    return path


FAST = ("--dim", 24, "--epochs", 3, "--seed", 3, "--quiet")


def test_trains_to_a_file_that_can_be_asked(corpus, tmp_path, train):
    out = tmp_path / "v.bin"
    done = train(corpus, "-o", out, *FAST, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    vectors = load(out)
    assert result["words"] == len(vectors)
    assert len(result["loss"]) == 3
    assert result["loss"][2] < result["loss"][0]
    nearest = vectors.nearest("t3w5", 5)
    assert sum(n.word.startswith("t3w") for n in nearest) >= 4
    manifest = json.loads((tmp_path / "v.run" / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert manifest["inputs"][0]["bytes"] == corpus.stat().st_size


def test_names_of_the_c_tool_mean_the_same(corpus, tmp_path, train):
    ours = train(
        corpus, "-o", tmp_path / "a.txt", "--dim", 12, "--window", 3, "--subsample", 1e-3,
        "--negative", 4, "--epochs", 1, "--min-count", 2, "--alpha", 0.03, "--model", "cbow", "--threads", 1,
    )  # fmt: skip
    theirs = train(
        "-train", corpus, "-output", tmp_path / "b.txt", "-size", 12, "-window", 3,
        "-sample", 1e-3, "-negative", 4, "-iter", 1, "-min-count", 2, "-alpha", 0.03, "-cbow", 1, "-hs", 0,
        "-threads", 1, "-binary", 0, "-save-vocab", tmp_path / "vocab.txt", "-debug", 0,
    )  # fmt: skip
    assert ours.code == theirs.code == 0, ours.err + theirs.err
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()
    first = (tmp_path / "vocab.txt").read_text().splitlines()[0].split()
    assert first[0].startswith("t")
    assert int(first[1]) > 100


def test_killed_at_a_random_moment_and_resumed_equals_uninterrupted(corpus, tmp_path, train):
    common = (corpus, *FAST, "--deterministic", "--epochs", 12, "--checkpoint-seconds", 0.05)
    whole = train(*common, "-o", tmp_path / "whole.bin", "--threads", 1)
    assert whole.code == 0, whole.err
    part = [*map(str, (*common, "-o", tmp_path / "part.bin", "--threads", 2))]
    moment = random.Random(time.time_ns())
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", "posterhall", "embed", "train", *part, "--resume"],
            stdout=subprocess.DEVNULL,
        )
        checkpoint = tmp_path / "part.run" / "checkpoints" / "state.npz"
        until = time.monotonic() + 60
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(moment.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills > 0
    assert not (tmp_path / "part.bin").exists()
    last = train(*part, "--resume")
    assert last.code == 0, last.err
    assert (tmp_path / "part.bin").read_bytes() == (tmp_path / "whole.bin").read_bytes()
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "part.run" / "metrics.jsonl").open()]
    assert epochs == list(range(1, 13))
    # Resuming what is finished changes nothing and says what came out.
    again = train(*part, "--resume", "--json")
    assert again.code == 0
    assert json.loads(again.out)["vectors"].endswith("part.bin")


def test_interrupted_run_says_how_to_go_on(corpus, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "posterhall", "embed", "train", corpus, "-o", tmp_path / "v.bin",
         "--epochs", "500", "--checkpoint-seconds", "0.05", "--quiet"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    checkpoint = tmp_path / "v.run" / "checkpoints" / "state.npz"
    until = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in said
    assert json.loads((tmp_path / "v.run" / "manifest.json").read_text())["status"] == "interrupted"


def test_another_configuration_does_not_resume(corpus, tmp_path, train):
    out = tmp_path / "v.bin"
    assert train(corpus, "-o", out, *FAST).code == 0
    before = out.read_bytes()
    twice = train(corpus, "-o", out, *FAST)
    assert twice.code == 4
    assert "--resume" in twice.err
    (tmp_path / "v.run" / "manifest.json").write_text(
        (tmp_path / "v.run" / "manifest.json").read_text().replace('"done"', '"failed"')
    )
    other = train(corpus, "-o", out, *FAST, "--window", 9, "--resume")
    assert other.code == 4
    assert "window" in other.err
    assert out.read_bytes() == before
    replaced = train(corpus, "-o", out, *FAST, "--window", 9, "--overwrite")
    assert replaced.code == 0, replaced.err
    assert out.read_bytes() != before


def test_a_kept_run_can_be_grown(corpus, tmp_path, train):
    first = train(corpus, "-o", tmp_path / "v.bin", *FAST, "--keep-state")
    assert first.code == 0, first.err
    more = tmp_path / "more.txt"
    more.write_text("brand new words here\n" * 200 + "t1w1 t1w2 t1w3 brand\n" * 50)
    grown = train(
        more,
        "-o",
        tmp_path / "w.bin",
        "--grow",
        tmp_path / "v.run",
        "--epochs",
        2,
        "--quiet",
    )
    assert grown.code == 0, grown.err
    old, new = load(tmp_path / "v.bin"), load(tmp_path / "w.bin")
    assert new.words[: len(old)] == old.words
    assert {"brand", "new", "words", "here"} <= set(new.words[len(old) :])
    refused = train(more, "-o", tmp_path / "x.bin", "--grow", tmp_path / "w.run")
    assert refused.code == 4
    assert "--keep-state" in refused.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"word word word word word word\n", "one"),
        (b"a b c d e f g\n", "min_count"),
        (b"caf\xe9 au lait\n" * 9, "UTF-8"),
        (b"binary \x00 file\n" * 9, "NUL"),
    ],
)
def test_bad_corpora_exit_4_with_one_line(content, said, tmp_path, train):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    done = train(path, "-o", tmp_path / "v.bin")
    assert done.code == 4
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "v.bin").exists()


def test_usage_mistakes(corpus, tmp_path, train):
    out = tmp_path / "v.bin"
    assert train("-o", out).code == 2
    assert train(corpus).code == 2
    assert train(corpus, "-o", out, "-hs", 1, "--loss", "nce").code == 2
    unknown = train(corpus, "-o", out, "--set", "windwo=3")
    assert unknown.code == 4
    assert "window" in unknown.err
    ending = train(corpus, "-o", tmp_path / "v.xyz")
    assert ending.code == 4
    assert not (tmp_path / "v.run").exists()
    missing = train(tmp_path / "none.txt", "-o", out)
    assert missing.code == 4
    diverging = train(corpus, "-o", out, "--alpha", 90)
    assert diverging.code == 4
    assert "diverges" in diverging.err


def test_a_parameter_server_trains_the_same_job(corpus, tmp_path, train):
    done = train(corpus, "-o", tmp_path / "v.bin", *FAST, "--backend", "threads", "--n-push", 10, "--json")
    assert done.code == 0, done.err
    spread = json.loads(done.out)["distributed"]
    assert spread["workers"] == 2
    assert sum(spread["words_by_worker"]) == spread["words"]
    assert sum(spread["staleness"].values()) == spread["pushes"] > 0
    nearest = load(tmp_path / "v.bin").nearest("t3w5", 5)
    assert sum(n.word.startswith("t3w") for n in nearest) >= 4
    assert train(corpus, "-o", tmp_path / "w.bin", "--workers", 2).code == 2
    assert train(corpus, "-o", tmp_path / "w.bin", "--backend", "threads", "--deterministic").code == 2
    assert train(corpus, "-o", tmp_path / "w.bin", "--backend", "carrier-pigeon").code == 4


def test_a_runs_settings_file_repeats_the_run(corpus, tmp_path, train):
    once = train(corpus, "-o", tmp_path / "a.bin", *FAST, "--deterministic", "--window", 3)
    assert once.code == 0, once.err
    again = train(corpus, "-o", tmp_path / "b.bin", "-c", tmp_path / "a.run" / "config.yaml", "--quiet")
    assert again.code == 0, again.err
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def test_the_corpus_is_never_overwritten(tmp_path, train):
    text = tmp_path / "x.txt"
    text.write_text("a b c d\n" * 100)
    done = train(text, "-o", text)
    assert done.code == 4
    assert "overwritten" in done.err
    assert text.read_text() == "a b c d\n" * 100
