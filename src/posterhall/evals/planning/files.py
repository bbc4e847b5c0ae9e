"""A user's own graph: JSON with everything, or a plain list of edges."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posterhall.errors import DataError, did_you_mean
from posterhall.evals.planning.graphs import PUBLISHED, Graph

_KEYS = ("nodes", "edges", "directed", "rewards", "clusters", "start", "layout")
_LARGEST = 16 << 20
MOST_NODES = 1000
"""Nodes of a graph from a file: it is told of in words, so a larger one is a mistake."""


def read(name: str | Path) -> Graph:
    """A graph from a file, named after the file.

    ``.json``: ``{"nodes": ["hall", ...], "edges": [["hall", "tower"], ...], "directed": false, "rewards":
    {"tower": 50}, "clusters": {"hall": "west", ...}, "start": "hall", "layout": {"hall": [0.1, 0.5], ...}}``,
    of which only ``edges`` must be there. Anything else is read as a list of edges: two names a line, apart
    by a tab or white space; ``#`` begins a comment.

    Raises:
        DataError: for what cannot be read, naming the file, the entry or line, and what is allowed.
    """
    path = Path(name)
    if not path.is_file():
        raise DataError(
            f"graph {str(name)!r}: allowed are {', '.join(PUBLISHED)}, a random family, as "
            "clusters:groups=3:size=5, or a file, and there is no such file"
        )
    if path.stat().st_size > _LARGEST:
        raise DataError(f"{path} has over {_LARGEST >> 20} MiB; it is no graph to be told of in words")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a graph: {error}") from None
    if path.suffix.lower() == ".json":
        return _graph(path, _json(path, text))
    return _graph(path, {"edges": _lines(path, text)})


def _json(path: Path, text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f'{path}: a graph is a JSON object, as {{"edges": [["a", "b"]]}}')
    for key in value:
        if key not in _KEYS:
            raise DataError(
                f"{path}: unknown key {key!r}.{did_you_mean(key, _KEYS) or ' Allowed: ' + ', '.join(_KEYS)}"
            )
    return value


def _lines(path: Path, text: str) -> list[tuple[str, str]]:
    edges = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        names = [each.strip() for each in line.split("\t")] if "\t" in line else line.split()
        if len(names) != 2:
            raise DataError(
                f"{path}:{number}: {len(names)} names; an edge is two, apart by a tab or white space (names "
                "that have spaces in them: by a tab)"
            )
        if names[0] == names[1]:
            raise DataError(
                f"{path}:{number}: an edge from {names[0]!r} to itself; a step leads elsewhere: take it out"
            )
        edges.append((names[0], names[1]))
    return edges


def _graph(path: Path, value: Mapping[str, Any]) -> Graph:
    pairs = value.get("edges")
    if not isinstance(pairs, list) or not pairs:
        raise DataError(f"{path}: no edges; a graph has a list of them, each two names of nodes")
    for number, pair in enumerate(pairs, 1):
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            raise DataError(f"{path}: edge {number} is {pair!r}; it must be two names of nodes")
    named = value.get("nodes")
    if named is not None and not isinstance(named, list):
        raise DataError(f"{path}: nodes is {named!r}; it must be a list of names")
    every = [_name(path, each) for pair in pairs for each in pair]
    nodes = [_name(path, each) for each in named] if named is not None else list(dict.fromkeys(every))
    if len(nodes) > MOST_NODES:
        raise DataError(f"{path}: {len(nodes):,} nodes; a graph told of in words has at most {MOST_NODES:,}")
    places = {each: number for number, each in enumerate(nodes)}

    def place(given: Any, where: str) -> int:
        name = _name(path, given)
        if name not in places:
            raise DataError(f"{path}: {where}: {name!r} is not among the nodes.{did_you_mean(name, places)}")
        return places[name]

    directed = value.get("directed", False)
    if not isinstance(directed, bool):
        raise DataError(f"{path}: directed is {directed!r}; it must be true or false")
    rewards = {}
    for name, amount in _object(path, value, "rewards").items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount):
            raise DataError(f"{path}: the reward of {name!r} is {amount!r}; it must be a number")
        rewards[place(name, "rewards")] = float(amount)
    try:
        return Graph(
            path.stem,
            tuple(nodes),
            tuple((place(a, f"edge {i}"), place(b, f"edge {i}")) for i, (a, b) in enumerate(pairs, 1)),
            directed=directed,
            rewards=rewards,
            clusters=_clusters(path, value, nodes),
            start=None if value.get("start") is None else place(value["start"], "start"),
            layout=_layout(path, value, nodes),
        )
    except DataError as error:
        raise error if str(error).startswith(str(path)) else DataError(f"{path}: {error}") from None


def _name(path: Path, given: Any) -> str:
    text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise DataError(f"{path}: {given!r} is no name of a node; it must be text on one line, or a number")
    return text.strip()


def _object(path: Path, value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key) or {}
    if not isinstance(found, dict):
        raise DataError(f"{path}: {key} is {found!r}; it must be an object with names of nodes as its keys")
    return found


def _for_all(path: Path, value: Mapping[str, Any], key: str, nodes: list[str]) -> list[Any]:
    """What an object says of each node; it must say it of all of them, or be left out."""
    found = _object(path, value, key)
    if not found:
        return []
    odd = sorted(set(nodes) ^ set(found))
    if odd:
        what = "has no entry for" if odd[0] in nodes else "names a node that is not there:"
        raise DataError(f"{path}: {key} {what} {odd[0]!r}; give one entry for each node, or none")
    return [found[name] for name in nodes]


def _clusters(path: Path, value: Mapping[str, Any], nodes: list[str]) -> tuple[int, ...] | None:
    labels = [json.dumps(each) for each in _for_all(path, value, "clusters", nodes)]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return tuple(numbers[label] for label in labels) or None


def _layout(path: Path, value: Mapping[str, Any], nodes: list[str]) -> tuple[tuple[float, float], ...]:
    found = []
    for name, at in zip(nodes, _for_all(path, value, "layout", nodes), strict=False):
        numbers = at if isinstance(at, list) and len(at) == 2 else [None]
        if not all(isinstance(each, int | float) and 0 <= each <= 1 for each in numbers):
            raise DataError(f"{path}: layout of {name!r} is {at!r}; it must be two numbers between 0 and 1")
        found.append((float(at[0]), float(at[1])))
    return tuple(found)
