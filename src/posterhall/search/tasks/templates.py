"""Prompts: text files with {fields} that are filled in once; problem text is kept apart from instructions."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from posterhall.errors import DataError, did_you_mean

_FIELD = re.compile(r"\{\{|\}\}|\{([a-z_]{1,30})\}")
_LONGEST_CLUE = 200


@functools.cache
def prompt(name: str) -> str:
    """The text of a prompt that is shipped, as "game24/propose"."""
    return (
        Path(__file__).with_name("prompts").joinpath(f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")
    )


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Put texts into the {fields} of a template; {{ and }} are braces.

    What is put in is never looked at again, so braces in it mean nothing; and there is no way from a field
    to anything but its text.
    """

    def text(match: re.Match[str]) -> str:
        return match[0][0] if match[1] is None else fields[match[1]]

    return _FIELD.sub(text, template)


def fields_of(template: str, allowed: Collection[str], where: str) -> frozenset[str]:
    """The fields that a template names.

    Raises:
        DataError: if one of them is not among those allowed.
    """
    names = frozenset(match[1] for match in _FIELD.finditer(template) if match[1] is not None)
    for name in sorted(names - set(allowed)):
        raise DataError(
            f"{where} names {{{name}}}; allowed are {', '.join(f'{{{each}}}' for each in sorted(allowed))}, "
            f"and {{{{ for a brace.{did_you_mean(name, allowed)}"
        )
    return names


def quoted(text: str) -> str:
    """A piece of a problem on one line between quotes, so that nothing in it passes for an instruction's
    own line: white space and control characters are spaces, quotes are single, and it is cut at 200."""
    inner = "".join(char if char.isprintable() else " " for char in text)
    inner = " ".join(inner.split()).replace('"', "'")
    return f'"{inner if len(inner) <= _LONGEST_CLUE else inner[: _LONGEST_CLUE - 3] + "..."}"'


def fenced(text: str, tag: str) -> str:
    """Several lines of a problem between <tag> and </tag>; the tag itself within them is broken up."""
    inner = re.sub(rf"<(\s{{0,9}}/?\s{{0,9}}{re.escape(tag)})", r"< \1", text, flags=re.IGNORECASE)
    return f"<{tag}>\n{inner}\n</{tag}>"
