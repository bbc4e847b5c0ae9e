"""The values of the protocol, and its synchronous face."""

from __future__ import annotations

import asyncio
import math
import os
import threading

import pytest

from posterhall import lm
from posterhall.errors import DataError, UsageError
from posterhall.lm import EchoLM, Message, Request, Scored, Unsupported
from posterhall.lm.protocol import cut, transcript, wait


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens": 0},
        {"n": 0},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"stop": "text"},
        {"stop": ("",)},
        {"prompt": ()},
        {"prompt": ("text",)},
        {"prompt": None},
    ],
)
def test_requests_out_of_range_are_refused(changes):
    with pytest.raises(DataError):
        Request(**{"prompt": "x", **changes})


def test_roles_are_those_of_a_chat():
    with pytest.raises(DataError, match="system, user, assistant"):
        Message("robot", "hello")


def test_a_conversation_becomes_a_transcript_to_be_continued():
    text = transcript((Message("system", "Be brief."), Message("user", "Hi?")))
    assert text == "System: Be brief.\n\nUser: Hi?\n\nAssistant:"


def test_a_total_is_the_sum_and_bytes_are_of_utf8():
    scored = Scored("né", ("n", "é"), (-1.0, -0.5), is_greedy=False)
    assert scored.total == -1.5
    assert scored.bytes == 3
    assert Scored("x", ("x",), (-math.inf,), is_greedy=False).total == -math.inf


def test_text_is_cut_at_the_first_stop_text_in_it():
    assert cut("abcdef", ("de", "bc")) == ("a", True)
    assert cut("abcdef", ("x",)) == ("abcdef", False)
    assert cut("abcdef", ()) == ("abcdef", False)


class Mute(lm.LM):
    name = "mute"

    async def agenerate(self, requests):
        return [[] for _ in requests]


def test_a_backend_says_what_it_cannot_do():
    for ask in (lambda: Mute().score("a", ["b"]), lambda: Mute().embed(["a"])):
        with pytest.raises(Unsupported, match="mute cannot"):
            ask()
    assert issubclass(Unsupported, UsageError)


def test_work_from_many_threads_runs_in_one_loop():
    loops = set()

    async def look():
        await asyncio.sleep(0)
        loops.add(id(asyncio.get_running_loop()))

    threads = [threading.Thread(target=lambda: wait(look())) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(loops) == 1


def test_an_error_comes_through_as_itself():
    async def fail():
        raise DataError("as it is")

    with pytest.raises(DataError, match="as it is"):
        wait(fail())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_makes_a_loop_of_its_own():
    assert EchoLM().generate([Request("x")])
    child = os.fork()
    if child == 0:
        os._exit(0 if EchoLM().generate([Request("x")])[0][0].text == "x" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_connect_says_what_is_allowed(tmp_path):
    (tmp_path / "file").write_text("")
    for spec in ("nosuch", "gpt-4", str(tmp_path / "file"), "", "a/b/c"):
        with pytest.raises(DataError, match=r"scripted:FILE, or echo"):
            lm.connect(spec)
    with pytest.raises(DataError, match="log: cannot be read as a log of calls"):
        lm.connect("replay:log")
    with pytest.raises(DataError, match="names no file"):
        lm.connect("scripted:")
    with pytest.raises(DataError, match="takes no options"):
        lm.connect("echo", device="cuda")
    assert lm.connect("echo").name == "echo"


def test_echo_has_closed_forms():
    echo = lm.connect("echo")
    [scored] = echo.score("anything", ["né"])
    assert scored.total == pytest.approx(-3 * math.log(256))
    [[sample]] = echo.generate([Request("one two é", max_tokens=3)])
    assert sample.text == " é"
    assert sample.finish_reason == "length"
    [[sample]] = echo.generate([Request("one two é", max_tokens=2)])
    assert sample.text == "é"
