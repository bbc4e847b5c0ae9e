"""Conversations in the form that a checkpoint was trained on: its chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posterhall.data import chat_template
from posterhall.data.chat_template import ChatTemplate, TemplateError
from posterhall.data.special_tokens import SpecialTokens
from posterhall.data.tokenizer import Tokenizer
from posterhall.errors import DataError
from posterhall.lm.protocol import Message


class Chat:
    """A checkpoint's chat template with its tokeniser.

    Args:
        template: of the checkpoint.
        tokenizer: of the same.

    Attributes:
        ends: the token with which the template ends an answer, if it is a special one.
    """

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._special = SpecialTokens(tokenizer)
        self.ends = frozenset(self._special.closing(template)[:1])

    @property
    def template(self) -> str:
        """The template itself: what changes it changes what a model is asked."""
        return self._template.source

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation up to where the answer begins.

        Special tokens are the template's alone: text in a message that spells one stays text.

        Raises:
            DataError: for a conversation that the template does not allow, as two turns of one side.
        """
        turns = [{"role": each.role, "content": each.content} for each in messages]
        try:
            text = self._template.render(turns, add_generation_prompt=True, special=self._special.pattern)
        except TemplateError as error:
            raise DataError(str(error)) from error
        ((ids, _),) = self._special.encode([text])
        found: list[int] = ids.tolist()
        return found


def load(directory: Path, tokenizer: Tokenizer) -> Chat | None:
    """The chat template of a checkpoint; None if it has none.

    Raises:
        DataError: if it cannot be read.
        MissingExtra: if it has one, and `tokenizers` is not installed.
    """
    template = chat_template.load(directory)
    return None if template is None else Chat(template, tokenizer)
