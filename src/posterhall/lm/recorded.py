"""A log of everything a model was asked and said: one JSON object a line, from which it can be replayed.

A line has `time` (UTC), `model`, `kind` (generate, score or embed), `key` (what was asked, hashed: what a
replay goes by), what was asked (`request`, or `prompt` and `continuations`, or `texts`), and what was said
(`samples`, `scored`, `vectors`; or `error`), with the `seconds` it took. What a cache answered is logged
too, with `cached` true, so that the log is complete.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from posterhall.errors import DataError
from posterhall.lm import records
from posterhall.lm.protocol import LM, Floats, Request, Sample, Scored
from posterhall.lm.wrapping import WIDTH, Item, Wrapper

SECRETS = (
    r"\b(?:[spr]k[-_]|gsk_|hf_|gh[pousr]_|xox[abp]-|AKIA|AIza)[A-Za-z0-9_-]{16,}",
    r"\bbearer\s+[A-Za-z0-9._~+/=-]{8,}",
    r"\b(?:api[-_ ]?key|authorization|access[-_ ]?token|secret|password)[\"']?\s*[:=]\s*"
    r"[\"']?(?:bearer\s+|basic\s+)?[^\s\"',}]{6,}",
)
"""Patterns of what looks like a key, in either case."""
_TRACES = (
    *("sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "akia"),
    *("aiza", "bearer", "key", "authorization", "token", "secret", "password"),
)
"""A text without any of these matches none of `SECRETS`: a search for them is ten times as fast."""
HIDDEN = "[redacted]"


class Log:
    """A file to which calls are appended, whole lines at a time, by any number of processes.

    The file can be read by its owner alone: prompts may be confidential.

    Args:
        path: the file; made if need be, otherwise added to.
        hide: regular expressions of what must not be written, in either case, beside `SECRETS`.
        now: the time.

    Raises:
        DataError: for a file that cannot be written, or a pattern that is none.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        hide: Sequence[str] = (),
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self.path = Path(path)
        self._now = now
        self._lock = threading.Lock()
        try:
            self._secrets = re.compile("|".join(SECRETS), re.IGNORECASE)
            self._hidden = [re.compile(each, re.IGNORECASE) for each in hide]
        except re.error as error:
            raise DataError(f"a pattern of secrets is not a regular expression: {error}") from None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written as a log: {error.strerror}") from None
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")  # after a torn line of a process that was killed

    def write(self, kind: str, model: str, **facts: Any) -> None:
        """Append a call; it is in the file when this returns."""
        stamp = self._now().isoformat(timespec="milliseconds")
        data = records.line(self._cleaned({"time": stamp, "kind": kind, "model": model, **facts}))
        with self._lock:
            while data and self._file >= 0:
                data = data[os.write(self._file, data) :]

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            for each in self._hidden:
                value = each.sub(HIDDEN, value)
            low = value.lower()
            return self._secrets.sub(HIDDEN, value) if any(each in low for each in _TRACES) else value
        if isinstance(value, dict):
            return {key: each if key == "key" else self._cleaned(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._cleaned(each) for each in value]
        return value


class Recorded(Wrapper):
    """Logs what a model is asked and says.

    Args:
        inner: the model.
        log: where to; closed with the model.
        width: see `Wrapper`.
    """

    def __init__(self, inner: LM, log: Log, *, width: int = WIDTH) -> None:
        super().__init__(inner, width=width)
        self.log = log

    async def generate_one(self, request: Request) -> list[Sample]:
        with self._call("generate", **_asked(request)) as answer:
            samples = await super().generate_one(request)
            answer["samples"] = [records.sample_json(each) for each in samples]
        return samples

    async def score_one(self, item: Item) -> list[Scored]:
        prompt, continuations = item
        with self._call("score", prompt=prompt, continuations=list(continuations)) as answer:
            scored = await super().score_one(item)
            answer["keys"] = [records.score_key(prompt, each).hex() for each in continuations]
            answer["scored"] = [records.scored_json(each) for each in scored]
        return scored

    async def aembed(self, texts: Sequence[str]) -> Floats:
        with self._call("embed", texts=list(texts)) as answer:
            vectors = await self.inner.aembed(texts)
            answer["keys"] = [records.embed_key(each).hex() for each in texts]
            answer["vectors"] = [records.vector_json(each) for each in vectors]
        return vectors

    async def aclose(self) -> None:
        await super().aclose()
        self.log.close()

    def hit(self, request: Request, samples: Sequence[Sample]) -> None:
        """Log samples that a cache around this had."""
        said = [records.sample_json(each) for each in samples]
        self.log.write("generate", self.name, **_asked(request), samples=said, cached=True)

    @contextlib.contextmanager
    def _call(self, kind: str, **asked: Any) -> Iterator[dict[str, Any]]:
        answer: dict[str, Any] = {}
        begun = time.perf_counter()
        try:
            yield answer
        except BaseException as error:
            answer["error"] = f"{type(error).__name__}: {error}".strip(": ")
            raise
        finally:
            seconds = round(time.perf_counter() - begun, 4)
            self.log.write(kind, self.name, **asked, **answer, seconds=seconds)


def _asked(request: Request) -> dict[str, Any]:
    return {"key": records.request_key(request).hex(), "request": records.request_json(request)}
