"""Conversations in the form that a checkpoint was trained on: its chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posterhall.errors import DataError
from posterhall.extras import require
from posterhall.lm.protocol import Message

_IN_CONFIG, _FILES = "tokenizer_config.json", ("chat_template.jinja", "chat_template.json")


class Chat:
    """A checkpoint's chat template; transformers renders it, in jinja's sandbox.

    Args:
        tokenizer: a tokeniser of transformers that has one.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def template(self) -> str:
        """The template itself: what changes it changes what a model is asked."""
        return json.dumps(self._tokenizer.chat_template)

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation up to where the answer begins.

        Text in a message that spells a special token becomes that token, as everywhere with templates.

        Raises:
            DataError: for a conversation that the template does not allow, as two turns of one side.
        """
        turns = [{"role": each.role, "content": each.content} for each in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # whatever a template raises
            reason = str(error).strip().partition("\n")[0]
            raise DataError(f"the model's chat template does not take this conversation: {reason}") from error
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found


def load(directory: Path) -> Chat | None:
    """The chat template of a checkpoint; None if it has none.

    Raises:
        DataError: if its tokeniser cannot be read.
        MissingExtra: if it has one, and transformers is not installed.
    """
    if not _has_template(directory):
        return None
    transformers = require("transformers", "hf", f"the chat template of {directory}")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # of many kinds
        raise DataError(f"{directory}: transformers cannot read the tokeniser: {error}") from error
    return Chat(tokenizer)


def _has_template(directory: Path) -> bool:
    if any((directory / name).is_file() for name in _FILES):
        return True
    try:
        return "chat_template" in json.loads((directory / _IN_CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
