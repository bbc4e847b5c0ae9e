"""Cover stories: how a graph, a change and a question are put in words, from YAML files."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import yaml

from posterhall.errors import DataError, did_you_mean
from posterhall.evals.planning.graphs import Graph

PACKS = ("ordRooms", "unordSpatial", "socialTies", "compact", "own")
"""Shipped with the package. The first three are the paper's domains, worded anew; `compact` is for small
models, `own` uses the names that a graph gives its nodes."""
PAPER = PACKS[:3]
_FIELD = re.compile(r"\{(\w+)\}")
_EDGE = ("a", "b")


@dataclass(frozen=True)
class Domain:
    """A cover story. `PLACEHOLDERS` says what may stand in braces in each text."""

    name: str
    """As on the command line."""
    node: str
    """A node: "room {label}"."""
    labels: tuple[str, ...] | Literal["numbers", "own"]
    """numbers: 1 to n; own: the graph's names, which stay with their nodes; or names to be drawn from."""
    edge: str
    edge_one_way: str
    block: str
    open: str
    teleport: str
    reward: str
    reward_now: str
    ask_path: str
    ask_reward: str
    form: Literal["chat", "text"] = "chat"
    """chat: a conversation; text: one text that the model continues."""
    system: str = ""
    separator: str = " "
    """Between two facts."""
    stop: str = ""
    """Where a reply ends; empty: where the model ends it."""
    opening: str = ""
    group: str = ""
    one_reward: str = ""
    step_cost: str = ""
    change: str = ""
    block_one_way: str = ""
    open_one_way: str = ""
    chance: str = ""
    ask_reward_cost: str = ""
    ask_chance: str = ""
    ask_clusters: str = ""
    ask_hub: str = ""
    answer_path: str = ""
    answer_number: str = ""
    answer_hub: str = ""
    bfs: str = ""
    dfs: str = ""
    hub: str = ""

    def say(self, part: str, **values: object) -> str:
        """A text of the pack with its braces filled.

        Raises:
            DataError: if the pack has no such text.
        """
        text: str = getattr(self, part)
        if not text:
            raise DataError(f"domain {self.name} has no text '{part}', which this condition needs; add it")
        return _FIELD.sub(lambda match: str(values[match[1]]), text)

    def called(self, graph: Graph, random: np.random.Generator) -> tuple[str, ...]:
        """What each node is called in one conversation: the labels in random order.

        Raises:
            DataError: if the graph has more nodes than the pack has labels.
        """
        if self.labels == "own":
            return tuple(self.node.replace("{label}", label) for label in graph.nodes)
        labels = tuple(map(str, range(1, len(graph) + 1))) if self.labels == "numbers" else self.labels
        if len(labels) < len(graph):
            raise DataError(
                f"domain {self.name} has {len(labels)} names, and graph {graph.name} {len(graph)} nodes; "
                "take a domain with numbers, as ordRooms, or give more labels in a file of your own"
            )
        order = random.permutation(len(graph))
        return tuple(self.node.replace("{label}", labels[place]) for place in order)


PLACEHOLDERS: dict[str, tuple[str, ...]] = {
    "node": ("label",),
    "opening": ("count",),
    "edge": _EDGE,
    "edge_one_way": _EDGE,
    "group": ("names",),
    "reward": ("a", "amount"),
    "step_cost": ("amount",),
    "block": _EDGE,
    "block_one_way": _EDGE,
    "open": _EDGE,
    "open_one_way": _EDGE,
    "teleport": _EDGE,
    "reward_now": ("a", "amount"),
    "chance": ("a", "b", "other", "percent"),
    "ask_path": ("start", "goal"),
    "ask_reward": ("start",),
    "ask_reward_cost": ("start",),
    "ask_chance": ("start",),
}
"""What may stand in braces, by the text's name; the others have none."""
_TEXTS = tuple(each.name for each in fields(Domain) if each.name not in ("name", "labels"))
_NEEDED = ("node", "labels", *(each.name for each in fields(Domain)[3:11]))


@functools.lru_cache(maxsize=64)
def load(name: str) -> Domain:
    """The domain of that name, or in that YAML file.

    Raises:
        DataError: if there is none, or the file is no domain; it says what is allowed.
    """
    if name in PACKS:
        return read(Path(__file__).parent / "packs" / f"{name}.yaml")
    if not Path(name).is_file():
        raise DataError(
            f"domain {name!r}: allowed are {', '.join(PACKS)}, or a YAML file, and there is no such file."
            f"{did_you_mean(name, PACKS)}"
        )
    return read(Path(name))


def read(path: Path) -> Domain:
    """A domain from a YAML file, named after the file; see `load`."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: a domain is lines 'name: text'; see docs/how-to/evaluate-planning.md")
    for key in value:
        if key not in _TEXTS and key != "labels":
            hint = did_you_mean(str(key), _TEXTS) or f" Allowed: labels, {', '.join(_TEXTS)}."
            raise DataError(f"{path}: unknown text {key!r}.{hint}")
    for key in _NEEDED:
        if not value.get(key):
            raise DataError(f"{path}: there is no '{key}'; a domain needs {', '.join(_NEEDED)}")
    for key, text in value.items():
        if key != "labels":
            _check_text(path, key, text)
    if value["node"].count("{label}") != 1:
        raise DataError(f"{path}: node is {value['node']!r}; it must hold {{label}} once")
    if value.get("form", "chat") not in ("chat", "text"):
        raise DataError(f"{path}: form is {value['form']!r}; it must be chat or text")
    return Domain(**{**value, "name": path.stem, "labels": _labels(path, value["labels"])})


def _check_text(path: Path, key: str, text: object) -> None:
    if not isinstance(text, str):
        raise DataError(f"{path}: {key} is {text!r}; it must be text (put it in quotes)")
    allowed = PLACEHOLDERS.get(key, ())
    for name in _FIELD.findall(text):
        if name not in allowed:
            known = ", ".join(f"{{{each}}}" for each in allowed) or "nothing"
            raise DataError(f"{path}: {key} holds {{{name}}}; allowed in braces there: {known}")


def _labels(path: Path, given: object) -> tuple[str, ...] | Literal["numbers", "own"]:
    if given == "numbers":
        return "numbers"
    if given == "own":
        return "own"
    if not isinstance(given, list) or len(given) < 2:
        raise DataError(f"{path}: labels is {given!r}; it must be a list of names, or numbers, or own")
    labels = tuple(str(each).strip() for each in given)
    for number, label in enumerate(labels):
        if not label or not label.isprintable() or "{" in label:
            raise DataError(f"{path}: label {number + 1} is {label!r}; a name is text on one line")
        if label in labels[:number]:
            raise DataError(f"{path}: two labels are {label!r}; names must differ")
    return labels
