"""Prompts with fields to be filled in; what is filled in is never looked at again."""

from __future__ import annotations

from collections.abc import Mapping

from posterhall.errors import DataError, did_you_mean


class Template:
    """Text with fields as {text}. Two braces ({{ or }}) stand for one.

    A field is a name, nothing else: no attributes, indices or formats, so that neither a template nor what
    is put into it can reach anything.

    Args:
        text: the template.

    Attributes:
        fields: names of the fields, each once, in order.

    Raises:
        DataError: for a brace that is not closed, or an empty name.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._pieces: list[tuple[str, str | None]] = []  # text, and the field after it
        plain: list[str] = []
        at = 0
        while at < len(text):
            letter = text[at]
            if letter in "{}" and text.startswith(letter * 2, at):
                plain.append(letter)
                at += 2
            elif letter == "{":
                end = text.find("}", at)
                name = text[at + 1 : end] if end >= 0 else ""
                if not name.strip() or any(each in name for each in '{"\n'):
                    raise DataError(
                        f"the template, character {at + 1}: {text[at : at + 20]!r} is no field; "
                        "write {text} for a field, and {{ for a brace"
                    )
                self._pieces.append(("".join(plain), name.strip()))
                plain = []
                at = end + 1
            elif letter == "}":
                raise DataError(f"the template, character {at + 1}: a single }}; write }}}} for a brace")
            else:
                plain.append(letter)
                at += 1
        self._pieces.append(("".join(plain), None))
        self.fields = tuple(dict.fromkeys(name for _, name in self._pieces if name is not None))

    def fill(self, values: Mapping[str, str], where: str = "the document") -> str:
        """The text with the fields' values in it.

        Raises:
            DataError: for a field that is not there.
        """
        parts = []
        for plain, name in self._pieces:
            parts.append(plain)
            if name is not None:
                if name not in values:
                    known = did_you_mean(name, values) or f" There are: {', '.join(list(values)[:12])}."
                    raise DataError(f"{where}: no field '{name}'.{known} Write {{{{ for a brace.")
                parts.append(values[name])
        return "".join(parts)
