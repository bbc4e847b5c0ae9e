"""Text for the live claims: prose and code that every machine with Python has, or one's own.

Prose is what the standard library says about itself: the topics that `help()` shows, and the docstrings of
each module. Code is the same library without docstrings and comments, so that no prose hides in it. Files
are read as text and never imported or run. With a text of one's own (`corpus=PATH`, `code=PATH`) each
document of it stands where a file does.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from posterhall.claims.rows import Scalar
from posterhall.errors import DataError
from posterhall.seeds import generator

if TYPE_CHECKING:
    from posterhall.data.tokens import Tokens

What = Literal["prose", "code"]

_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "encodings", "lib2to3"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_PARAGRAPH = re.compile(r"\n\s*\n")


def draw(what: What, source: Scalar, sizes: Sequence[int], seed: int) -> list[list[str]]:
    """Lists of documents in an order of the seed's own, no file in two of them.

    Args:
        what: prose or code.
        source: file or directory of one's own text; None for the standard library.
        sizes: bytes of UTF-8 that each list has at least.
        seed: of the order. A larger last size gives the same documents and more.

    Raises:
        DataError: if there is not so much text.
    """
    path = None if source is None else str(source)
    count = len(_own(path)) if path is not None else len(_places())
    order = iter(generator(seed, "datablations", what, "order").permutation(count).tolist())
    lists: list[list[str]] = []
    for size in sizes:
        chosen: list[str] = []
        held = 0
        while held < size:
            place = next(order, None)
            if place is None:
                name = "corpus" if what == "prose" else "code"
                raise DataError(
                    f"{sum(sizes):,} bytes of {what} are wanted, and {path or 'the standard library'} has "
                    f"fewer; give more with --set {name}=PATH, or a smaller scale"
                )
            found = _own(path)[place] if path is not None else _read(what, place)
            chosen += found
            held += sum(len(text.encode()) for text in found)
        lists.append(chosen)
    return lists


def stream(texts: Sequence[str]) -> Tokens:
    """Documents as bytes, with an end of text before, between and after them."""
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.data.tokens import from_texts

    return from_texts(texts, ByteTokenizer())


def pieces(texts: Sequence[str], size: int) -> list[str]:
    """Documents cut at paragraphs into pieces of about `size` characters; a longer paragraph stays whole."""
    found: list[str] = []
    for text in texts:
        held = ""
        for paragraph in _PARAGRAPH.split(text):
            if held and len(held) + len(paragraph) > size:
                found.append(held)
                held = ""
            held = f"{held}\n\n{paragraph}" if held else paragraph
        found += [held] if held.strip() else []
    return found


@lru_cache(maxsize=4)
def _own(path: str) -> tuple[list[str], ...]:
    """One's own documents, each as what one file gives."""
    from posterhall.data.documents import documents

    return tuple([document.text] for document in documents(path) if document.text.strip())


@lru_cache(maxsize=1)
def _places() -> tuple[Path | str, ...]:
    """Where the library has text: topics by their text, modules by their path."""
    library = Path(sysconfig.get_path("stdlib"))
    modules = [
        path for path in sorted(library.rglob("*.py"))
        if not _LEFT_OUT & set(path.relative_to(library).parts) and "pydoc_data" not in path.parts
    ]  # fmt: skip
    if not modules:
        raise DataError(f"no source text of Python's standard library in {library}; give --set corpus=PATH")
    return (*_topics(library / "pydoc_data" / "topics.py"), *modules)


def _topics(path: Path) -> list[str]:
    """The values of the dictionary that `help()` shows, read as literals."""
    if not path.is_file():  # not in every distribution
        return []
    strings = (
        value.value
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
        for value in node.value.values
        if isinstance(value, ast.Constant)
    )
    return [text for text in strings if isinstance(text, str)]


@lru_cache(maxsize=2048)
def _read(what: What, place: int) -> list[str]:
    """The one document of a file of the library; none where it has no such text."""
    where = _places()[place]
    if isinstance(where, str):
        return [where] if what == "prose" else []
    source = where.read_text("utf-8", "replace")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # templates and the like
        return []
    text = docstrings(tree) if what == "prose" else without_prose(source, tree)
    return [text] if text.strip() else []


def docstrings(tree: ast.Module) -> str:
    """All docstrings of a module, outer before inner, with a blank line between."""
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, _DOCUMENTED))
    return "\n\n".join(text for text in found if text)


def without_prose(source: str, tree: ast.Module) -> str:
    """The lines of a module but those of docstrings, of nothing but comment, and blank ones."""
    gone: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            gone.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    kept = (
        line
        for number, line in enumerate(source.splitlines(), 1)
        if number not in gone and line.strip() and not line.lstrip().startswith("#")
    )
    return "\n".join(kept) + "\n"
