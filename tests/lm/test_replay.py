"""A recorded log as a model: exact to the sample, and plain about what is not in it."""

from __future__ import annotations

import json

import pytest
from fakes import Counting

from posterhall import lm as room
from posterhall.errors import DataError
from posterhall.lm import EchoLM, Log, Message, Recorded, ReplayLM, Request, Sample, Scored


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.jsonl"


def record(log, requests, model=None):
    with Recorded(model or Counting(), Log(log)) as lm:
        return lm.generate(requests)


def test_samples_come_back_by_their_number_however_they_were_asked_for(log):
    record(log, [Request("p", n=3)])
    record(log, [Request("p", first=3, n=2)], Counting(name="counting"))
    [five] = ReplayLM(log).generate([Request("p", n=5)])
    assert [each.text.split("/")[1] for each in five] == [*"01234"]
    assert ReplayLM(log).generate([Request("p", first=2, n=2)]) == [five[2:4]]


def test_the_order_of_asking_does_not_matter(log):
    requests = [Request(f"p{i}", n=2) for i in range(30)]
    found = record(log, requests)
    replay = ReplayLM(log)
    assert replay.generate(requests[::-1]) == found[::-1]
    assert replay.generate(requests) == found


def test_the_first_answer_counts_where_the_same_was_asked_twice(log):
    first = record(log, [Request("p")])
    second = record(log, [Request("p", n=2)])
    assert first[0][0] == second[0][0] or first != second
    assert ReplayLM(log).generate([Request("p")]) == first


def test_everything_of_a_sample_and_a_score_comes_back(log):
    sample = Sample("é\n\ud800", "length", 5, 6, ("a",), (-float("inf"),), 1, 2, estimated=True)
    scored = Scored(" b", (" b",), (-float("inf"),), is_greedy=True)

    class Odd(Counting):
        async def agenerate(self, requests):
            return [[sample]]

        async def ascore(self, items):
            return [[scored]]

    with Recorded(Odd(), Log(log)) as lm:
        lm.generate([Request("p")])
        lm.score("a", [" b"])
        vectors = lm.embed(["x", "yyy"])
    replay = ReplayLM(log)
    assert replay.generate([Request("p")]) == [[sample]]
    assert replay.score("a", [" b"]) == [scored]
    assert (replay.embed(["yyy", "x"]) == vectors[::-1]).all()


def test_a_miss_names_the_nearest(log):
    record(log, [Request("Which sea is the deepest?"), Request("Who wrote Ulysses?")])
    replay = ReplayLM(log)
    with pytest.raises(DataError, match="nearest 'Which sea is the deepest"):
        replay.generate([Request("Which sea is the deepest of all?")])
    with pytest.raises(DataError, match="other settings of the same prompt"):
        replay.generate([Request("Who wrote Ulysses?", temperature=0.5)])
    with pytest.raises(DataError, match="sample 1"):
        replay.generate([Request("Who wrote Ulysses?", n=2)])
    with pytest.raises(DataError, match="other settings"):
        replay.generate([Request("Who wrote Ulysses?", seed=9)])
    with pytest.raises(DataError, match="nothing of the kind"):
        replay.score("a", ["b"])


def test_failed_calls_are_no_answers(log):
    with pytest.raises(DataError, match="down"):
        record(log, [Request("p")], Counting(fail=lambda request: DataError("down")))
    found = record(log, [Request("p")])
    assert ReplayLM(log).generate([Request("p")]) == found


def test_one_of_several_models_is_chosen(log):
    one = record(log, [Request("p")], Counting(name="one"))
    two = record(log, [Request("p")], Counting(name="two"))
    assert room.connect(f"replay:{log}#one").generate([Request("p")]) == one
    assert ReplayLM(log, model="two").generate([Request("p")]) == two
    assert ReplayLM(log, model="two").fingerprint() != ReplayLM(log, model="one").fingerprint()
    with pytest.raises(DataError, match=r"2 models; choose one, as replay:.*#one"):
        ReplayLM(log)
    with pytest.raises(DataError, match="There are: one, two"):
        ReplayLM(log, model="three")


def test_a_conversation_is_replayed(log):
    chat = Request((Message("system", "Be brief."), Message("user", "Who?")), temperature=0.0)
    found = record(log, [chat], EchoLM())
    assert ReplayLM(log).generate([chat]) == found


def test_a_truncated_end_is_told_and_left_out(log):
    record(log, [Request("p"), Request("q")])
    log.write_bytes(log.read_bytes()[:-9])
    replay = ReplayLM(log)
    assert replay.torn
    assert len(replay.generate([Request("p")])) == 1
    assert not ReplayLM(log).source.name.startswith(".")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no answer"),
        ("hello\nworld\n", ":1: not a call"),
        ('{"kind": "generate", "model": "m", "samples": [{}], "request": {}}\n', "without what was asked"),
        (json.dumps({"kind": "other"}) + "\n", "holds no answer"),
    ],
)
def test_what_is_no_log_is_refused(log, text, said):
    log.write_text(text)
    with pytest.raises(DataError, match=said):
        ReplayLM(log)


def test_a_log_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        room.connect(f"replay:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="names no file"):
        room.connect("replay:")
