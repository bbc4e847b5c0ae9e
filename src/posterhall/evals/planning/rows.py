"""What a planning run keeps: one row a conversation, in Parquet, scored from what the row itself holds.

`conversations.parquet` in a run's artifacts has the columns of `SCHEMA`. Those of the first part say what was
asked and said; `score` fills the others from them, and can do so again when reading or verifying has changed,
or for conversations from elsewhere that have the same columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from posterhall.errors import DataError
from posterhall.evals.planning import answers, scoring
from posterhall.evals.planning.conditions import CONDITIONS, Question
from posterhall.evals.planning.prompts import Conversation, literal
from posterhall.runs import atomic_file

FILE = "conversations.parquet"
_TEXTS = pa.list_(pa.string())
_NODES = pa.list_(pa.int32())

SAID = pa.schema(
    [
        ("model", pa.string()),
        ("graph", pa.string()),
        ("domain", pa.string()),
        ("condition", pa.string()),
        ("category", pa.string()),
        ("temperature", pa.float64()),
        ("repetition", pa.int32()),
        ("intervention", pa.string()),
        ("wording", pa.string()),
        ("parts", _TEXTS),  # of each turn: hub, first or final
        ("prompts", _TEXTS),  # what the user says in each turn
        ("replies", _TEXTS),
        ("names", _TEXTS),  # what each node is called
        ("node_form", pa.string()),  # "room {label}"
        ("kind", pa.string()),  # of the last question: path, reward, chance or clusters
        ("start", pa.int32()),  # -1 for clusters
        ("goals", _NODES),
        ("number", pa.int32()),  # the right number of clusters, or -1
        ("edges", _NODES),  # steps of the graph judged on: from, to, from, to, ... in ascending order
        ("literal_edges", _NODES),  # the same, if the wording in groups is taken at its word; else empty
        ("first_goals", _NODES),  # of the question before the change; empty if it was not asked
        ("first_edges", _NODES),
        ("hub_goals", _NODES),  # right answers to the question for the hub; empty if it was not asked
        ("key", pa.list_(_NODES)),  # all right paths
        ("crosses_bridge", pa.bool_()),  # every right path leads to another cluster; null: no clusters
        ("tokens_in", pa.int64()),
        ("tokens_out", pa.int64()),
        ("cut", pa.bool_()),  # a reply ended at the limit of tokens
    ]
)
"""What was asked and said."""
FOUND = pa.schema(
    [
        ("correct", pa.bool_()),
        ("failure", pa.string()),  # of scoring.OUTCOMES; "correct" for right answers
        ("distance", pa.int32()),  # fewest steps to a goal; -1 for clusters
        ("answer_path", _NODES),  # nodes named, -1 for a name that is none; null: unread
        ("answer_number", pa.int32()),
        ("read", pa.string()),  # answer, last line or unread
        ("answers", pa.int32()),  # times that the last reply says "Answer:"
        ("start_omitted", pa.bool_()),
        ("correct_literal", pa.bool_()),  # judged on literal_edges; null where there are none
        ("failure_literal", pa.string()),
        ("first_correct", pa.bool_()),  # null where it was not asked
        ("first_failure", pa.string()),
        ("hub_correct", pa.bool_()),
    ]
)
"""What `score` makes of it."""
SCHEMA = pa.schema([*SAID, *FOUND])
_BATCH = 4096
"""Rows scored at once; with all of them as lists, Python's garbage collector takes a third of the time."""


def row(
    conversation: Conversation,
    replies: Sequence[str],
    *,
    model: str,
    temperature: float,
    repetition: int,
    intervention: str = "none",
    wording: str = "pairs",
    tokens: tuple[int, int] = (0, 0),
    cut: bool = False,
    graph: str | None = None,
) -> dict[str, Any]:
    """What was asked and said, as a row of `SAID`."""
    item, question = conversation.item, conversation.item.question
    asked = {turn.part: turn.question for turn in conversation.turns}
    first, hub = asked.get("first"), asked.get("hub")
    groups = wording == "groups"
    return {
        "model": model,
        "graph": graph or item.graph.name,
        "domain": conversation.domain.name,
        "condition": item.condition,
        "category": CONDITIONS[item.condition].category,
        "temperature": temperature,
        "repetition": repetition,
        "intervention": intervention,
        "wording": wording,
        "parts": [turn.part for turn in conversation.turns],
        "prompts": [turn.text for turn in conversation.turns],
        "replies": list(replies),
        "names": list(conversation.names),
        "node_form": conversation.domain.node,
        "kind": question.kind,
        "start": question.start,
        "goals": list(question.goals),
        "number": question.number,
        "edges": _steps(question),
        "literal_edges": _flat(literal(question.graph, item.edits).adjacency) if groups else [],
        "first_goals": list(first.goals) if first else [],
        "first_edges": _steps(first) if first else [],
        "hub_goals": list(hub.goals) if hub else [],
        "key": question.key(),
        "crosses_bridge": question.crosses,
        "tokens_in": tokens[0],
        "tokens_out": tokens[1],
        "cut": cut,
    }


def _steps(question: Question) -> list[int]:
    return _flat(question.graph.adjacency)


def _flat(adjacency: npt.NDArray[np.bool_]) -> list[int]:
    return [int(each) for each in np.argwhere(adjacency).ravel()]


def save(table: pa.Table, path: Path) -> None:
    """Write a table whole or not at all."""
    with atomic_file(path) as file:
        pq.write_table(table, file, compression="zstd")


def load(path: Path) -> pa.Table:
    """The conversations of a run (its directory), or of such a file, with at least the columns of `SAID`.

    Raises:
        DataError: if there are none, or columns are missing.
    """
    file = path / "artifacts" / FILE if path.is_dir() else path
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: no conversations to be read: {str(error).splitlines()[0]}") from None
    missing = [name for name in SAID.names if name not in table.column_names]
    if missing:
        raise DataError(f"{file}: no column {missing[0]!r}; conversations have {', '.join(SAID.names)}")
    try:
        return table.select(SAID.names).cast(SAID)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{file}: {str(error).splitlines()[0]}") from None


# -- scoring ------------------------------------------------------------------------------------------


def score(table: pa.Table) -> pa.Table:
    """Read the replies and judge them: the columns of `SAID` with those of `FOUND`.

    Raises:
        DataError: for a row whose parts do not fit together.
    """
    pieces = [_score(table.slice(at, _BATCH)) for at in range(0, len(table), _BATCH)]
    return pa.concat_tables(pieces).combine_chunks() if pieces else SCHEMA.empty_table()


def _score(table: pa.Table) -> pa.Table:
    names, forms = _lists(table["names"]), table["node_form"].to_pylist()
    parts, replies = _lists(table["parts"]), _lists(table["replies"])
    kinds = table["kind"].to_pylist()
    readers = [_reader(*each) for each in zip(names, forms, strict=True)]
    last = [said[-1] if said else "" for said in replies]
    found: dict[str, list[Any]] = {name: [None] * len(last) for name in FOUND.names}
    counting = np.array([kind == "clusters" for kind in kinds], dtype=np.bool_)
    paths: list[tuple[int, ...] | None] = []
    how, times, said_paths = found["read"], found["answers"], found["answer_path"]
    for i, (reader, reply, counted) in enumerate(zip(readers, last, counting.tolist(), strict=True)):
        if counted:
            said, times[i] = answers.number(reply)
            found["answer_number"][i] = said
            how[i] = "unread" if said is None else "answer" if times[i] else "last line"
            paths.append(None)
            continue
        read, how[i], times[i] = reader.reader.read(reply)
        said_paths[i] = path = reader.nodes(read)
        paths.append(path)
    starts = np.maximum(table["start"].to_numpy(), 0)
    goals = _lists(table["goals"])
    sizes = np.array([len(each) for each in names], dtype=np.int64)
    verdicts = _verify(table["edges"], sizes, paths, starts, goals)
    codes = verdicts.codes.copy()
    right = table["number"].to_numpy()
    for i in np.flatnonzero(counting).tolist():
        said = found["answer_number"][i]
        codes[i] = scoring.UNREAD if said is None else 0 if said == right[i] else scoring.WRONG_NUMBER
    known = {
        "correct": codes == scoring.CORRECT,
        "failure": pa.array(scoring.OUTCOMES).take(pa.array(codes)),
        "start_omitted": verdicts.start_omitted,
        "distance": np.where(counting, -1, verdicts.distance),
    }
    _other(found, "_literal", table["literal_edges"], table, sizes, paths, goals, ~counting)
    _earlier(found, table, readers, parts, replies, sizes)
    columns = [pa.array(known.get(name, found[name]), type=FOUND.field(name).type) for name in FOUND.names]
    said_columns = [table[name] for name in SAID.names]
    return pa.table([*said_columns, *columns], schema=SCHEMA)


def _lists(column: pa.ChunkedArray) -> list[list[Any]]:
    """A column of lists as Python's, by way of flat arrays: many times faster than `to_pylist`."""
    whole = column.combine_chunks()
    values = whole.flatten().to_numpy(zero_copy_only=False).tolist()
    ends = whole.offsets.to_numpy().astype(np.int64)
    ends -= ends[0]  # a slice keeps the offsets of the whole
    return [values[a:b] for a, b in pairwise(ends.tolist())]


class _Named:
    """A reader of some names, and which node each is in one conversation."""

    __slots__ = ("names", "ordered", "reader")

    def __init__(self, reader: answers.Reader, ordered: Sequence[str], names: Sequence[str]) -> None:
        self.reader, self.ordered, self.names = reader, ordered, names

    def nodes(self, path: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if path is None:
            return None
        place, ordered = self.names.index, self.ordered
        return tuple([place(ordered[each]) if each >= 0 else each for each in path])


def _reader(names: Sequence[str], form: str) -> _Named:
    """One reader serves all conversations that have the same names, however they are shared out."""
    ordered = tuple(sorted(names))
    return _Named(answers.reader(ordered, form), ordered, names)


def _verify(
    edges: pa.ChunkedArray,
    sizes: npt.NDArray[np.int64],
    paths: Sequence[Sequence[int] | None],
    starts: npt.NDArray[np.int64],
    goals: Sequence[Sequence[int]],
) -> scoring.Verdicts:
    """Judge each answer on its own graph, given as flat lists of steps."""
    whole = edges.combine_chunks()
    flat = whole.flatten().to_numpy()
    counts = np.diff(whole.offsets.to_numpy()) // 2
    which = np.repeat(np.arange(len(counts)), counts)
    a, b = flat[0::2], flat[1::2]
    if len(flat) % 2 or (len(flat) and ((flat < 0) | (flat >= np.repeat(sizes, 2 * counts))).any()):
        raise DataError("edges: a step names no node; each is two of the places of `names`")
    worlds = scoring.Worlds.of_edges(sizes, which, a, b)
    return scoring.verify(worlds, paths, starts, goals, world=np.arange(len(sizes)))


def _other(
    found: dict[str, list[Any]],
    ending: str,
    edges: pa.ChunkedArray,
    table: pa.Table,
    sizes: npt.NDArray[np.int64],
    paths: Sequence[tuple[int, ...] | None],
    goals: Sequence[Sequence[int]],
    wanted: npt.NDArray[np.bool_],
) -> None:
    """Judge the same answers on another graph, where there is one."""
    lengths = np.diff(edges.combine_chunks().offsets.to_numpy())
    at = np.flatnonzero((lengths > 0) & wanted).tolist()
    if not at:
        return
    verdicts = _verify(
        edges.take(at),
        sizes[at],
        [paths[i] for i in at],
        table["start"].to_numpy()[at],
        [goals[i] for i in at],
    )
    for i, code in zip(at, verdicts.codes, strict=True):
        found["correct" + ending][i] = bool(code == scoring.CORRECT)
        found["failure" + ending][i] = scoring.OUTCOMES[code]


def _earlier(
    found: dict[str, list[Any]],
    table: pa.Table,
    readers: Sequence[_Named],
    parts: Sequence[Sequence[str]],
    replies: Sequence[Sequence[str]],
    sizes: npt.NDArray[np.int64],
) -> None:
    """Judge what was asked before the question that counts."""
    at: list[int] = []
    paths: list[tuple[int, ...] | None] = []
    hubs = _lists(table["hub_goals"])
    for i, (turns, said) in enumerate(zip(parts, replies, strict=True)):
        if len(turns) < 2:
            continue
        for part, reply in zip(turns, said, strict=False):
            if part == "hub":
                name = readers[i].reader.one(reply)
                node = None if name is None else readers[i].nodes((name,))
                found["hub_correct"][i] = node is not None and node[0] in hubs[i]
            elif part == "first":
                at.append(i)
                paths.append(readers[i].nodes(readers[i].reader.read(reply).path))
    if not at:
        return
    goals = _lists(table["first_goals"].take(at))
    verdicts = _verify(table["first_edges"].take(at), sizes[at], paths, table["start"].to_numpy()[at], goals)
    for i, code in zip(at, verdicts.codes, strict=True):
        found["first_correct"][i] = bool(code == scoring.CORRECT)
        found["first_failure"][i] = scoring.OUTCOMES[code]
