"""Speculative decoding: a small model drafts some tokens, the large one judges them all in one pass.

Leviathan et al. 2023 (arXiv 2211.17192), algorithm 1, and Chen et al. 2023 (arXiv 2302.01318), algorithm 2.
What comes out is distributed exactly as the large model's own draws with the same temperature, top_k and
top_p; at temperature 0 it is the same text. What a row draws follows from its seed and its own history,
never from its neighbours: random numbers belong to places in the text, and how far ahead a row drafts, and
whether at all, depends on how many of its own drafts were right. Sampled text differs from the text that
the same seed gives without a draft.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, SupportsIndex

from posterhall import seeds
from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.models.batching import Batch, Row
from posterhall.models.mixers import Recall
from posterhall.models.prefixes import Prefixes
from posterhall.models.sampling import chances, invert

if TYPE_CHECKING:
    from posterhall.models.causal import CausalModel

LOOKAHEAD = 4
"""Tokens drafted at most (the papers: 3 to 7, 4 in Chen et al.)."""
_EXPECTED, _WEIGHT = 0.8, 8
"""Share of drafted tokens that is expected to be right before any was judged, and for how many it counts."""
_PATIENCE = 32
"""Judged tokens before a row may give up drafting."""
_JUDGING = 0.2
"""Time of a pass on a processor for each further token, in that for one."""
_NUMBERS = 32
"""Places for which a row draws its random numbers at once."""
_DRAW, _TEST, _REST = range(3)


@dataclass(frozen=True)
class Draft:
    """The small model, and how it is used."""

    model: CausalModel
    """Of the same tokeniser."""
    lookahead: int = LOOKAHEAD
    """Tokens drafted at most before they are judged, >= 1."""
    cost: float | None = None
    """What drafting a token and judging it costs, in steps of the large model, > 0: by it and by its luck so
    far a row chooses how far to look ahead (Leviathan et al., theorem 3.8). None: the share of parameters,
    and 0.2 on a processor, where a pass over more tokens takes longer (measured, 3 million parameters)."""
    rows: int | None = None
    """Rows at temperature 0 draft while at most so many are under way, >= 0: their text is the same either
    way, and in a large batch there is nothing to gain. Others always draft, since what they say must not
    depend on company. None: 4 on a processor, 32 elsewhere."""

    def __post_init__(self) -> None:
        if self.lookahead < 1:
            raise DataError(f"lookahead is {self.lookahead}; at least 1 token is drafted")
        if self.cost is not None and not self.cost > 0:
            raise DataError(f"cost is {self.cost}; it must be above 0, in steps of the large model")
        if self.rows is not None and self.rows < 0:
            raise DataError(f"rows is {self.rows}; it must be at least 0")


@dataclass
class Speculation:
    """What drafting has come to."""

    rounds: int = 0
    """Times that a row's drafts were judged."""
    proposed: int = 0
    """Tokens drafted."""
    judged: int = 0
    """Of these, those before which none was wrong."""
    accepted: int = 0
    """Of these, those that were kept."""

    @property
    def acceptance(self) -> float | None:
        """Share of the judged tokens that were kept; None before any."""
        return self.accepted / self.judged if self.judged else None

    def note(self, proposed: int, accepted: int) -> None:
        """Count a round."""
        self.rounds += 1
        self.proposed += proposed
        self.accepted += accepted
        self.judged += min(proposed, accepted + 1)


@dataclass
class _Course:
    """A row's own history."""

    seed: SupportsIndex
    luck: Speculation = field(default_factory=Speculation)
    numbers: list[list[float]] = field(default_factory=list)

    def number(self, place: int, purpose: int) -> float:
        """The random number in [0, 1) of a place in the text."""
        while place >= len(self.numbers):
            part = len(self.numbers) // _NUMBERS
            self.numbers += seeds.generator(self.seed, "speculative", part).random((_NUMBERS, 3)).tolist()
        return self.numbers[place][purpose]

    def width(self, most: int, cost: float) -> int:
        """How many tokens to draft; 0 if it does not pay."""
        share = (self.luck.accepted + _EXPECTED * _WEIGHT) / (self.luck.judged + _WEIGHT)
        best = max(range(1, most + 1), key=lambda width: _gain(share, width, cost))
        hopeless = self.luck.judged >= _PATIENCE and _gain(share, best, cost) <= 1
        return 0 if hopeless else best


def _gain(share: float, width: int, cost: float) -> float:
    """Tokens for the cost of one step without drafts, if each draft is right with this chance, < 1:
    (1 - a^(k + 1)) / ((1 - a) (1 + c k)), Leviathan et al. 2023, theorem 3.8."""
    return (1 - share ** (width + 1)) / ((1 - share) * (1 + cost * width))


class Speculative(Batch):
    """A `Batch` whose steps may give a row several tokens.

    Its rows' last tokens are drawn but not read: they are read with the drafts that follow them.

    Args:
        model: the large model, which decides what is said.
        draft: the small one.
        most_rows, most_tokens, prefixes: see `Batch`.
        draft_prefixes: where the small model's beginnings of prompts are kept; None: nowhere.
        counts: where to count; None: an own one.

    Attributes:
        counts: what drafting has come to.

    Raises:
        DataError: if a model cannot forget tokens that turn out wrong.
    """

    def __init__(
        self,
        model: CausalModel,
        draft: Draft,
        *,
        most_rows: int,
        most_tokens: int,
        prefixes: Prefixes | None = None,
        draft_prefixes: Prefixes | None = None,
        counts: Speculation | None = None,
    ) -> None:
        super().__init__(model, most_rows=most_rows, most_tokens=most_tokens, prefixes=prefixes)
        for each in (model, draft.model):
            if not all(isinstance(state, Recall) for state in each.new_cache(1, 1).states):
                raise DataError(
                    "a model whose state cannot forget tokens neither drafts nor is drafted for; take one "
                    "with attention only"
                )
        self.counts = Speculation() if counts is None else counts
        self._lookahead = draft.lookahead
        on_processor = model.device.type == "cpu"
        share = _size(draft.model) / _size(model)
        self._cost = draft.cost or share + (_JUDGING if on_processor else 0.0)
        few = 4 if on_processor else 32
        self._few = few if draft.rows is None else draft.rows
        self._drafts = _Drafts(draft.model, most_rows, most_tokens, draft_prefixes, model.config.vocab_size)
        self._courses: dict[Row, _Course] = {}

    def join(self, rows: Sequence[Row]) -> None:
        """Read the prompts of rows; see `Batch.join`."""
        self._drafts.join([row for row in rows if self._drafts.has_room(row, self._lookahead)])
        super().join(rows)
        for row in rows:
            self._courses[row] = _Course(row.seed)
        if self._cache is not None:
            self._cache.forget([_read(row) for row in self.rows])

    def step(self) -> list[Row]:
        """Give every row at least one token; the rows that have ended, which are out."""
        if self._cache is None:
            return []
        drafted = self._drafts.propose(self._widths(), self._courses)
        proposals = [drafted.get(row, _NOTHING) for row in self.rows]
        valid = [1 + len(each.tokens) for each in proposals]
        self._make_room(valid)
        fed = [(_last(row), *each.tokens) for row, each in zip(self.rows, proposals, strict=True)]
        width = max(valid)
        device = self.model.device
        ids = torch.tensor([[*each, *[0] * (width - len(each))] for each in fed], device=device)
        whole = None if min(valid) == width else valid
        hidden = self.model.hidden(ids, cache=self._cache, valid=whole)
        places = [(at, step) for at, size in enumerate(valid) for step in range(size)]
        index = torch.tensor(places, device=device)
        logits = self.model.logits(hidden[index[:, 0], index[:, 1]])
        said = self._judge(logits, proposals)
        self._note_all(logits, said, valid)
        going, ended = [], []
        last = []
        for at, (row, tokens) in enumerate(zip(self.rows, said, strict=True)):
            if self._take(row, tokens):
                going.append(at)
            else:
                ended.append(row)
            last.append(len(tokens) - 1)
        self._cache.forget([_read(row) for row in self.rows])
        self._last = hidden[torch.arange(len(last), device=device), torch.tensor(last, device=device)]
        self._drafts.forget()
        if ended:
            order = self._keep(going)
            if order:
                self._last = self._last[torch.tensor(order, device=device)]
        return ended

    def _widths(self) -> dict[Row, int]:
        """How far each row looks ahead: not behind where it ends anyway, nor where no model can read."""
        widths = {}
        hopeless = []
        for row in self._drafts.rows:
            width = self._courses[row].width(self._lookahead, self._cost)
            if width == 0 or not self._drafts.has_room(row, self._lookahead):
                hopeless.append(row)
                continue
            if row.sampling.is_greedy and len(self.rows) > self._few:
                widths[row] = 0
                continue
            left = min(row.max_new_tokens - len(row.ids), self._longest - len(row.prompt) - len(row.ids))
            widths[row] = min(width, left)
        self._drafts.leave(hopeless)
        return widths

    def _judge(self, logits: torch.Tensor, proposals: Sequence[_Proposal]) -> list[list[int]]:
        """What each row says: its drafts up to the first that is refused, and one token after them.

        Args:
            logits: of the large model, (places, V): for each row, where its drafts stand, and behind them.
            proposals: each row's.
        """
        favourites = logits.argmax(dim=-1).tolist()
        starts = [0]
        for each in proposals:
            starts.append(starts[-1] + len(each.tokens) + 1)
        drawn = [at for at, row in enumerate(self.rows) if not row.sampling.is_greedy]
        of_row: dict[int, int] = {}
        if drawn:
            index = [place for at in drawn for place in range(starts[at], starts[at + 1])]
            of_row = {place: i for i, place in enumerate(index)}
            settings = [self.rows[at].sampling for at in drawn for _ in range(starts[at], starts[at + 1])]
            own = chances(logits[torch.tensor(index, device=logits.device)], settings)
            large, small = self._agreement(own, of_row, starts, drawn, proposals)
        said: list[list[int]] = []
        rests: list[tuple[int, torch.Tensor, float]] = []
        for at, (row, proposal) in enumerate(zip(self.rows, proposals, strict=True)):
            course, start = self._courses[row], starts[at]
            tokens: list[int] = []
            for step, token in enumerate(proposal.tokens):
                if row.sampling.is_greedy:
                    right = favourites[start + step] == token
                else:
                    number = course.number(len(row.ids) + step, _TEST)
                    right = number * small[start + step] < large[start + step]
                if not right:
                    break
                tokens.append(token)
            if proposal.tokens:
                for counts in (self.counts, course.luck):
                    counts.note(len(proposal.tokens), len(tokens))
            place = start + len(tokens)
            if row.sampling.is_greedy:
                tokens.append(favourites[place])
            else:
                rest = own[of_row[place]]
                if len(tokens) < len(proposal.tokens):
                    left = (rest - proposal.chances[len(tokens)]).clamp_(min=0.0)
                    rest = left if float(left.sum()) > 0 else rest  # equal but for rounding
                rests.append((at, rest, course.number(len(row.ids) + len(tokens), _REST)))
            said.append(tokens)
        if rests:
            numbers = torch.tensor([each for _, _, each in rests], dtype=torch.float64, device=logits.device)
            found = invert(torch.stack([rest for _, rest, _ in rests]), numbers).tolist()
            for (at, _, _), token in zip(rests, found, strict=True):
                said[at].append(token)
        return said

    @staticmethod
    def _agreement(
        own: torch.Tensor,
        of_row: dict[int, int],
        starts: Sequence[int],
        drawn: Sequence[int],
        proposals: Sequence[_Proposal],
    ) -> tuple[dict[int, float], dict[int, float]]:
        """By place: what the large and the small model gave the token that was drafted there."""
        places = [starts[at] + step for at in drawn for step in range(len(proposals[at].tokens))]
        if not places:
            return {}, {}
        tokens = torch.tensor([token for at in drawn for token in proposals[at].tokens], device=own.device)
        drafted = torch.stack([each for at in drawn for each in proposals[at].chances])
        index = torch.tensor([of_row[place] for place in places], device=own.device)
        large = own[index, tokens].tolist()
        small = drafted.gather(-1, tokens[:, None])[:, 0].tolist()
        return dict(zip(places, large, strict=True)), dict(zip(places, small, strict=True))

    def _note_all(self, logits: torch.Tensor, said: Sequence[Sequence[int]], valid: Sequence[int]) -> None:
        wanted: list[tuple[int, int]] = []
        of: list[Row] = []
        start = 0
        for row, tokens, size in zip(self.rows, said, valid, strict=True):
            if row.wants_logprobs:
                wanted += [(start + step, token) for step, token in enumerate(tokens)]
                of += [row] * len(tokens)
            start += size
        if wanted:
            index = torch.tensor(wanted, device=logits.device)
            logprobs = logits[index[:, 0]].log_softmax(dim=-1).gather(-1, index[:, 1:])[:, 0].tolist()
            for row, logprob in zip(of, logprobs, strict=True):
                row.logprobs.append(logprob)

    def _take(self, row: Row, tokens: Sequence[int]) -> bool:
        """Add tokens as far as the row goes; whether it goes on."""
        going = True
        for token in tokens:
            going = row.take(token) and len(row.prompt) + len(row.ids) <= self._longest
            if not going:
                break
        del row.logprobs[len(row.ids) :]
        return going

    def _keep(self, going: list[int]) -> list[int]:
        kept = {self.rows[at] for at in going}
        out = [row for row in self.rows if row not in kept]
        self._drafts.leave(out)
        for row in out:
            del self._courses[row]
        return super()._keep(going)


@dataclass(frozen=True)
class _Proposal:
    """What was drafted for a row."""

    tokens: list[int]
    chances: list[torch.Tensor]
    """For each, what the small model gave every token, (V,), after temperature and cuts; none at
    temperature 0."""


_NOTHING = _Proposal([], [])


class _Drafts(Batch):
    """The small model's side: rows in an order of its own, and not all of them."""

    def __init__(
        self, model: CausalModel, most_rows: int, most_tokens: int, prefixes: Prefixes | None, vocabulary: int
    ) -> None:
        super().__init__(model, most_rows=most_rows, most_tokens=most_tokens, prefixes=prefixes)
        self._vocabulary = vocabulary

    def has_room(self, row: Row, lookahead: int) -> bool:
        """Whether the small model's context is long enough to draft for the row."""
        return len(row.prompt) + len(row.ids) + lookahead <= self._longest

    def join(self, rows: Sequence[Row]) -> None:
        """Read the prompts of rows."""
        super().join(rows)
        self.forget()

    def forget(self) -> None:
        """Only what rows have said, without the last, is read for good."""
        if self._cache is not None:
            self._cache.forget([_read(row) for row in self.rows])

    def propose(self, widths: dict[Row, int], courses: dict[Row, _Course]) -> dict[Row, _Proposal]:
        """Draft so many tokens for each row."""
        wanted = [widths[row] for row in self.rows]
        if self._cache is None or not any(wanted):
            return {}
        proposals = [_Proposal([], []) for _ in self.rows]
        feeds = [
            _since(row, past) if width else ()
            for row, past, width in zip(self.rows, self._cache.lengths, wanted, strict=True)
        ]
        for step in range(max(wanted)):
            last = self._feed(feeds)
            active = [at for at, width in enumerate(wanted) if width > step]
            index = torch.tensor(active, device=last.device)
            logits = self._fit(self.model.logits(last[index]))
            tokens = logits.argmax(dim=-1)
            drawn = [i for i, at in enumerate(active) if not self.rows[at].sampling.is_greedy]
            if drawn:
                rows = [self.rows[active[i]] for i in drawn]
                own = chances(logits[torch.tensor(drawn, device=last.device)], [row.sampling for row in rows])
                numbers = [courses[row].number(len(row.ids) + step, _DRAW) for row in rows]
                tokens[torch.tensor(drawn, device=last.device)] = invert(
                    own, torch.tensor(numbers, dtype=torch.float64, device=last.device)
                )
                for i, each in zip(drawn, own, strict=True):
                    proposals[active[i]].chances.append(each)
            feeds = [()] * len(wanted)
            for at, token in zip(active, tokens.tolist(), strict=True):
                proposals[at].tokens.append(token)
                if wanted[at] > step + 1:
                    feeds[at] = (token,)
        return dict(zip(self.rows, proposals, strict=True))

    def _feed(self, feeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read tokens of each row; the states (rows, D) of the last of them."""
        if self._cache is None:
            raise RuntimeError("there are no rows")
        sizes = [len(each) for each in feeds]
        width = max(sizes)
        self._make_room(sizes)
        padded = [[*each, *[0] * (width - len(each))] for each in feeds]
        device = self.model.device
        # A token that the small model does not know cannot be right to it; its guess need not be good.
        ids = torch.tensor(padded, device=device).clamp_(max=self.model.config.vocab_size - 1)
        hidden = self.model.hidden(
            ids,
            cache=self._cache,
            valid=None if min(sizes) == width else sizes,
        )
        places = torch.tensor([max(0, size - 1) for size in sizes], device=device)
        self._last = hidden[torch.arange(len(sizes), device=device), places]
        return self._last

    def _fit(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of the tokens that the large model knows: tables of embeddings are padded differently."""
        missing = self._vocabulary - logits.shape[-1]
        if missing > 0:
            return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)
        return logits[:, : self._vocabulary]


def _read(row: Row) -> int:
    """Tokens of a row that are read for good: all but the last."""
    return len(row.prompt) + len(row.ids) - 1


def _last(row: Row) -> int:
    return row.ids[-1] if row.ids else row.prompt[-1]


def _since(row: Row, past: int) -> tuple[int, ...]:
    """A row's tokens from a place on."""
    size = len(row.prompt)
    return tuple(row.ids[past - size :]) if past >= size else (*row.prompt[past:], *row.ids)


def _size(model: CausalModel) -> int:
    return sum(each.numel() for each in model.parameters())
