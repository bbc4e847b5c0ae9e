"""Settings of the paper and of its code, and what goes over them."""

from __future__ import annotations

import pytest
from toys import Rule, Written

from posterhall.errors import DataError, UsageError
from posterhall.lm import Sample
from posterhall.search import preset, solve
from posterhall.search.presets import PRESETS, resolved
from posterhall.search.tasks.game24 import Game24


def test_the_papers_settings_are_these():
    game = preset("paper", "game24")
    assert (game.method, game.generator, game.evaluator, game.selection) == (
        "bfs",
        "propose",
        "value",
        "greedy",
    )
    assert (game.proposals, game.votes, game.breadth, game.temperature, game.max_tokens) == (
        1,
        3,
        5,
        0.7,
        1000,
    )
    words = preset("paper", "crosswords")
    assert (words.method, words.steps, words.states, words.proposals, words.votes) == ("dfs", 10, 100, 5, 1)
    text = preset("paper", "writing")
    assert (text.generator, text.evaluator, text.proposals, text.votes, text.breadth) == (
        "sample",
        "vote",
        5,
        5,
        1,
    )


def test_the_code_of_the_paper_did_otherwise():
    assert preset("original", "game24").steps == 4
    assert preset("original", "game24").duplicates == "zero"
    assert preset("original", "crosswords").proposals == 8
    assert preset("original", "crosswords").children == 3
    assert preset("paper", "crosswords").children is None


def test_later_sources_go_over_a_preset(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("votes: 7\nbreadth: 2\n")
    found = resolved("crosswords", preset_name="original", file=file, sets=["breadth=9"], flags={"seed": 4})
    assert (found.method, found.proposals) == ("dfs", 8)
    assert (found.votes, found.breadth, found.seed) == (7, 9, 4)
    assert resolved("crosswords", sets=["breadth=9"]).method == "bfs"
    with pytest.raises(DataError, match=r"--set: breadth is 0"):
        resolved("game24", preset_name="paper", sets=["breadth=0"])
    with pytest.raises(DataError, match=r"unknown setting 'bredth'.*breadth"):
        resolved("game24", preset_name="paper", sets=["bredth=1"])


def test_an_unknown_preset_or_task_names_those_there_are():
    with pytest.raises(UsageError, match=r"paper, original.*Did you mean: original"):
        preset("orignal", "game24")
    with pytest.raises(UsageError, match="game24, crosswords, writing"):
        preset("paper", "mine")
    assert set(PRESETS["paper"]) == set(PRESETS["original"])


def test_the_original_takes_four_steps_on_the_game_of_24():
    path = ["4 + 9 = 13 (left: 10 13 13)", "13 - 10 = 3 (left: 3 13)", "3 + 13 = 16 (left: 16)"]
    asked = []

    class Speaker(Rule):
        async def agenerate(self, requests):
            found = []
            for request in requests:
                asked.append(request.prompt)
                step = sum("Possible next steps" in each[-25:] for each in asked) - 1
                proposing = request.prompt.rstrip().endswith("steps:")
                text = (path[step] if step < 3 else "nothing") if proposing else "likely"
                found.append([Sample(text, "stop", 1, 1)] * request.n)
            return found

    solution = solve(
        Game24("4 9 10 13", original=True), Speaker(lambda *_: ""), settings=preset("original", "game24")
    )
    assert [node.depth for node in solution.tree.nodes] == [0, 1, 2, 3, 4]
    assert [node.value for node in solution.tree.nodes[1:]] == [3.0, 3.0, 3.0, 0.0]  # four lines, no answer


def test_settings_of_a_task_of_ones_own_are_the_defaults():
    task = Written(1, {(): "a"})
    lm = Rule(lambda *_: "a")
    solve(task, "a", lm, settings=resolved(task.name))
    assert lm.requests[0].temperature == 0.7
