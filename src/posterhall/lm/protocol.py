"""What a language model is to everything above it: `LM`, and the values that go in and come out."""

from __future__ import annotations

import abc
import asyncio
import math
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from posterhall.errors import DataError, UsageError

T = TypeVar("T")
Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "filter"]
Floats: TypeAlias = npt.NDArray[np.float32]


class Unsupported(UsageError):
    """A backend was asked for what it cannot do (a chat server for the probability of a given text)."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise DataError(f"role is {self.role!r}; allowed are {', '.join(get_args(Role))}")


Prompt: TypeAlias = str | tuple[Message, ...]
"""Text to be continued, or a conversation to be answered."""


@dataclass(frozen=True)
class Request:
    """What to generate.

    Raises:
        DataError: for a value out of its range.
    """

    prompt: Prompt
    """Text, which the model continues, or messages, which it answers."""
    max_tokens: int = 256
    """The most tokens of a sample, in the model's own tokens, >= 1."""
    temperature: float = 1.0
    """>= 0; 0 takes the most probable token always."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens that holds this probability, in (0, 1]."""
    stop: tuple[str, ...] = ()
    """A sample ends before the first of these texts; none of them is in it."""
    seed: int | None = None
    """Of the sampling; None leaves it to the backend, and backends on this machine take 0."""
    n: int = 1
    """Samples, >= 1; they differ by their own random numbers, not by their place in a batch."""
    first: int = 0
    """Number of the first of them, >= 0. Sample i of a prompt and seed is the same text whatever else is
    asked for, so that samples 0 to 2 may be had today and 3 to 9 tomorrow (from backends that have seeds)."""
    logprobs: bool = False
    """Whether the log-probability of each generated token is wanted."""
    schema: str | None = None
    """A JSON Schema, as JSON text, that the sample must follow; backends that cannot enforce it ignore it,
    so the reply is checked by who asked."""

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) and not _is_conversation(self.prompt):
            raise DataError(f"a prompt is text or a tuple of one or more Messages, not {self.prompt!r}")
        if self.max_tokens < 1 or self.n < 1:
            raise DataError(f"max_tokens is {self.max_tokens} and n {self.n}; both must be at least 1")
        if self.first < 0:
            raise DataError(f"first is {self.first}; samples are numbered from 0")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise DataError(f"temperature is {self.temperature}; it must be 0 (the most probable) or above")
        if not 0 < self.top_p <= 1:
            raise DataError(f"top_p is {self.top_p}; it must be above 0 and at most 1 (everything)")
        if not _are_texts(self.stop):
            raise DataError(f"stop is {self.stop!r}; it must be a tuple of texts, none of them empty")


def _is_conversation(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(each, Message) for each in value)


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) and each for each in value)


@dataclass(frozen=True)
class Sample:
    """One generated text."""

    text: str
    """Without the prompt, and without what stopped it."""
    finish_reason: Finish
    """stop: at a stop text or where the model ends; length: at max_tokens or the end of its context;
    filter: withheld or refused by the server, and the text may be empty."""
    tokens_in: int
    """Tokens of the prompt: the same number in every sample of a request, to be counted once."""
    tokens_out: int
    """Tokens generated, those cut off with a stop text included: what the work was."""
    tokens: tuple[str, ...] | None = None
    """Text of each generated token, if log-probabilities were wanted."""
    logprobs: tuple[float, ...] | None = None
    """Of each of `tokens`, natural logarithms at temperature 1, if wanted."""
    tokens_cached: int = 0
    """Of `tokens_in`, those that a server had at hand from earlier prompts and bills for less."""
    tokens_hidden: int = 0
    """Of `tokens_out`, those of reasoning that is not shown."""
    estimated: bool = False
    """Whether the numbers of tokens are guessed, because the server did not say."""


@dataclass(frozen=True)
class Scored:
    """How probable a model finds a given continuation of a prompt."""

    continuation: str
    tokens: tuple[str, ...]
    """Text of each token scored. Where a token reaches back over the prompt's end, it is scored whole."""
    logprobs: tuple[float, ...]
    """log p(token | prompt, tokens before it), natural logarithms, <= 0; -inf for what cannot be."""
    is_greedy: bool
    """Whether each token was the most probable one: what temperature 0 would have said."""

    best: tuple[tuple[str, float], ...] | None = None
    """The most probable token in the place of each, and its log-probability; None unless a text was
    read (`LM.aread`) by a model that tells."""

    @property
    def total(self) -> float:
        """log p(continuation | prompt): the sum, not the mean."""
        return math.fsum(self.logprobs)

    @property
    def bytes(self) -> int:
        """Length in UTF-8 bytes: what to normalise by, since it depends on no tokeniser."""
        return len(self.continuation.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Piece:
    """A part of a sample while it is generated."""

    index: int
    """Which of the request's samples it belongs to, counted from 0 within the reply."""
    text: str
    """What follows the text so far; may be empty."""
    tokens: tuple[str, ...] | None = None
    """Tokens that follow those so far, if log-probabilities were wanted."""
    logprobs: tuple[float, ...] | None = None
    """Of each of `tokens`."""
    sample: Sample | None = None
    """With the last piece of a sample, the whole of it: its text is that of all pieces together."""


class LM(abc.ABC):
    """A language model. Backends implement the asynchronous half; the synchronous one follows from it.

    A backend that cannot score or embed leaves that method as it is, and it raises `Unsupported`.

    Attributes:
        name: what results are labelled with.
        parameters: number of parameters; None where it is not known.
        source: the file or directory it was read from, for a run's record; None where there is none.
        enforces_schema: whether a request's schema is sure to be followed.
    """

    name: str
    parameters: int | None = None
    source: Path | None = None
    enforces_schema: bool = False

    def fingerprint(self) -> str:
        """What results may be stored under: another one for whatever answers differently (other weights,
        another server). Never holds a key."""
        return f"{type(self).__name__}:{self.name}"

    def record(self) -> dict[str, Any]:
        """Where and how was really asked, for a run's record; empty where there is no more to tell than the
        name. Never holds a key."""
        return {}

    def count(self, texts: Sequence[str]) -> list[int] | None:
        """Tokens of each text, by the model's own tokeniser; None if it is not at hand."""
        return None

    @abc.abstractmethod
    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Generate: for each request, in order, its `n` samples."""

    async def astream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """Generate, and tell what comes while it comes; a backend that cannot, tells whole samples.

        Close it (`aclosing`) to stop before the end: what is not wanted is not generated then.
        """
        [samples] = await self.agenerate([request])
        for index, sample in enumerate(samples):
            yield Piece(index, sample.text, sample.tokens, sample.logprobs, sample)

    async def ascore(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        """Score the continuations of each prompt: for each item, in order, one `Scored` a continuation.

        Raises:
            DataError: for an empty continuation, or one that does not fit in the model's context.
            Unsupported: if the model cannot do this.
        """
        raise Unsupported(f"{self.name} cannot tell the probability of a given text; use a local model")

    async def aread(self, texts: Sequence[str]) -> list[Scored]:
        """Score texts from their beginning, and tell the most probable tokens where they are known.

        Raises:
            DataError: for an empty text, one that is too long, or if the model needs a token before it.
            Unsupported: if the model cannot do this.
        """
        return [scored for [scored] in await self.ascore([("", [each]) for each in texts])]

    async def aembed(self, texts: Sequence[str]) -> Floats:
        """Embed texts: one vector each, shape (n, d), float32.

        Raises:
            Unsupported: if the model cannot do this.
        """
        raise Unsupported(f"{self.name} cannot embed texts; use a local model")

    async def aclose(self) -> None:  # noqa: B027 - most backends have nothing to let go of
        """Let go of connections; harmless where there are none, and when done twice."""

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """`agenerate`, waited for; also from a notebook, where a loop is running already."""
        return wait(self.agenerate(requests))

    def score(self, prompt: str, continuations: Sequence[str]) -> list[Scored]:
        """Score the continuations of one prompt; see `ascore`."""
        return wait(self.ascore([(prompt, continuations)]))[0]

    def score_many(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        """`ascore`, waited for. Give many items at once: what their prompts share is computed once."""
        return wait(self.ascore(items))

    def embed(self, texts: Sequence[str]) -> Floats:
        """`aembed`, waited for."""
        return wait(self.aembed(texts))

    def close(self) -> None:
        """`aclose`, waited for."""
        wait(self.aclose())

    def __enter__(self) -> LM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


NEXT_TURN = "\n\nUser:"
"""Where a model that goes on with a transcript has finished its own turn."""


def transcript(prompt: Prompt) -> str:
    """A prompt as text to be continued: a conversation becomes lines `User: ...`, ending in `Assistant:`.

    For models without a chat format of their own; what they say ends before `NEXT_TURN`.
    """
    if isinstance(prompt, str):
        return prompt
    turns = [f"{each.role.capitalize()}: {each.content}" for each in prompt]
    return "\n\n".join([*turns, "Assistant:"])


def shown(prompt: Prompt, width: int = 200) -> str:
    """The end of a prompt, quoted, for messages: where prompts differ."""
    text = transcript(prompt)
    return repr(text) if len(text) <= width else "..." + repr(text[-width:])


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Text before the first stop text in it, and whether there was one."""
    ends = [at for each in stop if (at := text.find(each)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def server_facts(lm: LM) -> dict[str, Any]:
    """What a run says of the model beyond its name, as further facts: `server`, or nothing."""
    record = lm.record()
    return {"server": record} if record else {}


# -- the synchronous face ---------------------------------------------------------------------------


_loop: tuple[int, asyncio.AbstractEventLoop] | None = None
_making = threading.Lock()


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from code that is not asynchronous.

    All such work runs in one loop in a thread of its own, so that connections live from call to call and
    that it also works where the caller's thread has a loop running. Ctrl-C cancels the work.
    """
    future = asyncio.run_coroutine_threadsafe(work, _background())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _background() -> asyncio.AbstractEventLoop:
    global _loop
    with _making:
        if _loop is None or _loop[0] != os.getpid():  # a forked child has the loop but not its thread
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="posterhall-lm", daemon=True).start()
            _loop = os.getpid(), loop
        return _loop[1]
