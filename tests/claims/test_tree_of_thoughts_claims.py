"""The claims of "Tree of Thoughts": what they measure with is right, and each runs small."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, shortest_path

from posterhall.claims import decide, load
from posterhall.claims.rows import Budget
from posterhall.claims.tree_of_thoughts import _bench, _grids, _puzzles, _walk, costs, numbers
from posterhall.data.synthetic.mazes import Maze
from posterhall.errors import DataError
from posterhall.lm.protocol import Request
from posterhall.search.protocol import State
from posterhall.search.tasks.word_grid import Lexicon, compact_prompt
from posterhall.seeds import generator

CLAIMS = load(["posterhall.claims.tree_of_thoughts"])
NUMBERS = [id for id, cls in CLAIMS.items() if "modulus" in cls.scales["smoke"]]
TINY = {
    "modulus": Budget(modulus=7, target=3, puzzles=6, steps=4),
    "grids": Budget(grids=4, states=10, forgets=0.1, errs=0.1),
    "side": Budget(side=4, least=3, shown=40, ways=6, steps=4, states=10),
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def tiny(id: str) -> Budget:
    return next(budget for name, budget in TINY.items() if name in CLAIMS[id].scales["smoke"])


# The game of numbers.


def game(held_out: int = 30) -> _puzzles.Puzzles:
    return _puzzles.Puzzles.divided(modulus=7, target=3, held_out=held_out, seed=0)


def reachable(left: list[int]) -> bool:
    """Whether 3 can be made modulo 7, by trying everything in every order."""
    if len(left) == 1:
        return left[0] == 3
    return any(
        reachable([*rest, result])
        for a, b in itertools.permutations(range(len(left)), 2)
        for rest in [[left[i] for i in range(len(left)) if i not in (a, b)]]
        for result in ((left[a] + left[b]) % 7, (left[a] - left[b]) % 7, (left[a] * left[b]) % 7)
    )


def test_puzzles_are_those_that_can_be_solved_and_are_divided():
    divided = game()
    every = {each for each in itertools.combinations_with_replacement(range(7), 4) if reachable(list(each))}
    assert set(divided.train) | set(divided.held_out) == every
    assert len(divided.train) + len(divided.held_out) == len(every)
    assert _puzzles.Puzzles.divided(modulus=7, target=3, held_out=30, seed=1).held_out != divided.held_out
    # The game of the published probe: 7 modulo 11 has 969 of them.
    eleven = _puzzles.Puzzles.divided(modulus=11, target=7, held_out=200, seed=0)
    assert len(eleven.train) == 969 - 200


@pytest.mark.parametrize("chains", ["solutions", "legal moves"])
def test_lessons_are_true_and_none_shows_a_held_out_puzzle(chains):
    divided = game(100)
    held_out = {" ".join(map(str, each)) for each in divided.held_out}
    ends, kinds = Counter(), Counter()
    for prompt, answer in _puzzles.lessons(divided, count=2000, chains=chains, seed=3):
        kind, *left, colon = prompt.split()
        kinds[kind] += 1
        assert colon == ":"
        assert " ".join(left) not in held_out
        if kind == "value":
            assert answer.strip() == ("sure" if reachable(list(map(int, left))) else "impossible")
            continue
        for move in answer.split(";"):
            a, sign, b, _, result, _, *rest = move.split()
            value = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] % 7
            assert value == int(result)
            assert Counter(rest) == Counter(left) - Counter([a]) - Counter([b]) + Counter([result])
            left = rest
        if kind == "solve":
            ends[left == ["3"]] += 1
    assert set(kinds) == {"solve", "move", "value"}
    if chains == "solutions":
        assert not ends[False]
    else:
        assert ends[False] > 2 * ends[True]


def test_what_drawn_moves_solve_is_an_expectation():
    divided = _puzzles.Puzzles(game().rules, (), ((1, 2),))
    # 1 + 2 = 3 is the only one of + - (two ways) and * that makes 3.
    assert _puzzles.drawn_moves(divided) == pytest.approx(1 / 4)
    some = game(10)
    rng = generator(0, "test")
    plays = [
        _puzzles.play(each, some.rules, rng, solving=False) for each in some.held_out for _ in range(400)
    ]
    won = np.mean([path[-1].result == 3 for path in plays])
    assert _puzzles.drawn_moves(some) == pytest.approx(won, abs=0.03)


# Grids and mazes.


def test_the_oracle_errs_as_often_as_it_is_told_to():
    lexicon = Lexicon(seed=1)
    clue, words = next(iter(lexicon.words.items()))
    asked = Request(compact_prompt("words", clue, "_ _ _ _"), n=400)
    judged = Request(compact_prompt("fits", clue, " ".join(words[0])), n=400)
    wrong = Request(compact_prompt("fits", clue, "z z z z"), n=400)

    def said(request: Request, **rates: float) -> list[str]:
        return [each.text for each in _grids.Oracle(lexicon.words, **rates).generate([request])[0]]

    spelt = {" ".join(word) for word in words}
    right = said(asked, forgets=0, errs=0)
    assert all(set(each.split(" ; ")) == spelt for each in right)
    assert len(set(right)) > 20
    lengths = [
        len([w for w in each.split(" ; ") if w != "none"]) for each in said(asked, forgets=0.2, errs=0)
    ]
    assert np.mean(lengths) == pytest.approx(0.8 * len(words), abs=0.2)
    assert set(said(judged, forgets=0, errs=0)) == {"sure"}
    assert np.mean([each == "impossible" for each in said(judged, forgets=0, errs=0.2)]) == pytest.approx(
        0.2, abs=0.06
    )
    assert np.mean([each == "maybe" for each in said(wrong, forgets=0, errs=0.2)]) == pytest.approx(
        0.2, abs=0.06
    )


@pytest.mark.parametrize("opened", [0.0, 0.2, 1.0])
def test_mazes_are_connected_and_their_ways_the_shortest(opened):
    maze = Maze.drawn(6, opened=opened, seed=2)
    pairs = [(a, b) for a, others in enumerate(maze.neighbours) for b in others]
    assert all((b, a) in set(pairs) for a, b in pairs)
    assert all(abs(a - b) == 6 or (abs(a - b) == 1 and a // 6 == b // 6) for a, b in pairs)
    graph = csr_array((np.ones(len(pairs)), tuple(np.array(pairs).T)), shape=(36, 36))
    assert connected_components(graph)[0] == 1
    walls = 60 - 35
    assert len(pairs) // 2 == 35 + round(opened * walls)
    far = shortest_path(graph, unweighted=True)
    rng = generator(0, "test")
    for goal in (0, 17, 35):
        assert maze.distances(goal) == far[goal].tolist()
        for start in range(36):
            way = maze.shortest(start, goal, rng)
            assert (way[0], way[-1], len(way) - 1) == (start, goal, far[start, goal])
            assert all(b in maze.neighbours[a] for a, b in itertools.pairwise(way))


def test_a_maze_out_of_range_is_said():
    with pytest.raises(DataError, match="side is 1"):
        Maze.drawn(1)


def test_a_way_is_judged_step_by_step():
    maze = Maze.drawn(4, seed=0)
    task = _walk.Walk(maze)
    way = maze.shortest(0, 15, generator(0, "test"))
    right = " ".join(map(str, way[1:]))
    assert task.check("0 15", right).solved
    assert "ends in" in task.check("0 15", " ".join(map(str, way[1:-1]))).why
    wall = next(cell for cell in range(1, 16) if cell not in maze.neighbours[0])
    assert "wall" in task.check("0 15", str(wall)).why
    for nonsense in (None, "", "a b", "-1", "99999", "٣", "1" * 10_000):
        assert not task.check("0 15", nonsense).solved
    state = State("0 15", tuple(map(str, way[1:-1])))
    assert task.thoughts(state, str(way[-1])).found == (str(way[-1]),)
    assert task.thoughts(state, "elsewhere").unread == 1
    assert task.finished(state.then(str(way[-1])))
    for text in ("0", "0 0", "0 16", "a b", "00 1"):
        with pytest.raises(DataError, match="two cells"):
            task.read(text)


def test_ways_held_out_are_far_and_not_shown():
    maze = Maze.drawn(5, seed=0)
    shown, held_out = _walk.problems(maze, shown=100, held_out=50, least=4, seed=0)
    assert (len(set(shown)), len(set(held_out))) == (100, 50)
    assert not set(shown) & set(held_out)
    assert all(maze.distances(int(b))[int(a)] >= 4 for a, b in map(str.split, held_out))
    taught = {prompt for prompt, _ in itertools.islice(_walk.lessons(maze, shown, seed=0), 3000)}
    assert taught <= {f"from {a} to {b} :" for a, b in map(str.split, shown)}


def test_a_wanderer_takes_every_open_way_alike():
    maze = Maze.drawn(5, opened=1.0, seed=0)
    request = Request("from 3 to 20 : 8 12", n=2000)
    found = Counter(each.text for each in _walk.Wanderer(maze).generate([request])[0])
    assert set(found) == set(map(str, maze.neighbours[12]))
    assert min(found.values()) > 400


# The claims.


def test_there_is_one_headline():
    assert [id for id, cls in CLAIMS.items() if cls.headline] == ["tree-beats-chain"]


@pytest.mark.parametrize("id", CLAIMS)
def test_each_claim_runs_small_and_gives_what_it_is_judged_by(id):
    cls, budget = CLAIMS[id], tiny(id)
    rows = list(cls().run(budget, 3))
    arms = {row.arm for row in rows}
    assert {*cls.kind.names, *cls.control_kind().names} <= arms
    assert len(rows) == len(arms)
    assert cls().figure(rows) is not None
    assert [row.to_json() for row in cls().run(budget, 3)] == [row.to_json() for row in rows]
    more = [row for seed in range(4, 8) for row in cls().run(budget, seed)] if id == "pruning-helps" else []
    if more:
        found, control = decide(cls, rows + more)
        assert {found.verdict, control.verdict} <= {"supported", "refuted", "inconclusive"}


@pytest.mark.parametrize("id", [id for id, cls in CLAIMS.items() if "model" in cls.params])
def test_claims_take_another_model_and_then_the_game_of_24(id):
    cls = CLAIMS[id]
    rows = list(cls({"model": "echo"}).run(tiny(id).replace(puzzles=2, grids=1), 0))
    assert {*cls.kind.names, *cls.control_kind().names} <= {row.arm for row in rows}
    if id in NUMBERS:  # an echo of a grid's prompt has its words in it
        assert all(row.number("solved") == 0 for row in rows)


def test_methods_are_compared_on_the_same_proposals():
    with _bench.bench({"model": None}, TINY["modulus"], 1) as here:
        narrow, wide = here.solve(breadth=1), here.solve(breadth=5, evaluator="random")
    for one, other in zip(narrow, wide, strict=True):
        first = [[node.thought for node in each.tree.nodes if node.depth == 1] for each in (one, other)]
        assert first[0] == first[1]


def test_chains_have_at_least_the_tokens_of_the_search():
    with _bench.bench({"model": None}, TINY["modulus"], 1) as here:
        tree, n = costs._as_many_chains(here)
        one = _bench.generated(here.solve(method="cot"))
    assert (n - 1) * one < max(_bench.generated(tree), 1) <= n * one


def test_rows_tell_a_choice_from_what_a_checker_would_pick():
    with _bench.bench({"model": None}, TINY["modulus"], 1) as here:
        solutions = here.solve(evaluator="random", proposals=20)
    own, checked = (_bench.row("x", 0, solutions, checked=each) for each in (False, True))
    assert own["solved"] == np.mean([each.solved for each in solutions])
    assert checked["solved"] == np.mean([each.any_solved for each in solutions]) >= own["solved"]
    for each in (own, checked):
        assert 0 <= each["low"] <= each["solved"] <= each["high"] <= 1
        assert each["high"] - each["low"] > 0.2  # of six puzzles


def test_scales_are_as_promised():
    for scale, puzzles in (("laptop", 200), ("full", 400)):
        assert numbers.SCALES[scale]["puzzles"] == puzzles
    assert all(budget.seeds >= 5 for cls in CLAIMS.values() for budget in cls.scales.values())
