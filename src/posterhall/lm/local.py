"""A checkpoint on this machine as an `LM`."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from posterhall.errors import DataError
from posterhall.extras import require, torch
from posterhall.lm import _chat, _embedding, _sampling, _scoring, _stream, _tokens
from posterhall.lm.engine import Engine
from posterhall.lm.protocol import LM, Floats, Piece, Prompt, Request, Sample, Scored
from posterhall.models.quantized import frozen_bytes, numbers
from posterhall.models.speculative import LOOKAHEAD, Draft, Speculation

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer
    from posterhall.models.batching import Row
    from posterhall.models.causal import CausalModel

P = ParamSpec("P")
T = TypeVar("T")

CACHE_BYTES = 512 << 20
"""Of keys and values held at once; more makes larger batches, not other results."""
PREFIX_BYTES = 128 << 20
"""Of the keys and values of recent prompts' beginnings."""
BATCH = 128
"""Rows decoded at once."""
_FEW = 16
"""Items whose texts become tokens in no time."""


class LocalLM(LM):
    """A model and its tokeniser, asked in batches.

    What several coroutines ask at the same time is answered together (`posterhall.lm.engine`), and what
    recent prompts began with is not read again. A text begins with the tokeniser's token for that (bos, else
    eos), where it has one; a conversation is put in the checkpoint's chat template, if it has one, else as a
    transcript. Scoring reads what prompts share once, and each prompt once whatever the number of its
    continuations. What a request's sample says follows from its seed and its number among the request's
    samples, not from its batch. A small model may draft what the large one then judges: the same text at
    temperature 0, the same distribution of texts above (`posterhall.models.speculative`). An embedding is
    the mean of the last layer's states over a text's tokens.

    Args:
        model: a `Decoder`, or a model of transformers (`posterhall.models.foreign`).
        tokenizer: its tokeniser.
        name: what results are labelled with.
        chat: its chat template; what ends an answer by it ends a sample.
        ends: further tokens that end a sample, beside the tokeniser's end of text.
        draft: a model of the same tokeniser that drafts.
        cache_bytes: most memory for keys and values; what does not fit is done in turn.
        prefix_bytes: memory for the beginnings of recent prompts; 0 keeps none.
        batch: rows decoded at once, >= 1.
    """

    def __init__(
        self,
        model: CausalModel,
        tokenizer: Tokenizer,
        *,
        name: str = "local",
        chat: _chat.Chat | None = None,
        ends: Collection[int] = (),
        draft: Draft | None = None,
        cache_bytes: int = CACHE_BYTES,
        prefix_bytes: int = PREFIX_BYTES,
        batch: int = BATCH,
    ) -> None:
        for each in (model, *(() if draft is None else (draft.model,))):
            if tokenizer.vocab_size > each.config.vocab_size:
                raise DataError(
                    f"the tokeniser has {tokenizer.vocab_size} tokens and the model knows "
                    f"{each.config.vocab_size}; are they of the same checkpoint?"
                )
        self.name = name
        self.model = model
        model.eval()
        if draft is not None:
            draft.model.eval()
        self.tokenizer = tokenizer
        self.draft = draft
        self._chat = chat
        own = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
        self._ends = frozenset((*ends, *own, *(() if chat is None else chat.ends)))
        self._rows = functools.partial(_sampling.rows, model, tokenizer, ends=self._ends, chat=chat)
        self.parameters = numbers(model)
        self._engine = Engine(
            self.model,
            most_rows=batch,
            most_tokens=cache_bytes // model.token_bytes,
            prefix_bytes=prefix_bytes,
            draft=draft,
        )
        self._scoring = functools.partial(_scoring.passes, model=self.model, cache_bytes=cache_bytes)
        self._embedding = functools.partial(_embedding.passes, model=self.model)
        self._hashing = threading.Lock()
        self._fingerprint: tuple[Any, str] | None = None

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        dtype: str | None = None,
        device: str = "cpu",
        cache_bytes: int = CACHE_BYTES,
        prefix_bytes: int = PREFIX_BYTES,
        batch: int = BATCH,
        draft: Path | str | None = None,
        lookahead: int | None = None,
    ) -> LocalLM:
        """Load a checkpoint with its tokeniser: of Llama's architecture, or with transformers of any.

        Args:
            path: its directory, that of a run which trained it, or an id on the Hugging Face hub.
            dtype: as "bfloat16"; None keeps the files'.
            device: as "cpu", "cuda".
            cache_bytes, prefix_bytes, batch: see the class.
            draft: a smaller checkpoint with the same tokeniser, which drafts.
            lookahead: tokens it drafts at most; None: 4.

        Raises:
            DataError: if there is none, it cannot be understood, or the two have different tokenisers.
            MissingExtra: without torch; without transformers, for what only that reads.
        """
        require("torch", "train", "a model on this machine")
        from posterhall.models import causal, hub

        place = hub.locate(path)
        texts = causal.text_files(place)
        tokenizer = _tokens.load(texts)
        small = None if draft is None else load_draft(draft, tokenizer, lookahead, dtype=dtype, device=device)
        lm = cls(
            causal.load(place, dtype=dtype, device=device),
            tokenizer,
            name=str(path),
            chat=_chat.load(texts, tokenizer),
            ends=hub.end_ids(texts),
            draft=small,
            cache_bytes=cache_bytes,
            prefix_bytes=prefix_bytes,
            batch=batch,
        )
        lm.source = place
        return lm

    def fingerprint(self) -> str:
        """Another one for other weights, number format, tokeniser or chat template, or another draft."""
        models = [self.model] if self.draft is None else [self.model, self.draft.model]
        weights = tuple((each.data_ptr(), each._version) for model in models for each in model.parameters())
        with self._hashing:
            if self._fingerprint is None or self._fingerprint[0] != weights:
                digest = hashlib.blake2b(digest_size=16, person=b"posterhall.local")
                digest.update(self.tokenizer.digest.encode())
                if self._chat is not None:
                    digest.update(self._chat.template.encode())
                if self.draft is not None:  # samples are others, though of the same distribution
                    digest.update(f"draft {self.draft.lookahead} {self.draft.cost}".encode())
                for model in models:
                    _digest(model, digest)
                self._fingerprint = weights, f"local:{digest.hexdigest()}"
            return self._fingerprint[1]

    @property
    def speculation(self) -> Speculation | None:
        """What drafting has come to so far; None if nothing drafts."""
        return None if self.draft is None else self._engine.speculation

    @property
    def has_template(self) -> bool:
        """Whether conversations take the form of a chat template, and not that of a transcript."""
        return self._chat is not None

    def prompt_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt as the model reads it.

        Raises:
            DataError: for a conversation that the chat template does not take.
        """
        return [len(ids) for ids in _sampling.prompt_ids(self.tokenizer, prompts, self._chat)]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without the one that begins it."""
        return [len(each) for each in self.tokenizer.encode_batch(texts)]

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        rows = await _aside(len(requests), self._rows, requests)
        await self._engine.draw([row for each in rows for row in each])
        return await _aside(len(requests), self._samples, requests, rows)

    async def astream(self, request: Request) -> AsyncGenerator[Piece, None]:
        [rows] = self._rows([request])
        streams = {row: _stream.Stream(self.tokenizer, request, i, self._chat) for i, row in enumerate(rows)}
        news: asyncio.Queue[tuple[Row, int] | None] = asyncio.Queue()
        drawing = asyncio.ensure_future(self._engine.draw(rows, lambda *news_: news.put_nowait(news_)))
        drawing.add_done_callback(lambda _: news.put_nowait(None))
        try:
            while (told := await news.get()) is not None:
                row, size = told
                piece = streams[row].take(row, size)
                if piece is not None:
                    yield piece
            await drawing
            for row, stream in streams.items():
                yield stream.end(row)
        finally:
            drawing.cancel()

    async def ascore(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        read = await _aside(len(items), _scoring.read, self.model, self.tokenizer, items)
        await self._engine.run(self._scoring, read)
        return await _aside(len(items), _scoring.results, self.tokenizer, read)

    async def aread(self, texts: Sequence[str]) -> list[Scored]:
        items = [("", [each]) for each in texts]
        read = await _aside(len(items), _scoring.read, self.model, self.tokenizer, items)
        await self._engine.run(self._scoring, read)
        found = await _aside(len(items), _scoring.results, self.tokenizer, read, best=True)
        return [scored for [scored] in found]

    async def aembed(self, texts: Sequence[str]) -> Floats:
        read = await _aside(len(texts), _embedding.read, self.model, self.tokenizer, texts)
        await self._engine.run(self._embedding, read)
        return _embedding.results(self.model, read)

    def _samples(self, requests: Sequence[Request], rows: Sequence[Sequence[Row]]) -> list[list[Sample]]:
        return [
            [_sampling.sample(self.tokenizer, request, row, self._chat) for row in own]
            for request, own in zip(requests, rows, strict=True)
        ]


def load_draft(path: Path | str, tokenizer: Tokenizer, lookahead: int | None = None, **how: Any) -> Draft:
    """A checkpoint that drafts for a model with this tokeniser.

    Raises:
        DataError: if there is none, it cannot be understood, or it has another tokeniser.
    """
    from posterhall.models import causal, hub

    place = hub.locate(path)
    own = _tokens.load(causal.text_files(place))
    if own.digest != tokenizer.digest:
        raise DataError(
            f"{path} has another tokeniser ({own.name}) than the model that it should draft for "
            f"({tokenizer.name}); take a smaller model of the same family, or train one with that tokeniser"
        )
    return Draft(causal.load(place, **how), lookahead or LOOKAHEAD)


def _digest(model: CausalModel, digest: Any) -> None:
    digest.update(repr(model.config).encode())
    for name, each in model.named_parameters():
        digest.update(f"{name} {each.dtype} {tuple(each.shape)}".encode())
        data = each.detach().cpu().reshape(-1).contiguous()
        digest.update(data.view(torch.uint8).numpy().data)
    for packed in frozen_bytes(model):
        digest.update(packed)


async def _aside(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what takes long for many items in another thread, so that the loop goes on meanwhile."""
    if size <= _FEW:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
