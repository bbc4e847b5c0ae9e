"""The claims of CogEval: what is taught and asked is what they say, and each runs small, and on any model."""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from posterhall.claims import load
from posterhall.claims.cogeval import _asking, _endpoint, _small, behaviour
from posterhall.claims.cogeval._asking import by_graph, by_place, judge, matched, misplaced, search
from posterhall.claims.cogeval._world import LETTERS, NAMES, lessons, news, world
from posterhall.evals.planning import paths
from posterhall.extras import torch
from posterhall.lm import LM, Request, Sample

CLAIMS = load(["posterhall.claims.cogeval"])
BUDGET = CLAIMS["single-steps-are-known"].budget("smoke").replace(steps=6, lessons=300, news=2)


@pytest.fixture(scope="module")
def check_rows():
    folder = str(Path(__file__).parent.parent / "contracts")
    sys.path.insert(0, folder)
    yield importlib.import_module("claim").check_rows
    sys.path.remove(folder)


# What is taught.


def test_some_pairs_of_every_distance_that_is_taught_are_held_out_in_both_directions():
    for seed in range(5):
        for graph in world(seed).values():
            asked = {(each.start, each.goal): each for each in graph.questions}
            for distance in range(1, 5):
                kept = [each.held_out for each in asked.values() if each.distance == distance]
                assert any(kept)
                assert not all(kept)
            assert all(asked[b, a].held_out == each.held_out for (a, b), each in asked.items())
    share = np.mean([each.held_out for graph in world(0).values() for each in graph.questions])
    assert share == pytest.approx(1 / 3, abs=0.03)


def test_names_are_dealt_out_anew_by_each_seed():
    assert {each.letter: each.names for each in world(0).values()} == {
        each.letter: each.names for each in world(0).values()
    }
    assert all(world(0)[letter].names != world(1)[letter].names for letter in LETTERS)
    assert all(set(each.names) <= set(NAMES) for each in world(3).values())
    assert all(len(set(each.names)) == len(each.graph) for each in world(3).values())


@pytest.mark.parametrize("longest", [2, 4])
def test_lessons_are_walks_and_shortest_paths_of_pairs_that_are_not_held_out(longest):
    maps = world(1)
    walked: Counter[tuple[str, int, int]] = Counter()
    asked = set()
    for prompt, answer in lessons(maps, 6000, seed=1, longest=longest):
        words = prompt.split()
        graph = maps[words[0]]
        nodes = [graph.names.index(name) for name in answer.split()]
        if words[1] == "walk":
            nodes.insert(0, graph.names.index(words[2]))
            walked.update((words[0], *step) for step in pairwise(nodes))
        else:
            start, goal = (graph.names.index(name) for name in words[2:4])
            assert nodes[0] == start
            assert nodes[-1] == goal
            assert len(nodes) - 1 == paths.distances(graph.graph.adjacency)[start, goal] <= longest
            assert (min(start, goal), max(start, goal)) not in graph.held_out
            asked.add((words[0], start, goal))
        assert all(graph.graph.adjacency[step] for step in pairwise(nodes))
    taught = {
        (each.graph, each.start, each.goal)
        for graph in maps.values()
        for each in graph.questions
        if not each.held_out and each.distance <= longest
    }
    assert asked <= taught
    assert len(asked) > 0.9 * len(taught)
    # 24,000 steps over 298 directed edges, each as often as the others: 80 each.
    assert len(walked) == 298
    crossings = [
        walked[graph.letter, *step]
        for graph in maps.values()
        for edge in graph.graph.crossings
        for step in (edge, edge[::-1])
    ]
    assert np.mean(crossings) == pytest.approx(24_000 / 298, rel=0.1)


def test_news_are_walks_around_the_closed_edges_and_never_through_them():
    before = world(2)
    closed = {letter: behaviour._closed(before[letter], seed=2) for letter in "DEF"}
    after = {letter: each.without(closed.get(letter, ())) for letter, each in before.items()}
    begun = Counter()
    for prompt, answer in news(before, after, 600, seed=2):
        letter, _, start = prompt.split()
        nodes = [after[letter].names.index(name) for name in (start, *answer.split())]
        assert all(after[letter].graph.adjacency[step] for step in pairwise(nodes))
        begun[letter in closed and nodes[0] in np.ravel(closed[letter])] += 1
    assert begun[True] > 300
    assert all((each.distances >= 0).all() for each in after.values())


def test_paths_have_to_change_only_where_every_shortest_one_is_closed():
    before = world(0)
    after = {letter: each.without(behaviour._closed(each, 0)) for letter, each in before.items()}
    change, stay = behaviour._affected(before, after)
    assert change
    assert not change & stay
    for letter, start, goal in change | stay:
        found = before[letter].shortest(start, goal)
        open_ = [all(after[letter].graph.adjacency[step] for step in pairwise(path)) for path in found]
        assert any(open_) is ((letter, start, goal) in stay)
        assert all(open_) is ((letter, start, goal) in stay)


# How answers are judged.


def test_search_over_true_edges_is_always_right_and_over_misplaced_ones_hardly():
    maps = world(0)
    questions = [each for graph in maps.values() for each in graph.questions]
    true = {letter: _evenly(each.graph.adjacency) for letter, each in maps.items()}
    assert search(maps, questions, true).right.all()
    assert search(maps, questions, misplaced(true, 0)).of(lambda each: each.distance > 2).right.mean() < 0.1


def test_shares_are_over_the_strata_that_both_have():
    maps = world(0)
    near = [each for each in maps["A"].questions if each.distance == 1][:2]
    far = [each for each in maps["A"].questions if each.distance == 3][:1]
    other = [each for each in maps["B"].questions if each.distance == 1][:1]
    right = {each: [maps[each.graph].shortest(each.start, each.goal)[0]] for each in near + far + other}
    wrong = [(near[0].start,)]
    first = judge(maps, [*near, *other], [right[near[0]], wrong, right[other[0]]])
    second = judge(maps, far, [right[far[0]]])
    assert matched(first, second, by_graph) == (0.5, 1.0)
    assert first.mean(by_place) == 0.75  # A at 1 counts as much as B at 1
    with pytest.raises(_asking.DataError):
        matched(first, second, by_place)


def test_an_answer_through_a_closed_edge_is_noticed_in_either_direction():
    maps = world(0)
    asked = [each for each in maps["A"].questions if (each.start, each.goal) in ((0, 1), (1, 0), (0, 2))]
    answers = judge(maps, asked, [[(each.start, each.goal)] for each in asked])
    assert behaviour._through(answers, {"A": [(1, 0)]}) == pytest.approx(2 / 3)


# The small model.


@pytest.fixture
def kept(tmp_path_factory, monkeypatch):
    """Small models are kept apart from the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "models"))
    _small._loaded.cache_clear()


def test_steps_are_the_models_own_probabilities(kept):
    asked = _small.Small(BUDGET, seed=1)
    found = asked.edges("BE")
    graph, lm = asked.maps["B"], asked._lm
    ids = torch.tensor([[lm.tokenizer.eos_id, *lm.tokenizer.encode(f"B walk {graph.names[3]}")]])
    with torch.no_grad():
        after = lm.model(ids)[0, -1].softmax(-1)
    expected = [float(after[lm.tokenizer.encode(name)[0]]) for name in graph.names]
    assert found["B"][3] == pytest.approx(expected, rel=1e-4)
    assert set(found) == {"B", "E"}
    assert (found["E"].sum(axis=1) <= 1).all()


def test_walks_teach_the_model_what_has_changed(kept):
    budget = BUDGET.replace(steps=120, lessons=4000, news=60)
    asked = _small.Small(budget, seed=1)
    closed = {letter: behaviour._closed(asked.maps[letter], 1) for letter in "DEF"}
    changed = asked.after(closed)
    maps = changed.maps
    before, after = (behaviour._heeded(each.edges("DEF"), maps, closed) for each in (asked, changed))
    assert after > before + 0.05


@pytest.mark.parametrize("cls", CLAIMS.values(), ids=lambda cls: cls.id)
def test_each_claim_runs_small_and_twice_alike(cls, kept, check_rows):
    rows = [list(cls().run(BUDGET, 1)) for _ in range(2)]
    check_rows(cls, *rows, 1, set())


# Another model.


class Reader(LM):
    """Reads the doors in a prompt and goes the shortest way; deaf to locked doors if `stubborn`."""

    name = "reader"

    def __init__(self, *, stubborn: bool = False) -> None:
        self.stubborn = stubborn
        self.prompts: list[str] = []

    async def agenerate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [[self._reply(each.prompt[-1].content)] * each.n for each in requests]

    def _reply(self, prompt: str) -> Sample:
        self.prompts.append(prompt)
        doors = {frozenset(pair) for pair in re.findall(r"door connects room (\d+) and room (\d+)", prompt)}
        if not self.stubborn:
            doors -= {frozenset(pair) for pair in re.findall(r"between room (\d+) and room (\d+) is", prompt)}
        around: dict[str, set[str]] = {}
        for a, b in (tuple(door) for door in doors):
            around.setdefault(a, set()).add(b)
            around.setdefault(b, set()).add(a)
        step = re.search(r"reached from room (\d+) in exactly one", prompt)
        if step:
            said = ", ".join(f"room {each}" for each in sorted(around[step[1]]))
        else:
            start, goal = re.search(
                r"You are in room (\d+)\. What is the shortest path to room (\d+)", prompt
            ).groups()
            ways, seen = [[start]], {start}
            while ways[0][-1] != goal:
                way = ways.pop(0)
                for each in sorted(around[way[-1]] - seen):
                    seen.add(each)
                    ways.append([*way, each])
            said = " -> ".join(f"room {each}" for each in ways[0])
        return Sample(f"Let me see.\nAnswer: {said}", "stop", tokens_in=1, tokens_out=1)


@pytest.fixture
def reader(monkeypatch):
    lm = Reader()
    monkeypatch.setattr(_endpoint, "_connected", lambda address: lm)
    return lm


def test_a_model_that_reads_the_prompt_is_right_about_steps_and_paths(reader):
    told = _endpoint.Told("http://localhost/v1#reader", "ordRooms", BUDGET.replace(questions=2), seed=0)
    edges = told.edges("BE")
    for letter in "BE":
        assert edges[letter] == pytest.approx(_evenly(told.maps[letter].graph.adjacency))
    questions = told.asked(lambda each: each.distance <= 4)
    # One group a graph, distance, side of the clusters, and whether the path is told; two questions each.
    assert len(questions) == 2 * len({(q.graph, q.distance, q.crosses, q.held_out) for q in questions})
    assert told.answer(questions).right.all()


def test_the_path_of_a_pair_is_told_unless_it_is_held_out(reader):
    told = _endpoint.Told("http://localhost/v1#reader", "ordRooms", BUDGET, seed=0)
    questions = told.asked(lambda each: each.graph == "C")
    told.answer(questions)
    assert ["The shortest path from" in each for each in reader.prompts] == [
        not each.held_out for each in questions
    ]


def test_a_model_that_does_not_hear_of_the_change_walks_through_closed_doors(reader):
    told = _endpoint.Told("http://localhost/v1#reader", "ordRooms", BUDGET, seed=0)
    closed = {"E": behaviour._closed(told.maps["E"], 0)}
    changed = told.after(closed)
    assert changed.after({}).maps["E"].graph.edges == told.maps["E"].graph.edges
    change, _ = behaviour._affected(told.maps, changed.maps)
    moved = [q for q in changed.maps["E"].questions if (q.graph, q.start, q.goal) in change]
    assert changed.answer(moved).right.all()
    reader.stubborn = True
    assert behaviour._through(changed.answer(moved), closed) == 1.0


@pytest.mark.parametrize("cls", [c for c in CLAIMS.values() if c.params], ids=lambda cls: cls.id)
def test_each_claim_runs_on_another_model(cls, reader, check_rows):
    rows = list(cls({"model": "http://localhost/v1#reader"}).run(BUDGET, 1))
    check_rows(cls, rows, None, 1, set())
    assert any("Imagine a building" in each for each in reader.prompts)


def _evenly(adjacency):
    return adjacency / adjacency.sum(axis=1, keepdims=True)
