"""Logged conversations about paths: answers read and walked on their graphs, against pandas and networkx.

    python -m benchmarks.planning [--conversations 60000] [--json]

The conversations are generated: all six graphs, three domains and all conditions with a path for an answer,
two turns where the benchmark has two. A made-up model answers at the end of some 300 characters of reasoning:
two thirds of the time rightly, else with an invented edge, a loop, the path the wrong way round or none.

Both sides begin with a Parquet file of a run and end with what is wrong with each answer. The peer is the
script that one would write: the rows of a data frame, the last "Answer:" by a regular expression, cut at
arrows, names looked up, `networkx.has_edge` step by step and `shortest_path_length`; once with a graph for
each row, as one writes it first, and once with graphs and lengths kept for equal ones. It reads arrows and
judges last answers only, where ours also reads prose, commas and short forms, judges the first of two turns
and finds names that are none. The answers are within its reach, and all sides must find the same.

Then the statistics: sequential likelihood-ratio tests of graph, domain, temperature, category, condition and
two interactions, from scored conversations. The peer is statsmodels: once a logistic regression over all
rows, model by model, as one writes it first, and once over counts by cell, as one should. All sides must find
the same chi-squares. The last case is everything together, from the file to the table.
"""

from __future__ import annotations

import argparse
import gc
import re
import tempfile
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks._harness import Result, arguments, emit, faster, interleaved

THINKING = "From here I look at where each door leads, and note which rooms I have seen. "


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--conversations", type=int, default=60_000)


def said(conversation: Any, rng: Any) -> str:
    """A reply of the made-up model."""
    question = conversation.item.question
    key = question.key()
    path = list(key[int(rng.integers(len(key)))])
    fate = rng.random()
    if fate < 0.2:
        path = [path[0], path[-1]]
    elif fate < 0.27:
        path = [path[0], path[1], *path]
    elif fate < 0.31:
        path = path[::-1]
    answer = " -> ".join(conversation.names[node] for node in path)
    if fate > 0.98:
        answer = "there is no path"
    return THINKING * 4 + "\nAnswer: " + answer


def logged(count: int) -> Any:
    """A table of that many conversations."""
    import pyarrow as pa

    from posterhall.evals.planning import rows
    from posterhall.evals.planning.conditions import CONDITIONS
    from posterhall.evals.planning.jobs import PlanningSettings, plan
    from posterhall.seeds import generator

    rng = generator(0, "benchmark", "planning")
    conditions = tuple(name for name in CONDITIONS if name != "nClusters")
    found: list[dict[str, Any]] = []
    # Repetition by repetition, so that any number of conversations has all cells.
    settings = PlanningSettings(conditions=conditions, repeats=-(-count // 600))
    for planned in sorted(plan(settings), key=lambda each: each.repetition):
        conversation = planned.conversation()
        if conversation is None:
            continue
        replies = [said(conversation, rng) for _ in conversation.turns]
        found.append(
            rows.row(
                conversation,
                replies,
                model="made-up",
                temperature=planned.temperature,
                repetition=planned.repetition,
            )
        )
        if len(found) == count:
            break
    return pa.Table.from_pylist(found, schema=rows.SAID)


def ours(log: Any) -> list[str]:
    """What is wrong with each answer, by this package."""
    from posterhall.evals.planning import rows

    found: list[str] = rows.score(rows.load(log))["failure"].to_pylist()
    return found


def peer(log: Any, *, keep: bool) -> list[str]:
    """What is wrong with each answer, by pandas and networkx; `keep` graphs and lengths for equal ones."""
    import networkx as nx
    import pandas as pd

    frame = pd.read_parquet(log, columns=["replies", "names", "edges", "start", "goals"])
    answers = frame["replies"].map(lambda turns: re.findall(r"Answer:\s*(.+)", turns[-1]))
    graphs: dict[Any, Any] = {}
    lengths: dict[Any, int] = {}

    def judge(row: Any) -> str:
        found = answers[row.name]
        if not found:
            return "unread"
        places = {name: node for node, name in enumerate(row["names"])}
        path = [places.get(part.strip().rstrip(".")) for part in found[-1].split("->")]
        if path == [None] or len(path) < 2:
            return "no path"
        edges = tuple(row["edges"])
        if not keep:
            graphs.clear()
            lengths.clear()
        if edges not in graphs:
            graph = nx.DiGraph()
            graph.add_nodes_from(range(len(places)))
            graph.add_edges_from(zip(edges[::2], edges[1::2], strict=True))
            graphs[edges] = graph
        graph = graphs[edges]
        for a, b in pairwise(path):
            if not graph.has_edge(a, b):
                return "invented edge"
        if path[0] != row["start"] or path[-1] not in row["goals"]:
            return "wrong ends"
        if len(set(path)) < len(path):
            return "loop"
        ends = (edges, path[0], path[-1])
        if ends not in lengths:
            lengths[ends] = nx.shortest_path_length(graph, path[0], path[-1])
        return "longer" if len(path) - 1 > lengths[ends] else "correct"

    return list(frame.apply(judge, axis=1))


def scored(table: Any, options: Any) -> list[Result]:
    """Reading and judging, ours against the peer's."""
    import networkx as nx
    import pandas as pd

    from posterhall.evals.planning import rows

    with tempfile.TemporaryDirectory() as directory:
        log, few = Path(directory) / "log.parquet", Path(directory) / "few.parquet"
        rows.save(table, log)
        rows.save(table.slice(0, 100), few)
        ours(few)  # compiles
        peer(few, keep=True)
        gc.collect()
        gc.freeze()  # what made the conversations is no part of reading them
        sides = {
            "ours": lambda: ours(log),
            "a graph for each row": lambda: peer(log, keep=False),
            "graphs kept": lambda: peer(log, keep=True),
        }
        timed = interleaved(sides, repeats=options.repeats)
    results = []
    for name in list(sides)[1:]:
        differ = sum(a != b for a, b in zip(timed["ours"].value, timed[name].value, strict=True))
        if differ:
            raise SystemExit(f"the two sides disagree on {differ} answers; their times do not compare")
        results.append(
            faster(
                f"{len(table):,} conversations, against {name}",
                timed["ours"],
                timed[name],
                f"pandas {pd.__version__} + networkx {nx.__version__}",
                quality={"outcomes": dict(Counter(timed["ours"].value)), "equal": True},
            )
        )
    return results


FEW = 6_000
"""Conversations of which statsmodels is given all rows: it takes minutes for ten times as many."""
TERMS = ("graph", "domain", "temperature", "category", "condition", "graph:domain", "graph:category")


def tested(scores: Any) -> list[tuple[str, int, float]]:
    """Term, degrees of freedom and chi-square, by this package."""
    from posterhall.evals.planning import analysis
    from posterhall.stats.logistic import Cells, deviance_table

    factors = {name: analysis.factor(scores, name) for name in TERMS if ":" not in name}
    steps = deviance_table(Cells.of(factors, scores["correct"].to_numpy()), TERMS)
    return [(step.term, step.df, step.chi2) for step in steps]


def peer_tested(frame: Any, *, counts: bool) -> list[tuple[str, int, float]]:
    """The same by statsmodels, with pandas counting the cells if wanted."""
    import numpy as np
    import pandas as pd
    import statsmodels.api as sm

    # Conditions are nested in categories: it says so for each model, and is right all the same.
    warnings.filterwarnings("ignore", category=sm.tools.sm_exceptions.ModelWarning)
    names = [name for name in TERMS if ":" not in name]
    if counts:
        cells = frame.groupby(names, observed=True)["correct"].agg(["sum", "size"]).reset_index()
        answers: Any = np.column_stack([cells["sum"], cells["size"] - cells["sum"]])
    else:
        cells, answers = frame, frame["correct"].astype(float).to_numpy()
    columns, found = np.ones((len(cells), 1)), []
    before = sm.GLM(answers, columns, family=sm.families.Binomial()).fit()
    for term in TERMS:
        dummies: Any = np.ones((len(cells), 1))
        for part in term.split(":"):
            coded = pd.get_dummies(cells[part], drop_first=True).to_numpy(dtype=float)
            dummies = (dummies[:, :, None] * coded[:, None, :]).reshape(len(cells), -1)
        columns = np.hstack([columns, dummies])
        now = sm.GLM(answers, columns, family=sm.families.Binomial()).fit()
        gain = int(now.df_model - before.df_model)
        found.append((term, gain, float(before.deviance - now.deviance)))
        before = now
    return found


def statistics(table: Any, options: Any) -> list[Result]:
    """The table of tests, ours against the peer's; and all together."""
    import networkx as nx
    import numpy as np
    import pandas as pd
    import statsmodels

    from posterhall.evals.planning import rows

    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log.parquet"
        rows.save(table, log)
        scores = rows.score(rows.load(log))
        frame = scores.select([*(name for name in TERMS if ":" not in name), "correct"]).to_pandas()

        def all_ours() -> Any:
            return tested(rows.score(rows.load(log)))

        def all_theirs() -> Any:
            verdicts = peer(log, keep=True)
            read = pd.read_parquet(log, columns=[name for name in TERMS if ":" not in name])
            return peer_tested(read.assign(correct=[each == "correct" for each in verdicts]), counts=True)

        few = min(FEW, len(frame))
        of_few = interleaved(
            {
                "ours": lambda: tested(scores.slice(0, few)),
                "rows": lambda: peer_tested(frame.iloc[:few], counts=False),
            },
            repeats=options.repeats,
        )
        timed = interleaved(
            {"ours": lambda: tested(scores), "counts": lambda: peer_tested(frame, counts=True)},
            repeats=options.repeats,
        )
        whole = interleaved({"ours": all_ours, "counts": all_theirs}, repeats=options.repeats)
    results = []
    name = f"statsmodels {statsmodels.__version__}"
    for runs, peer_side, what, by in (
        (of_few, "rows", f"{few:,} conversations, tests, against models of all rows", name),
        (timed, "counts", f"{len(table):,} conversations, tests, against models of counts", name),
        (
            whole,
            "counts",
            f"{len(table):,} conversations, file to tests",
            f"pandas {pd.__version__} + networkx {nx.__version__} + {name}",
        ),
    ):
        ours_found, theirs = runs["ours"].value, runs[peer_side].value
        same = [
            a[1] == b[1] and np.isclose(a[2], b[2], rtol=1e-6, atol=1e-4)
            for a, b in zip(ours_found, theirs, strict=True)
        ]
        if not all(same):
            raise SystemExit(f"the two sides disagree: {ours_found} against {theirs}")
        quality = {"chi2": {term: round(chi2, 2) for term, _, chi2 in ours_found}, "equal": True}
        results.append(faster(what, runs["ours"], runs[peer_side], by, quality=quality))
    return results


def main() -> None:
    options = arguments(str(__doc__), _options)
    table = logged(options.conversations)
    results = [*scored(table, options), *statistics(table, options)]
    emit("planning", options.threads, results, as_json=options.json)


if __name__ == "__main__":
    main()
