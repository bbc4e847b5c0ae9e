"""A checkpoint on this machine as an `LM`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from posterhall.errors import DataError
from posterhall.extras import require, torch
from posterhall.lm import _sampling, _scoring, _tokens
from posterhall.lm.protocol import LM, Floats, Request, Sample, Scored

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer
    from posterhall.models.decoder import Decoder

CACHE_BYTES = 512 << 20
"""Of keys and values held at once; more makes larger batches, not other results."""


class LocalLM(LM):
    """A decoder and its tokeniser, asked in batches.

    A text begins with the tokeniser's token for that (bos, else eos), where it has one. Scoring reads what
    prompts share once, and each prompt once whatever the number of its continuations. What a request's
    sample says follows from its seed and its number among the request's samples, not from its batch. An
    embedding is the mean of the last layer's states over a text's tokens.

    Args:
        model: the decoder.
        tokenizer: its tokeniser.
        name: what results are labelled with.
        cache_bytes: most memory for keys and values; what does not fit is done in turn.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        name: str = "local",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise DataError(
                f"the tokeniser has {tokenizer.vocab_size} tokens and the model knows "
                f"{model.config.vocab_size}; are they of the same checkpoint?"
            )
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.parameters = sum(each.numel() for each in model.parameters())
        self._cache_bytes = cache_bytes
        self._busy = threading.Lock()  # two batches at once would fight for cores and memory

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        dtype: str | None = None,
        device: str = "cpu",
        cache_bytes: int = CACHE_BYTES,
    ) -> LocalLM:
        """Load a Llama-architecture checkpoint with its tokeniser.

        Args:
            path: its directory, that of a run which trained it, or an id on the Hugging Face hub.
            dtype: as "bfloat16"; None keeps the files'.
            device: as "cpu", "cuda".
            cache_bytes: most memory for keys and values.

        Raises:
            DataError: if there is none, or it cannot be understood.
            MissingExtra: without torch.
        """
        require("torch", "train", "a model on this machine")
        from posterhall.data import tokenizer as tokenizers
        from posterhall.models import hub

        place = hub.locate(path)
        model = hub.load(place, dtype=dtype, device=device)
        lm = cls(model, tokenizers.load(place), name=str(path), cache_bytes=cache_bytes)
        lm.source = place
        return lm

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return await asyncio.to_thread(self._generate, list(requests))

    async def ascore(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        return await asyncio.to_thread(self._score, list(items))

    async def aembed(self, texts: Sequence[str]) -> Floats:
        return await asyncio.to_thread(self._embed, list(texts))

    def _generate(self, requests: list[Request]) -> list[list[Sample]]:
        with self._busy, torch.no_grad():
            return _sampling.generate(self.model, self.tokenizer, requests, cache_bytes=self._cache_bytes)

    def _score(self, items: list[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        with self._busy, torch.no_grad():
            return _scoring.score(self.model, self.tokenizer, items, cache_bytes=self._cache_bytes)

    def _embed(self, texts: list[str]) -> Floats:
        vectors = np.zeros((len(texts), self.model.config.dim), dtype=np.float32)
        device = self.model.head_weight().device
        with self._busy, torch.no_grad():
            start = _tokens.beginning(self.tokenizer)
            for row, own in enumerate(self.tokenizer.encode_batch(texts)):
                ids = start + own.tolist()
                if not ids:
                    raise DataError(f"text {row} is empty; there is nothing to embed")
                if len(ids) > (context := self.model.config.max_length):
                    raise DataError(
                        f"text {row} has {len(ids)} tokens, the model's context {context}; embed it in parts"
                    )
                hidden = self.model.hidden(torch.tensor([ids], device=device))
                vectors[row] = hidden[0].float().mean(0).cpu().numpy()
        return vectors
