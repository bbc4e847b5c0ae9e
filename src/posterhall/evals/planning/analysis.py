"""What a planning run shows: which of what was varied matters, by sequential likelihood-ratio tests.

The paper's table (Momennejad et al. 2023) has LLM, graph, domain, temperature and condition, the last one in
its five categories; here single conditions follow within their category, and then some interactions. Rows of
several runs go together: a model each, or an intervention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posterhall.errors import DataError
from posterhall.evals.planning import rows, tables
from posterhall.evals.planning.scoring import OUTCOMES
from posterhall.stats.logistic import Cells, Factor, Step, deviance_table, fit, pairwise

FACTORS = (
    "model",
    "graph",
    "domain",
    "temperature",
    "intervention",
    "wording",
    "category",
    "condition",
    "distance",
    "crosses_bridge",
)
"""Columns that a term may be made of; the last two are of questions for a path."""
TERMS = (
    *FACTORS[:8],
    "model:graph",
    "model:category",
    "graph:domain",
    "graph:category",
    "intervention:graph",
    "intervention:category",
)
"""Tested in this order unless told otherwise; those of a factor that was not varied are left out."""
CELL = ("graph", "domain", "condition")


def load(paths: Sequence[Path]) -> pa.Table:
    """The scored conversations of some runs (directories, or files of rows), one after the other.

    Raises:
        DataError: for no runs, one that has no conversations, or the same one twice.
    """
    seen = [path.resolve() for path in paths]
    if not paths or len(set(seen)) < len(seen):
        raise DataError(f"{', '.join(map(str, paths)) or 'no runs'}: give one run or more, each once")
    table = pa.concat_tables([rows.load(path) for path in paths])
    if not len(table):
        raise DataError(f"{', '.join(map(str, paths))}: no conversations in it")
    return rows.score(table)


def analyse(table: pa.Table, *, terms: Sequence[str] | None = None, coding: str = "sum") -> dict[str, Any]:
    """Test and count.

    Args:
        table: scored conversations (`rows.SCHEMA`), of one run or several.
        terms: what to test, in this order: names of `FACTORS`, and some joined by colons (interactions);
            None: `TERMS`.
        coding: sum or treatment; of influence only where Firth's penalty comes in.

    Returns:
        conversations; models; terms, a row for each test (`term`, `df`, `chi2`, `p`, `log10_p`, `p_holm`,
        `firth`, `deviance`, `df_left`); left_out, terms of factors that were not varied; pairs, for each
        tested factor all pairs of its levels (`factor`, `a`, `b`, `log_odds`, `low`, `high`, `p`, `p_holm`);
        bridges, tests of distance and of crossing a bridge on questions for a path in a graph with clusters;
        and counts as of `tables.cells`: cells (graph by domain by condition), by_category, by_graph,
        by_model, by_distance (with crosses_bridge).

    Raises:
        DataError: for a term that cannot be tested.
    """
    if coding not in ("sum", "treatment"):
        raise DataError(f"coding is {coding!r}; allowed are sum and treatment")
    factors = {name: factor(table, name) for name in FACTORS[:8]}
    wanted = list(TERMS if terms is None else terms)
    if any(part in FACTORS[8:] for term in wanted for part in term.split(":")):
        table = table.filter(pc.field("distance") >= 0)
        if not len(table):
            raise DataError("distance and crosses_bridge are of questions for a path, and there is none")
        factors = {name: factor(table, name) for name in FACTORS}
    varied = {name for name, each in factors.items() if len(each.levels) > 1}
    unknown = [part for term in wanted for part in term.split(":") if part not in factors]
    tested = wanted if unknown else [t for t in wanted if set(t.split(":")) <= varied]
    used = {part for term in tested for part in term.split(":")}
    correct = table["correct"].to_numpy()
    cells = Cells.of({name: each for name, each in factors.items() if name in used or unknown}, correct)
    steps = deviance_table(cells, tested, coding="sum" if coding == "sum" else "treatment")
    return {
        "conversations": len(table),
        "models": sorted(set(table["model"].to_pylist())),
        "terms": [_told(step) for step in steps],
        "left_out": [term for term in wanted if term not in tested],
        "pairs": _pairs(cells, [term for term in tested if ":" not in term]),
        "bridges": _bridges(table),
        "cells": tables.cells(table, CELL),
        "by_category": tables.cells(table, ["category"]),
        "by_graph": tables.cells(table, ["graph"]),
        "by_model": tables.cells(table, ["model"]),
        "by_distance": _by_distance(table),
    }


def taxonomy(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The outcomes that occur in some cells, right ones first, in the order of `scoring.OUTCOMES`."""
    found = {name for cell in cells for name in cell["failures"]}
    return [name for name in OUTCOMES if name in found or name == "correct"]


def factor(table: pa.Table, name: str) -> Factor:
    """A column as a factor, its levels in the order in which they first occur."""
    encoded = table[name].combine_chunks().dictionary_encode(null_encoding="encode")
    return Factor(tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy().astype(np.int64))


def _told(step: Step) -> dict[str, Any]:
    return {
        "term": step.term,
        "df": step.df,
        "chi2": step.chi2,
        "p": step.p,
        "log10_p": step.log10_p,
        "p_holm": None if math.isnan(step.p_holm) else step.p_holm,
        "firth": step.firth,
        "deviance": step.deviance,
        "df_left": step.df_left,
    }


def _pairs(cells: Cells, terms: Sequence[str]) -> list[dict[str, Any]]:
    """All pairs of levels of the factors that are not nested in one another, in a model of all of them."""
    nested = {"category"} if {"category", "condition"} <= set(terms) else set()
    model = fit(cells, [term for term in terms if term not in nested])
    found = []
    for term in terms:
        if term in nested or len(model.design.columns(term)) != len(cells.factors[term].levels) - 1:
            continue
        for pair in pairwise(model, term):
            odds = pair.log_odds
            found.append(
                {
                    "factor": term,
                    "a": pair.a,
                    "b": pair.b,
                    "log_odds": odds.estimate,
                    "low": odds.low,
                    "high": odds.high,
                    "p": pair.p,
                    "p_holm": pair.p_holm,
                }
            )
    return found


def _bridges(table: pa.Table) -> list[dict[str, Any]]:
    """Whether distance matters, and, at equal distance, that the way leads to another cluster."""
    found = _in_clusters(table)
    if not len(found):
        return []
    factors = {name: factor(found, name) for name in ("graph", "distance", "crosses_bridge")}
    varied = [name for name, each in factors.items() if len(each.levels) > 1]
    cells = Cells.of({name: factors[name] for name in varied}, found["correct"].to_numpy())
    return [_told(step) for step in deviance_table(cells, varied)]


def _by_distance(table: pa.Table) -> list[dict[str, Any]]:
    paths = table.filter(pc.field("distance") >= 0)
    if not len(paths):
        return []
    found = tables.cells(paths, ["distance", "crosses_bridge"])
    return sorted(found, key=lambda cell: (cell["distance"], cell["crosses_bridge"] or False))


def _in_clusters(table: pa.Table) -> pa.Table:
    return table.filter((pc.field("distance") >= 0) & pc.field("crosses_bridge").is_valid())
