"""What a decoder remembers of the beginnings of recent prompts, so that they are not read again.

Prompts are cut into blocks of `BLOCK` tokens; a block is known by its tokens and by the block before it, so
that prompts which begin alike share the memory of it (the blocks of vLLM, Kwon et al. 2023, as a tree).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from posterhall.extras import torch
    from posterhall.models.cache import Cache
    from posterhall.models.mixers import Recall

BLOCK = 16
"""Tokens."""

_Key = tuple[int, tuple[int, ...]]
"""The number of the block before, 0 for none, and the block's tokens."""


@dataclass
class Block:
    """Some tokens that were read."""

    number: int
    pieces: tuple[torch.Tensor, ...]
    """What each layer remembers of it."""
    above: _Key | None
    after: set[_Key] = field(default_factory=set)
    """The blocks that follow it: they go when it goes."""

    @property
    def bytes(self) -> int:
        """Held by it."""
        return sum(each.nbytes for each in self.pieces)


class Prefixes:
    """The store, for a model whose states are all `Recall`: as many bytes as one gives it, of which the
    longest unused go first.

    Attributes:
        bytes: held at present.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._blocks: OrderedDict[_Key, Block] = OrderedDict()  # the longest unused first
        self._made = 0

    def find(self, ids: Sequence[int]) -> list[Block]:
        """The blocks at hand of a prompt's beginning; its last token is never among them, since what
        follows it is wanted."""
        found: list[Block] = []
        keys: list[_Key] = []
        for start in range(0, len(ids) - BLOCK, BLOCK):
            key = (found[-1].number if found else 0, tuple(ids[start : start + BLOCK]))
            block = self._blocks.get(key)
            if block is None:
                break
            found.append(block)
            keys.append(key)
        self._touch(keys)
        return found

    def fill(self, cache: Cache, row: int, blocks: Sequence[Block]) -> None:
        """Let an empty row of a cache, which has room for it, remember some blocks."""
        if not blocks:
            return
        for layer, state in enumerate(_states(cache)):
            state.write(row, 0, [block.pieces[layer] for block in blocks])
        cache.lengths[row] = len(blocks) * BLOCK

    def put(self, ids: Sequence[int], cache: Cache, row: int) -> None:
        """Keep what a row of a cache remembers of its prompt, as far as it is whole blocks."""
        chain: list[_Key] = []
        before = 0
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            key = (before, tuple(ids[start : start + BLOCK]))
            block = self._blocks.get(key)
            if block is None:
                pieces = tuple(state.read(row, start, start + BLOCK) for state in _states(cache))
                self._made += 1
                block = Block(self._made, pieces, chain[-1] if chain else None)
                if not self._make_room(block.bytes, chain):
                    break
                self._blocks[key] = block
                self.bytes += block.bytes
                if block.above is not None:
                    self._blocks[block.above].after.add(key)
            self._blocks.move_to_end(key)
            chain.append(key)
            before = block.number
        self._touch(chain)

    def clear(self) -> None:
        """Forget everything: the weights are others now."""
        self._blocks.clear()
        self.bytes = 0

    def _touch(self, chain: Sequence[_Key]) -> None:
        """Mark blocks as just used; none is older then than one that builds on it."""
        for key in reversed(chain):
            self._blocks.move_to_end(key)

    def _make_room(self, size: int, needed: Sequence[_Key]) -> bool:
        """Drop what was unused longest; false if there is nothing left but what is `needed`."""
        while self.bytes + size > self.most_bytes:
            oldest = next(iter(self._blocks), None)
            if oldest is None or oldest in needed:
                return False
            self._drop(oldest)
        return True

    def _drop(self, key: _Key) -> None:
        above = self._blocks[key].above
        if above is not None:
            self._blocks[above].after.discard(key)
        waiting = [key]
        while waiting:
            block = self._blocks.pop(waiting.pop())
            self.bytes -= block.bytes
            waiting += block.after


def _states(cache: Cache) -> list[Recall]:
    return cast("list[Recall]", cache.states)
