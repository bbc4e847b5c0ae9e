"""A sample's text while it comes: never a part of a character, nor what may begin a stop text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterhall.lm import _sampling, _tokens
from posterhall.lm.protocol import Piece, Request

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer
    from posterhall.lm._chat import Chat
    from posterhall.models.batching import Row


class Stream:
    """The pieces of one sample; joined, they are the sample's text, tokens and log-probabilities.

    Args:
        tokenizer: the model's.
        request: what was asked.
        index: the sample's number in the reply.
        chat: how conversations are put.
    """

    def __init__(self, tokenizer: Tokenizer, request: Request, index: int, chat: Chat | None = None) -> None:
        self._tokenizer, self._request, self._index, self._chat = tokenizer, request, index, chat
        self._stops = _sampling.stops(request, chat)
        self._text = ""  # of whole characters so far
        self._told = 0  # characters of it
        self._tokens_told = 0
        # Tokens before `_read` are in the text; those from `_from` on are decoded with the new ones, since
        # what a token says can depend on the one before.
        self._from = self._read = 0

    def take(self, row: Row, size: int) -> Piece | None:
        """What can be told now that the row has `size` tokens; None if nothing can."""
        known = self._tokenizer.decode(row.ids[self._from : self._read])
        new = self._tokenizer.decode(row.ids[self._from : size])
        if len(new) > len(known) and not new.endswith("\ufffd"):
            self._text += new[len(known) :]
            self._from, self._read = self._read, size
        free = max(self._told, len(self._text) - self._held())
        if free == self._told:
            return None
        text = self._text[self._told : free]
        self._told = free
        return self._piece(text, row, self._read if free == len(self._text) else self._tokens_told)

    def end(self, row: Row) -> Piece:
        """The rest, with the sample."""
        sample = _sampling.sample(self._tokenizer, self._request, row, self._chat)
        size = len(sample.tokens) if sample.tokens is not None else self._tokens_told
        piece = self._piece(sample.text[self._told :], row, size)
        return Piece(piece.index, piece.text, piece.tokens, piece.logprobs, sample)

    def _held(self) -> int:
        """Characters at the end that belong to a stop text, or may come to."""
        held = 0
        for stop in self._stops:
            whole = self._text.find(stop, self._told)
            if whole >= 0:
                held = max(held, len(self._text) - whole)
            for size in range(min(len(stop) - 1, len(self._text)), held, -1):
                if self._text.endswith(stop[:size]):
                    held = size
                    break
        return held

    def _piece(self, text: str, row: Row, size: int) -> Piece:
        if not self._request.logprobs:
            return Piece(self._index, text)
        first, self._tokens_told = self._tokens_told, max(size, self._tokens_told)
        ids = row.ids[first : self._tokens_told]
        logprobs = tuple(min(each, 0.0) for each in row.logprobs[first : self._tokens_told])
        return Piece(self._index, text, _tokens.texts(self._tokenizer, ids), logprobs)
