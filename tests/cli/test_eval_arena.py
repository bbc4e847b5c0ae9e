"""`eval arena` and `eval judge` from the outside."""

from __future__ import annotations

import json

import pytest

FAST = ("--orderings", 50, "--resamples", 100)


def test_the_example_comes_out_in_the_published_order(posterhall):
    out = posterhall("eval", "arena", "--example", *FAST).out
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:9]] == [
        "gpt4", "guanaco-65b", "guanaco-33b", "vicuna-13b", "gpt35", "guanaco-13b", "bard", "guanaco-7b"
    ]  # fmt: skip
    assert "4,467 games on 80 prompts; 13 rows without a verdict" in out
    assert "65.0 % (63.4 to 66.4) of wins to the answer shown first" in out


def test_json_has_everything_and_options_reach_it(posterhall):
    more = ("--json", "--anchor", "gpt35=1000", "--ties", "drop", "--seed", 3)
    found = json.loads(posterhall("eval", "arena", "--example", *FAST, *more).out)
    assert (found["games"], found["ties"], found["unjudged"]) == (3867, 600, 13)
    assert found["settings"]["seed"] == 3
    chatgpt = next(each for each in found["players"] if each["player"] == "gpt35")
    assert chatgpt["bradley_terry"]["rating"] == 1000
    assert chatgpt["bradley_terry"]["low"] == 1000


def test_people_judge_against_a_model(posterhall, tmp_path):
    path = tmp_path / "people.csv"
    rows = [
        f"{q},x,y,{w},{who}"
        for q in range(8)
        for who, w in (("ann", 1 + q % 2), ("ben", 1 + q % 2), ("lm", 1))
    ]
    path.write_text("item,left,right,better,who\n" + "\n".join(rows) + "\n")
    columns = ("--column", "winner=better", "--column", "judge=who")
    out = posterhall("eval", "arena", path, *columns, "--majority", "ann,ben", "--judge", "ann", *FAST).out
    assert "ann and ben: agree on 100.0 % of 8, kappa 1.00" in out
    assert "lm and majority: agree on 50.0 % of 8, kappa 0.00" in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "give files of verdicts, or --example"),
        (("x.csv", "--column", "w"), 2, "--column is 'w'"),
        (("nowhere.csv",), 4, "nowhere.csv"),
        (("--example", "--anchor", "gpt5=1000"), 4, "no model 'gpt5'"),
        (("--example", "--reference", "gpt4"), 4, "score_a and score_b"),
        (("--example", "--set", "orderngs=3"), 4, "Did you mean: orderings"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line(posterhall, arguments, code, says):
    result = posterhall("eval", "arena", *arguments, code=code)
    assert result.out == ""
    assert says in result.err
    assert "Traceback" not in result.err


def test_judging_and_rating_what_was_judged(posterhall, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        rows = [{"id": i, "question": f"Question {i}?", "answer": f"{name} {i}"} for i in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "script.jsonl").write_text('{"reply": "Both are short.\\nAnswer: tie"}\n')
    command = ("eval", "judge", "one.jsonl", "two.jsonl", "-m", "scripted:script.jsonl", "-o", "run", "-q")
    assert "6 comparisons, 0 replies without a verdict, 0 refused" in posterhall(*command).out
    found = json.loads(posterhall(*command, "--resume", "--json").out)
    assert (found["pairs"][0]["tie"], found["pairs"][0]["share"]) == (3, 0.5)
    out = posterhall("eval", "arena", "run", *FAST).out
    assert out.splitlines()[1].split()[:4] == ["one", "6", "0", "6"]
    posterhall(*command, code=4)
    assert "-o" in posterhall(*command[:-3], "--resume", "-q", code=2).err
