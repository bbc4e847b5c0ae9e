"""Paths thought out by a model that knows the graph, or errs in one way."""

import re
from itertools import pairwise

import pytest

from posterhall.errors import DataError, UsageError
from posterhall.evals.planning import export, graphs, rows
from posterhall.evals.planning.jobs import PlanningSettings, evaluate, plan
from posterhall.evals.planning.paths import distances
from posterhall.evals.planning.walks import Walk, WalkDomain
from posterhall.lm.metered import Budget, Meter, Metered
from posterhall.lm.protocol import LM, Sample, transcript
from posterhall.lm.wrapping import BudgetExceeded
from posterhall.search.protocol import State

SMALL = {
    "graphs": ("A", "D"),
    "conditions": ("2stepPath", "3stepPath", "valuePath", "nonteleDetour"),
    "domains": ("ordRooms", "unordSpatial"),
    "temperatures": (0.0,),
    "repeats": 2,
    "max_tokens": 200,
}


class Knowing(LM):
    """Finds the conversation by its facts, and answers by the graph; `errs` makes it propose any place."""

    name = "knowing"

    def __init__(self, settings, *, errs=False):
        self.by_facts = {}
        self.errs = errs
        self.asked = []
        for planned in plan(settings):
            conversation = planned.conversation()
            if conversation is not None:
                self.by_facts[conversation.facts()] = conversation

    async def agenerate(self, requests):
        return [[self._sample(transcript(each.prompt))] * each.n for each in requests]

    def _sample(self, prompt):
        self.asked.append(prompt)
        conversation = next(c for facts, c in self.by_facts.items() if facts in prompt)
        question, names = conversation.item.question, conversation.names
        found = re.search(r"(?:Now|The path so far): (.*)", prompt)
        path = [names.index(each) for each in found[1].split(" -> ")]
        far = distances(question.graph.adjacency)
        left = {
            n: min(far[n, goal] for goal in question.goals if far[n, goal] >= 0) for n in range(len(names))
        }
        on_way = all(left[a] - left[b] == 1 for a, b in pairwise(path))
        here = path[-1]
        steps = sorted(question.graph.neighbours[here], key=lambda node: left[node])
        if "To which places" in prompt:
            text = "done" if here in question.goals else "\n".join(names[node] for node in steps[:3])
        elif "Are all of its steps" in prompt:
            text = f"Answer: {'sure' if on_way else 'impossible'}"
        elif "You propose" in prompt:
            text = "Moves:\n" + "\n".join(names[node] for node in steps[:2])
            if self.errs and "are not allowed" not in prompt:
                wrong = next(n for n in range(len(names)) if n not in steps and n != here)
                text = f"Moves:\n{names[wrong]}"
        elif "You check" in prompt:
            move = re.search(r"Proposed: (.*)", prompt)[1]
            text = f"Answer: {'valid' if names.index(move) in steps else 'invalid'}"
        elif "You estimate" in prompt:
            text = f"Answer: {left[here]}"
        else:
            text = f"Answer: {'yes' if here in question.goals else 'no'}"
        return Sample(text, "stop", len(prompt.split()), len(text.split()))


@pytest.mark.parametrize("intervention", ["tot", "map"])
def test_a_model_that_knows_every_step_finds_every_path(intervention):
    settings = PlanningSettings(**SMALL, intervention=intervention)
    result = evaluate(Knowing(settings), settings)
    assert result["conversations"] == 2 * 4 * 2 * 2
    assert result["accuracy"] == 1.0
    assert result["tokens_in"] > 0


def test_the_monitor_keeps_an_actor_from_inventing_edges(tmp_path):
    settings = PlanningSettings(**SMALL, intervention="map")
    assert evaluate(Knowing(settings, errs=True), settings)["accuracy"] == 1.0
    without = PlanningSettings(**SMALL, intervention="map", search=("without=[monitor]",))
    result = evaluate(Knowing(without, errs=True), without, out=tmp_path / "run")
    assert result["failures"].keys() == {"invented edge"}
    table = rows.load(tmp_path / "run")
    assert set(table["intervention"].to_pylist()) == {"map"}
    assert table["replies"][0].as_py()[0].count("Answer: ") == 1


def test_plain_paths_are_planned_without_looking_ahead():
    # Webb et al. 2023: no tree search for step paths.
    for conditions, estimates in ((("3stepPath",), False), (("valuePath",), True)):
        settings = PlanningSettings(**{**SMALL, "conditions": conditions}, intervention="map")
        model = Knowing(settings)
        evaluate(model, settings)
        assert any("You estimate" in prompt for prompt in model.asked) is estimates


def test_numbers_are_not_searched_for():
    settings = PlanningSettings(
        graphs=("D",),
        conditions=("nClusters", "2stepPath"),
        temperatures=(0.0,),
        repeats=1,
        intervention="tot",
    )
    told = []
    result = evaluate(Knowing(settings), settings, warn=told.append)
    assert result["skipped"] == [{"graph": "D", "condition": "nClusters"}]
    assert told


def test_what_all_may_spend_ends_the_run_and_can_be_resumed(tmp_path):
    settings = PlanningSettings(**SMALL, intervention="map")
    with pytest.raises(BudgetExceeded):
        evaluate(Metered(Knowing(settings), Meter(Budget(calls=60))), settings, out=tmp_path / "run", width=1)
    result = evaluate(Knowing(settings), settings, out=tmp_path / "run", resume=True)
    assert result["accuracy"] == 1.0


def test_what_one_problem_may_spend_ends_that_one():
    settings = PlanningSettings(**SMALL, intervention="map", search=("problem_calls=3",))
    assert evaluate(Knowing(settings), settings)["accuracy"] < 1


def conversation(condition="2stepPath", **changes):
    settings = PlanningSettings(
        **{**SMALL, "graphs": ("D",), "conditions": (condition,), **changes}, intervention="tot"
    )
    return next(each.conversation() for each in plan(settings))


def test_places_are_read_as_models_write_them():
    task, names = Walk(conversation()), conversation().names
    state = State("q", (names[3],))
    read = task.thoughts(state, f"1. {names[4]}\n- **{names[5]}**\n{names[0]} -> {names[6]}\nnowhere\ndone.")
    assert read.found == (names[4], names[5], names[6], "done")
    assert read.unread == 1
    assert task.finished(state.then("done"))
    assert not task.thoughts(State("q"), "done").found  # nothing is done before the first step


def test_the_domain_tells_the_truth_of_the_graph():
    talk = conversation()
    domain, question = WalkDomain(talk), talk.item.question
    assert set(domain.legal(domain.start)) == {
        talk.names[node] for node in graphs.load("D").neighbours[question.start]
    }
    far = next(name for name in talk.names if name not in (*domain.legal(domain.start), domain.start))
    assert domain.apply(domain.start, far) is None
    key = [talk.names[node] for node in question.key()[0]]
    assert domain.reached(" -> ".join(key), domain.goal)
    assert domain.state("I go " + " -> ".join(key)) == " -> ".join(key)


def test_facts_hold_what_changes_and_no_question():
    talk = conversation("nonteleDetour")
    assert talk.turns[-1].ask not in talk.facts()
    assert "?" not in talk.facts()
    assert talk.facts() in talk.turns[-1].text.replace(talk.turns[-1].ask, "")


def test_what_cannot_be_thought_out_is_refused(tmp_path):
    with pytest.raises(DataError, match="take ordRooms"):
        Walk(conversation(domains=("compact",)))
    with pytest.raises(DataError, match="allowed are none, bfs, dfs, hub, tot, map"):
        PlanningSettings(intervention="tott")
    with pytest.raises(DataError, match="goes with intervention tot or map"):
        PlanningSettings(search=("breadth=3",))
    with pytest.raises(UsageError, match="takes several turns"):
        export.write(PlanningSettings(**SMALL, intervention="map"), tmp_path / "task")
