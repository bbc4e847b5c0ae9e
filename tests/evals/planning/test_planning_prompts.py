"""What a model is told: all of it, in changing words and order, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_solver import EDGE, GROUP, ROOM, Solver, groups_of

from posterhall.errors import DataError
from posterhall.evals.planning import domains
from posterhall.evals.planning.conditions import CONDITIONS, make
from posterhall.evals.planning.graphs import PUBLISHED, Graph
from posterhall.evals.planning.prompts import converse, literal
from posterhall.lm.protocol import transcript
from posterhall.seeds import generator


def conversation(condition="2stepPath", graph="D", domain="ordRooms", repetition=0, **more):
    found = PUBLISHED[graph] if isinstance(graph, str) else graph
    item = make(condition, found, repetition=repetition)
    return converse(item, domains.load(domain), generator(repetition, "words"), **more)


@pytest.mark.parametrize("domain", domains.PACKS)
@pytest.mark.parametrize("graph", PUBLISHED)
def test_every_condition_can_be_said_in_every_domain(domain, graph):
    for condition in CONDITIONS:
        if make(condition, PUBLISHED[graph]) is None:
            continue
        for intervention in ("none", "bfs", "dfs", "hub"):
            said = conversation(condition, graph, domain, intervention=intervention)
            for turn in said.turns:
                assert turn.text
                assert not re.search(r"\{\w+\}", turn.text)
            question = said.turns[-1].question
            if question.kind == "path":
                assert said.names[question.goals[0]] in said.turns[-1].text


def test_each_edge_is_told_once():
    said = conversation(graph="F").turns[0].text
    told = [frozenset(groups_of(found)) for found in EDGE.finditer(said)]
    assert len(told) == len(set(told)) == 63


@given(st.integers(0, 10_000))
def test_names_and_order_change_and_the_question_does_not(seed):
    item = make("3stepPath", PUBLISHED["E"])
    one = converse(item, domains.load("ordRooms"), generator(seed, "one"))
    assert sorted(one.names) == sorted(f"room {i}" for i in range(1, 17))
    told = {frozenset(groups_of(found)) for found in EDGE.finditer(one.turns[0].text)}
    places = {name: node for node, name in enumerate(one.names)}
    edges = {frozenset(places[name] for name in pair) for pair in told}
    assert edges == {frozenset(edge) for edge in PUBLISHED["E"].edges}
    answer = Solver().answer(transcript(one.prompt(())))
    path = tuple(places[name] for name in re.findall(ROOM, answer))
    assert path in item.question.key()


def test_repetitions_differ_in_names_and_in_order():
    texts = {conversation(repetition=0).turns[0].text}
    item = make("2stepPath", PUBLISHED["D"])
    texts |= {converse(item, domains.load("ordRooms"), generator(r, "w")).turns[0].text for r in range(20)}
    assert len(texts) == 21


def test_changes_come_in_a_second_turn_on_tracks_and_trees_and_at_once_elsewhere():
    parts = {
        (graph, turns): [turn.part for turn in conversation("rewardReval", graph, turns=turns).turns]
        for graph in "AD"
        for turns in ("auto", "1", "2")
    }
    one, two = ["final"], ["first", "final"]
    assert parts == {
        ("A", "auto"): two, ("A", "1"): one, ("A", "2"): two,
        ("D", "auto"): one, ("D", "1"): one, ("D", "2"): two,
    }  # fmt: skip
    assert [turn.part for turn in conversation("1stepPath", "A", turns="2").turns] == one


def test_a_second_turn_stands_after_the_first_reply():
    said = conversation("rewardReval", "A")
    messages = said.prompt(["I think so."])
    assert [message.role for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[2].content == "I think so."
    assert "now" in messages[3].content
    text = conversation("rewardReval", "A", "compact").prompt(["1 2 3"])
    assert text.count("path") == 2
    assert " 1 2 3\n" in text


def test_hints_and_the_hub_are_asked_for():
    assert "breadth first" in conversation(intervention="bfs").turns[-1].text
    assert "depth first" in conversation(intervention="dfs").turns[-1].text
    said = conversation(intervention="hub")
    assert [turn.part for turn in said.turns] == ["hub", "final"]
    assert EDGE.search(said.turns[0].text)
    assert not EDGE.search(said.turns[1].text)


def test_groups_are_told_as_cliques_which_is_more_than_there_is():
    graph = PUBLISHED["D"]
    said = conversation(wording="groups").turns[0].text
    assert len(GROUP.findall(said)) == 3
    assert len(EDGE.findall(said)) == len(graph.crossings) == 3
    extra = {frozenset(map(graph.nodes.__getitem__, edge)) for edge in literal(graph).edges}
    extra -= {frozenset(map(graph.nodes.__getitem__, edge)) for edge in graph.edges}
    assert extra == {frozenset(pair) for pair in (("1", "4"), ("8", "11"), ("3", "15"))}
    assert literal(PUBLISHED["E"]).adjacency.tolist() == PUBLISHED["E"].adjacency.tolist()
    with pytest.raises(DataError, match="no clusters"):
        conversation(graph="A", wording="groups")


def test_what_was_blocked_stays_blocked_in_the_literal_reading():
    for repetition in range(20):
        item = make("nonteleDetour", PUBLISHED["D"], repetition=repetition)
        block = item.edits[0]
        assert not literal(item.question.graph, item.edits).adjacency[block.a, block.b]


def test_rewards_are_told_only_where_they_matter():
    assert "$" not in conversation("2stepPath", "A").turns[0].text
    assert conversation("valuePath", "A").turns[0].text.count("$") == 2


def test_directed_graphs_are_told_one_way():
    ring = Graph("ring", tuple("abcde"), tuple((i, (i + 1) % 5) for i in range(5)), directed=True)
    for condition in ("3stepPath", "nonteleShortcut"):
        said = conversation(condition, ring)
        assert "one way" in said.turns[0].text
        answer = Solver().answer(transcript(said.prompt(())))
        path = tuple(said.names.index(name) for name in re.findall(ROOM, answer))
        assert path in said.turns[0].question.key()


def test_more_nodes_than_names_are_refused():
    large = Graph("large", tuple(map(str, range(60))), tuple((i, i + 1) for i in range(59)))
    with pytest.raises(DataError, match="has 48 names, and graph large 60 nodes"):
        conversation(graph=large, domain="unordSpatial")


# -- domains from files -------------------------------------------------------------------------------

MINE = """
node: "stop {label}"
labels: [North, South, East, West, Mitte, "Zoo, old", Kärnten]
edge: "{a} - {b}."
edge_one_way: "{a} > {b}."
block: "No {a} - {b}."
open: "New {a} - {b}."
teleport: "New {a} > {b}."
reward: "{a}: {amount}."
reward_now: "{a}: {amount}!"
ask_path: "From {start} to {goal}?"
ask_reward: "From {start}?"
"""


def test_a_domain_of_ones_own_is_a_file_of_texts(tmp_path):
    path = tmp_path / "metro.yaml"
    path.write_text(MINE, encoding="utf-8")
    said = conversation("2stepPath", "B", str(path))
    assert said.domain.name == "metro"
    assert said.turns[0].text.count(" - ") == 6
    assert "From stop " in said.turns[0].text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('block: "No {a} - {b}."', "", "there is no 'block'"),
        ('"{a}: {amount}."', '"{a}: {amuont}."', r"reward holds \{amuont\}; allowed"),
        ("ask_path", "ask_pth", "Did you mean: ask_path"),
        ('"stop {label}"', '"stop"', r"hold \{label\} once"),
        ("South", "North", "two labels are 'North'"),
        ('edge: "{a} - {b}."', "edge: 5", "must be text"),
        ("labels: [", "labels: [{", "cannot be read as YAML"),
        ('node: "stop {label}"', 'node: "{label}"\nform: speech', "must be chat or text"),
        ('"{a} - {b}."', '"{a.__class__} {a} - {b}."', None),  # no attribute is ever looked up
    ],
)
def test_files_that_are_no_domains_say_why(tmp_path, old, new, said):
    path = tmp_path / "bad.yaml"
    path.write_text(MINE.replace(old, new, 1), encoding="utf-8")
    domains.load.cache_clear()
    if said is None:
        assert "{a.__class__}" in conversation("2stepPath", "B", str(path)).turns[0].text
        return
    with pytest.raises(DataError, match=said) as caught:
        domains.load(str(path))
    assert str(path) in str(caught.value)


def test_a_missing_text_is_named_when_it_is_needed(tmp_path):
    path = tmp_path / "metro.yaml"
    path.write_text(MINE, encoding="utf-8")
    with pytest.raises(DataError, match="no text 'hub'"):
        conversation("2stepPath", "B", str(path), intervention="hub")
