"""House rules that a machine can check."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import posterhall

ROOT = Path(posterhall.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
LONGEST = 500
"""Lines in a file; a longer one has more than one role."""


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def test_the_sources_are_found():
    assert {"errors.py", "cli/main.py"} <= set(map(name_of, SOURCES))


def test_no_file_is_too_long():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
UNSAFE_ARGUMENTS = {("allow_pickle", True), ("shell", True), ("weights_only", False)}


def unsafe(tree):
    """Lines of a syntax tree that would run code found in data, each with what is used there."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                used = {alias.name.partition(".")[0] for alias in names} & UNSAFE_MODULES
            case ast.ImportFrom(module=str(module)):
                used = {module.partition(".")[0]} & UNSAFE_MODULES
            case ast.Call(func=function, keywords=keywords):
                used = {ast.unparse(function)} & UNSAFE_CALLS
                used |= {
                    f"{word.arg}={word.value.value}"
                    for word in keywords
                    if isinstance(word.value, ast.Constant)
                    and (word.arg, word.value.value) in UNSAFE_ARGUMENTS
                }
            case _:
                continue
        for each in used:
            yield f"line {node.lineno}: {each}"


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("import pickle", 1),
        ("from joblib import load", 1),
        ("import pickle as p, os", 1),
        ("eval('1')", 1),
        ("def f():\n  exec(x)", 1),
        ("np.load(path, allow_pickle=True)", 1),
        ("subprocess.run('ls', shell=True)", 1),
        ("yaml.load(text)", 1),
        ("np.load(path, allow_pickle=False)", 0),
        ("model.eval()", 0),
        ("self.exec(x)", 0),
        ("'pickle'  # eval(x)", 0),
        ("import pickled_fish", 0),
    ],
)
def test_the_check_knows_what_is_unsafe(code, count):
    assert len(list(unsafe(ast.parse(code)))) == count


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_data_is_never_run_as_code(path):
    assert list(unsafe(ast.parse(path.read_text()))) == []


def comments(text):
    return [
        token
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_left_for_later(path):
    text = path.read_text()
    left = [
        f"line {c.start[0]}: {c.string}"
        for c in comments(text)
        if re.search(r"\b(TODO|FIXME|XXX)\b", c.string)
    ]
    left += [
        f"line {node.lineno}: {node.id}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Name) and node.id == "NotImplementedError"
    ]
    assert left == []


def undocumented(tree, prefix=""):
    """Public classes and functions without a docstring, and methods of classes that inherit none."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_"):
                continue
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            if ast.get_docstring(node) is None and not re.search(r"overload|setter|override", decorators):
                yield f"line {node.lineno}: {prefix}{node.name}"
            if isinstance(node, ast.ClassDef) and not node.bases:
                yield from undocumented(node, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_what_is_public_is_documented(path):
    tree = ast.parse(path.read_text())
    private = any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(ROOT).parts)
    assert path.stat().st_size == 0 or ast.get_docstring(tree)
    assert private or list(undocumented(tree)) == []
