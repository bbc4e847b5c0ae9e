"""What a planning run shows, against counts and tests made by hand."""

import math

import pyarrow as pa
import pytest
from scipy import stats

from posterhall.errors import DataError
from posterhall.evals.planning import analysis, rows
from posterhall.evals.planning.jobs import PlanningSettings, plan


def conversations(says, *, model="m", **settings):
    """Scored rows of a model that answers each conversation by `says(planned, key)`: a path, or text."""
    found = []
    for planned in plan(PlanningSettings(**{"repeats": 4, "temperatures": (0.0, 1.0), **settings})):
        conversation = planned.conversation()
        if conversation is None:
            continue
        key = conversation.item.question.key()
        said = says(planned, key[0] if key else None)
        if not isinstance(said, str):
            said = "Answer: " + " -> ".join(conversation.names[node] for node in said)
        found.append(
            rows.row(
                conversation,
                [said] * len(conversation.turns),
                model=model,
                temperature=planned.temperature,
                repetition=planned.repetition,
            )
        )
    return rows.score(pa.Table.from_pylist(found, schema=rows.SAID))


def right_on_a(planned, key):
    """Right on graph A three times of four, on D once, whatever else."""
    right = planned.repetition < (3 if planned.graph == "A" else 1)
    return key if right else "there is no path"


SMALL = {
    "graphs": ("A", "D"),
    "conditions": ("1stepPath", "2stepPath"),
    "domains": ("ordRooms", "socialTies"),
}


def test_only_what_makes_a_difference_is_found():
    found = analysis.analyse(conversations(right_on_a, **SMALL))
    by = {term["term"]: term for term in found["terms"]}
    assert list(by) == ["graph", "domain", "temperature", "condition", "graph:domain"]
    g, p, df, _ = stats.chi2_contingency([[24, 8], [8, 24]], correction=False, lambda_="log-likelihood")
    assert (by["graph"]["chi2"], by["graph"]["df"]) == (pytest.approx(g), df)
    assert by["graph"]["p"] == pytest.approx(p)
    assert all(by[name]["chi2"] == pytest.approx(0, abs=1e-6) for name in by if name != "graph")
    assert "model" in found["left_out"]


def test_two_models_are_compared_in_one_table():
    good = conversations(lambda planned, key: key, model="good", **SMALL)
    poor = conversations(right_on_a, model="poor", **SMALL)
    found = analysis.analyse(pa.concat_tables([good, poor]))
    assert found["models"] == ["good", "poor"]
    by = {term["term"]: term for term in found["terms"]}
    assert by["model"]["firth"]  # one of them is always right
    assert by["model"]["p"] < 1e-6
    [pair] = [pair for pair in found["pairs"] if pair["factor"] == "model"]
    assert (pair["a"], pair["b"]) == ("good", "poor")
    assert 0 < pair["low"] < pair["log_odds"] < pair["high"] < math.inf


def test_failures_are_counted_by_cell():
    def says(planned, key):
        return [key[0], key[-1]] if planned.condition == "2stepPath" else key

    found = analysis.analyse(conversations(says, **SMALL))
    cells = {(c["graph"], c["domain"], c["condition"]): c for c in found["cells"]}
    assert cells["A", "ordRooms", "2stepPath"]["failures"] == {"invented edge": 8}
    assert cells["A", "ordRooms", "1stepPath"]["accuracy"] == 1.0
    assert analysis.taxonomy(found["cells"]) == ["correct", "invented edge"]


def test_crossing_a_bridge_is_tested_at_equal_distance():
    def says(planned, key):
        item = planned.item()
        return key if not item.question.crosses or planned.repetition % 3 == 0 else "there is no path"

    found = analysis.analyse(
        conversations(says, graphs=("D", "E"), conditions=("2stepPath", "3stepPath"), repeats=12)
    )
    by = {term["term"]: term for term in found["bridges"]}
    assert by["crosses_bridge"]["p"] < 0.01
    crossed = {(c["distance"], c["crosses_bridge"]): c["accuracy"] for c in found["by_distance"]}
    assert crossed[2, False] == 1.0
    assert crossed[2, True] < 0.7


def test_terms_may_be_chosen():
    table = conversations(right_on_a, **SMALL)
    found = analysis.analyse(table, terms=["distance", "graph", "distance:graph"])
    assert [term["term"] for term in found["terms"]] == ["distance", "graph", "distance:graph"]
    with pytest.raises(DataError, match="no factor 'grapf'"):
        analysis.analyse(table, terms=["grapf"])
    with pytest.raises(DataError, match="give 'domain' before it"):
        analysis.analyse(table, terms=["graph", "graph:domain"])
    with pytest.raises(DataError, match="treatment"):
        analysis.analyse(table, coding="dummy")


def test_a_run_without_variation_has_no_tests():
    found = analysis.analyse(
        conversations(right_on_a, graphs=("A",), conditions=("1stepPath",), temperatures=(0.0,))
    )
    assert [term["term"] for term in found["terms"]] == ["domain"]
    one = conversations(
        right_on_a, graphs=("A",), conditions=("1stepPath",), temperatures=(0.0,), domains=("ordRooms",)
    )
    assert analysis.analyse(one)["terms"] == []


def test_numbers_of_clusters_have_no_distance():
    table = conversations(lambda *_: "Answer: 3", graphs=("D",), conditions=("nClusters",))
    assert analysis.analyse(table)["by_distance"] == []
    with pytest.raises(DataError, match="questions for a path"):
        analysis.analyse(table, terms=["distance"])


def test_runs_are_read_one_after_the_other(tmp_path):
    table = conversations(right_on_a, **SMALL)
    rows.save(table.select(rows.SAID.names), tmp_path / "a.parquet")
    rows.save(table.select(rows.SAID.names).slice(0, 5), tmp_path / "b.parquet")
    assert len(analysis.load([tmp_path / "a.parquet", tmp_path / "b.parquet"])) == len(table) + 5
    with pytest.raises(DataError, match="each once"):
        analysis.load([tmp_path / "a.parquet", tmp_path / "a.parquet"])
    rows.save(table.select(rows.SAID.names).slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="no conversations"):
        analysis.load([tmp_path / "none.parquet"])
