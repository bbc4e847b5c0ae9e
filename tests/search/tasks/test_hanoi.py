"""Towers: read, moved, checked, searched, against closed forms."""

import sys
from itertools import product
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "contracts"))
from task import check_task

from posterhall.errors import DataError
from posterhall.lm.protocol import LM, Sample, transcript
from posterhall.search import State, solve
from posterhall.search.tasks import load, making
from posterhall.search.tasks.hanoi import Hanoi, TowerDomain


def by_recursion(disks, a="A", b="B", c="C"):
    """The fewest moves of a whole tower, as everybody writes them."""
    if disks == 0:
        return []
    return [
        *by_recursion(disks - 1, a, c, b),
        f"disk {disks} from {a} to {c}",
        *by_recursion(disks - 1, b, a, c),
    ]


@pytest.mark.parametrize(("disks", "count"), [(1, 2), (3, 26), (4, 80)])
def test_there_are_as_many_towers_as_published(disks, count):
    problems = making.problems("hanoi", sets=[f"disks={disks}"])
    assert len(set(problems)) == count
    assert [Hanoi().read(each) for each in problems] == problems


@pytest.mark.parametrize("disks", range(1, 8))
def test_the_known_solution_is_the_fewest_moves(disks):
    problem = Hanoi().read("7654321"[7 - disks :] + " - -")
    moves = by_recursion(disks)
    check = Hanoi().check(problem, "\n".join(moves))
    assert check.solved
    assert check.why == f"{2**disks - 1} moves, the fewest"
    longer = Hanoi().check(problem, "\n".join(["disk 1 from A to B", "disk 1 from B to A", *moves]))
    assert longer.solved
    assert longer.parts == {"fewest": 0.0}


def test_what_is_wrong_is_told():
    task = Hanoi()
    problem = task.read("321 - -")
    assert task.check(problem, None).why == "no answer"
    assert "move 2 is not allowed" in task.check(problem, "1: A -> C\n2: A -> C").why
    assert "move 1 is not allowed" in task.check(problem, "disk 2 from A to C").why
    part = task.check(problem, "A to C")
    assert (part.solved, part.why) == (False, "1 of 3 disks where they belong")


@pytest.mark.parametrize(
    "text",
    ["", "321", "123 - -", "331 - -", "32 - -", "321 - - > - - 21", "a b c", "9 - -", "321 - - -", "321 >"],
)
def test_what_is_no_tower_is_refused(text):
    with pytest.raises(DataError, match="is no tower"):
        Hanoi().read(text)


def test_a_goal_may_be_given():
    task = Hanoi("21 - - > - 21 -")
    moves = "disk 1 from A to C\ndisk 2 from A to B\ndisk 1 from C to B"
    assert task.check(task.problem, moves).solved


@pytest.mark.parametrize(
    ("said", "move"),
    [
        ("disk 1 from A to C", "disk 1 from A to C"),
        ("1. Move disk 1 from peg A to peg C.", "disk 1 from A to C"),
        ("- **A → C**", "disk 1 from A to C"),
        ("Disk 2 from A to B", None),
        ("I move a disk to C", None),
        ("A to A", None),
    ],
)
def test_moves_are_read_as_models_write_them(said, move):
    state = State(Hanoi().read("321 - -"))
    found = Hanoi().thoughts(state, said)
    assert found.found == ((move,) if move else ())
    assert found.unread == (move is None)


def test_moves_of_a_domain_need_not_be_allowed():
    domain = TowerDomain(Hanoi().read("321 - -"))
    assert domain.moves(domain.start, "disk 3 from A to B").found == ("disk 3 from A to B",)
    assert domain.apply(domain.start, "disk 3 from A to B") is None
    assert domain.state("So: A: 3, 2; B = 1\nC: empty") == "A: 3 2; B: 1; C: empty"
    assert domain.state("A: 3 2; B: 1 1; C: empty") is None
    assert domain.state("A: 3 2; B: 1") is None


def test_allowed_moves_are_those_of_the_rules():
    for places in product(range(3), repeat=3):
        pegs = ["", "", ""]
        for disk, place in zip("321", places, strict=True):
            pegs[place] += disk
        told = "; ".join(f"{name}: {' '.join(peg) or 'empty'}" for name, peg in zip("ABC", pegs, strict=True))
        domain = TowerDomain(Hanoi().read("321 - -"))
        expected = {
            f"disk {pegs[a][-1]} from {'ABC'[a]} to {'ABC'[b]}"
            for a, b in product(range(3), repeat=2)
            if a != b and pegs[a] and pegs[a][-1] == min(p[-1] for p in (pegs[a], pegs[b]) if p)
        }
        assert set(domain.legal(told)) == expected


def test_towers_keep_the_contract():
    check_task(
        Hanoi(),
        ["321 - -", "2 3 1", "- - 1 > 1 - -"],
        ["disk 1 from A to B\ndisk 1 from A to C", "A to C\nB to C\nA to B", "B to A"],
        bad=["", "\0", "12 - -"],
    )


def test_towers_are_searched_breadth_first():
    class Knowing(LM):
        name = "knowing"

        async def agenerate(self, requests):
            replies = []
            for request in requests:
                prompt = transcript(request.prompt)
                every = "\n".join(f"{a} to {b}" for a in "ABC" for b in "ABC" if a != b)
                replies.append(
                    [Sample("Answer: 3" if "at least" in prompt else every, "stop", 1, 1)] * request.n
                )
            return replies

    solution = solve(
        load("hanoi"), "321 - -", Knowing(), breadth=27, deduplicate="tree", votes=1, use_check=True
    )
    assert solution.solved
    assert solution.check.parts == {"fewest": 1.0}
