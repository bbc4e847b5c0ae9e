"""A small transformer with all six graphs in its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path as File
from typing import TYPE_CHECKING

import numpy as np

from posterhall.claims.cogeval._asking import Floats, Path, Solver
from posterhall.claims.cogeval._world import LONGEST, Pair, Question, lessons, world
from posterhall.claims.rows import Budget
from posterhall.seeds import derive

if TYPE_CHECKING:
    from posterhall.lm.protocol import LM

_WORDS = 16
"""Of an answer: the longest shortest path has 13 nodes."""


class Small(Solver):
    """The model of a seed: trained on this machine, or found where small models are kept.

    Args:
        budget: gives `steps` of training and the `lessons` they go over.
        seed: of names, held-out pairs, lessons and initial weights.
        longest: edges of the longest path that is taught.
        cuts: whether lessons close edges too.
    """

    def __init__(self, budget: Budget, seed: int, *, longest: int = LONGEST, cuts: bool = False) -> None:
        self.maps = world(seed)
        self._seed = seed
        self._lm = _loaded(str(trained(budget, seed, longest=longest, cuts=cuts)))

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

    def steps(self, asked: Sequence[tuple[str, int, Pair | None]]) -> list[Floats]:
        scored = self._lm.score_many(
            [
                (self.maps[letter].walk_prompt(node, cut), [f" {name}" for name in self.maps[letter].names])
                for letter, node, cut in asked
            ]
        )
        return [np.array([math.exp(each.total) for each in names]) for names in scored]


def trained(budget: Budget, seed: int, *, longest: int = LONGEST, cuts: bool = False) -> File:
    """The directory of a seed's model; see `Small`."""
    from posterhall.train.small import SmallSettings, small_model

    settings = SmallSettings(
        steps=budget.steps,
        batch=64,
        ffn_dim=176,
        max_length=40,
        weight_decay=0.1,
        log_every=max(1, budget.steps),
        seed=derive(seed, "cogeval", "weights"),
    )
    recipe = {"task": "cogeval", "seed": seed, "lessons": budget.lessons, "longest": longest, "cuts": cuts}
    taught = lessons(world(seed), budget.lessons, seed, longest=longest, cuts=cuts)
    return small_model(taught, settings, recipe=recipe)


@lru_cache(maxsize=2)
def _loaded(path: str) -> LM:
    from posterhall.lm import connect

    return connect(path)
