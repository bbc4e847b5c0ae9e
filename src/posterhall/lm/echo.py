"""A model that needs no model: it says what it was told. For trying out and for tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from posterhall.errors import DataError
from posterhall.lm.protocol import LM, Floats, Request, Sample, Scored, cut, transcript

BYTE = -math.log(256)
"""log-probability of every byte."""


class EchoLM(LM):
    """Repeats the end of the prompt, and finds every byte equally probable.

    Tokens are bytes. A sample is the prompt's last `max_tokens` bytes, whole characters of them; a text's
    log-probability is -log 256 a byte; its vector is the counts of its bytes, of length 1, shape (256,).
    So whatever stands on an LM has an answer in closed form here.
    """

    def __init__(self) -> None:
        self.name = "echo"

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [[self._sample(each)] * each.n for each in requests]

    async def ascore(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        return [[_score(prompt, each) for each in continuations] for prompt, continuations in items]

    async def aembed(self, texts: Sequence[str]) -> Floats:
        counts = np.zeros((len(texts), 256), dtype=np.float32)
        for row, text in zip(counts, texts, strict=True):
            row += np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=256)
        norms = np.linalg.norm(counts, axis=1, keepdims=True)
        return np.asarray(counts / np.maximum(norms, 1.0))

    def _sample(self, request: Request) -> Sample:
        whole = transcript(request.prompt).encode()
        said = whole[-request.max_tokens :].decode("utf-8", "ignore")
        text, stopped = cut(said, request.stop)
        tokens = None
        if request.logprobs:
            tokens = tuple(chr(byte) for byte in text.encode())
        return Sample(
            text=text,
            finish_reason="stop" if stopped or len(whole) <= request.max_tokens else "length",
            tokens_in=len(whole),
            tokens_out=len(said.encode()),
            tokens=tokens,
            logprobs=(BYTE,) * len(tokens) if tokens is not None else None,
        )


def _score(prompt: str, continuation: str) -> Scored:
    if not continuation:
        raise DataError("a continuation is empty; there is nothing to score")
    size = len(continuation.encode())
    return Scored(continuation, tuple(map(chr, continuation.encode())), (BYTE,) * size, is_greedy=False)
