"""Answers written down beforehand, for tests of whatever asks a model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from posterhall.errors import DataError, did_you_mean
from posterhall.lm.protocol import LM, Floats, Request, Sample, Scored, cut, shown, transcript

_MATCHING = ("prompt", "contains", "ends")
_ANSWERS = ("reply", "scores", "embedding")
_KEYS = (*_MATCHING, *_ANSWERS)


@dataclass
class _Rule:
    """One line of a script, and how far its list of replies is used up."""

    where: str
    prompt: str | None = None
    contains: str | None = None
    ends: str | None = None
    reply: str | list[str] | None = None
    scores: dict[str, list[float]] | None = None
    embedding: list[float] | None = None
    used: int = 0

    def matches(self, text: str) -> bool:
        return (
            (self.prompt is None or text == self.prompt)
            and (self.contains is None or self.contains in text)
            and (self.ends is None or text.endswith(self.ends))
        )


@dataclass(frozen=True)
class Asked:
    """One thing that a scripted model was asked."""

    kind: str
    """generate, score or embed."""
    prompt: str
    """The prompt, a conversation as a transcript; or the text to embed."""
    request: Request | None = None
    """What to generate, for generate."""
    continuations: tuple[str, ...] = field(default=())
    """What to score, for score."""


class ScriptedLM(LM):
    """Answers from a script, in order, and remembers what it was asked.

    A rule says when it applies (`prompt`: the prompt is this; `contains`: it has this in it; `ends`: it
    ends so; several: all of them; none: always) and what it answers:

    - `reply`: text, given every time; or a list of texts, given one a sample and then used up;
    - `scores`: for each continuation its log-probability (natural, <= 0), or a list of them, one a token;
    - `embedding`: a vector.

    The first rule that applies, has the answer wanted and is not used up answers. Tokens are words.

    Args:
        script: the rules, or a JSONL file with one a line.
        name: what results are labelled with.

    Attributes:
        asked: everything asked so far, in order.

    Raises:
        DataError: for a rule that cannot be understood, naming the line; and on being asked for what no
            rule answers.
    """

    def __init__(self, script: Path | str | Iterable[Mapping[str, Any]], *, name: str | None = None) -> None:
        self.asked: list[Asked] = []
        if isinstance(script, Path | str):
            self._source, self.source = str(script), Path(script)
            self._rules = [_rule(value, where) for where, value in _read(Path(script))]
        else:
            self._source = "the script"
            self._rules = [_rule(each, f"rule {number}") for number, each in enumerate(script, 1)]
        self.name = name or (f"scripted:{script}" if isinstance(script, Path | str) else "scripted")

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [[self._sample(request) for _ in range(request.n)] for request in requests]

    async def ascore(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        scored = []
        for prompt, continuations in items:
            self.asked.append(Asked("score", prompt, continuations=tuple(continuations)))
            scored.append([self._score(prompt, each) for each in continuations])
        return scored

    async def aembed(self, texts: Sequence[str]) -> Floats:
        self.asked += [Asked("embed", text) for text in texts]
        vectors = [self._find(text, "embedding").embedding or [] for text in texts]
        if len(sizes := {len(each) for each in vectors}) > 1:
            raise DataError(f"{self._source}: its embeddings are of different lengths: {sorted(sizes)}")
        return np.array(vectors, dtype=np.float32).reshape(len(texts), max(sizes, default=0))

    def _find(self, prompt: str, answer: str) -> _Rule:
        for rule in self._rules:
            if getattr(rule, answer) is None or not rule.matches(prompt):
                continue
            if not isinstance(rule.reply, list) or answer != "reply" or rule.used < len(rule.reply):
                return rule
        known = [rule.prompt for rule in self._rules if rule.prompt is not None]
        raise DataError(
            f"{self._source} has no {answer} (left) for the prompt {shown(prompt)}; add a rule for it."
            f"{did_you_mean(prompt, known, limit=1) if len(prompt) < 200 else ''}"
        )

    def _sample(self, request: Request) -> Sample:
        prompt = transcript(request.prompt)
        self.asked.append(Asked("generate", prompt, request=request))
        rule = self._find(prompt, "reply")
        reply = rule.reply
        if isinstance(reply, list):
            reply = reply[rule.used]
            rule.used += 1
        text, stopped = cut(str(reply), request.stop)
        words = text.split()
        finished = stopped or len(words) <= request.max_tokens
        if len(words) > request.max_tokens:
            text = _first_words(text, request.max_tokens)
        if request.logprobs:
            raise DataError(f"{self._source} gives replies without log-probabilities; ask without logprobs")
        return Sample(
            text=text,
            finish_reason="stop" if finished and len(words) <= request.max_tokens else "length",
            tokens_in=len(prompt.split()),
            tokens_out=min(len(words), request.max_tokens),
        )

    def _score(self, prompt: str, continuation: str) -> Scored:
        if not continuation:
            raise DataError("a continuation is empty; there is nothing to score")
        rule = self._find(prompt, "scores")
        scores = rule.scores or {}
        if continuation not in scores:
            raise DataError(
                f"{rule.where}: no score for {continuation!r} after the prompt {shown(prompt)}; there is "
                f"one for {', '.join(map(repr, scores))}"
            )
        logprobs = scores[continuation]
        # The script gives numbers, not tokens: the text is shared out among them by its letters.
        size = len(continuation)
        ends = [round(size * (i + 1) / len(logprobs)) for i in range(len(logprobs))]
        tokens = tuple(continuation[a:b] for a, b in zip([0, *ends], ends, strict=False))
        best = max(math.fsum(each) for each in scores.values())
        return Scored(continuation, tokens, tuple(logprobs), is_greedy=math.fsum(logprobs) == best)


def _first_words(text: str, count: int) -> str:
    """Text up to the end of its `count`-th word, its spaces as they are."""
    end = 0
    for word in text.split()[:count]:
        end = text.index(word, end) + len(word)
    return text[:end]


def _read(path: Path) -> Iterable[tuple[str, Any]]:
    """(file:line, value) of each line of a JSONL file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a script of answers: {error}") from None
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append((f"{path}:{number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number}: not JSON: {error}") from None
    if not found:
        raise DataError(f'{path}: an empty script; write one JSON object a line, as {{"reply": "yes"}}')
    return found


def _rule(value: Any, where: str) -> _Rule:
    if not isinstance(value, Mapping):
        raise DataError(f'{where}: a rule is a JSON object, as {{"contains": "sky", "reply": "blue"}}')
    for key in value:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS) or f" Allowed are {', '.join(_KEYS)}."
            raise DataError(f"{where}: unknown key {key!r}.{hint}")
    for key in _MATCHING:
        if key in value and not isinstance(value[key], str):
            raise DataError(f"{where}: {key} is {value[key]!r}; it must be text")
    if not any(key in value for key in _ANSWERS):
        raise DataError(f"{where}: it answers nothing; give one of {', '.join(_ANSWERS)}")
    reply, scores, embedding = (value.get(key) for key in _ANSWERS)
    texts = reply if isinstance(reply, list) else [reply] if reply is not None else []
    if not all(isinstance(each, str) for each in texts):
        raise DataError(f"{where}: reply is {reply!r}; it must be text or a list of texts")
    if embedding is not None and not (embedding and _are_numbers(embedding)):
        raise DataError(f"{where}: embedding must be a list of numbers")
    if scores is not None:
        scores = _scores(scores, where)
    given = {key: value[key] for key in _MATCHING if key in value}
    return _Rule(where, **given, reply=reply, scores=scores, embedding=embedding)


def _scores(value: Any, where: str) -> dict[str, list[float]]:
    if not isinstance(value, Mapping) or not value:
        raise DataError(f"{where}: scores must be an object of continuations and their log-probabilities")
    scores = {}
    for continuation, given in value.items():
        logprobs = given if isinstance(given, list) else [given]
        if not logprobs or not _are_numbers(logprobs) or not all(each <= 0 for each in logprobs):
            raise DataError(
                f"{where}: the score of {continuation!r} is {given!r}; a log-probability is a number of at "
                "most 0, or a list of them, one a token. Is it a probability?"
            )
        scores[continuation] = [float(each) for each in logprobs]
    return scores


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(each, int | float) and not isinstance(each, bool) for each in values
    )
