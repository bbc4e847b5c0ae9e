"""Preferences as tokens, and batches of them in which what is shared is there once.

A prompt stands in a batch once for all its answers, and an answer once for all pairs it is in: each prompt
with its answers is a tree, its trunk the prompt, a branch for each answer. Nothing is padded: the trees of a
batch follow each other in one row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from posterhall.data.chat_template import ChatTemplate, TemplateError
from posterhall.data.epochs import Epochs
from posterhall.data.preference import TIED, Preference
from posterhall.data.refusals import Refusals
from posterhall.data.special_tokens import SpecialTokens
from posterhall.data.tokenizer import Tokenizer
from posterhall.errors import DataError
from posterhall.seeds import generator

Boundary = Literal["refuse", "concatenate"]
TooLong = Literal["refuse", "cut_prompt"]
Comparison = Literal["pairs", "rankings"]
Layout = Literal["trees", "rows"]

MERGED, LONG = "a token across the end of the prompt", "too long"
UNEVEN = "the template writes what is before an answer differently without it"
_BATCH = 1024


@dataclass(kw_only=True)
class PreferenceTokens(Refusals):
    """Prompts, answers, and which answer is better than which."""

    prompts: list[NDArray[np.int32]]
    """Ids of each prompt, at least one."""
    answers: list[NDArray[np.int32]]
    """Ids of each answer, its end included."""
    prompt_of: NDArray[np.int64]
    """(answers,) indices of their prompts."""
    items: NDArray[np.int64]
    """(items, K) indices of answers, the best first, -1 behind the last; K is 2 for pairs."""
    cut: int = 0
    """Rows whose prompt lost its beginning."""
    gaps: NDArray[np.float64] | None = None
    """(items,) by how much the better answer's score is above the worse one's, of pairs; None if some row
    has no scores."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all answers with their prompts."""
        found = hashlib.sha256()
        parts: list[NDArray[Any]] = [self.prompt_of, *self.prompts, *self.answers]
        for each in parts:
            found.update(len(each).to_bytes(8, "little"))
            found.update(np.ascontiguousarray(each, np.int64).tobytes())
        return found.hexdigest()

    @property
    def longest(self) -> int:
        """Inputs of the longest prompt with its answer; an answer's last token is only predicted."""
        return max(
            len(self.prompts[p]) + len(a) - 1 for p, a in zip(self.prompt_of, self.answers, strict=True)
        )


def encode(
    rows: Sequence[Preference],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    template: ChatTemplate | None = None,
    compare: Comparison = "pairs",
    boundary: Boundary = "refuse",
    too_long: TooLong = "refuse",
    begin: bool = True,
    tails: bool = False,
) -> PreferenceTokens:
    """Tokens of prompts and answers, and the comparisons between them.

    The tokens of a prompt with its answer must be those of the prompt, then others: else the model would be
    trained on a boundary that it never meets when it continues the prompt. Special tokens written out in a
    text stay text; the end of an answer is always there, and no answer is ever cut.

    Args:
        rows: from `posterhall.data.preference.read`.
        tokenizer: must have an end of text.
        max_length: longest prompt with an answer, in tokens.
        template: renders rows that are messages; it is needed for them, and puts their beginning and end.
        compare: pairs (every pair of a row's answers but tied ones), or rankings (rows as they are).
        boundary: refuse rows where a token reaches over the end of the prompt, or encode prompt and answer
            apart and join them (as a model sees it that is given the prompt).
        too_long: refuse rows above `max_length`, or cut the beginning of the prompt off.
        begin: put the tokeniser's token of beginning (or else of end) before a prompt.
        tails: let an answer go on to where the template's text ends. A newline, say, behind the end of a turn
            is nothing that a model samples, and is left out; but a reward model reads a text to its end.

    Raises:
        DataError: for a tokeniser without end of text; an empty prompt with nothing before it; if no row
            is left.
    """
    for name, given, known in (
        ("compare", compare, Comparison),
        ("boundary", boundary, Boundary),
        ("too_long", too_long, TooLong),
    ):
        if given not in get_args(known):
            raise DataError(f"{name} is '{given}'; it must be one of {', '.join(get_args(known))}")
    build = _Builder(tokenizer, begin, max_length, compare, boundary, too_long)
    texts = [row for row in rows if not row.messages]
    for at in range(0, len(texts), _BATCH):
        build.add(texts[at : at + _BATCH])
    if len(texts) < len(rows):
        if template is None:
            raise DataError("these preferences are messages; give the chat template that renders them")
        special = SpecialTokens(tokenizer)
        for row in rows:
            if row.messages:
                build.chat(row, template, special, tails=tails)
    return build.done()


def beginning(tokenizer: Tokenizer, begin: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """What stands before a text (the token of beginning, or else of end; nothing if not to `begin`), and
    what ends it.

    Raises:
        DataError: for a tokeniser without an end of text.
    """
    end = tokenizer.eos_id
    if end is None:
        raise DataError(
            f"the tokeniser {tokenizer.name} has no token that ends a text, so no answer could end; "
            "name one as eos_token in its tokenizer_config.json"
        )
    start = [end if tokenizer.bos_id is None else tokenizer.bos_id] if begin else []
    return np.array(start, np.int32), np.array([end], np.int32)


def cut_beginning(start: NDArray[np.int32], text: NDArray[np.int32], room: int) -> NDArray[np.int32] | None:
    """The end of a text after its start again, `room` tokens in all; None if less than one would be left."""
    kept = room - len(start)
    return None if kept < 1 else np.concatenate((start, text[len(text) - kept :]))


class _Builder:
    def __init__(
        self,
        tokenizer: Tokenizer,
        begin: bool,
        max_length: int,
        compare: Comparison,
        boundary: Boundary,
        too_long: TooLong,
    ) -> None:
        self._tokenizer = tokenizer
        self._start, self._end = beginning(tokenizer, begin)
        self._max_length, self._compare = max_length, compare
        self._boundary, self._too_long = boundary, too_long
        self._prompts: dict[bytes, int] = {}
        self._answers: dict[tuple[int, bytes], int] = {}
        self._items: list[list[int]] = []
        self._gaps: list[float] = []
        self._cut = 0
        self._out = Refusals()

    def add(self, rows: Sequence[Preference]) -> None:
        """Some rows of text."""
        encode = self._tokenizer.encode_batch
        prompts = encode([row.prompt for row in rows])
        joined = iter(encode([row.prompt + a for row in rows for a in row.answers]))
        for row, prompt in zip(rows, prompts, strict=True):
            whole = [next(joined) for _ in row.answers]
            answers = [ids[len(prompt) :] for ids in whole]
            if not all(np.array_equal(ids[: len(prompt)], prompt) for ids in whole):
                if self._boundary == "refuse":
                    self._out.refuse(MERGED, row.where)
                    continue
                answers = encode(row.answers)
            answers = [np.concatenate((ids, self._end)) for ids in answers]
            self._row(row, self._start, np.concatenate((self._start, prompt)), answers)

    def chat(self, row: Preference, template: ChatTemplate, special: SpecialTokens, *, tails: bool) -> None:
        """A row of messages."""
        before = [{"role": role, "content": said} for role, said in row.messages]
        try:
            prompt = template.render(before, add_generation_prompt=True, special=special.pattern)
            wholes = [
                template.render([*before, {"role": "assistant", "content": each}], special=special.pattern)
                for each in row.answers
            ]
        except TemplateError as error:
            self._out.refuse(str(error), row.where)
            return
        if not all(each.text.startswith(prompt.text) for each in wholes):
            self._out.refuse(UNEVEN, row.where)
            return
        (ids, _), *others = special.encode([prompt, *wholes])
        begins = [np.arange(len(whole)) >= len(ids) for whole, _ in others]
        if not all(np.array_equal(whole[: len(ids)], ids) for whole, _ in others):
            if self._boundary == "refuse":
                self._out.refuse(MERGED, row.where)
                return
            edge = len(prompt.text)
            others = [special.encode_apart(each, [edge]) for each in wholes]
            begins = [places[:, 0] >= edge for _, places in others]
        answers = []
        for text, (whole, places), begun in zip(wholes, others, begins, strict=True):
            if not special.ends(text):
                answers.append(np.concatenate((whole[begun], self._end)))
            else:
                kept = begun if tails else begun & (places[:, 0] < len(text.text.rstrip()))
                answers.append(whole[kept])
        self._row(row, ids[: int(len(ids) > 0 and ids[0] == self._tokenizer.bos_id)], ids, answers)

    def _row(
        self,
        row: Preference,
        start: NDArray[np.int32],
        prompt: NDArray[np.int32],
        answers: list[NDArray[np.int32]],
    ) -> None:
        if not len(prompt):
            raise DataError(
                f"{row.where}: the prompt is empty, and nothing stands before it; put the token of "
                "beginning there (begin = true), or give a prompt"
            )
        room = self._max_length + 1 - max(map(len, answers))
        if len(prompt) > room:
            shorter = cut_beginning(start, prompt, room) if self._too_long == "cut_prompt" else None
            if shorter is None:
                self._out.refuse(LONG, row.where)
                return
            self._cut += 1
            prompt = shorter
        if self._compare == "rankings" and row.tied:
            self._out.refuse("tied ranking", row.where)
            return
        keys = [ids.astype(np.int32).tobytes() for ids in answers]
        if len(set(keys)) < len(keys):
            self._out.refuse("answers with the same tokens", row.where)
            return
        place = self._prompts.setdefault(prompt.tobytes(), len(self._prompts))
        names = [self._answers.setdefault((place, key), len(self._answers)) for key in keys]
        if self._compare == "rankings":
            self._items.append(names)
        else:
            for better, worse in row.pairs():
                self._items.append([names[better], names[worse]])
                if row.scores is not None:
                    self._gaps.append(row.scores[better] - row.scores[worse])

    def done(self) -> PreferenceTokens:
        """All of them."""
        if not self._items:
            hint = ""
            if self._out.refused[MERGED]:
                hint = (
                    ". Move white space from a prompt's end to the beginning of its answers, or set "
                    "boundary=concatenate"
                )
            elif self._out.refused[LONG]:
                hint = (
                    f" (above {self._max_length:,} tokens). Set too_long=cut_prompt (no answer is ever cut), "
                    "or raise max_length as far as the model goes"
                )
            raise DataError(f"no comparison is left ({self._out.reasons() or TIED}){hint}")
        widest = max(map(len, self._items))
        items = np.full((len(self._items), widest), -1, np.int64)
        for i, names in enumerate(self._items):
            items[i, : len(names)] = names
        return PreferenceTokens(
            prompts=[np.frombuffer(each, np.int32) for each in self._prompts],
            answers=[np.frombuffer(each, np.int32) for _, each in self._answers],
            prompt_of=np.array([place for place, _ in self._answers], np.int64),
            items=items,
            refused=self._out.refused,
            first=self._out.first,
            cut=self._cut,
            gaps=np.array(self._gaps) if len(self._gaps) == len(self._items) else None,
        )


class PreferenceBatches:
    """Comparisons as the training loop takes them: an endless sequence of epochs.

    In an epoch each comes once; those of one prompt follow each other, so that they share it.

    Args:
        tokens: what to compare.
        seed: determines the order.
        shuffle: False keeps the order of the files.
        layout: trees (see above), or rows: every answer with its own copy of the prompt, padded at the end,
            for models that know no trees.
        reference: (answers,) log-probabilities under the reference; None for losses without.
        keep: indices of the items to take; None: all.

    Attributes:
        items: comparisons an epoch.
    """

    def __init__(
        self,
        tokens: PreferenceTokens,
        *,
        seed: int = 0,
        shuffle: bool = True,
        layout: Layout = "trees",
        reference: NDArray[np.float64] | None = None,
        keep: NDArray[np.int64] | None = None,
    ) -> None:
        if reference is not None and reference.shape != (len(tokens.answers),):
            raise DataError(
                f"reference log-probabilities of shape {reference.shape} for {len(tokens.answers)} answers"
            )
        self.tokens = tokens
        self._layout = layout
        self._reference = reference
        self._items = tokens.items if keep is None else tokens.items[keep]
        self._gaps = tokens.gaps if tokens.gaps is None or keep is None else tokens.gaps[keep]
        self.items = len(self._items)
        prompt_of = tokens.prompt_of[self._items[:, 0]]

        def order(epoch: int) -> NDArray[np.int64]:
            if not shuffle:
                return np.arange(self.items)
            drawn = generator(seed, "preferences", epoch).permutation(self.items)
            # Bring each prompt's comparisons to where its first one is.
            _, first, inverse = np.unique(prompt_of[drawn], return_index=True, return_inverse=True)
            return drawn[np.argsort(first[inverse], kind="stable")]

        self._epochs = Epochs(self.items, order)

    def take(self, first: int, count: int) -> dict[str, NDArray[Any]]:
        """Comparisons `first` to `first + count` of the endless sequence, as `pack` has them."""
        drawn = self._epochs.drawn(first, count)
        items = self._items[drawn]
        used = np.unique(items[items >= 0])
        # Answers by prompt, prompts in the order in which they were drawn.
        prompts, seen = np.unique(self.tokens.prompt_of[items[:, 0]], return_index=True)
        rank = dict(zip(prompts.tolist(), seen.tolist(), strict=True))
        used = np.array(sorted(used.tolist(), key=lambda a: (rank[int(self.tokens.prompt_of[a])], a)))
        batch = pack(self.tokens, used, layout=self._layout)
        local = np.full(len(self.tokens.answers) + 1, -1, np.int64)
        local[used] = np.arange(len(used))
        batch["items"] = local[items]  # -1 finds the last entry, which is -1
        if self._reference is not None:
            batch["reference"] = self._reference[used]
        if self._gaps is not None:
            batch["gaps"] = self._gaps[drawn]
        return batch


def pack(
    tokens: PreferenceTokens, answers: NDArray[np.int64], *, layout: Layout = "trees"
) -> dict[str, NDArray[Any]]:
    """Some answers with their prompts as one batch; answers of one prompt must be neighbours.

    Returns:
        "ids": (1, N), or (answers, T) for rows; "sources": (M,) positions in the flattened ids from whose
        states the "labels" (M,) are predicted; "answer_of": (M,) which answer each belongs to; "lengths":
        (answers,) tokens of each; for trees also "trunks": (trees,) tokens of each prompt, "branches":
        (answers,) input tokens of each answer, and "tree_of": (answers,) where it belongs.
    """
    chosen = [tokens.answers[i] for i in answers]
    lengths = np.array([len(each) for each in chosen], np.int64)
    places = tokens.prompt_of[answers]
    labels = np.concatenate(chosen).astype(np.int64)
    common = {"labels": labels, "answer_of": np.repeat(np.arange(len(chosen)), lengths), "lengths": lengths}
    if layout == "rows":
        rows = [np.concatenate((tokens.prompts[p], a[:-1])) for p, a in zip(places, chosen, strict=True)]
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        begins = [i * width + len(row) - n for i, (row, n) in enumerate(zip(rows, lengths, strict=True))]
        sources = np.concatenate([at + np.arange(n) for at, n in zip(begins, lengths, strict=True)])
        return {"ids": ids, "sources": sources, **common}
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    tree_of = np.cumsum(np.diff(places, prepend=-1) != 0) - 1
    parts: list[NDArray[np.int32]] = []
    from_where: list[NDArray[np.int64]] = []
    at = last = 0
    for i, answer in enumerate(chosen):
        if i == 0 or tree_of[i] != tree_of[i - 1]:
            prompt = tokens.prompts[places[i]]
            parts.append(prompt)
            at += len(prompt)
            last = at - 1  # the end of the prompt predicts the first token of each of its answers
        parts.append(answer[:-1])
        from_where.append(np.concatenate(([last], at + np.arange(len(answer) - 1))))
        at += len(answer) - 1
    return {
        "ids": np.concatenate(parts).astype(np.int64)[None],
        "sources": np.concatenate(from_where).astype(np.int64),
        "trunks": np.array([len(tokens.prompts[p]) for p in places[starts]], np.int64),
        "branches": lengths - 1,
        "tree_of": tree_of.astype(np.int64),
        **common,
    }
