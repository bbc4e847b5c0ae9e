"""Progress on a clock of our own: what is written, when, and how fast it claims to go."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.progress import Progress, duration, quantity, size


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def frames(self):
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())
        return [frame for frame in re.split(r"[\r\n]+", text) if frame.strip()]


@pytest.fixture
def clock():
    return Clock()


def work(progress, clock, *, seconds, rate=1000.0, step=0.5, **fields):
    """Update for some seconds at a rate in units a second."""
    for _ in range(round(seconds / step)):
        clock.now += step
        progress.update(progress.done + rate * step, **fields)


def test_a_plain_line_every_ten_seconds_and_one_at_the_end(clock):
    out = io.StringIO()
    with Progress(100_000, label="train", unit="words", stream=out, clock=clock) as progress:
        work(progress, clock, seconds=9.5, loss=2.3123)
        assert out.getvalue() == ""
        work(progress, clock, seconds=15.5, loss=2.3123, phase="warm")
    assert out.getvalue().splitlines() == [
        "train: 10 % · 10.0 k words · 1.00 k words/s · loss 2.31 · phase warm · 1 min 30 s left",
        "train: 20 % · 20.0 k words · 1.00 k words/s · loss 2.31 · phase warm · 1 min 20 s left",
        "train: 25 % · 25.0 k words · 1.00 k words/s · loss 2.31 · phase warm · 25 s",
    ]


def test_short_work_is_silent(clock):
    out, terminal = io.StringIO(), Terminal()
    with Progress(1e5, label="a", unit="b", stream=out, clock=clock) as progress:
        work(progress, clock, seconds=9)
    with Progress(1e5, label="a", unit="b", stream=terminal, clock=clock) as progress:
        work(progress, clock, seconds=1.5)
    assert out.getvalue() == terminal.getvalue() == ""


def test_quiet_is_silent(clock):
    for stream in (io.StringIO(), Terminal()):
        with Progress(1e5, label="a", unit="b", stream=stream, quiet=True, clock=clock) as progress:
            work(progress, clock, seconds=100)
        assert stream.getvalue() == ""


def test_without_a_total_there_is_no_share_and_no_time_left(clock):
    out = io.StringIO()
    with Progress(None, label="count", unit="lines", stream=out, clock=clock) as progress:
        work(progress, clock, seconds=10)
        assert out.getvalue() == "count: 10.0 k lines · 1.00 k lines/s\n"


def test_resumed_work_does_not_count_as_speed(clock):
    out = io.StringIO()
    with Progress(1e6, label="a", unit="b", stream=out, start=9e5, clock=clock) as progress:
        work(progress, clock, seconds=10)
    first, last = out.getvalue().splitlines()
    assert first == "a: 91 % · 910 k b · 1.00 k b/s · 1 min 30 s left"
    assert "1.00 k b/s" in last


def test_speed_follows_a_change_within_twenty_seconds(clock):
    out = io.StringIO()
    with Progress(1e9, label="a", unit="b", stream=out, clock=clock) as progress:
        work(progress, clock, seconds=600, rate=1000)
        work(progress, clock, seconds=30, rate=1)
        assert " · 1 b/s · " in out.getvalue().splitlines()[-1]
    assert "952 b/s" in out.getvalue().splitlines()[-1]  # the closing line is about all of it


def test_a_failure_writes_no_closing_line(clock):
    out = io.StringIO()

    def fail():
        with Progress(1e5, label="a", unit="b", stream=out, clock=clock) as progress:
            work(progress, clock, seconds=10)
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert len(out.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_bar_after_two_seconds(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    out = Terminal()
    with Progress(10_000, label="train [a]", unit="words", stream=out, clock=clock) as progress:
        work(progress, clock, seconds=2.5, loss=2.3123)
        assert "train [a] ━━━" in out.frames()[-1]
        assert "25 % · 7.5 s left · 2.50 k words · 1.00 k words/s · loss 2.31" in out.frames()[-1]
        work(progress, clock, seconds=7.5)
    assert "100 % · 10 s · 10.0 k words" in out.frames()[-1]
    assert "\x1b[?25h" in out.getvalue()  # the cursor is shown again


def test_a_narrow_terminal_keeps_label_share_and_time(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    out = Terminal()
    with Progress(10_000, label="train", unit="words", stream=out, clock=clock) as progress:
        work(progress, clock, seconds=3, perplexity=12.0, temperature=0.5)
        assert len(out.frames()[-1]) <= 50
        assert re.match(r"train ━+\S* *30 % · 7.0 s left", out.frames()[-1])


def test_no_color_takes_the_colours_and_leaves_the_bar(clock, monkeypatch):
    def escapes():
        out = Terminal()
        with Progress(10_000, label="a", unit="b", stream=out, clock=clock) as progress:
            work(progress, clock, seconds=3)
        assert "━" in out.getvalue()
        return re.findall(r"\x1b\[[0-9;]*m", out.getvalue())

    monkeypatch.setenv("TERM", "xterm-256color")
    assert any(re.search(r"3\d|9\d", escape) for escape in escapes())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not any(re.search(r"3\d|9\d", escape) for escape in escapes())


def test_a_dumb_terminal_gets_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    with Progress(1e5, label="a", unit="b", stream=out, clock=clock) as progress:
        work(progress, clock, seconds=10)
        assert out.getvalue() == "a: 10 % · 10.0 k b · 1.00 k b/s · 1 min 30 s left\n"


def test_work_goes_on_when_nobody_listens_any_more(clock):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with Progress(1e5, label="a", unit="b", stream=Closed(), clock=clock) as progress:
        work(progress, clock, seconds=100)
    assert progress.done == 1e5


def test_several_threads_may_report(clock):
    out = io.StringIO()
    with Progress(1e5, label="a", unit="b", stream=out, clock=clock) as progress:

        def report():
            for i in range(2000):
                clock.now += 0.01
                progress.update(i)

        threads = [threading.Thread(target=report) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(line.startswith("a: ") and line.count("b/s") == 1 for line in out.getvalue().splitlines())


def test_rich_is_loaded_for_a_bar_only():
    code = """
import sys, io
from posterhall.progress import Progress
now = [0.0]
with Progress(1e5, label="a", unit="b", stream=io.StringIO(), clock=lambda: now[0]) as progress:
    for now[0] in range(60):
        progress.update(now[0])
sys.exit("rich" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"), (7, "7"), (0.5, "0.50"), (9.999, "10.0"), (99.96, "100"), (999, "999"), (999.6, "1.00 k"),
        (1000, "1.00 k"), (1234, "1.23 k"), (12_345, "12.3 k"), (512_000, "512 k"), (999_600, "1.00 M"),
        (1_234_567, "1.23 M"), (5e9, "5.00 G"), (1e15, "1000 T"), (-1500, "-1.50 k"), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_amounts_have_three_figures(amount, text):
    assert quantity(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"),
        (80, "1 min 20 s"), (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"), (86_399, "1 d 0 h"), (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_times_have_two_units(seconds, text):
    assert duration(seconds) == text


@given(st.floats(0, 1e14))
def test_three_figures_are_right_to_half_a_percent(amount):
    number, _, scale = quantity(amount).partition(" ")
    value = float(number) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[scale]
    assert value == pytest.approx(amount, rel=0.0051, abs=0.0051)


def test_bytes_are_in_powers_of_ten():
    assert [size(0), size(512), size(1_500_000_000)] == ["0 B", "512 B", "1.50 GB"]
