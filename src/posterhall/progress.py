"""Progress on stderr: a bar on a terminal, one plain line every ten seconds elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

BAR_AFTER = 2.0
"""Seconds before a bar appears: shorter work needs none."""
LINE_EVERY = 10.0
"""Seconds between plain lines."""
REDRAW_EVERY = 0.1
"""Seconds between two readings of the speed, and between two drawings of the bar."""
SPEED_OVER = 20.0
"""Seconds over which speed is averaged: long enough to be steady, short enough to follow a change."""


class Progress:
    """Tell how far a long piece of work has come.

    ::

        with Progress(words, label="train", unit="words") as progress:
            for chunk in chunks:
                ...
                progress.update(done, loss=loss)

    Plain lines read ``train: 34 % · 1.23 M words · 512 k words/s · loss 2.31 · 1 min 20 s left``.
    ``NO_COLOR`` takes the colours from the bar, ``TERM=dumb`` gives lines instead of it.

    Args:
        total: amount of work in `unit`; None if not known (then there is no share and no time left).
        label: what is being done, one or two words.
        unit: what is counted, in the plural.
        quiet: show nothing.
        stream: where to write; None means stderr.
        start: amount done before, for resumed work; it does not count towards the speed.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        total: float | None,
        *,
        label: str,
        unit: str,
        quiet: bool = False,
        stream: TextIO | None = None,
        start: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.label = label
        self.unit = unit
        self.quiet = quiet
        self.done = start
        self.fields: dict[str, str | float] = {}
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._clock = clock
        self._begun = self._next_look = clock()
        self._next_show = self._begun + (BAR_AFTER if self._terminal else LINE_EVERY)
        self._first = start
        self._recent: deque[tuple[float, float]] = deque([(self._begun, start)])  # (time, done)
        self._lines = 0
        self._bar: Bar | None = None
        self._lock = threading.Lock()

    def update(self, done: float, **fields: str | float) -> None:
        """Set the absolute amount done and, by name, what else to show (a loss, a learning rate).

        Cheap: it may be called for every item, and from several threads.
        """
        self.done = done
        if fields:
            self.fields.update(fields)
        now = self._clock()
        if self.quiet or now < self._next_look:
            return
        with self._lock:
            self._next_look = now + REDRAW_EVERY
            self._recent.append((now, done))
            while self._recent[1][0] < now - SPEED_OVER:
                self._recent.popleft()
            if now >= self._next_show:
                self._show(now)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            now, closing = self._clock(), error is None
            if self._bar is not None:
                self._draw(now, closing=closing)
                self._bar.stop()
                self._bar = None
            elif self._lines and closing:
                self._write_line(now, closing=True)
            self.quiet = True

    def _show(self, now: float) -> None:
        if self._terminal:
            self._draw(now)
        else:
            self._write_line(now)
            self._lines += 1
            self._next_show = now + LINE_EVERY

    def _facts(self, now: float, closing: bool) -> tuple[list[str], list[str], list[str]]:
        """What there is to tell, each a few words: share; amount, speed and fields; time left or taken."""
        since, before = (self._begun, self._first) if closing else self._recent[0]
        speed = (self.done - before) / (now - since) if now > since else 0.0
        share = [f"{100 * self.done / self.total:.0f} %"] if self.total else []
        amount = [f"{quantity(self.done)} {self.unit}", f"{quantity(speed)} {self.unit}/s"]
        for name, value in self.fields.items():
            amount.append(f"{name} {value if isinstance(value, str) else f'{value:.3g}'}")
        if closing:
            return share, amount, [duration(now - self._begun)]
        known = self.total is not None and speed > 0
        left = max(0.0, (self.total or 0.0) - self.done)
        return share, amount, [f"{duration(left / speed)} left"] if known else []

    def _write_line(self, now: float, *, closing: bool = False) -> None:
        share, amount, time_left = self._facts(now, closing)
        try:
            print(f"{self.label}: {' · '.join(share + amount + time_left)}", file=self._stream, flush=True)
        except OSError:  # nobody listens any more, which is no reason to stop the work
            self.quiet = True

    def _draw(self, now: float, *, closing: bool = False) -> None:
        if self._bar is None:
            self._bar = self._new_bar()
        share, amount, time_left = self._facts(now, closing)
        # The time comes before what a narrow terminal cuts off.
        facts = " · ".join(share + time_left + amount)
        try:
            self._bar.update(self._bar.task_ids[0], completed=self.done, facts=facts)
            self._bar.refresh()
        except OSError:
            self.quiet = True

    def _new_bar(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        console = Console(file=self._stream)
        # Drawn by update() alone: a refreshing thread would not survive a fork.
        bar = Bar(
            TextColumn("{task.description}", markup=False, table_column=Column(min_width=len(self.label))),
            BarColumn(bar_width=24 if console.width >= 100 else 8),
            TextColumn("{task.fields[facts]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=console,
            auto_refresh=False,
            redirect_stdout=False,
            expand=True,  # the facts get what is left of the line, and are cut at its end
        )
        bar.add_task(self.label, total=self.total, facts="")
        bar.start()
        return bar


def quantity(amount: float) -> str:
    """An amount in three figures with its thousands in words: 999, 1.23 k, 45.6 M, 7.89 G."""
    for scale, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(amount) >= 0.9995 * scale:
            return _three(amount / scale) + name
    return str(int(amount)) if float(amount).is_integer() else _three(amount)


def size(count: float) -> str:
    """Bytes in three figures, in powers of ten: 512 B, 1.50 GB."""
    number, _, scale = quantity(count).partition(" ")
    return f"{number} {scale}B"


def duration(seconds: float) -> str:
    """A time in its two largest units: 0.4 s, 12 s, 1 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 1440:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _three(amount: float) -> str:
    digits = 2 if abs(amount) < 9.995 else 1 if abs(amount) < 99.95 else 0
    return f"{amount:.{digits}f}"
