"""What trainings on preferences share: their settings, reading and encoding, holding prompts out.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posterhall.data import preference as reading
from posterhall.data.chat_template import ChatTemplate
from posterhall.data.preference import Form, Preferences
from posterhall.data.preference_tokens import Boundary, Comparison, PreferenceTokens, TooLong, encode
from posterhall.data.tokenizer import Tokenizer
from posterhall.errors import DataError
from posterhall.seeds import generator
from posterhall.train.settings import TrainSettings


@dataclass(frozen=True)
class PreferenceSettings(TrainSettings):
    """How preferences are read, encoded and held out.

    Raises:
        DataError: for a value outside its range.
    """

    form: Form = "auto"
    """Form of the files: see `posterhall.data.preference.read`."""
    min_score_ratio: float = 2.0
    """SHP: least ratio of the two scores, >= 1."""
    boundary: Boundary = "refuse"
    """Rows in which a token reaches over the end of the prompt: refuse, or concatenate the tokens of both."""
    too_long: TooLong = "refuse"
    """Rows above max_length: refuse, or cut_prompt (its beginning). Answers are never cut."""
    max_length: int | None = None
    """Longest prompt with an answer, in tokens; none: the model's."""
    begin: bool = True
    """Put the tokeniser's token of beginning before a prompt."""
    eval_fraction: float = 0.05
    """Share of the prompts held out for evaluation where no other file is given for it; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eval_fraction < 1:
            raise DataError(f"eval_fraction is {self.eval_fraction}; it must be at least 0 and below 1")
        if self.max_length is not None and self.max_length < 2:
            raise DataError(f"max_length is {self.max_length}; it must be at least 2")
        if self.tokens is not None:
            raise DataError("tokens is given, but comparisons are not rows of tokens; give steps or epochs")


def read_tokens(
    settings: PreferenceSettings,
    sources: Sequence[Path],
    tokenizer: Tokenizer,
    *,
    longest: int,
    compare: Comparison = "pairs",
    place: Path,
    template: ChatTemplate | None = None,
    tails: bool = False,
) -> tuple[Preferences, PreferenceTokens]:
    """Preferences as they are read, and as tokens.

    Args:
        settings: how.
        sources: the files.
        tokenizer: of the model.
        longest: prompt with answer that the model takes, in tokens.
        compare: what an item is.
        place: of the model, for messages.
        template: what conversations look like to the model; None: as the dialogues of HH.
        tails: see `posterhall.data.preference_tokens.encode`.

    Raises:
        DataError: for bad rows, or a max_length above what the model takes.
    """
    if settings.max_length is not None and settings.max_length > longest:
        raise DataError(f"max_length is {settings.max_length}; the model in {place} takes at most {longest}")
    found = reading.read(
        sources,
        form=settings.form,
        min_score_ratio=settings.min_score_ratio,
        as_messages=template is not None,
    )
    tokens = encode(
        found.rows,
        tokenizer,
        max_length=settings.max_length or longest,
        template=template,
        compare=compare,
        boundary=settings.boundary,
        too_long=settings.too_long,
        begin=settings.begin,
        tails=tails,
    )
    return found, tokens


def split(tokens: PreferenceTokens, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Items to train on, and those of a share of the prompts (rounded down), to evaluate on."""
    prompt_of = tokens.prompt_of[tokens.items[:, 0]]
    prompts = np.unique(prompt_of)
    out = generator(seed, "held-out prompts").permutation(prompts)[: int(share * len(prompts))]
    held = np.isin(prompt_of, out)
    return np.flatnonzero(~held), np.flatnonzero(held)
