"""`posterhall lm`: map, ask, cache, prices."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def docs(tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": f"item {i} says yes", "id": i}) + "\n" for i in range(20)))
    return path


@pytest.fixture(autouse=True)
def _own_directories(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_map_asks_and_tells(posterhall, docs, tmp_path):
    out = tmp_path / "out.jsonl"
    common = ("lm", "map", docs, "-m", "echo", "-p", "{text}", "--parse", "classes:yes,no", "-o", out)
    found = posterhall(*common, "--quiet")
    assert "unread     0" in found.out
    assert "20 calls" in found.out
    assert [json.loads(each)["value"] for each in out.read_text().splitlines()] == ["yes"] * 20
    again = json.loads(posterhall(*common, "--resume", "--json").out)
    assert again["documents"] == again["rows"] == 20
    assert again["usage"]["cost"] == again["usage"]["cost_without_cache"] == 0
    assert posterhall(*common, code=4).err.count("--resume") == 1


def test_map_stops_at_a_budget_with_1_and_goes_on(posterhall, docs, tmp_path):
    common = ("lm", "map", docs, "-m", "echo", "-p", "{text}", "-o", tmp_path / "run")
    stopped = posterhall(*common, "--max-calls", 5, code=1)
    assert "5 of 20 documents are answered; go on by --resume" in stopped.err
    posterhall(*common, "--resume")
    assert len((tmp_path / "run" / "artifacts" / "replies.jsonl").read_text().splitlines()) == 20


def test_map_reads_its_prompt_from_a_file_and_its_settings_too(posterhall, docs, tmp_path):
    (tmp_path / "prompt.txt").write_text("Read {text} of {id}")
    (tmp_path / "map.yaml").write_text("max_tokens: 4\nform: text\n")
    posterhall(
        *("lm", "map", docs, "-m", "echo", "--prompt-file", tmp_path / "prompt.txt", "--uid-field", "id"),
        *("-c", tmp_path / "map.yaml", "--limit", 3, "-o", tmp_path / "run"),
    )
    rows = [json.loads(each) for each in (tmp_path / "run/artifacts/replies.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reply"]) for row in rows] == [("0", "of 0"), ("1", "of 1"), ("2", "of 2")]


def test_a_schema_is_held_against_the_replies(posterhall, docs, tmp_path):
    (tmp_path / "schema.json").write_text('{"type": "object", "required": ["a"]}')
    common = (
        "lm",
        "map",
        docs,
        "-m",
        "echo",
        "--parse",
        "json",
        "--schema",
        tmp_path / "schema.json",
        "--json",
    )
    good = posterhall(*common, "-p", '{{"a": "{text}"}}', "-o", tmp_path / "good")
    assert json.loads(good.out)["unread"] == 0
    bad = posterhall(*common, "-p", '{{"b": "{text}"}}', "-o", tmp_path / "bad")
    assert json.loads(bad.out)["unread"] == 20


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("map",), 2, "no documents"),
        (("map", "DOCS", "-p", "{text}"), 2, "give -o"),
        (("map", "DOCS", "-p", "{text}", "-o", "OUT"), 2, "give --model"),
        (("map", "DOCS", "-o", "OUT", "-m", "echo"), 4, "no value for prompt"),
        (("map", "DOCS", "-p", "{txt}", "-o", "OUT", "-m", "echo"), 4, "Did you mean: text"),
        (("map", "DOCS", "-p", "{text}", "--prompt-file", "x", "-o", "OUT", "-m", "echo"), 2, "either"),
        (("map", "none.jsonl", "-p", "{text}", "-o", "OUT", "-m", "echo"), 4, "none.jsonl"),
        (("map", "DOCS", "-p", "{text}", "-o", "OUT", "-m", "nowhere"), 4, "nowhere"),
        (
            ("map", "DOCS", "-p", "x", "--parse", "integers", "-o", "OUT", "-m", "echo"),
            4,
            "--parse: parse is",
        ),
        (("ask", "-m", "echo"), 2, "either a prompt"),
        (("ask", "hi"), 2, "give --model"),
        (("ask", "hi", "-m", "replay:none"), 4, "none"),
        (("cache", "none"), 4, "no such file"),
        (("cache", "--older", "3"), 2, "--clear"),
    ],
)
def test_mistakes_end_in_one_line(posterhall, docs, tmp_path, arguments, code, said):
    places = {"DOCS": docs, "OUT": tmp_path / "out"}
    found = posterhall("lm", *(places.get(each, each) for each in arguments), code=code)
    assert said in found.err
    assert not (tmp_path / "out").exists()


def test_ask_logs_and_a_replay_answers(posterhall, tmp_path):
    log = tmp_path / "log.jsonl"
    assert posterhall("lm", "ask", "Who\tare \x1b[31myou?", "-m", "echo", "--log", log).out == (
        "Who    are \\x1b[31myou?\n"
    )
    found = json.loads(posterhall("lm", "ask", "Who\tare \x1b[31myou?", "-m", f"replay:{log}", "--json").out)
    assert found["samples"][0]["text"] == "Who\tare \x1b[31myou?"
    assert found["usage"]["calls"] == 1
    assert "--- 2" in posterhall("lm", "ask", "Hello", "-m", "echo", "-n", 2).out
    posterhall("lm", "ask", "Other", "-m", f"replay:{log}", code=4)


def test_the_cache_is_shown_and_cleared(posterhall, tmp_path):
    assert json.loads(posterhall("lm", "cache", "--json").out)["answers"] == 0
    posterhall("lm", "ask", "Hello", "-m", "echo", "--cache", "on")
    posterhall("lm", "ask", "Hello", "-m", "echo", "--cache", "off")
    posterhall("lm", "ask", "Hello", "-m", "echo", "--cache", tmp_path / "own")
    assert "answers  1" in posterhall("lm", "cache").out
    shown = json.loads(posterhall("lm", "cache", tmp_path / "own", "--json").out)
    assert (shown["answers"], shown["dropped"]) == (1, None)
    assert json.loads(posterhall("lm", "cache", "--clear", "--older", 1, "--json").out)["dropped"] == 0
    assert json.loads(posterhall("lm", "cache", "--clear", "--json").out)["dropped"] == 1


def test_prices_are_shown_with_one_s_own(posterhall, tmp_path):
    own = tmp_path / "XDG_CONFIG_HOME" / "posterhall" / "prices.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("echo: {input: 1, output: 1000}\n")
    assert str(own) in posterhall("lm", "prices").out
    assert json.loads(posterhall("lm", "prices", "--json").out)["prices"]["echo"]["output"] == 1000
    found = json.loads(posterhall("lm", "ask", "Hello", "-m", "echo", "--json").out)
    assert found["usage"]["cost"] == pytest.approx(5 * 1001e-6)
