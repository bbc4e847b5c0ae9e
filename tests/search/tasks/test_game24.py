"""The Game of 24: what is a move, what is an answer, and what the authors' code takes for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rulebook import Rulebook

from posterhall import search
from posterhall.errors import DataError, UsageError
from posterhall.search import Check, State
from posterhall.search.tasks import Game24, compact
from posterhall.search.tasks.moves import Rules, moves, play, puzzles, solvable
from posterhall.seeds import generator

GAME = Game24("4 9 10 13")
START = State(GAME.problem)


def found(reply, state=START, task=GAME):
    return task.thoughts(state, reply)


# -- problems ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["13 4 10 9", " 4, 9,10 ;13 ", "4\t9\n10 13", "4.0 9 10 26/2"])
def test_a_puzzle_has_one_form(text):
    assert Game24().read(text) == "4 9 10 13"


def test_numbers_may_be_negative_or_broken():
    assert Game24().read("5 -3 1/2 2.5") == "-3 1/2 5/2 5"


@pytest.mark.parametrize(
    "text",
    ["", "four nine", "4", "4 9 10 13 2", "4 9 10 __import__('os')", "1/0 2 3", "1" * 1000, "4 9 10 1e9"],
)
def test_what_is_no_puzzle(text):
    with pytest.raises(DataError):
        Game24().read(text)


def test_more_numbers_are_allowed_where_one_says_so():
    assert Game24(count=6).read("1 2 3 4 5 6") == "1 2 3 4 5 6"
    assert Game24("1 2 3 4 5 6").depth == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 1},
        {"count": 9},
        {"style": "short"},
        {"original": True, "style": "compact"},
        {"operators": "+^"},
        {"modulus": 11, "target": 24},
        {"problem": "4 9 x"},
        {"problem": "4 9 12", "modulus": 11, "target": 7},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(DataError):
        Game24(**wrong)


# -- moves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "4 + 9 = 13 (left: 10 13 13)",
        "9 + 4 = 13 (left: 13 13 10)",
        "  - 4 + 9 = 13",
        "3. 4+9=13 (Left: 10, 13, 13)",
        "Step 1: 4 + 9 = 13, remaining 10 13 13",
        "4 + 9 = 13 (left: 1 2 3)",  # what is left is reckoned here
        "4 + 9 = 13 left 10 13 13",
        "**4 + 9 = 13 (left: 10 13 13)**",
        "4 + 9 == 13",
        "(4 + 9) = 13",
    ],
)
def test_a_move_in_many_spellings_is_one(line):
    assert found(line) == search.Thoughts(("4 + 9 = 13 (left: 10 13 13)",))


@pytest.mark.parametrize(
    "line",
    [
        "4 + 9 = 14 (left: 10 13 14)",
        "4 + 4 = 8 (left: 9 10 13)",
        "5 + 9 = 14",
        "4 + 9 + 10 = 23",
        "4 ** 9 = 262144",
        "4 ^ 9 = 13",
        "I'm sorry, but I can't help with that.",
        "Possible next steps:",
        "4 + 9",
        "4 / 0 = 1",
        "4 " * 10_000,
        "__import__('os') = 1",
    ],
)
def test_what_is_no_legal_move_is_counted(line):
    assert found(line) == search.Thoughts((), 1)


def test_the_same_move_twice_is_one_thought():
    reply = "4 + 9 = 13 (left: 10 13 13)\n9 + 4 = 13 (left: 10 13 13)\n\n10 - 4 = 6 (left: 6 9 13)"
    assert len(found(reply).found) == 2


def test_a_rounded_quotient_stands_for_the_exact_one():
    state = START.then(*found("10 / 13 = 0.77 (left: 0.77 4 9)").found)
    assert state.thoughts == ("10 / 13 = 10/13 (left: 10/13 4 9)",)
    assert found("0.77 * 4 = 3.08 (left: 3.08 9)", state).found == ("(10/13) * 4 = 40/13 (left: 40/13 9)",)
    assert found("10 / 13 = 0.8 (left: 0.8 4 9)").unread == 1
    assert found("10 / 13 = 0.78").unread == 1


def test_an_endless_reply_is_read_in_bounded_pieces():
    reply = "4 + 9 = 13\n" * 100_000
    assert found(reply).unread > 99_000


@given(st.text(max_size=300) | st.text(alphabet="0123456789+-*/=() \n;left:", max_size=300))
def test_every_thought_found_is_a_legal_move(reply):
    legal = {str(each) for each in moves((4, 9, 10, 13), Rules())}
    assert set(found(reply).found) <= legal


def test_states_are_the_same_by_what_is_left():
    one = START.then("4 + 9 = 13 (left: 10 13 13)")
    other = State(GAME.problem, ("9 + 4 = 13",))
    assert GAME.key(one) == GAME.key(other) != GAME.key(START)


def path(*thoughts):
    return State(GAME.problem, thoughts)


SOLVED = path("10 - 4 = 6 (left: 6 9 13)", "13 - 9 = 4 (left: 4 6)", "4 * 6 = 24 (left: 24)")


def test_the_answer_is_built_from_the_moves():
    assert GAME.answer(SOLVED) == "(13 - 9) * (10 - 4) = 24"
    assert GAME.finished(SOLVED)
    assert GAME.check(GAME.problem, GAME.answer(SOLVED)).solved
    assert GAME.answer(START) is None


@given(st.sampled_from(puzzles(Rules(), high=6)), st.integers(0, 1000))
def test_whatever_solves_a_puzzle_passes_its_check(numbers, seed):
    task = Game24(" ".join(map(str, numbers)))
    state = State(task.problem, tuple(map(str, play(numbers, Rules(), generator(seed)))))
    assert task.check(task.problem, task.answer(state)).solved
    assert task.worth(state) > 0


def test_a_finished_state_is_worth_what_it_shows():
    wrong = path("4 + 9 = 13 (left: 10 13 13)", "10 + 13 = 23 (left: 13 23)", "13 + 23 = 36 (left: 36)")
    assert GAME.worth(wrong) == 0.0 < GAME.worth(SOLVED)
    assert GAME.worth(START) is None


# -- answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        "(10 - 4) * (13 - 9) = 24",
        "(10 − 4) × (13 − 9)",
        "24 = (13-9)(10-4)",
        "(10 - 4) * (13 - 9) = 6 * 4 = 24",
        "(4 - 10) * (9 - 13)",
    ],
)
def test_right_answers(answer):
    assert GAME.check(GAME.problem, answer).solved


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "no answer"),
        ("", "no expression"),
        ("24", "uses 24"),
        ("4 * 6", "uses 4 6"),
        ("(10 - 4) * (13 - 9) * 1", "uses 1 4 9 10 13"),
        ("4 + 9 + 10 + 13", "makes 36"),
        ("__import__('os')", "cannot read"),
        ("9**9**9", "powers"),
        ("I cannot solve this puzzle.", "cannot read"),
        ("(" * 100_000, "characters"),
        ("9" * 1_000_000, "characters"),
    ],
)
def test_wrong_answers_say_why(answer, why):
    check = GAME.check(GAME.problem, answer)
    assert not check.solved
    assert why in check.why


def test_a_rounded_number_is_not_the_number():
    assert not Game24("3 3 7 7").check("3 3 7 7", "7 * (3 + 0.43)").solved


def test_negative_numbers_of_a_puzzle_are_used_as_they_are():
    task = Game24("-3 2 5 6")
    assert task.check(task.problem, "6 * (5 + 2 - (-3)) / 1").why.startswith("it uses")
    assert task.check(task.problem, "6 * (-3 + 2 + 5)").solved
    assert not task.check(task.problem, "6 * (3 - 2 + 5) - 12").solved


def test_operators_that_are_not_allowed():
    task = Game24("1 2 3 4", target=10, operators="+")
    assert task.check(task.problem, "1+2+3+4").solved
    assert "operators" in task.check(task.problem, "1*2*3+4").why


def test_modular_answers():
    task = Game24("2 3 6 10", target=7, modulus=11)
    assert task.rules.operators == "+-*"
    assert task.check(task.problem, "2 + 3 + 6 + 10 - 0").solved is False
    assert task.check(task.problem, "(6 - 2) * 10 * 3").why == "it makes 10, not 7"


def test_conclusions_of_chains():
    reply = "10 - 4 = 6 (left: 6 9 13)\n13 - 9 = 4 (left: 4 6)\n4 * 6 = 24 (left: 24)\n"
    assert GAME.conclude(GAME.problem, reply + "Answer: (10 - 4) * (13−9) = 24") == "(10 - 4) * (13 - 9)"
    assert GAME.conclude(GAME.problem, reply) == "(13 - 9) * (10 - 4)"
    assert GAME.conclude(GAME.problem, "Answer: 1 + 1\nAnswer: (13 - 9)*(10-4)") == "(13 - 9) * (10 - 4)"
    assert GAME.conclude(GAME.problem, "") is None
    said = GAME.conclude(GAME.problem, "I do not know.")
    assert not GAME.check(GAME.problem, said).solved


# -- evaluating -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("4 + 9 + 11 = 24\nsure", "sure"),
        ("Sure.", "sure"),
        ("**impossible**", "impossible"),
        ("It is likely", "likely"),
        ("maybe", "likely"),
        ("", None),
        ("I can't say.", None),
        ("sure or impossible", None),
    ],
)
def test_classes_are_read_with_patience(reply, grade):
    assert GAME.grade(START, reply) == grade


def test_prompts_show_only_what_is_left():
    state = START.then("10 - 4 = 6 (left: 6 9 13)")
    assert GAME.propose(state).prompt.endswith("Input: 6 9 13\nPossible next steps:")
    assert GAME.value(state).prompt.endswith("Input: 6 9 13")
    assert "10" not in GAME.value(state).prompt.rsplit("Input:", 1)[1]


@pytest.mark.parametrize(
    "settings",
    [{}, {"target": 100}, {"target": 7, "modulus": 11}, {"target": -5, "operators": "+-"}, {"target": 10**6}],
)
def test_worked_examples_are_right_whatever_the_target(settings):
    task = Game24("1 2 3 4", **settings)
    for block in task.chain(task.problem).prompt.split("\n\n")[1:-1]:
        numbers, answer = block.split("\n")[0].removeprefix("Input: "), block.split("Answer: ")[1]
        assert task.check(numbers, answer).solved
    for block in task.value(State(task.problem)).prompt.split("\n\n")[1:-1]:
        lines = block.split("\n")
        numbers = tuple(map(int, lines[0].removeprefix("Input: ").split()))
        assert solvable(numbers, task.rules) == (lines[-1] != "impossible")
        for line in lines[1:-1]:
            if "=" in line:
                assert task.check(" ".join(map(str, numbers)), line).solved == line.endswith(
                    f"= {task.target}"
                )
    for block in task._judge(task.problem, "1").prompt.split("\n\n")[1:-1]:
        lines = block.split("\n")
        numbers = lines[0].removeprefix("Input: ")
        assert task.check(numbers, lines[1].removeprefix("Answer: ")).solved == (lines[-1] == "sure")


def test_refining_shows_what_was_wrong():
    prompt = GAME.refine(GAME.problem, [("4 + 9", Check(False, 0.0, "it uses 4 9, not 4 9 10 13"))]).prompt
    assert "Answer: 4 + 9\nWrong: it uses 4 9" in prompt


# -- the compact style ------------------------------------------------------------------------------


def test_a_small_model_is_asked_what_its_lessons_say():
    task = Game24("2 3 6 10", target=7, modulus=11, style="compact")
    state, numbers = State(task.problem), (2, 3, 6, 10)
    way = play(numbers, task.rules, generator(1)) or play(numbers, task.rules, generator(1), solving=False)
    assert task.chain(task.problem).prompt == compact.trace(numbers, way)[0]
    assert task.propose(state).prompt == compact.proposals(numbers, way)[0]
    assert task.sample(state).prompt == compact.proposal(numbers, way[0])[0]
    assert task.value(state).prompt == compact.value(numbers, task.rules)[0]
    assert task.thoughts(state, compact.proposal(numbers, way[0])[1]).found == (str(way[0]),)
    some = moves(numbers, task.rules)[:5]
    assert task.thoughts(state, compact.proposals(numbers, some)[1]).found == tuple(map(str, some))
    assert task.conclude(task.problem, compact.trace(numbers, way)[1]) is not None
    with pytest.raises(UsageError):
        task.direct(task.problem)


# -- the authors' code ------------------------------------------------------------------------------

ORIGINAL = Game24("4 9 10 13", original=True)


def test_the_original_takes_every_line_for_a_thought():
    reply = "4 + 9 = 14 (left: 1)\n\nhello\n4 + 9 = 14 (left: 1)"
    assert ORIGINAL.thoughts(START, reply).found == (
        "4 + 9 = 14 (left: 1)",
        "",
        "hello",
        "4 + 9 = 14 (left: 1)",
    )
    assert ORIGINAL.depth == 4


def test_the_original_asks_for_the_answer_once_24_is_left():
    state = State(ORIGINAL.problem, SOLVED.thoughts)
    assert ORIGINAL.propose(state).prompt.endswith("Steps:\n" + "\n".join(SOLVED.thoughts) + "\n")
    assert ORIGINAL.propose(START).prompt.endswith("Input: 4 9 10 13\nPossible next steps:")


def test_the_original_judges_by_the_last_line():
    answered = State(ORIGINAL.problem, (*SOLVED.thoughts, "Answer: (10 - 4) * (13 - 9) = 24"))
    assert "Answer: (10 - 4) * (13 - 9) = 24\nJudge:" in ORIGINAL.value(answered).prompt
    assert ORIGINAL.worth(answered) is None
    assert ORIGINAL.worth(State(ORIGINAL.problem, ("a", "b", "c", "d"))) == 0.0
    assert ORIGINAL.check(ORIGINAL.problem, ORIGINAL.answer(answered)).solved


def test_the_original_reads_classes_to_the_letter():
    assert ORIGINAL.grade(START, "reasons\nsure") == "sure"
    assert ORIGINAL.grade(START, "reasons\nsure.") is None
    assert ORIGINAL.grade(START, "sure\n") is None


def test_the_original_never_evaluates_what_it_reads():
    assert not ORIGINAL.check(ORIGINAL.problem, "__import__('os').system('true')").solved


# -- searched ---------------------------------------------------------------------------------------


def test_a_search_with_a_perfect_evaluator_solves_what_is_proposed():
    solution = search.solve(Game24("4 9 10 13"), Rulebook(proposals=40), breadth=5)
    assert solution.solved
    assert solution.unread == {"propose": 11}  # one line of prose in each reply


def test_more_breadth_than_candidates_is_no_error():
    assert search.solve(Game24("4 6"), Rulebook(), breadth=1000).tree.nodes
