"""The six graphs, random families and files: what they are, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from posterhall.errors import DataError
from posterhall.evals.planning import graphs, paths
from posterhall.evals.planning.families import FAMILIES
from posterhall.evals.planning.graphs import PUBLISHED, Graph, load


@pytest.mark.parametrize(
    ("letter", "nodes", "edges", "degree"),
    [
        ("A", 7, 6, None),
        ("B", 7, 6, None),
        ("C", 13, 12, None),
        ("D", 15, 30, 4),
        ("E", 16, 32, 4),
        ("F", 21, 63, 6),
    ],
)
def test_published_graphs_have_the_published_sizes(letter, nodes, edges, degree):
    graph = PUBLISHED[letter]
    assert (len(graph), len(graph.edges)) == (nodes, edges)
    degrees = set(graph.adjacency.sum(axis=1).tolist())
    assert degree is None or degrees == {degree}
    assert (graph.adjacency == graph.adjacency.T).all()
    assert (paths.distances(graph.adjacency) >= 0).all()


def by_name(graph, edges):
    return {frozenset((graph.nodes[a], graph.nodes[b])) for a, b in edges}


def pairs(text):
    return {frozenset(pair.split("-")) for pair in text.split()}


@pytest.mark.parametrize(
    ("letter", "bridges"),
    [
        ("D", "1-11 3-8 4-15"),  # one between any two clusters
        ("E", "1-7 3-5 2-16 4-14 6-12 8-10 9-15 11-13"),  # two
        ("F", "4-14 5-16 13-17"),
    ],
)
def test_clusters_are_joined_by_the_published_bridges(letter, bridges):
    graph = PUBLISHED[letter]
    assert by_name(graph, graph.crossings) == pairs(bridges)
    assert paths.bridges(graph.adjacency) == []  # in a ring, no single one of them is a bridge of the graph


@pytest.mark.parametrize(("letter", "missing"), [("D", "1-4 8-11 3-15"), ("E", ""), ("F", "4-5 13-14 16-17")])
def test_clusters_are_cliques_but_for_the_pairs_at_their_borders(letter, missing):
    graph = PUBLISHED[letter]
    inside = {
        frozenset((graph.nodes[a], graph.nodes[b]))
        for a in range(len(graph))
        for b in range(a)
        if graph.clusters[a] == graph.clusters[b]
    }
    assert inside - by_name(graph, graph.edges) == pairs(missing)


def test_tracks_and_tree_have_their_rewards():
    names = {
        name: {PUBLISHED[name].nodes[n]: r for n, r in PUBLISHED[name].rewards.items()} for name in "ABC"
    }
    assert names == {
        "A": {"5": 10, "6": 50},
        "B": {"4": 56, "5": 22, "6": 10, "7": 50},
        "C": {"11": 10, "12": 50},
    }
    assert by_name(PUBLISHED["A"], PUBLISHED["A"].edges) == pairs("0-1 1-3 3-5 0-2 2-4 4-6")
    assert by_name(PUBLISHED["B"], PUBLISHED["B"].edges) == pairs("1-2 1-3 2-4 2-5 3-6 3-7")
    assert PUBLISHED["C"].nodes[PUBLISHED["C"].start] == "0"


@pytest.mark.parametrize("letter", PUBLISHED)
def test_every_node_is_drawn_at_a_place_of_its_own_on_the_page(letter):
    places = PUBLISHED[letter].positions
    assert len(set(places)) == len(PUBLISHED[letter])
    assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in places)


@pytest.mark.parametrize(
    "name", [*FAMILIES, "clusters:groups=4:size=4:bridges=2", "tree:nodes=2", "lines:tracks=1"]
)
def test_random_graphs_hang_together_and_follow_from_their_seed(name):
    drawn = [load(name, seed=3, repetition=r) for r in range(8)]
    assert all((paths.distances(graph.adjacency) >= 0).all() for graph in drawn)
    assert [graph.edges for graph in drawn] == [load(name, seed=3, repetition=r).edges for r in range(8)]
    if len(drawn[0]) > 7:
        assert len({graph.edges for graph in drawn}) == len(drawn)


def test_a_bottleneck_is_the_only_way_between_its_groups():
    for repetition in range(10):
        graph = load("bottleneck:groups=2:size=5:percent=60", repetition=repetition)
        assert len(graph.crossings) == 1
        assert graph.crossings[0] in paths.bridges(graph.adjacency)


def test_density_is_the_share_of_pairs():
    graph = load("density:nodes=20:percent=40")
    assert len(graph.edges) == round(0.4 * 190)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Q", "no such file"),
        ("clusters:groups=1", "at least 2"),
        ("clusters:size=2:bridges=2", "at most 1"),
        ("clusters:sise=5", "write, for example"),
        ("clusters:size=-5", "write, for example"),
        ("density:percent=101", "0 to 100"),
        ("density:nodes=1", "allowed are 2 to"),
        ("tree:nodes=999999999999", "allowed are 2 to"),
        ("tree:branches=0", "at least 1"),
        ("lines:tracks=0", "at least 1"),
    ],
)
def test_graphs_that_cannot_be_are_refused(name, said):
    with pytest.raises(DataError, match=said):
        load(name)


# -- files --------------------------------------------------------------------------------------------


def test_a_graph_is_read_from_json_with_everything_in_it(tmp_path):
    path = tmp_path / "metro.json"
    path.write_text(
        json.dumps(
            {
                "nodes": ["Zoë's, left", "b", "c"],
                "edges": [["Zoë's, left", "b"], ["b", "c"]],
                "directed": True,
                "rewards": {"c": 5},
                "clusters": {"Zoë's, left": "x", "b": "x", "c": "y"},
                "start": "b",
                "layout": {"Zoë's, left": [0, 0], "b": [0.5, 0.5], "c": [1, 1]},
            }
        )
    )
    graph = load(str(path))
    assert graph.name == "metro"
    assert graph.adjacency.tolist() == [[False, True, False], [False, False, True], [False, False, False]]
    assert (graph.rewards, graph.clusters, graph.start, graph.positions[2]) == ({2: 5}, (0, 0, 1), 1, (1, 1))


def test_a_list_of_edges_is_a_graph(tmp_path):
    path = tmp_path / "metro.txt"
    path.write_text("# lines\n\nnorth gate\tharbour, old\nharbour, old\tmill # the last\n")
    graph = load(str(path))
    assert graph.nodes == ("north gate", "harbour, old", "mill")
    assert graph.edges == ((0, 1), (1, 2))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"edges": []}, "no edges"),
        ({"edges": [["a", "b"], ["a", "a"]]}, "'a' to itself"),
        ({"edges": [["a", "b"], ["b", "a"]]}, "is there twice.*directed"),
        ({"edges": [["a", "b", "c"]]}, "edge 1"),
        ({"edges": [["a", "b"]], "rewards": {"c": 5}}, "'c' is not among the nodes"),
        ({"edges": [["a", "b"]], "rewards": {"a": "much"}}, "must be a number"),
        ({"edges": [["a", "b"]], "rewards": {"a": float("nan")}}, "must be a number"),
        ({"edges": [["a", "b"]], "start": "z"}, "'z' is not among"),
        ({"edges": [["a", "b"]], "clusters": {"a": 1}}, "no entry for 'b'"),
        ({"edges": [["a", "b"]], "layout": {"a": [0, 0], "b": [0, 2]}}, "between 0 and 1"),
        ({"edges": [["a", "b"]], "nodes": ["a", "a", "b"]}, "two nodes are called 'a'"),
        ({"edges": [["a", "b"]], "directed": "yes"}, "true or false"),
        ({"edges": [["a", "b"]], "edgs": []}, "Did you mean: edges"),
        ({"edges": [["a", "b\nc"]]}, "no name of a node"),
        ({"edges": [["a", None]]}, "no name of a node"),
        ([], "JSON object"),
        ({"edges": [[i, i + 1] for i in range(2000)]}, "at most 1,000"),
    ],
)
def test_files_that_are_no_graphs_say_why(tmp_path, value, said):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=said) as caught:
        load(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("a b\na\n", ":2: 1 names"), ("a b\nb b\n", ":2: an edge from 'b' to itself"), ("a b c", ":1: 3")],
)
def test_lists_of_edges_name_the_bad_line(tmp_path, text, said):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        load(str(path))


def test_an_edge_both_ways_is_two_edges_of_a_directed_graph():
    graph = Graph("g", ("a", "b"), ((0, 1), (1, 0)), directed=True)
    assert graph.adjacency.sum() == 2


def test_edits_take_away_and_add_without_touching_the_graph():
    graph = PUBLISHED["A"]
    before = graph.adjacency.copy()
    after = graph.edited(without=((1, 0),), with_edges=((0, 5),), with_one_way=((6, 1),), rewards={5: 99})
    assert np.flatnonzero(before != after.adjacency).tolist() == sorted([1, 7, 5, 35, 43])
    assert (graph.adjacency == before).all()
    assert (after.rewards[5], after.rewards[6], graph.rewards[5]) == (99, 50, 10)
    with pytest.raises(DataError, match="has no edge"):
        graph.edited(without=((0, 6),))


def test_literal_graphs_of_the_module_are_what_load_gives():
    assert all(load(letter) is graphs.PUBLISHED[letter] for letter in "ABCDEF")
