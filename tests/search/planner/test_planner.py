"""The planner of modules on towers: perfect, corrected, looping, and with modules left out."""

import pytest
from module_players import Player, all_problems

from posterhall.errors import DataError, UsageError
from posterhall.search import SearchSettings, solve, solve_all
from posterhall.search.tasks.game24 import Game24
from posterhall.search.tasks.hanoi import Hanoi

HARDEST = "321 - -"


def plan(problem, player=None, **changes):
    return solve(Hanoi(), problem, player or Player(problem), method="map", **changes)


@pytest.mark.parametrize("problem", all_problems(3))
def test_good_modules_solve_every_tower_of_three_with_the_fewest_moves(problem):
    solution = plan(problem)
    assert solution.solved
    assert solution.check.parts == {"fewest": 1.0}
    assert solution.unread == {}


def test_four_disks_are_within_the_steps():
    for problem in all_problems(4)[::9]:
        assert plan(problem).solved


def test_only_two_moves_are_proposed_and_looked_ahead():
    player = Player("2 3 1")
    solution = plan("2 3 1", player)
    nodes = solution.tree.nodes
    assert max(len(each) for each in solution.tree.children().values()) == 2
    assert max(node.depth for node in nodes) >= nodes[solution.tree.chosen].depth


def test_what_was_looked_at_is_not_asked_again():
    player = Player(HARDEST)
    plan(HARDEST, player)
    assert len(player.prompts) == len(set(player.prompts))


def test_the_monitor_corrects_an_actor_that_breaks_the_rules():
    class Bold(Player):
        def actor(self, state, goal, prompt):
            if "are not allowed" not in prompt:
                return "Moves:\ndisk 3 from A to C"
            return super().actor(state, goal)

    player = Bold(HARDEST)
    assert plan(HARDEST, player).solved
    assert set(player.temperatures) == {0.0, 0.1}
    corrected = [each for each in player.prompts if "are not allowed" in each]
    assert any("- disk 3 from A to C: By the rules." in each for each in corrected)
    spoiled = plan(HARDEST, Bold(HARDEST), without=("monitor",), exact=("orchestrator",))
    assert not spoiled.solved
    assert "not allowed" in spoiled.check.why


def test_an_actor_that_never_learns_ends_the_plan_after_its_rounds():
    class Stubborn(Player):
        def actor(self, **_):
            return "Moves:\ndisk 3 from A to C"

    player = Stubborn(HARDEST)
    solution = plan(HARDEST, player)
    assert not solution.solved
    assert player.asked["actor"] == 10
    assert player.temperatures == pytest.approx([0.1 * turn for turn in range(10)])
    assert player.asked["monitor"] == 1  # the same move is not checked twice
    assert solution.answer is None


def test_a_looping_actor_is_stopped_by_the_limit_of_steps():
    class Looping(Player):
        def actor(self, state, **_):
            return (
                "Moves:\ndisk 1 from A to B" if "1" in state.split(";")[0] else "Moves:\ndisk 1 from B to A"
            )

    solution = plan(HARDEST, Looping(HARDEST))
    assert not solution.solved
    assert len(solution.answer.splitlines()) == 10
    assert len(plan(HARDEST, Looping(HARDEST), steps=4).answer.splitlines()) == 4


def test_without_looking_ahead_the_first_move_is_taken():
    class Second(Player):
        def ranked(self, state, goal):
            first, *others = super().ranked(state, goal)
            return [*others[:1], first]

    player = Second(HARDEST)
    assert plan(HARDEST, player).solved  # the evaluator knows better than the actor's order
    hasty = Second(HARDEST)
    assert not plan(HARDEST, hasty, without=("search",)).solved
    assert hasty.asked["evaluator"] == 0


def test_subgoals_are_reached_in_order():
    goal = "A: 3; B: 2 1; C: empty"

    class Preparing(Player):
        def decomposer(self, **_):
            return f"First the small ones.\nSubgoals:\n{goal}"

        def evaluator(self, state, goal, **_):
            self.goals.append(goal)
            return super().evaluator(state, goal)

    player = Preparing(HARDEST)
    player.goals = []
    assert plan(HARDEST, player).solved
    last = "A: empty; B: empty; C: 3 2 1"
    assert list(dict.fromkeys(player.goals)) == [goal, last]
    player = Preparing(HARDEST)
    player.goals = []
    assert plan(HARDEST, player, without=("decomposer",)).solved
    assert player.asked["decomposer"] == 0
    assert set(player.goals) == {last}


def test_without_the_orchestrator_nobody_says_stop():
    player = Player("2 3 1")
    solution = plan("2 3 1", player, without=("orchestrator",))
    assert len(solution.tree.path(solution.tree.nodes[solution.tree.chosen])) == 10
    assert player.asked["orchestrator"] == player.asked["decomposer"] == 0


def test_modules_can_be_played_by_the_rules():
    player = Player(HARDEST)
    assert plan(HARDEST, player, exact=("monitor", "predictor", "orchestrator")).solved
    assert {*player.asked} == {"decomposer", "actor", "evaluator"}


@pytest.mark.parametrize(
    "module", ["decomposer", "actor", "monitor", "predictor", "evaluator", "orchestrator"]
)
def test_replies_that_cannot_be_read_are_counted_and_never_taken_for_an_answer(module):
    player = Player(HARDEST)
    setattr(player, module, lambda **_: "I would rather not say.")
    solution = plan(HARDEST, player)
    assert solution.unread[module] > 0
    if module in ("actor", "monitor", "predictor"):
        assert solution.answer is None  # not one move


def test_a_budget_ends_the_plan_with_what_it_has():
    solution = plan(HARDEST, problem_calls=40)
    assert solution.usage.calls <= 40
    assert "budget of 40 calls" in solution.stopped_by
    assert solution.answer  # the moves that were made


def test_many_are_planned_at_once_and_a_finished_run_is_as_alone(tmp_path):
    class Each(Player):
        """Knows no problem of its own."""

        def __init__(self):
            super().__init__(HARDEST)

    problems = all_problems(3)[:6]
    settings = SearchSettings(method="map")
    together = solve_all(Hanoi(), problems, Each(), settings=settings, out=tmp_path / "run", parallel=6)
    alone = [plan(problem, Each()) for problem in problems]
    assert [each.answer for each in together.solutions] == [each.answer for each in alone]
    from posterhall.report import tree_page

    assert "map" in tree_page.write(tmp_path / "run").read_text()


def test_tasks_without_moves_say_so():
    with pytest.raises(UsageError, match="take another method"):
        solve(Game24("4 9 10 13"), Player(HARDEST), method="map")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": ("monitro",)}, "allowed are decomposer, monitor, search, orchestrator"),
        ({"exact": ("actor",)}, "allowed are monitor, predictor, orchestrator"),
        ({"branches": 0}, "at least 1"),
        ({"lookahead": 0}, "at least 1"),
    ],
)
def test_settings_of_the_planner_are_checked(changes, message):
    with pytest.raises(DataError, match=message):
        SearchSettings(**changes)
