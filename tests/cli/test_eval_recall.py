"""`posterhall eval recall` as it is typed."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

TINY = (
    *("eval", "recall", "--lengths", "12", "--pairs", "2", "--widths", "8", "--vocab", "16", "--steps", "4"),
    *("--set", "eval_every=2", "--set", "batch=4", "--set", "test_rows=16", "--set", "validation_rows=16"),
    "--quiet",
)


def test_it_prints_a_table_a_frontier_and_the_run(posterhall, tmp_path):
    run, figure = tmp_path / "run", tmp_path / "recall.svg"
    result = posterhall(
        *TINY, "--mixers", "attention,rwkv", "--frontier", "--figure", str(figure), "-o", str(run), code=0
    )
    lines = result.out.splitlines()
    assert lines[0].split()[:5] == ["mixer", "length", "pairs", "width", "lr"]
    assert lines[0].endswith("state bytes")
    assert [line.split()[0] for line in lines[1:3]] == ["attention", "rwkv"]
    assert lines[1].split()[8] == "50.0"  # the plateau of two pairs
    assert lines[4].split() == ["length", "pairs", "state", "bytes", "%", "most", "accurate", "so", "far"]
    assert lines[-1] == f"run: {run}"
    drawn = figure.read_text()
    assert "CPU seconds" in drawn
    assert "12 tokens, 2 pairs" in drawn
    assert "rwkv" in drawn
    again = posterhall(*TINY, "--mixers", "attention,rwkv", "-o", str(run), "--resume", "--json", code=0)
    kept = json.loads((run / "artifacts" / "scores.json").read_text())
    assert json.loads(again.out) == kept
    assert set(kept) == {"task", "seed", "seeds", "threads", "table", "frontier", "models", "run"}


@pytest.mark.parametrize(
    ("options", "said", "code"),
    [
        (("--pairs", "20"), "2·20·1 + 2·20 = 80 > 12", 4),
        (("--mixers", "atention"), "Did you mean: attention", 4),
        (("--figure", "x.txt"), "x.txt does not end in", 4),
        (("--resume",), "name its directory with -o", 2),
        (("--set", "fillers=zero"), "unknown setting 'fillers'", 4),
    ],
)
def test_mistakes_are_told_in_a_line(posterhall, options, said, code):
    result = posterhall(*TINY, *options, code=code)
    assert said in result.err
    assert len(result.err.splitlines()) == 1


def test_slices_print_perplexities_hits_gap_and_control(posterhall, tmp_path):
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.models import Decoder, DecoderConfig, hub

    text = tmp_path / "text.txt"
    text.write_text("river=5502; lamp=1123; river=5502; stone=9; " * 3)
    for seed in (0, 1):
        config = DecoderConfig(
            vocab_size=ByteTokenizer().vocab_size, dim=16, layers=1, heads=2, max_length=64
        )
        hub.save(Decoder(config, seed=seed).eval(), tmp_path / f"m{seed}", tokenizer=ByteTokenizer())
    one, other = str(tmp_path / "m0"), str(tmp_path / "m1")
    options = ("--context", "64", "--control", "5", "--threads", "1", "--quiet")
    result = posterhall(
        "eval", "slices", one, str(text), "--against", other, "--train", str(text), *options, code=0
    )
    lines = result.out.splitlines()
    assert lines[0].split() == ["model", "perplexity", "of", "hits", "of", "others"]
    assert lines[1].startswith(one)
    assert lines[4].startswith("hits: ")
    assert "of pairs seen at most 10 times in training" in lines[4]
    assert lines[5].startswith("gap of ")
    assert lines[6].startswith(f"control of {one}: 5 hits cost ")
    said = json.loads(posterhall("eval", "slices", one, str(text), *options, "--json", code=0).out)
    assert set(said) == {
        "models", "gaps", "hits", "tokens", "contexts", "context", "train_tokens", "cap", "run",
    }  # fmt: skip
