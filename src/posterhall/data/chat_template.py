"""Conversations as text, in the form that a model was trained on: its chat template.

A template is a program in jinja's language that comes with a model. It runs in jinja's sandbox, which lets it
neither call nor change anything outside of itself, with the helpers that `transformers` gives it. Beside the
text come the stretches of it that are the assistant's, and those in which what people wrote spells a special
token, which must stay text.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from posterhall.data.tokenizer import CONFIG, Tokenizer
from posterhall.errors import DataError
from posterhall.runs import write_atomic

FILE = "chat_template.jinja"
_FILE_BEFORE = "chat_template.json"
_SPECIAL = "special_tokens_map.json"
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_LONGEST = 1 << 20
"""Characters of a template; published ones have up to 20,000."""

# Unicode's noncharacters, "intended for process-internal uses": no text that is exchanged has them.
_LITERAL, _LITERAL_END, _ANSWER, _ANSWER_END = "\ufdd0\ufdd1\ufdd2\ufdd3"
_MARKS = re.compile("[\ufdd0-\ufddf]")

BUILT_IN = """\
{{- bos_token or "" -}}
{%- for message in messages -%}
  {%- if message.role == "system" and loop.first -%}
    {{- message.content -}}
  {%- elif message.role == "user" -%}
    {{- "\\n\\nHuman: " + message.content -}}
  {%- elif message.role == "assistant" -%}
    {{- "\\n\\nAssistant:" -}}
    {%- generation -%}{{- " " + message.content + eos_token -}}{%- endgeneration -%}
  {%- else -%}
    {{- raise_exception("messages are of the user and the assistant, and first perhaps of the system") -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "\\n\\nAssistant:" -}}{%- endif -%}
"""
"""For models without a template: the turns of Anthropic's dialogues (Bai et al. 2022), an end after each
answer."""

Message = Mapping[str, Any]
"""{"role": ..., "content": text}, perhaps with more that a template knows of."""


class TemplateError(DataError):
    """A template does not take a conversation."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text."""

    text: str
    answers: tuple[tuple[int, int], ...]
    """(start, end) of what the template says is the assistant's (its generation blocks)."""
    literal: tuple[tuple[int, int], ...]
    """(start, end) of special tokens spelt in a message."""


class ChatTemplate:
    """A template with the names of the special tokens that it writes.

    Args:
        source: in jinja's language.
        tokens: what it knows as "bos_token", "eos_token" and so on.
        now: what its `strftime_now` tells; None: the time of rendering.
        name: for messages.

    Attributes:
        source: see above.
        marks_answers: whether it says itself what is the assistant's (``{% generation %}``).

    Raises:
        DataError: if it is not in the language.
    """

    def __init__(
        self,
        source: str,
        tokens: Mapping[str, str] | None = None,
        *,
        now: datetime | None = None,
        name: str = "the chat template",
    ) -> None:
        from jinja2 import TemplateError as NotJinja

        self.source, self.tokens, self.name = source, dict(tokens or {}), name
        self._now = now
        if len(source) > _LONGEST:
            raise DataError(f"{name} has {len(source):,} characters; at most {_LONGEST:,} are taken for one")
        try:
            self._template = _environment().from_string(source, globals={"strftime_now": self._time})
        except (NotJinja, RecursionError) as error:
            raise DataError(f"{name} is not in jinja's language: {_line(error)}") from None
        self.marks_answers = re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", source) is not None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        special: re.Pattern[str] | None = None,
    ) -> Rendered:
        """A conversation as text.

        Args:
            messages: in order.
            add_generation_prompt: end with what comes before an answer.
            special: finds the special tokens; None: nothing is literal.

        Raises:
            TemplateError: if the template does not take the conversation, or text in it has one of Unicode's
                noncharacters U+FDD0 to U+FDDF.
        """
        told = [_plain(message, special) for message in messages]
        try:
            text = self._template.render(
                messages=told,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self.tokens,
            )
        except Exception as error:  # whatever a template raises
            raise TemplateError(f"{self.name} does not take this conversation: {_line(error)}") from None
        return _unmarked(text, special)

    def save(self, directory: Path) -> None:
        """Write chat_template.jinja, from which transformers and this package take it."""
        write_atomic(directory / FILE, self.source)

    def _time(self, form: str) -> str:
        return (self._now or datetime.now()).strftime(form)


def load(directory: Path, *, now: datetime | None = None) -> ChatTemplate | None:
    """The template of a tokeniser's directory; None if it has none.

    It is in chat_template.jinja, or in tokenizer_config.json (of several that one called "default").

    Raises:
        DataError: for a template that is none, or files that cannot be read.
    """
    config = _read(directory / CONFIG)
    said = {**_read(directory / _SPECIAL), **config}  # older tokenisers keep them in a file of their own
    tokens = {f"{role}_token": _content(said.get(f"{role}_token")) for role in _ROLES}
    known = {name: token for name, token in tokens.items() if token is not None}
    source: Any
    try:
        source, place = (directory / FILE).read_text(encoding="utf-8"), directory / FILE
    except FileNotFoundError:
        source, place = config.get("chat_template"), directory / CONFIG
        if source is None:
            source, place = _read(directory / _FILE_BEFORE).get("chat_template"), directory / _FILE_BEFORE
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{directory / FILE}: cannot be read: {error}") from None
    if isinstance(source, list):
        named = {each.get("name"): each.get("template") for each in source if isinstance(each, dict)}
        if "default" not in named:
            raise DataError(
                f"{place}: chat templates {', '.join(map(str, named))}, and none is the default; name one so"
            )
        source = named["default"]
    if source is None:
        return None
    if not isinstance(source, str):
        raise DataError(f"{place}: the chat template is a {type(source).__name__}; it must be text")
    return ChatTemplate(source, known, now=now, name=f"the chat template of {directory}")


def built_in(tokenizer: Tokenizer) -> ChatTemplate:
    """The template for a model that has none: `BUILT_IN`.

    Raises:
        DataError: for a tokeniser without an end of text.
    """
    names = {each["id"]: each["content"] for each in tokenizer.to_json().get("added_tokens") or ()}
    if tokenizer.eos_id is None or tokenizer.eos_id not in names:
        raise DataError(
            f"the tokeniser {tokenizer.name} has no token that ends a text, so no answer could end; "
            "name one as eos_token in its tokenizer_config.json"
        )
    tokens = {"eos_token": names[tokenizer.eos_id]}
    if tokenizer.bos_id in names:
        tokens["bos_token"] = names[tokenizer.bos_id]
    return ChatTemplate(BUILT_IN, tokens, name="the built-in chat template")


@functools.cache
def _environment() -> Any:
    """jinja's sandbox with what transformers gives to templates."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError as Raised
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %} ... {% endgeneration %}``: what stands within is the assistant's."""

        tags = {"generation"}  # noqa: RUF012 - as jinja has it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_around"), [], [], body).set_lineno(line)

        def _around(self, caller: Any) -> str:
            return f"{_ANSWER}{caller()}{_ANSWER_END}"

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        # jinja's own writes HTML's characters as escapes.
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    def raise_exception(message: str) -> str:
        raise Raised(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    return environment


def _plain(value: Any, special: re.Pattern[str] | None) -> Any:
    """JSON's types alone, special tokens in texts marked; what is None is left out, as templates expect."""
    if isinstance(value, str):
        if _MARKS.search(value):
            raise TemplateError("a message has a noncharacter (U+FDD0 to U+FDDF) in it; remove it")
        return value if special is None else special.sub(f"{_LITERAL}\\g<0>{_LITERAL_END}", value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each, special) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_plain(each, special) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TemplateError(f"a message holds a {type(value).__name__}; it may hold what JSON has")


def _unmarked(text: str, special: re.Pattern[str] | None) -> Rendered:
    """Text without the marks, and what they stood around."""
    parts: list[str] = []
    answers: list[tuple[int, int]] = []
    literal: list[tuple[int, int]] = []
    begun: dict[str, int] = {}
    at = length = 0
    for mark in _MARKS.finditer(text):
        parts.append(text[at : mark.start()])
        length += mark.start() - at
        at = mark.end()
        match mark.group():
            case "\ufdd0" | "\ufdd2" as opening:
                begun[opening] = length
            case "\ufdd3" if _ANSWER in begun:
                answers.append((begun.pop(_ANSWER), length))
            case _:
                # A template may take a message apart, and the marks with it: then nothing is between them.
                start = begun.pop(_LITERAL, length)
                whole = start == length - len(parts[-1])
                if whole and special is not None and special.fullmatch(parts[-1]):
                    literal.append((start, length))
    parts.append(text[at:])
    return Rendered("".join(parts), tuple(answers), tuple(literal))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds a {type(found).__name__}; it must be an object")
    return found


def _content(token: Any) -> str | None:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
