"""A running batch: rows join and leave it between tokens, each drawn as if it were alone.

What a row says follows from its prompt, its settings and its seed, not from its neighbours; only the last
bits of the logits do (matrix products of another size may round otherwise), which can turn the draw of two
tokens that are as good as equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, SupportsIndex

from posterhall import seeds
from posterhall.extras import torch
from posterhall.models.mixers import Recall
from posterhall.models.prefixes import BLOCK, Block, Prefixes
from posterhall.models.sampling import Draws, Sampling

if TYPE_CHECKING:
    from posterhall.models.cache import Cache
    from posterhall.models.causal import CausalModel

READ_AT_ONCE = 1 << 13
"""Tokens of prompts in one pass; with more, a small model gets no faster, and attention masks get large."""
_UNIFORMS = 32
"""Random numbers that a row draws at once."""
_SPARE = 64
"""Most tokens for which a new cache has room after its prompts; then it grows by half."""
_WAVES = 4
"""Prompts that begin alike wait for the first of them to be read; at most so many
passes one after another."""

_Prompt = tuple[int, ...]


class Row:
    """One continuation.

    Args:
        prompt: token ids, at least one.
        max_new_tokens: most new ones, >= 0.
        sampling: how they are drawn.
        seed: of the draws.
        stop_ids: tokens that end it, and are not part of it.
        watch: called with the row after each new token; true ends it.
        wants_logprobs: whether the log-probabilities of its tokens are kept.

    Attributes:
        ids: new tokens so far.
        logprobs: of each under the model itself, whatever the temperature; empty if not wanted.
        stopped: whether a stop token or the watcher ended it; otherwise it was cut.
        reused: tokens of its prompt that had been read for an earlier one.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        sampling: Sampling,
        seed: SupportsIndex = 0,
        stop_ids: frozenset[int] = frozenset(),
        watch: Callable[[Row], bool] | None = None,
        wants_logprobs: bool = False,
    ) -> None:
        self.prompt = tuple(prompt)
        self.max_new_tokens = max_new_tokens
        self.sampling = sampling
        self.stop_ids = stop_ids
        self.watch = watch
        self.wants_logprobs = wants_logprobs
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.stopped = False
        self.reused = 0
        self.seed = seed
        self._uniforms: Iterator[float] = iter(())

    def tokens(self, longest: int) -> int:
        """Tokens it may come to, with its prompt, in a model of that length."""
        return min(longest, len(self.prompt) + self.max_new_tokens)

    def uniform(self) -> float:
        """The next random number in [0, 1)."""
        for number in self._uniforms:
            return number
        if not self.ids:
            self._generator = seeds.generator(self.seed, "token")
        self._uniforms = iter(self._generator.random(_UNIFORMS).tolist())
        return next(self._uniforms)

    def take(self, token: int) -> bool:
        """Add a token; whether the row goes on."""
        if token in self.stop_ids:
            self.stopped = True
            return False
        self.ids.append(token)
        if self.watch is not None and self.watch(self):
            self.stopped = True
            return False
        return len(self.ids) < self.max_new_tokens


class Batch:
    """Rows under way with a model in evaluation mode; call it without gradients.

    Args:
        model: of any kind.
        most_rows: rows at once, >= 1.
        most_tokens: tokens that the cache may come to hold, rows times the longest; a single row is always
            let in.
        prefixes: where beginnings of prompts are kept; None: nowhere.
    """

    def __init__(
        self,
        model: CausalModel,
        *,
        most_rows: int,
        most_tokens: int,
        prefixes: Prefixes | None = None,
    ) -> None:
        self.model = model
        self.rows: list[Row] = []
        self._most_rows, self._most_tokens = most_rows, most_tokens
        states = model.new_cache(1, 1).states
        self._prefixes = prefixes if all(isinstance(each, Recall) for each in states) else None
        self._longest = model.config.max_length
        self._cache: Cache | None = None
        self._last: torch.Tensor | None = None  # (rows, D), states of each row's last token
        self._draws = Draws(())

    def admit(self, waiting: Iterable[Row]) -> list[Row]:
        """As many of these rows as there is room for, in their order; they are not in yet."""
        admitted: list[Row] = []
        longest = max((row.tokens(self._longest) for row in self.rows), default=0)
        read = 0
        for row in waiting:
            size = len(self.rows) + len(admitted) + 1
            longest = max(longest, row.tokens(self._longest))
            read += len(row.prompt)
            first = size == 1
            if not first and (size > self._most_rows or size * longest > self._most_tokens):
                break
            if admitted and self.rows and read > READ_AT_ONCE:
                break  # so that those under way do not wait long
            admitted.append(row)
        return admitted

    def join(self, rows: Sequence[Row]) -> None:
        """Read the prompts of rows; those that are alike, or begin alike, once."""
        alike: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            alike.setdefault(row.prompt, []).append(row)
        waiting = list(alike)
        for wave in range(_WAVES):
            now, waiting = self._apart(waiting)
            if wave == _WAVES - 1:
                now |= {prompt: [] for prompt in waiting}
            for part in self._parts(now):
                self._read(part, now, [alike[prompt] for prompt in part])
            if not waiting:
                break
        self._draws = Draws([row.sampling for row in self.rows])

    def step(self) -> list[Row]:
        """Draw the next token of every row, and read it; the rows that have ended, which are out."""
        if self._last is None or self._cache is None:
            return []
        logits = self.model.logits(self._last)
        drawn = self._draws(logits, [row.uniform for row in self.rows])
        tokens = drawn.tolist()
        self._note(logits, drawn)
        going, ended = [], []
        for at, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            if row.take(token) and self._cache.lengths[at] < self._longest:
                going.append(at)
            else:
                del row.logprobs[len(row.ids) :]  # that of a stop token
                ended.append(row)
        if ended:
            order = self._keep(going)
            if not order:
                return ended
            drawn = drawn[torch.tensor(order, device=drawn.device)]
        self._make_room([1] * len(self.rows))
        self._last = self.model.hidden(drawn[:, None], cache=self._cache)[:, 0]
        return ended

    def _make_room(self, tokens: Sequence[int]) -> None:
        """Let the cache have room for so many tokens more of each row."""
        if self._cache is None:
            return
        fullest = max(past + new for past, new in zip(self._cache.lengths, tokens, strict=True))
        if fullest > self._cache.max_length:
            self._cache.resize(min(self._longest, fullest + max(BLOCK, fullest // 2)))

    def leave(self, rows: Iterable[Row]) -> None:
        """Take rows out before their end."""
        out = {id(row) for row in rows}
        going = [at for at, row in enumerate(self.rows) if id(row) not in out]
        if len(going) < len(self.rows):
            order = self._keep(going)
            if order and self._last is not None:
                self._last = self._last[torch.tensor(order, device=self._last.device)]

    def _keep(self, going: list[int]) -> list[int]:
        """Drop all other rows; gaps are filled from the end. The places that remain, in their new order."""
        kept = set(going)
        size = len(going)
        movers = iter([at for at in going if at >= size])
        order = [at if at in kept else next(movers) for at in range(size)]
        self.rows = [self.rows[at] for at in order]
        self._draws = Draws([row.sampling for row in self.rows])
        if order and self._cache is not None:
            self._cache.keep(order)
        else:
            self._cache = self._last = None
        return order

    def _note(self, logits: torch.Tensor, drawn: torch.Tensor) -> None:
        wanting = [at for at, row in enumerate(self.rows) if row.wants_logprobs]
        if not wanting:
            return
        if len(wanting) < len(self.rows):
            index = torch.tensor(wanting, device=logits.device)
            logits, drawn = logits[index], drawn[index]
        logprobs = logits.log_softmax(dim=-1).gather(-1, drawn[:, None])[:, 0].tolist()
        for at, logprob in zip(wanting, logprobs, strict=True):
            self.rows[at].logprobs.append(logprob)

    # -- reading prompts --------------------------------------------------------------------------

    def _apart(self, prompts: list[_Prompt]) -> tuple[dict[_Prompt, list[Block]], list[_Prompt]]:
        """Prompts to read now, with the blocks at hand, and those whose next block is among the former's:
        they find it at hand afterwards."""
        now: dict[_Prompt, list[Block]] = {}
        later: list[_Prompt] = []
        coming: set[tuple[int, _Prompt]] = set()
        for prompt in prompts:
            blocks = self._prefixes.find(prompt) if self._prefixes is not None else []
            start = len(blocks) * BLOCK
            if self._prefixes is not None and len(prompt) > start + BLOCK:
                following = (blocks[-1].number if blocks else 0, prompt[start : start + BLOCK])
                if following in coming:
                    later.append(prompt)
                    continue
                coming.add(following)
            now[prompt] = blocks
        return now, later

    def _parts(self, prompts: dict[_Prompt, list[Block]]) -> Iterator[list[_Prompt]]:
        """Prompts that fit beside each other, those of like length together."""

        def rest(prompt: _Prompt) -> int:
            return len(prompt) - len(prompts[prompt]) * BLOCK

        part: list[_Prompt] = []
        past = new = 0
        for prompt in sorted(prompts, key=lambda each: (len(prompts[each]), rest(each))):
            past, new = max(past, len(prompts[prompt]) * BLOCK), max(new, rest(prompt))
            if part and (past + new > self._longest or (len(part) + 1) * new > READ_AT_ONCE):
                yield part
                part, past, new = [], len(prompts[prompt]) * BLOCK, rest(prompt)
            part.append(prompt)
        if part:
            yield part

    def _read(
        self, part: Sequence[_Prompt], blocks: dict[_Prompt, list[Block]], rows: list[list[Row]]
    ) -> None:
        """Read prompts beside each other, and let their rows in."""
        past = [len(blocks[prompt]) * BLOCK for prompt in part]
        new = [len(prompt) - before for prompt, before in zip(part, past, strict=True)]
        widest = max(new)
        spare = min(max(row.max_new_tokens for each in rows for row in each), _SPARE)
        cache = self.model.new_cache(len(part), min(self._longest, max(past) + widest + spare))
        if self._prefixes is not None:
            for at, prompt in enumerate(part):
                self._prefixes.fill(cache, at, blocks[prompt])
        padded = [
            [*prompt[before:], *(0,) * (widest - len(prompt) + before)]
            for prompt, before in zip(part, past, strict=True)
        ]
        device = self.model.device
        hidden = self.model.hidden(torch.tensor(padded, device=device), cache=cache, valid=new)
        last = hidden[torch.arange(len(part), device=device), torch.tensor(new, device=device) - 1]
        if self._prefixes is not None:
            for at, prompt in enumerate(part):
                self._prefixes.put(prompt, cache, at)
        copies = [at for at, each in enumerate(rows) for _ in each]
        last = last[torch.tensor(copies, device=device)]
        if self._cache is None or self._last is None:
            self._cache = cache if copies == list(range(len(part))) else cache.select(copies)
            self._last = last
        else:
            self._cache.join(cache, copies)
            self._last = torch.cat((self._last, last))
        for each, before in zip(rows, past, strict=True):
            for number, row in enumerate(each):
                row.reused = before if number == 0 else len(row.prompt)
            self.rows += each
