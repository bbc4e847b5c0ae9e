"""One prompt over many documents: killed and resumed equals uninterrupted, and nothing is paid for twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import pytest
from fakes import Counting

from posterhall.errors import DataError
from posterhall.lm import Budget, BudgetExceeded, EchoLM, stack
from posterhall.lm.mapping import MapSettings, run
from posterhall.runs import read_manifest


def write_docs(path, count):
    path.write_text(
        "".join(json.dumps({"text": f"document {i}", "id": f"d{i}"}) + "\n" for i in range(count))
    )
    return path


@pytest.fixture
def docs(tmp_path):
    return write_docs(tmp_path / "docs.jsonl", 50)


def lines(path):
    return [json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()]


def ask(lm, docs, out, *, resume=False, budget=None, concurrency=8, **settings):
    settings = MapSettings(**{"prompt": "Say: {text}", "uid_field": "id", **settings})
    with stack.connect(lm, budget=budget, concurrency=concurrency) as model:
        return run(model, [docs], settings, out=out, resume=resume, quiet=True)


def test_replies_stand_in_the_order_of_the_documents(docs, tmp_path):
    class Uneven(Counting):
        async def agenerate(self, requests):
            self.pause = 0.002 * (hash(requests[0].prompt) % 5)
            return await super().agenerate(requests)

    result = ask(Uneven(), docs, tmp_path / "out.jsonl", n=2, temperature=1.0, form="text")
    rows = lines(tmp_path / "out.jsonl")
    assert [(row["id"], row["sample"]) for row in rows] == [(f"d{i}", n) for i in range(50) for n in range(2)]
    assert rows[3]["reply"].startswith("Say: document 1/1/")
    assert (result["documents"], result["rows"], result["failed"], result["unread"]) == (50, 100, 0, None)
    assert lines(tmp_path / "out.run" / "artifacts" / "replies.jsonl") == rows
    assert not list((tmp_path / "out.run" / "checkpoints").iterdir())


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_the_replies_do_not_depend_on_how_many_are_asked_at_once(docs, tmp_path, concurrency):
    ask(Counting(pause=0.001), docs, tmp_path / "run", concurrency=concurrency, temperature=0.7, form="text")
    ask(Counting(), docs, tmp_path / "one", concurrency=1, temperature=0.7, form="text")
    found, expected = (tmp_path / name / "artifacts" / "replies.jsonl" for name in ("run", "one"))
    assert found.read_bytes() == expected.read_bytes()


def test_no_more_than_so_many_are_under_way(docs, tmp_path):
    inner = Counting(pause=0.001)
    ask(inner, docs, tmp_path / "run", concurrency=5)
    assert inner.most == 5


def test_what_a_budget_stopped_goes_on_where_it_was(docs, tmp_path):
    inner = Counting(pause=0.001)
    with pytest.raises(BudgetExceeded, match=r"20 calls.* 20 of 50 documents are answered"):
        ask(inner, docs, tmp_path / "run", budget=Budget(calls=20))
    assert read_manifest(tmp_path / "run")["status"] == "failed"
    with pytest.raises(BudgetExceeded, match=r"30 of 50 documents"):  # what was spent before counts
        ask(inner, docs, tmp_path / "run", budget=Budget(calls=30), resume=True)
    result = ask(inner, docs, tmp_path / "run", resume=True)
    assert len(inner.asked) == len({prompt for prompt, _, _ in inner.asked}) == 50
    assert result["usage"]["calls"] == 50
    ask(Counting(), docs, tmp_path / "whole")
    names = ("run", "whole")
    found, expected = (tmp_path / name / "artifacts" / "replies.jsonl" for name in names)
    assert found.read_bytes() == expected.read_bytes()


def test_a_run_that_is_done_is_left_as_it_is(docs, tmp_path):
    inner = Counting()
    first = ask(inner, docs, tmp_path / "out.jsonl")
    assert ask(inner, docs, tmp_path / "out.jsonl", resume=True) == first
    assert len(inner.asked) == 50
    with pytest.raises(DataError, match="--resume"):
        ask(inner, docs, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="exists"):
        ask(inner, docs, docs)


def test_other_settings_do_not_go_on_with_a_run(docs, tmp_path):
    with pytest.raises(BudgetExceeded):
        ask(Counting(), docs, tmp_path / "run", budget=Budget(calls=5))
    with pytest.raises(DataError, match="max_tokens"):
        ask(Counting(), docs, tmp_path / "run", resume=True, max_tokens=7)
    with pytest.raises(DataError, match="model"):
        ask(Counting(name="other"), docs, tmp_path / "run", resume=True)


KILLED = """
import asyncio, json, sys
sys.path.insert(0, {here!r})
from fakes import Counting
from posterhall.lm import stack
from posterhall.lm.mapping import MapSettings, run

class Telling(Counting):
    async def agenerate(self, requests):
        found = await super().agenerate(requests)
        with open(sys.argv[3], "a") as file:  # what was paid for: answered
            file.write(requests[0].prompt + "\\n")
        return found

settings = MapSettings(prompt="{{text}}", temperature=1.0, form="text", parse="integer")
with stack.connect(Telling(pause=0.01), concurrency=4) as lm:
    run(lm, [sys.argv[1]], settings, out=sys.argv[2], resume=True, quiet=True)
"""


def test_killed_and_resumed_equals_uninterrupted_and_nothing_is_paid_for_twice(tmp_path):
    docs = write_docs(tmp_path / "docs.jsonl", 120)
    code = KILLED.format(here=os.path.dirname(__file__))
    paid = tmp_path / "paid"

    def start(out, told):
        return subprocess.Popen([sys.executable, "-c", code, str(docs), str(out), str(told)])

    assert start(tmp_path / "whole", tmp_path / "whole.paid").wait() == 0
    for kills in range(1, 4):
        process = start(tmp_path / "run", paid)
        while process.poll() is None:
            if paid.exists() and len(paid.read_text().splitlines()) >= 25 * kills:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        assert process.wait() == -9
    assert start(tmp_path / "run", paid).wait() == 0
    asked = paid.read_text().splitlines()
    assert len(set(asked)) == 120
    assert len(asked) <= 120 + 3 * 4  # at most what was under way at each kill
    files = [tmp_path / name / "artifacts" / "replies.jsonl" for name in ("run", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert (
        read_manifest(tmp_path / "run")["facts"]["how"] == read_manifest(tmp_path / "whole")["facts"]["how"]
    )


def test_a_run_on_a_server_that_is_killed_asks_it_no_more_than_what_was_under_way_again(tmp_path):
    from servers import EchoAnswers, serving

    docs = write_docs(tmp_path / "docs.jsonl", 80)
    with serving(EchoAnswers(), latency=0.01) as server:

        def start(out):
            command = [sys.executable, "-m", "posterhall", "lm", "map", str(docs), "-p", "Say: {text}"]
            command += [
                "-m",
                f"{server.base}#echo",
                "--cache",
                "off",
                "--concurrency",
                "4",
                "-o",
                str(out),
                "-q",
            ]
            return subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL)

        process = start(tmp_path / "out.jsonl")
        while len(server.asked) < 40:
            time.sleep(0.002)
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 130
        assert read_manifest(tmp_path / "out.run")["status"] == "interrupted"
        process = start(tmp_path / "out.jsonl")
        before = len(server.asked)
        while len(server.asked) < before + 15:
            time.sleep(0.002)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -9
        assert start(tmp_path / "out.jsonl").wait() == 0
        asked = [each["messages"][0]["content"] for path, each in server.asked if path.startswith("/chat")]
    assert len(set(asked)) == 80
    assert len(asked) <= 80 + 2 * 4
    rows = lines(tmp_path / "out.jsonl")
    assert [row["reply"] for row in rows] == [f"Say: document {i}" for i in range(80)]


def test_the_run_says_what_the_model_tells_of_where_it_was_asked(docs, tmp_path):
    class Far(Counting):
        def record(self):
            return {"base_url": "http://there/v1", "tries": 3}

    result = ask(Far(), docs, tmp_path / "run")
    assert read_manifest(tmp_path / "run")["facts"] == {**result, "server": Far().record()}
    assert ask(Far(), docs, tmp_path / "run", resume=True) == result
    ask(Counting(), docs, tmp_path / "near")
    assert "server" not in read_manifest(tmp_path / "near")["facts"]


def test_a_torn_last_line_is_asked_for_again(docs, tmp_path):
    with pytest.raises(BudgetExceeded):
        ask(Counting(), docs, tmp_path / "run", budget=Budget(calls=20), concurrency=1)
    journal = tmp_path / "run" / "checkpoints" / "answers.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    inner = Counting()
    ask(inner, docs, tmp_path / "run", resume=True)
    assert len(inner.asked) == 31


def test_values_are_read_and_what_cannot_be_is_counted(tmp_path):
    docs = tmp_path / "docs.jsonl"
    docs.write_text(
        "".join(json.dumps({"text": each}) + "\n" for each in ("yes", "No.", "perhaps", "yes or no"))
    )
    result = ask(
        EchoLM(), docs, tmp_path / "run", prompt="{text}", uid_field=None, parse="classes:yes,no", form="text"
    )
    rows = lines(tmp_path / "run" / "artifacts" / "replies.jsonl")
    assert [row["value"] for row in rows] == ["yes", "no", None, None]
    assert result["unread"] == 2
    assert result["how"] == {"exact": 2, "unread": 2}
    assert rows[0]["id"] == f"{docs}:1"


def test_a_document_that_is_refused_does_not_stop_the_others(docs, tmp_path):
    inner = Counting(fail=lambda request: DataError("too long") if "7" in request.prompt else None)
    result = ask(inner, docs, tmp_path / "run", form="text")
    rows = lines(tmp_path / "run" / "artifacts" / "replies.jsonl")
    assert [row["id"] for row in rows if "error" in row] == ["d7", "d17", "d27", "d37", "d47"]
    assert (result["failed"], result["documents"], result["rows"]) == (5, 50, 50)


def test_where_all_are_refused_it_stops_soon(docs, tmp_path):
    inner = Counting(fail=lambda request: DataError("no such model"))
    with pytest.raises(DataError, match="no such model"):
        ask(inner, docs, tmp_path / "run", concurrency=1)
    assert len(inner.asked) == 10
    inner.fail = lambda request: None
    assert ask(inner, docs, tmp_path / "run", resume=True)["failed"] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"text": "a"}\n{"txt": "b"}\n', "line 2: no field 'text'"),
        ('{"text": "a"}\n{"text": null}\n', "line 2: no field 'text'"),
        ('{"text": "a"}\nhello\n', "line 2: not JSON"),
        ("[1]\n", "line 1: not a JSON object"),
        ("", "no document"),
    ],
)
def test_a_broken_document_costs_nothing(tmp_path, text, said):
    docs = tmp_path / "docs.jsonl"
    docs.write_text(text)
    inner = Counting()
    with pytest.raises(DataError, match=said):
        ask(inner, docs, tmp_path / "run", prompt="{text}", uid_field=None)
    assert not inner.asked
    assert not (tmp_path / "run").exists()


def test_fields_that_are_no_text_are_put_in_as_json(tmp_path):
    docs = tmp_path / "docs.jsonl"
    docs.write_text('{"n": 3, "tags": ["a", "é"], "text": "x"}\n')
    ask(EchoLM(), docs, tmp_path / "run", prompt="{n} {tags} {text}", uid_field="n", form="text")
    [row] = lines(tmp_path / "run" / "artifacts" / "replies.jsonl")
    assert (row["id"], row["reply"]) == ("3", '3 ["a", "é"] x')


def test_plain_text_and_parquet_are_documents_too(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    (tmp_path / "a.txt").write_text("one\ntwo\n")
    parquet.write_table(pa.table({"text": ["three"], "more": [4]}), tmp_path / "b.parquet")
    settings = MapSettings(prompt="{text}", form="text")
    with stack.connect("echo") as lm:
        run(lm, [tmp_path / "a.txt", tmp_path / "b.parquet"], settings, out=tmp_path / "run", quiet=True)
    rows = lines(tmp_path / "run" / "artifacts" / "replies.jsonl")
    assert [row["reply"] for row in rows] == ["one", "two", "three"]


def test_a_chat_is_a_message_with_what_the_system_says(docs, tmp_path):
    inner = Counting()
    ask(inner, docs, tmp_path / "run", limit=1, system="Be brief.")
    [(prompt, _, _)] = inner.asked
    assert [(each.role, each.content) for each in prompt] == [
        ("system", "Be brief."),
        ("user", "Say: document 0"),
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt": "{text"}, "character"),
        ({"parse": "classes"}, "parse is"),
        ({"parse": "classes:a,a"}, "classes"),
        ({"parse": "integer:5-0"}, "range"),
        ({"parse": "number"}, "parse is"),
        ({"schema": "{}"}, "parse json"),
        ({"schema": "{", "parse": "json"}, "not JSON"),
        ({"system": "x", "form": "text"}, "form chat"),
        ({"limit": 0}, "limit"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(DataError, match=said):
        MapSettings(**{"prompt": "{text}", **settings})


def test_memory_does_not_grow_with_the_documents(tmp_path, monkeypatch):
    monkeypatch.setattr("posterhall.data.documents._BLOCK_BYTES", 4096)  # or a file is one block

    def peak(count):
        docs = write_docs(tmp_path / f"{count}.jsonl", count)
        tracemalloc.start()
        ask(EchoLM(), docs, tmp_path / f"run{count}", form="text")
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)  # what is imported on the way
    assert peak(2000) - peak(200) < 100_000
