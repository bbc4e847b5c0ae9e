"""The English that lies on every machine with Python: its reference topics, docstrings and comments.

A small real corpus (about half a million words, 0.8 million with the code itself) that needs no download.
Files are read as text, in sorted order, and never imported or run; the same Python version gives the same
text, unless a distributor left modules out, which `digest` tells.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from posterhall.data.corpus import Corpus
from posterhall.errors import DataError

# Character tables, test fixtures that are not in every distribution, jokes, and the topics (read apart).
_LEFT_OUT = frozenset({"encodings", "pydoc_data", "this", "antigravity", "ensurepip"})

# A lexer of four classes: comments, triple-quoted strings (nearly all docstrings), other strings, the rest.
# ast would lose the comments, and parsing takes three times as long.
_LEXER = re.compile(
    r"""
    \#(?P<comment>[^\n]*)
  | [rRuUbBfF]{0,2}(?:
        \"\"\"(?P<double>(?:[^\\"]|\\.|"(?!""))*)\"\"\"
      | '''(?P<single>(?:[^\\']|\\.|'(?!''))*)'''
      | "(?:[^\\"\n]|\\.)*"
      | '(?:[^\\'\n]|\\.)*'
    )
    """,
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?:;](?=\s|$)|\n\s*\n")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_SHORTEST = 3  # words; shorter pieces are headings and rulers


@lru_cache(maxsize=2)
def lines(*, code: bool = False) -> tuple[str, ...]:
    """Sentences as lines of lower-case words separated by single spaces, each different line once.

    Words are runs of the letters a-z (with an apostrophe inside), so ``max_length`` gives two. About a second
    on first use, then kept in memory.

    Args:
        code: also take the source code itself, line by line.

    Raises:
        DataError: if the standard library is not there as source text.
    """
    found: dict[str, None] = {}
    for text in _texts(code=code):
        for piece in _SENTENCE_END.split(text.lower()):
            words = _WORD.findall(piece)
            if len(words) >= _SHORTEST:
                found[" ".join(words)] = None
    if not found:
        raise DataError(
            f"no source text of Python's standard library in {_library()}; give a text of your own"
        )
    return tuple(found)


class _Lines:
    """Gives an iterator of lines each time it is asked (a tuple of strings would be taken for paths)."""

    def __init__(self, *, code: bool) -> None:
        self._code = code

    def __iter__(self) -> Iterator[str]:
        return iter(lines(code=self._code))


def corpus(*, code: bool = False) -> Corpus:
    """The text as a corpus that can be gone through any number of times; see `lines`."""
    return Corpus(_Lines(code=code))


def digest(*, code: bool = False) -> str:
    """sha256 of the text: whether two machines have the same."""
    return hashlib.sha256("\n".join(lines(code=code)).encode()).hexdigest()


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _texts(*, code: bool) -> Iterator[str]:
    """Stretches of running text, in a fixed order."""
    library = _library()
    yield from _topics(library / "pydoc_data" / "topics.py")
    for name in sorted(sys.stdlib_module_names - _LEFT_OUT):
        module = library / f"{name}.py"
        for path in [module] if module.is_file() else sorted((library / name).rglob("*.py")):
            if not {"test", "tests", "idle_test"} & set(path.relative_to(library).parts):
                yield from _prose(_read(path), code=code)


def _topics(path: Path) -> Iterator[str]:
    """The values of the dictionary that `help()` shows, read as a literal."""
    try:
        tree = ast.parse(_read(path))
    except SyntaxError:
        return
    for node in tree.body:
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(value, ast.Dict):
            for topic in value.values:
                if isinstance(topic, ast.Constant) and isinstance(topic.value, str):
                    yield topic.value


def _prose(source: str, *, code: bool) -> Iterator[str]:
    block: list[str] = []  # comments on neighbouring lines are one text
    position = 0
    for match in _LEXER.finditer(source):
        between = source[position : match.start()]
        position = match.end()
        if block and between.strip():
            yield "\n".join(block)
            block = []
        if code:
            yield from between.split("\n")
        if match["comment"] is not None:
            block.append(match["comment"])
            continue
        text = match["double"] or match["single"]
        if text:
            yield _ESCAPE.sub(" ", text)
    if block:
        yield "\n".join(block)
    if code:
        yield from source[position:].split("\n")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
