"""A small transformer with all six graphs in its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path as File
from typing import TYPE_CHECKING

import numpy as np

from posterhall.claims.cogeval._asking import Floats, Path, Solver
from posterhall.claims.cogeval._world import LONGEST, Pair, Question, World, lessons, news, world
from posterhall.claims.rows import Budget
from posterhall.seeds import derive

if TYPE_CHECKING:
    from posterhall.lm.protocol import LM
    from posterhall.train.small import SmallSettings

_WORDS = 16
"""Of an answer: the longest shortest path has 13 nodes."""


class Small(Solver):
    """The model of a seed: trained on this machine, or found where small models are kept.

    Args:
        budget: gives `steps` of training and the `lessons` they go over.
        seed: of names, held-out pairs, lessons and initial weights.
        longest: edges of the longest path that is taught.
    """

    def __init__(self, budget: Budget, seed: int, *, longest: int = LONGEST) -> None:
        self._budget, self._seed = budget, seed
        self._keep(world(seed), trained(budget, seed, longest=longest))

    def _keep(self, maps: World, place: File) -> None:
        self.maps, self._place, self._lm = maps, place, _loaded(str(place))

    def after(self, closed: Mapping[str, Sequence[Pair]]) -> Small:
        """The same model after walks, and only walks, on the graphs without some edges."""
        maps = {letter: each.without(closed.get(letter, ())) for letter, each in self.maps.items()}
        changed = copy.copy(self)
        changed._keep(maps, self._retrained(maps, closed))
        return changed

    def _retrained(self, maps: World, closed: Mapping[str, Sequence[Pair]]) -> File:
        from posterhall.train.small import small_model

        steps = self._budget.news
        recipe = {
            "task": "cogeval news",
            "seed": self._seed,
            "closed": {k: list(v) for k, v in closed.items()},
        }
        return small_model(
            news(self.maps, maps, 64 * steps, self._seed),
            _settings(self._seed, steps, lr=1e-3),
            recipe=recipe,
            init=self._place,
        )

    def say(self, questions: Sequence[Question], temperature: float, samples: int) -> list[list[Path]]:
        from posterhall.lm import Request

        requests = [
            Request(
                prompt,
                max_tokens=_WORDS,
                temperature=temperature,
                n=samples,
                seed=derive(self._seed, "cogeval", prompt),
            )
            for prompt in (self.maps[each.graph].path_prompt(each) for each in questions)
        ]
        places = {
            letter: {name: i for i, name in enumerate(each.names)} for letter, each in self.maps.items()
        }
        return [
            [tuple(places[each.graph].get(word, -1) for word in sample.text.split()) for sample in said]
            for each, said in zip(questions, self._lm.generate(requests), strict=True)
        ]

    def steps(self, asked: Sequence[tuple[str, int]]) -> list[Floats]:
        items = [
            (self.maps[letter].walk_prompt(node), [f" {name}" for name in self.maps[letter].names])
            for letter, node in asked
        ]
        scored = self._lm.score_many(items)
        return [np.array([math.exp(each.total) for each in names]) for names in scored]


def trained(budget: Budget, seed: int, *, longest: int = LONGEST) -> File:
    """The directory of a seed's model; see `Small`."""
    from posterhall.train.small import small_model

    recipe = {"task": "cogeval", "seed": seed, "lessons": budget.lessons, "longest": longest}
    taught = lessons(world(seed), budget.lessons, seed, longest=longest)
    return small_model(taught, _settings(seed, budget.steps), recipe=recipe)


def _settings(seed: int, steps: int, lr: float = 3e-3) -> SmallSettings:
    from posterhall.train.small import SmallSettings

    return SmallSettings(
        lr=lr,
        steps=steps,
        batch=64,
        ffn_dim=176,
        max_length=40,
        weight_decay=0.1,
        log_every=max(1, steps),
        seed=derive(seed, "cogeval", "weights"),
    )


@lru_cache(maxsize=3)
def _loaded(path: str) -> LM:
    from posterhall.lm import connect

    return connect(path)
