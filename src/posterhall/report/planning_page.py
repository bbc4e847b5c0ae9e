"""One self-contained HTML page of planning runs: every cell, what went wrong, what matters, conversations."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from posterhall import __version__, runs
from posterhall.errors import DataError
from posterhall.evals.planning import analysis, jobs, tables
from posterhall.evals.planning.conditions import CONDITIONS
from posterhall.evals.planning.scoring import OUTCOMES
from posterhall.report import graph_drawing
from posterhall.report.provenance import date, provenance

PAGE = "report.html"
SAMPLES = 2
"""Conversations shown of a cell: a wrong one and a right one, if there are both."""
CELLS = 400
"""Most cells whose conversations are shown."""
LONGEST = 6000
"""Characters of a turn that are shown."""
_NUMBERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Bar:
    """Outcomes of some conversations, as parts of a whole."""

    name: str
    n: str
    parts: tuple[tuple[int, str, float, str], ...]
    """Number of the outcome, its name, its share in percent, how many."""


def write(
    sources: Path | Sequence[Path], out: Path | None = None, *, terms: Sequence[str] | None = None
) -> Path:
    """Write the page of a planning run, or of several together.

    Args:
        sources: run directories, or files of conversations.
        out: the HTML file; None means report.html in the only run.
        terms: what is tested; see `analysis.analyse`.

    Returns:
        The file's path.

    Raises:
        DataError: if there are no conversations in them, or it is not said where the page goes.
    """
    paths = [sources] if isinstance(sources, Path) else list(sources)
    if out is None:
        if len(paths) != 1 or not paths[0].is_dir():
            raise DataError("a page of several runs, or of a file, needs a place: name an HTML file")
        out = paths[0] / PAGE
    runs.write_atomic(out, render(paths, terms=terms))
    return out


def render(paths: Sequence[Path], *, terms: Sequence[str] | None = None) -> str:
    """The page as HTML; see `write`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    manifests = [_manifest(path) for path in paths]
    table = analysis.load(paths)
    found = analysis.analyse(table, terms=terms)
    [whole] = tables.cells(table, [])
    outcomes = analysis.taxonomy(found["cells"])
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("planning.html.j2").render(
        title=f"{_percent(whole['accuracy'])} of {whole['n']:,} plans right",
        facts=_facts(table, whole, manifests),
        grids=_grids(found["cells"]),
        models=_counted(found["by_model"], "model") if len(found["models"]) > 1 else [],
        bars=[
            ("by graph", _bars(found["by_graph"], "graph", outcomes)),
            ("by category", _bars(found["by_category"], "category", outcomes)),
        ],
        outcomes=[(OUTCOMES.index(name), "right" if name == "correct" else name) for name in outcomes],
        terms=[_term(step) for step in found["terms"]],
        left_out=found["left_out"],
        bridges=[_term(step) for step in found["bridges"]],
        distances=[
            (cell["distance"], _crossing(cell["crosses_bridge"]), *_counts(cell))
            for cell in found["by_distance"]
        ],
        pairs=[_pair(pair) for pair in found["pairs"]],
        firth=any(step["firth"] for step in (*found["terms"], *found["bridges"])),
        cells=_by_graph(_conversations(table)),
        many=len(found["cells"]) > CELLS,
        most=CELLS,
        provenance=[
            (str(path), provenance(each)) for path, each in zip(paths, manifests, strict=True) if each
        ],
        version=__version__,
    )
    return page + "\n"


def _manifest(path: Path) -> Mapping[str, Any] | None:
    if not path.is_dir():
        return None
    manifest = runs.read_manifest(path)
    if manifest["kind"] != jobs.KIND:
        raise DataError(f"{path} is a run of `{manifest['kind']}`; give one of `{jobs.KIND}`")
    return manifest


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _range(cell: Mapping[str, Any]) -> str:
    return f"{100 * cell['low']:.0f}–{100 * cell['high']:.0f} %"


def _by_graph(cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    graphs = dict.fromkeys(cell["graph"] for cell in cells)
    return [(graph, [cell for cell in cells if cell["graph"] == graph]) for graph in graphs]


def _counts(cell: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{cell['n']:,}", _percent(cell["accuracy"]), _range(cell)


def _facts(
    table: pa.Table, whole: Mapping[str, Any], manifests: Sequence[Mapping[str, Any] | None]
) -> list[tuple[str, str]]:
    def distinct(name: str) -> str:
        values = list(dict.fromkeys(table[name].to_pylist()))
        shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values[:8])
        return shown + (f" and {len(values) - 8} more" if len(values) > 8 else "")

    facts = [
        ("Model", distinct("model")),
        ("Right", f"{_percent(whole['accuracy'])}, 95 % interval {_range(whole)}"),
        ("Graphs", distinct("graph")),
        ("Domains", distinct("domain")),
        ("Temperature", distinct("temperature")),
        ("Intervention", distinct("intervention")),
    ]
    tokens = sum(table["tokens_in"].to_pylist()), sum(table["tokens_out"].to_pylist())
    if sum(tokens):
        facts.append(("Tokens", f"{tokens[0]:,} read, {tokens[1]:,} generated"))
    if whole["cut"]:
        facts.append(("Cut off", f"{whole['cut']:,} at the limit of tokens"))
    if manifests and manifests[0] is not None:
        facts.append(("Date", date(manifests[0]["start"])))
    return facts


# -- counts -----------------------------------------------------------------------------------------


def _grids(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each graph a table of conditions by domains."""
    domains = list(dict.fromkeys(cell["domain"] for cell in cells))
    grids = []
    for graph in dict.fromkeys(cell["graph"] for cell in cells):
        own = [cell for cell in cells if cell["graph"] == graph]
        by = {(cell["condition"], cell["domain"]): cell for cell in own}
        present = {cell["condition"] for cell in own}
        conditions = [name for name in CONDITIONS if name in present]
        conditions += sorted(present - set(conditions))
        right, n = sum(cell["correct"] for cell in own), sum(cell["n"] for cell in own)
        grids.append(
            {
                "graph": graph,
                "share": _percent(right / n),
                "domains": [_breakable(domain) for domain in domains],
                "rows": [
                    (
                        _breakable(name),
                        [_cell(by.get((name, domain)), graph, domain, name) for domain in domains],
                    )
                    for name in conditions
                ],
            }
        )
    return grids


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line within, as transReval|Stochastic."""
    return Markup("<wbr>").join(re.split(r"(?<=[a-z])(?=[A-Z])", name))


def _cell(cell: Mapping[str, Any] | None, graph: str, domain: str, condition: str) -> dict[str, Any] | None:
    if cell is None:
        return None
    return {
        "percent": f"{100 * cell['accuracy']:.0f}",
        "range": _range(cell).removesuffix(" %"),
        "n": cell["n"],
        "tint": round(50 * cell["accuracy"]),
        "anchor": _anchor((graph, domain, condition)),
    }


def _anchor(key: Sequence[str]) -> str:
    return "c-" + "-".join("".join(c if c.isalnum() else "_" for c in part) for part in key)


def _counted(cells: Sequence[Mapping[str, Any]], name: str) -> list[tuple[str, ...]]:
    return [(str(cell[name]), *_counts(cell)) for cell in cells]


def _bars(cells: Sequence[Mapping[str, Any]], name: str, outcomes: Sequence[str]) -> list[Bar]:
    bars = []
    for cell in cells:
        counts = {"correct": cell["correct"], **cell["failures"]}
        parts = tuple(
            (
                OUTCOMES.index(each),
                "right" if each == "correct" else each,
                100 * counts[each] / cell["n"],
                f"{counts[each]:,}",
            )
            for each in outcomes
            if counts.get(each)
        )
        bars.append(Bar(str(cell[name]), f"{cell['n']:,}", parts))
    return bars


# -- tests ------------------------------------------------------------------------------------------


def probability(log10_p: float) -> str:
    """A probability in print, however small: 0.034, 2.1 × 10⁻⁸."""
    if log10_p > -3:
        return f"{10**log10_p:.3f}"
    power = math.floor(log10_p)
    lead = 10 ** (log10_p - power)
    if f"{lead:.1f}" == "10.0":
        lead, power = 1.0, power + 1
    return f"{lead:.1f} × 10{str(power).translate(_NUMBERS)}"


def _term(step: Mapping[str, Any]) -> dict[str, str]:
    holm = step["p_holm"]
    return {
        "term": step["term"].replace(":", " × ").replace("_", " "),
        "df": str(step["df"]),
        "chi2": f"{step['chi2']:,.2f}" if step["df"] else "–",
        "p": probability(step["log10_p"]) if step["df"] else "–",
        "holm": "–" if holm is None else probability(math.log10(holm)) if holm > 0 else "0.000",
        "deviance": "" if step["deviance"] is None else f"{step['deviance']:,.1f}",
        "firth": "Firth" if step["firth"] else "",
        "stars": "" if holm is None or holm >= 0.05 else "differs",
    }


def _pair(pair: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        pair["factor"],
        f"{pair['a']}",
        f"{pair['b']}",
        f"{math.exp(min(pair['log_odds'], 700)):.3g}",
        f"{math.exp(min(pair['low'], 700)):.3g} to {math.exp(min(pair['high'], 700)):.3g}",
        probability(math.log10(pair["p_holm"])) if pair["p_holm"] > 0 else "0.000",
    )


def _crossing(crosses: bool | None) -> str:
    return "no clusters" if crosses is None else "to another cluster" if crosses else "within a cluster"


# -- conversations ----------------------------------------------------------------------------------


def _conversations(table: pa.Table) -> list[dict[str, Any]]:
    """Of each cell a few conversations, with the path drawn."""
    keys, values = tables.grouped(table, analysis.CELL)
    correct = table["correct"].to_numpy(zero_copy_only=False)
    found = []
    for place, value in enumerate(values[:CELLS]):
        at = np.flatnonzero(keys == place)
        wrong, right = at[~correct[at]], at[correct[at]]
        chosen = [*wrong[:1], *right[:1], *wrong[1:], *right[1:]][:SAMPLES]
        found.append(
            {
                "anchor": _anchor(value),
                "graph": value[0],
                "domain": value[1],
                "condition": value[2],
                "count": f"{len(right):,} of {len(at):,} right",
                "talks": [_talk(table.slice(int(i), 1).to_pylist()[0]) for i in chosen],
            }
        )
    return found


def _talk(row: Mapping[str, Any]) -> dict[str, Any]:
    names = row["names"]
    path = row["answer_path"]
    if row["kind"] == "clusters":
        answer = "unread" if row["answer_number"] is None else str(row["answer_number"])
        key = str(row["number"])
    else:
        answer = _walk(path, names)
        key = " or ".join(_walk(each, names) for each in row["key"][:3])
        if len(row["key"]) > 3:
            key += f", and {len(row['key']) - 3} more"
    return {
        "right": row["correct"],
        "failure": row["failure"],
        "facts": f"temperature {row['temperature']:g}, repetition {row['repetition']}",
        "turns": [
            (_shortened(prompt), _shortened(reply))
            for prompt, reply in zip(row["prompts"], row["replies"], strict=False)
        ],
        "answer": answer,
        "key": key,
        "drawing": Markup(graph_drawing.svg(row)),  # noqa: S704 - numbers and escaped labels only
    }


def _walk(path: Sequence[int] | None, names: Sequence[str]) -> str:
    if path is None:
        return "unread"
    return " → ".join(names[node] if node >= 0 else "(no such name)" for node in path) or "no path"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST:,} characters more)"
