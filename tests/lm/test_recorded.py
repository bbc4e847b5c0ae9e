"""The log of calls: complete, whole lines, without keys."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
from fakes import Counting

from posterhall.errors import DataError
from posterhall.lm import Cached, EchoLM, Log, Message, Recorded, ReplayLM, Request, Store, stack


def lines(path):
    return [json.loads(each) for each in path.read_text().splitlines()]


def test_a_call_is_one_line_that_tells_all(tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    with Recorded(Counting(), Log(path)) as lm:
        [samples] = lm.generate([Request((Message("user", "Who?"),), n=2, seed=3, stop=("x",))])
        lm.score("p", ["a"])
        lm.embed(["x"])
    generated, scored, embedded = lines(path)
    assert generated["kind"] == "generate"
    assert generated["model"] == "counting"
    assert generated["request"] == {
        "messages": [{"role": "user", "content": "Who?"}],
        "max_tokens": 256,
        "temperature": 1.0,
        "stop": ["x"],
        "seed": 3,
        "n": 2,
    }
    assert [each["text"] for each in generated["samples"]] == [each.text for each in samples]
    assert generated["seconds"] >= 0
    assert generated["time"].endswith("+00:00")
    assert scored["scored"][0]["continuation"] == "a"
    assert embedded["texts"] == ["x"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_errors_are_logged(tmp_path):
    lm = Recorded(Counting(fail=lambda request: DataError("too long")), Log(tmp_path / "log"))
    with pytest.raises(DataError):
        lm.generate([Request("p")])
    assert lines(tmp_path / "log")[0]["error"] == "DataError: too long"


SECRETS = [
    "sk-proj-abcdefghijklmnop1234567890",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "Authorization: Bearer abcdef.ghijkl.mnopqr",
    "api_key = 'abcdefgh12345678'",
    '{"password": "correcthorse"}',
    "AKIAIOSFODNN7EXAMPLEKEY",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_a_key_is_not_written(tmp_path, secret):
    said = [DataError(f"refused: {secret}")]
    lm = Recorded(EchoLM(), Log(tmp_path / "log"))
    lm.generate([Request(f"say {secret} again", max_tokens=1000)])
    failing = Recorded(Counting(fail=lambda request: said[0]), Log(tmp_path / "log"))
    with pytest.raises(DataError):
        failing.generate([Request((Message("user", secret),))])
    text = (tmp_path / "log").read_text()
    hidden = max(secret.replace("'", '"').replace('"', " ").split(), key=len)
    assert hidden not in text
    assert text.count("[redacted]") >= 3


def test_patterns_of_one_s_own_are_hidden_too(tmp_path):
    with Recorded(EchoLM(), Log(tmp_path / "log", hide=[r"patient \d+"])) as lm:
        lm.generate([Request("about Patient 117 of today")])
    assert "117" not in (tmp_path / "log").read_text()
    with pytest.raises(DataError, match="regular expression"):
        Log(tmp_path / "log", hide=["("])


def test_what_is_hidden_can_be_replayed_all_the_same(tmp_path):
    request = Request("key sk-abcdefghijklmnopqrstuvwx tells", temperature=0.0)
    with Recorded(EchoLM(), Log(tmp_path / "log")) as lm:
        lm.generate([request])
    [[sample]] = ReplayLM(tmp_path / "log").generate([request])
    assert sample.text == "key [redacted] tells"


def test_ordinary_words_are_left_as_they_are(tmp_path):
    text = (
        "The key to a secret: ask the tokenizer, sk-learn and the bearer of bad news, authorization pending"
    )
    with Recorded(EchoLM(), Log(tmp_path / "log")) as lm:
        lm.generate([Request(text)])
    assert lines(tmp_path / "log")[0]["request"]["prompt"] == text


def test_what_the_cache_answers_is_in_the_log_too(tmp_path):
    with Store(tmp_path / "c") as store:
        Cached(Counting(), store).generate([Request("p", n=2)])
    lm = stack.connect(Counting(), cache=tmp_path / "c", log=tmp_path / "log")
    [found] = lm.generate([Request("p", n=3)])
    lm.close()
    assert [each.get("cached", False) for each in lines(tmp_path / "log")] == [False, True]
    assert ReplayLM(tmp_path / "log").generate([Request("p", n=3)]) == [found]


def test_many_processes_write_whole_lines(tmp_path):
    code = """
import sys
from posterhall.lm import EchoLM, Log, Recorded, Request
lm = Recorded(EchoLM(), Log(sys.argv[1]))
lm.generate([Request(sys.argv[2] * 3000 + str(i)) for i in range(200)])
"""
    path = tmp_path / "log"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [each.wait() for each in running] == [0, 0]
    assert len(lines(path)) == 400


def test_a_torn_line_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "log"
    with Recorded(EchoLM(), Log(path)) as lm:
        lm.generate([Request("one")])
    os.truncate(path, path.stat().st_size - 20)
    with Recorded(EchoLM(), Log(path)) as lm:
        lm.generate([Request("two")])
    replay = ReplayLM(path)
    assert replay.torn
    assert replay.generate([Request("two")])[0][0].text == "two"
    with pytest.raises(DataError, match="'two'"):
        replay.generate([Request("one")])


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        Log(tmp_path)
