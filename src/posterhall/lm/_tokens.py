"""Between texts and rows of token ids."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from posterhall.data import tokenizer as tokenizers
from posterhall.extras import torch

if TYPE_CHECKING:
    from posterhall.data.tokenizer import Tokenizer
    from posterhall.models.causal import CausalModel


def load(directory: Path) -> Tokenizer:
    """The tokeniser of a checkpoint; one that is not written as tokenizer.json is converted by transformers.

    Raises:
        DataError: if there is none, or it cannot be understood.
    """
    if (directory / tokenizers.FILE).is_file() or importlib.util.find_spec("transformers") is None:
        return tokenizers.load(directory)
    import transformers

    try:
        theirs = transformers.AutoTokenizer.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
        backend = theirs.backend_tokenizer
    except Exception:  # whatever it says, the message there says what is needed
        return tokenizers.load(directory)
    return tokenizers.BPETokenizer(backend, bos=theirs.bos_token, eos=theirs.eos_token, pad=theirs.pad_token)


def beginning(tokenizer: Tokenizer) -> list[int]:
    """The token that stands before a text: bos, else eos, else none."""
    start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    return [] if start is None else [start]


def texts(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, ...]:
    """The text of each token by itself; where a token is part of a character, U+FFFD stands for it."""
    return tuple(tokenizer.decode([each]) for each in ids)


def padded(model: CausalModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of ids as one tensor (B, T >= 1) on the model's device, filled up with 0 at their ends."""
    width = max(1, *(len(each) for each in rows))
    return torch.tensor([[*each, *[0] * (width - len(each))] for each in rows], device=model.device)


LARGEST_BATCH = 1 << 14
"""Tokens read at once; with more, a small model gets no faster, and attention masks get large."""


def tokens_in(model: CausalModel, cache_bytes: int) -> int:
    """How many tokens, over all rows, may be held in a cache of so many bytes, and read at once, >= 1."""
    return max(1, min(LARGEST_BATCH, cache_bytes // model.token_bytes))
