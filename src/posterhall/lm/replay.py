"""A recorded log as a model: what was asked then is answered as then, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from posterhall.errors import DataError, did_you_mean
from posterhall.lm import records
from posterhall.lm.protocol import LM, Floats, Request, Sample, Scored, shown, transcript

T = TypeVar("T")

NEAREST = 4000
"""Characters at the end of a prompt by which the nearest one is found."""
_ANSWERS = {"generate": "samples", "score": "scored", "embed": "vectors"}


class ReplayLM(LM):
    """Answers from a log that `Recorded` wrote.

    Sample i of a request is the first that was recorded as sample i of that request, whatever else was asked
    for along with it. Only places in the file are held, not what stands there.

    Args:
        path: the log.
        model: which of the models in it; None where there is only one.

    Attributes:
        torn: whether the log ends in half a line, as after a kill; that call is left out.

    Raises:
        DataError: for a log that cannot be read, or that has several models and none was chosen.
    """

    def __init__(self, path: Path | str, *, model: str | None = None) -> None:
        self.source = self._path = Path(path)
        self.torn = False
        self._places: dict[tuple[bytes, int], tuple[int, int, int]] = {}  # offset, length, which in the line
        try:
            self._file = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{path}: cannot be read as a log of calls: {error.strerror}") from None
        try:
            models = self._index(model)
        except BaseException:
            self._let_go()
            raise
        if len(models) != 1:
            self._let_go()
            if model is not None and model not in models:
                raise DataError(
                    f"{path}: no answer of a model {model!r}.{did_you_mean(model, models)} "
                    f"There are: {', '.join(models) or 'none'}"
                )
            if not models:
                raise DataError(f"{path}: holds no answer; is it a log that --log wrote?")
            raise DataError(
                f"{path}: a log of {len(models)} models; choose one, as replay:{path}#{next(iter(models))}. "
                f"There are: {', '.join(models)}"
            )
        self._model = next(iter(models))
        self.name = self._model

    def __del__(self) -> None:
        self._let_go()

    def fingerprint(self) -> str:
        stat = os.fstat(self._file)
        return f"replay:{self._path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{self._model}"

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [self._samples(each) for each in requests]

    async def ascore(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        if any(not each for _, continuations in items for each in continuations):
            raise DataError("a continuation is empty; there is nothing to score")
        return [
            [
                self._answer(records.score_key(prompt, each), 0, records.scored_from, "score", prompt + each)
                for each in continuations
            ]
            for prompt, continuations in items
        ]

    async def aembed(self, texts: Sequence[str]) -> Floats:
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        return np.stack(
            [self._answer(records.embed_key(each), 0, records.vector_from, "embed", each) for each in texts]
        )

    async def aclose(self) -> None:
        self._let_go()

    def _samples(self, request: Request) -> list[Sample]:
        key = records.request_key(request)
        prompt = transcript(request.prompt)
        return [
            self._answer(key, number, records.sample_from, "generate", prompt)
            for number in range(request.first, request.first + request.n)
        ]

    def _answer(self, key: bytes, number: int, read: Callable[[Any], T], kind: str, asked: str) -> T:
        place = self._places.get((key, number))
        if place is None:
            raise self._miss(key, number, kind, asked)
        offset, length, which = place
        value = json.loads(os.pread(self._file, length, offset))
        try:
            return read(value[_ANSWERS[value["kind"]]][which])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"{self._path}, byte {offset:,}: an answer that cannot be read: {error!r}"
            ) from None

    def _miss(self, key: bytes, number: int, kind: str, asked: str) -> DataError:
        has = sum(1 for known, _ in self._places if known == key)
        if has:
            return DataError(
                f"{self._path} has {has} samples of the prompt {shown(asked)}, and sample {number} "
                "(from 0) is none of them"
            )
        same, nearest = self._nearest(kind, asked)
        if nearest is None:
            return DataError(f"{self._path} has nothing of the kind asked for ({kind})")
        what = "other settings of the same prompt" if same else f"as nearest {shown(nearest)}"
        return DataError(
            f"{self._path} has no answer to the {kind} of {shown(asked)}; it has {what}. A replay needs the "
            "same prompts, settings and seeds as when it was recorded."
        )

    def _nearest(self, kind: str, asked: str) -> tuple[bool, str | None]:
        """Whether the log has the very text, and the text of its that is most like it."""
        from rapidfuzz import fuzz

        best, score = None, -1.0
        for _, _, value in self._lines():
            if value.get("kind") == kind and value.get("model") == self._model:
                for text in _texts(value):
                    if text == asked:
                        return True, text
                    found = fuzz.ratio(text[-NEAREST:], asked[-NEAREST:], score_cutoff=max(score, 0.0))
                    if found > score:
                        best, score = text, found
        return False, best

    def _index(self, wanted: str | None) -> dict[str, None]:
        """Fill in the places of all answers; the models that gave them."""
        models: dict[str, None] = {}
        for offset, length, value in self._lines():
            kind, model = value.get("kind"), str(value.get("model"))
            if kind not in _ANSWERS or _ANSWERS[kind] not in value:  # it ended in an error
                continue
            try:
                keys = _keys(value)
            except (KeyError, TypeError, ValueError):
                raise DataError(f"{self._path}, byte {offset:,}: a call without what was asked") from None
            models[model] = None
            if wanted is not None and model != wanted:
                continue
            for which, key in enumerate(keys):
                self._places.setdefault(key, (offset, length, which))
        return models if wanted is None or wanted not in models else {wanted: None}

    def _lines(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """(offset, length, value) of each whole line."""
        with open(self._path, "rb") as file:
            offset = 0
            for number, line in enumerate(file, 1):
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    value = None
                if isinstance(value, dict):
                    yield offset, len(line), value
                elif not line.endswith(b"\n"):
                    self.torn = True
                elif line.strip() and not _is_torn(line):
                    raise DataError(f"{self._path}:{number}: not a call as --log writes it: {line[:60]!r}")
                elif line.strip():
                    self.torn = True
                offset += len(line)

    def _let_go(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)
            self._file = -1


def _is_torn(line: bytes) -> bool:
    """Whether a line can be the beginning of a call: its writer was killed, and others wrote on."""
    return line.startswith(b'{"time"')


def _keys(value: dict[str, Any]) -> list[tuple[bytes, int]]:
    """What identifies each answer of a call."""
    if value["kind"] == "generate":
        key, first = bytes.fromhex(value["key"]), int(value["request"].get("first", 0))
        return [(key, first + i) for i in range(len(value["samples"]))]
    return [(bytes.fromhex(each), 0) for each in value["keys"]]


def _texts(value: dict[str, Any]) -> list[str]:
    """What a call asked, as texts."""
    if value["kind"] == "generate":
        return [transcript(records.prompt_of(value["request"]))]
    if value["kind"] == "score":
        return [str(value["prompt"]) + str(each) for each in value["continuations"]]
    return [str(each) for each in value["texts"]]
