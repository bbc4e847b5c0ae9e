"""Whole evaluations: a model that reads is always right, a killed run goes on, rows can be judged again."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planning_solver import Solver

from posterhall.errors import DataError, Interrupted, UsageError
from posterhall.evals.planning import rows
from posterhall.evals.planning.conditions import CONDITIONS
from posterhall.evals.planning.graphs import PUBLISHED
from posterhall.evals.planning.jobs import PlanningSettings, evaluate, plan, rescore
from posterhall.evals.planning.tables import cells
from posterhall.lm.scripted import ScriptedLM
from posterhall.runs import read_manifest

PATHS = tuple(name for name in CONDITIONS if name != "nClusters")


def settings(**more):
    given = {"domains": ("ordRooms",), "repeats": 3, "temperatures": (0.0,), "conditions": PATHS}
    return PlanningSettings(**{**given, **more})


@pytest.mark.parametrize("turns", ["1", "2"])
def test_a_model_that_reads_and_searches_is_always_right(turns):
    # The solver knows nothing but the words: so they tell everything, and the keys are right.
    result = evaluate(Solver(), settings(turns=turns))
    assert result["accuracy"] == 1.0
    assert result["first"] == (None if turns == "1" else 1.0)
    assert {(cell["graph"], cell["condition"]) for cell in result["cells"]} == {
        (graph, condition) for graph in PUBLISHED for condition in PATHS
    } - {(each["graph"], each["condition"]) for each in result["skipped"]}
    assert [(each["graph"], each["condition"]) for each in result["skipped"]] == [
        ("A", "policyReval"), ("C", "policyReval"),
        ("D", "transRevalStochastic"), ("E", "transRevalStochastic"), ("F", "transRevalStochastic"),
    ]  # fmt: skip


def test_step_costs_are_told_and_taken_off():
    found = evaluate(Solver(), settings(conditions=("valuePath", "rewardReval"), step_cost=7.0, turns="2"))
    assert found["accuracy"] == 1.0


def test_words_in_groups_are_judged_by_both_readings():
    # Who takes "all connected to each other" at its word is right by that graph and not always by the key.
    found = evaluate(
        Solver(), settings(graphs=("D", "F"), conditions=("2stepPath",), repeats=30, wording="groups")
    )
    assert found["literal"] == 1.0
    assert found["failures"].keys() == {"invented edge"}
    assert 0 < found["accuracy"] < 1
    plain = evaluate(Solver(), settings(graphs=("E",), conditions=("2stepPath",), wording="groups"))
    assert plain["accuracy"] == plain["literal"] == 1.0  # E's clusters are cliques


@pytest.mark.parametrize(
    ("say", "failure"),
    [
        (lambda path: "Answer: " + " -> ".join((path[0], path[-1])), "invented edge"),
        (lambda path: "Answer: " + " -> ".join((path[0], path[1], *path)), "loop"),
        (lambda path: "Answer: " + " -> ".join(reversed(path)), "wrong ends"),
        (lambda path: "Answer: there is no path", "no path"),
        (lambda path: "Let me think about it.", "unread"),
        (lambda path: "", "unread"),
    ],
)
def test_every_kind_of_failure_is_counted_as_such(say, failure):
    found = evaluate(Solver(say), settings(graphs=("D",), conditions=("3stepPath",)))
    assert (found["accuracy"], found["failures"]) == (0.0, {failure: 3})


def test_answers_without_their_start_are_right_and_recorded(tmp_path):
    solver = Solver(lambda path: "Answer: " + " -> ".join(path[1:]))
    evaluate(solver, settings(graphs=("D",), conditions=("3stepPath",)), out=tmp_path / "run")
    table = rows.score(rows.load(tmp_path / "run"))
    assert table["correct"].to_pylist() == table["start_omitted"].to_pylist() == [True] * 3


def test_hubs_and_clusters_are_judged():
    script = [
        {"contains": "How many clusters", "reply": "Answer: 3"},
        {"contains": "Through which room", "reply": "Answer: room 1"},
        {"reply": "none"},
    ]
    asked = settings(graphs=("D", "E"), conditions=("nClusters",), intervention="hub", repeats=10)
    found = evaluate(ScriptedLM(script), asked)
    shares = {cell["graph"]: (cell["accuracy"], cell["failures"]) for cell in found["cells"]}
    assert shares == {"D": (1.0, {}), "E": (0.0, {"wrong number": 10})}
    assert found["hub"] is not None


class Mortal(Solver):
    """Dies after some conversations."""

    def __init__(self, lives, error=RuntimeError):
        super().__init__()
        self.lives, self.error = lives, error

    async def agenerate(self, requests):
        if self.calls >= self.lives:
            raise self.error("dead")
        return await super().agenerate(requests)


ASKED = settings(graphs=("A", "D"), conditions=("valuePath", "rewardReval", "2stepPath"))


@pytest.mark.parametrize("error", [RuntimeError, Interrupted])
def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path, error):
    whole = evaluate(Solver(), ASKED, out=tmp_path / "whole")
    with pytest.raises(error):
        evaluate(Mortal(9, error), ASKED, out=tmp_path / "run", width=1)
    journal = tmp_path / "run" / "checkpoints" / "replies.jsonl"
    kept = journal.read_bytes().count(b"\n")
    assert kept > 3
    journal.write_bytes(journal.read_bytes() + b'{"name": "torn')  # by the kill
    solver = Solver()
    result = evaluate(solver, ASKED, out=tmp_path / "run", resume=True)
    assert solver.calls < 3 * 7  # turns of 18 conversations, 3 of them with two
    assert {**result, "run": None} == {**whole, "run": None}
    tables = [pq.read_table(tmp_path / name / "artifacts" / rows.FILE) for name in ("whole", "run")]
    assert tables[0].equals(tables[1])
    assert not journal.exists()
    again = Solver()
    assert evaluate(again, ASKED, out=tmp_path / "run", resume=True) == result
    assert again.calls == 0
    with pytest.raises(DataError):
        evaluate(Solver(), ASKED, out=tmp_path / "run")


@pytest.mark.parametrize("width", [1, 8, 64])
def test_results_do_not_depend_on_how_much_is_under_way(width):
    assert evaluate(Solver(), ASKED, width=width) == evaluate(Solver(), ASKED, width=3)


def test_what_a_run_keeps_is_judged_again_to_the_same(tmp_path):
    result = evaluate(Solver(), ASKED, out=tmp_path / "run")
    again = rescore(tmp_path / "run")
    assert again == {**result, "skipped": []}
    facts = read_manifest(tmp_path / "run")["facts"]
    assert (facts["conversations"], facts["accuracy"]) == (18, 1.0)
    table = pq.read_table(tmp_path / "run" / "artifacts" / rows.FILE)
    assert table.schema.names == rows.SCHEMA.names
    first = table.slice(0, 1).to_pylist()[0]
    assert first["answer_path"] in first["key"]
    assert (
        json.loads((tmp_path / "run" / "artifacts" / "scores.json").read_text())["cells"] == result["cells"]
    )


def test_temperatures_share_what_is_asked():
    planned = [*plan(settings(graphs=("D",), conditions=("valuePath",), temperatures=(0.0, 1.0)))]
    words = [[turn.text for turn in each.conversation().turns] for each in planned]
    assert words[:3] == words[3:]
    assert len({each.name for each in planned}) == 6


def test_families_give_every_repetition_another_graph():
    asked = settings(graphs=("clusters:groups=3:size=4",), conditions=("2stepPath",), repeats=6)
    assert len({each.item().graph.edges for each in plan(asked)}) == 6
    assert evaluate(Solver(), asked)["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"graphs": ()}, "one or more"),
        ({"graphs": ("A", "A")}, "each once"),
        ({"conditions": ("hopping",)}, "allowed are"),
        ({"repeats": 0}, "at least 1"),
        ({"max_tokens": 0}, "at least 1"),
        ({"temperatures": (-1.0,)}, "0 or above"),
        ({"temperatures": (float("nan"),)}, "0 or above"),
        ({"top_p": 0.0}, "above 0"),
        ({"step_cost": -1.0}, "0 or above"),
    ],
)
def test_settings_out_of_range_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        settings(**given)


def test_graphs_that_admit_nothing_are_refused_and_single_ones_are_told():
    with pytest.raises(UsageError, match="none of the graphs A admits"):
        evaluate(Solver(), settings(graphs=("A",), conditions=("policyReval",)))
    told = []
    evaluate(Solver(), settings(graphs=("A", "B"), conditions=("policyReval",)), warn=told.append)
    assert told == ["graph A does not admit policyReval; left out"]


# -- tables -------------------------------------------------------------------------------------------


def test_cells_count_what_is_in_them():
    table = pa.table(
        {
            "graph": ["A", "B", "A", "A"],
            "condition": ["x", "x", "y", "x"],
            "failure": ["correct", "loop", "unread", "longer"],
            "first_correct": [True, None, None, False],
            "hub_correct": pa.array([None] * 4, type=pa.bool_()),
            "correct_literal": pa.array([None] * 4, type=pa.bool_()),
            "cut": [False, True, False, False],
        }
    )
    found = cells(table, ["graph", "condition"])
    assert [(each["graph"], each["condition"], each["n"], each["correct"]) for each in found] == [
        ("A", "x", 2, 1), ("B", "x", 1, 0), ("A", "y", 1, 0),
    ]  # fmt: skip
    assert [each["failures"] for each in found] == [{"longer": 1}, {"loop": 1}, {"unread": 1}]
    assert [each["first"] for each in found] == [0.5, None, None]
    assert [each["cut"] for each in found] == [0, 1, 0]
    assert cells(table, [])[0]["n"] == 4


def test_files_that_are_no_conversations_say_why(tmp_path):
    with pytest.raises(DataError, match="no conversations"):
        rows.load(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(DataError, match="no conversations"):
        rows.load(tmp_path / "text.parquet")
    pq.write_table(pa.table({"model": ["m"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no column 'graph'"):
        rows.load(tmp_path / "other.parquet")
