"""Conversations as tokens, each with a mark where it is the assistant's.

A template's special tokens become tokens; the same letters in what somebody wrote stay text. Which tokens
are an answer's is what the template says itself where it has generation blocks; else it is what the text up
to and with the answer has more than the text up to where it begins, and a conversation for which the one is
not how the other begins is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from posterhall.data.chat import Chat, Completion
from posterhall.data.chat_template import ChatTemplate, Rendered, TemplateError
from posterhall.data.preference_tokens import LONG, MERGED, UNEVEN, Boundary, beginning, cut_beginning
from posterhall.data.refusals import Refusals
from posterhall.data.special_tokens import SpecialTokens
from posterhall.data.tokenizer import Tokenizer
from posterhall.errors import DataError

TooLong = Literal["refuse", "cut"]
LearnFrom = Literal["answers", "all"]

UNMARKED = "the template leaves the answer out"
_BATCH = 256

Spans = list[tuple[int, int]]


@dataclass(kw_only=True)
class ChatTokens(Refusals):
    """Conversations as tokens."""

    ids: list[NDArray[np.int32]]
    """Ids of each, at least two."""
    learnt: list[NDArray[np.bool_]]
    """Which of them are to be predicted; never the first."""
    last: Counter[int] = field(default_factory=Counter)
    """The special tokens with which conversations end, by number."""
    cut: int = 0
    """Rows that were cut."""

    def ends(self) -> frozenset[int]:
        """The token with which most conversations end, if they end with a special one."""
        return frozenset(token for token, _ in self.last.most_common(1))

    @property
    def tokens(self) -> int:
        """Of all of them."""
        return sum(map(len, self.ids))

    @property
    def answer_tokens(self) -> int:
        """Those to be predicted."""
        return sum(int(each.sum()) for each in self.learnt)


def encode(
    rows: Sequence[Chat | Completion],
    tokenizer: Tokenizer,
    template: ChatTemplate,
    *,
    max_length: int,
    learn_from: LearnFrom = "answers",
    too_long: TooLong = "refuse",
    boundary: Boundary = "refuse",
    begin: bool = True,
) -> ChatTokens:
    """Tokens of conversations.

    The end of an answer is always there: the template's, or, if the text does not end with a special token,
    the tokeniser's end of text after the last answer.

    Args:
        rows: from `posterhall.data.chat.read`.
        tokenizer: must have an end of text.
        template: what conversations look like.
        max_length: most tokens that go into the model; the last one is only predicted.
        learn_from: answers, or all tokens but the first.
        too_long: refuse rows above `max_length`, or cut them: conversations after the last answer that fits,
            the beginning of a single prompt. No answer is ever cut.
        boundary: rows where a token reaches over the beginning of an answer: refuse them, or encode what is
            before and after apart and concatenate that.
        begin: put the tokeniser's token of beginning (or else of end) before a `Completion`.

    Raises:
        DataError: for a tokeniser without end of text; if no row is left.
    """
    for name, given, known in (
        ("learn_from", learn_from, LearnFrom),
        ("too_long", too_long, TooLong),
        ("boundary", boundary, Boundary),
    ):
        if given not in get_args(known):
            raise DataError(f"{name} is '{given}'; it must be one of {', '.join(get_args(known))}")
    build = _Builder(tokenizer, template, max_length, too_long, boundary, begin)
    for at in range(0, len(rows), _BATCH):
        build.add(rows[at : at + _BATCH])
    found = build.found
    if not found.ids:
        hint = ""
        if found.refused[LONG]:
            hint = f" (above {max_length:,} tokens). Set too_long=cut, or raise max_length"
        elif found.refused[MERGED]:
            hint = ". Set boundary=concatenate"
        raise DataError(f"no row is left ({found.reasons()}){hint}")
    if learn_from == "all":
        found.learnt = [np.arange(len(each)) > 0 for each in found.ids]
    return found


class _Builder:
    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        max_length: int,
        too_long: TooLong,
        boundary: Boundary,
        begin: bool,
    ) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._special = SpecialTokens(tokenizer)
        self._start, self._end = beginning(tokenizer, begin)
        self._max_length, self._too_long, self._boundary = max_length, too_long, boundary
        self.found = ChatTokens(ids=[], learnt=[])

    def add(self, rows: Sequence[Chat | Completion]) -> None:
        """Some rows."""
        chats = [
            (row, *rendered)
            for row in rows
            if isinstance(row, Chat) and (rendered := self._rendered(row)) is not None
        ]
        encoded = iter(self._special.encode([text for _, text, _ in chats]))
        texts = [row for row in rows if isinstance(row, Completion)]
        prompts = iter(self._tokenizer.encode_batch([row.prompt for row in texts]))
        wholes = iter(self._tokenizer.encode_batch([row.prompt + row.completion for row in texts]))
        waiting = {id(row): (text, spans) for row, text, spans in chats}
        for row in rows:  # in the order of the files
            if isinstance(row, Completion):
                self._completion(row, next(prompts), next(wholes))
            elif id(row) in waiting:
                self._chat(row, *waiting[id(row)], *next(encoded))

    def _rendered(self, row: Chat) -> tuple[Rendered, Spans] | None:
        """A conversation as text, and where its answers are; or it is refused."""
        try:
            text = self._template.render(row.messages, special=self._special.pattern)
            spans = self._marked(row, text) if self._template.marks_answers else self._grown(row, text)
        except TemplateError as error:
            self.found.refuse(str(error), row.where)
            return None
        if spans is None:
            self.found.refuse(UNEVEN, row.where)
        elif not spans or any(start >= end for start, end in spans):
            self.found.refuse(UNMARKED, row.where)
        else:
            return text, spans
        return None

    def _marked(self, row: Chat, text: Rendered) -> Spans:
        """Where the template says that answers are, without those that are given."""
        given = 0
        if any(message["role"] == "assistant" for message in row.messages[: row.start]):
            given = len(self._template.render(row.messages[: row.start]).answers)
        return list(text.answers[given:])

    def _grown(self, row: Chat, text: Rendered) -> Spans | None:
        """What each answer adds to the text before it; None if it also changes that."""
        spans = []
        for number in row.answers():
            before = self._template.render(row.messages[:number], add_generation_prompt=True).text
            behind = self._template.render(row.messages[: number + 1]).text
            if not text.text.startswith(behind):  # some templates write an end after the last message alone
                behind = self._special.without_end(behind)
            if not (behind.startswith(before) and text.text.startswith(behind)):
                return None
            spans.append((len(before), len(behind)))
        return spans

    def _chat(
        self, row: Chat, text: Rendered, spans: Spans, ids: NDArray[np.int32], places: NDArray[np.int64]
    ) -> None:
        whole = answers = list(row.answers())
        found = self._tokens(row, text, spans, ids, places)
        while found is not None and len(found[0]) - 1 > self._max_length:
            answers = answers[:-1]
            if self._too_long == "refuse" or not answers:
                self.found.refuse(LONG, row.where)
                return
            row = Chat(row.messages[: answers[-1] + 1], row.where, row.start)
            rendered = self._rendered(row)
            if rendered is None:
                return
            found = self._tokens(row, *rendered, *self._special.encode([rendered[0]])[0])
        if found is not None:
            self._keep(row, *found)
            self.found.cut += len(answers) < len(whole)

    def _tokens(
        self, row: Chat, text: Rendered, spans: Spans, ids: NDArray[np.int32], places: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]] | None:
        """Ids, and which are learnt; or the row is refused."""
        edges = [start for start, _ in spans]
        if any(((places[:, 0] < edge) & (places[:, 1] > edge)).any() for edge in edges):
            if self._boundary == "refuse":
                self.found.refuse(MERGED, row.where)
                return None
            ids, places = self._special.encode_apart(text, edges)
        learnt = np.zeros(len(ids), bool)
        for start, end in spans:
            learnt |= (places[:, 0] < end) & (places[:, 1] > start)
        if not self._special.ends(text):
            ids, learnt = np.concatenate((ids, self._end)), np.append(learnt, True)
        return ids, learnt

    def _completion(self, row: Completion, prompt: NDArray[np.int32], whole: NDArray[np.int32]) -> None:
        answer = whole[len(prompt) :]
        if not np.array_equal(whole[: len(prompt)], prompt):
            if self._boundary == "refuse":
                self.found.refuse(MERGED, row.where)
                return
            answer = self._tokenizer.encode_batch([row.completion])[0]
        before = np.concatenate((self._start, prompt))
        answer = np.concatenate((answer, self._end))
        room = self._max_length + 1 - len(answer)
        if len(before) > room:
            shorter = cut_beginning(self._start, before, room) if self._too_long == "cut" else None
            if shorter is None:
                self.found.refuse(LONG, row.where)
                return
            before = shorter
            self.found.cut += 1
        ids = np.concatenate((before, answer))
        # Nothing predicts the first token.
        self._keep(row, ids, np.arange(len(ids)) >= max(1, len(before)))

    def _keep(self, row: Chat | Completion, ids: NDArray[np.int32], learnt: NDArray[np.bool_]) -> None:
        learnt[0] = False
        if len(ends := np.flatnonzero(np.isin(ids, self._special.ids))):
            self.found.last[int(ids[ends[-1]])] += 1
        if not learnt.any():
            self.found.refuse(UNMARKED, row.where)
            return
        self.found.ids.append(ids.astype(np.int32))
        self.found.learnt.append(learnt)
