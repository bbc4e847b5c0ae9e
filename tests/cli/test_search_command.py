"""`posterhall search`: arguments in, a table or one JSON object out, and a page in the run."""

from __future__ import annotations

import json

import pytest

SCRIPT = [
    {"contains": "Judge:", "reply": "sure"},
    {
        "ends": "Input: 4 9 10 13\nPossible next steps:",
        "reply": "10 - 4 = 6 (left: 6 9 13)\n4 + 9 = 13\nprose",
    },
    {"ends": "Input: 6 9 13\nPossible next steps:", "reply": "13 - 9 = 4 (left: 4 6)"},
    {"ends": "Input: 10 13 13\nPossible next steps:", "reply": "10 + 13 = 23 (left: 13 23)"},
    {"ends": "Input: 4 6\nPossible next steps:", "reply": "4 * 6 = 24 (left: 24)\n4 + 6 = 10"},
    {"ends": "Input: 13 23\nPossible next steps:", "reply": "13 + 23 = 36"},
    {"ends": "Possible next steps:", "reply": "I am at a loss."},
    {"ends": "Steps:\n", "reply": "Answer: 4 + 9 + 10 + 13 = 24"},
    {"ends": "Answer:", "reply": "(10 - 4) * (13 - 9) = 24"},
    {"reply": "likely"},
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.jsonl").write_text("".join(json.dumps(each) + "\n" for each in SCRIPT))
    return tmp_path


GAME = ("search", "solve", "--task", "game24", "--model", "scripted:script.jsonl", "-q")


def test_a_puzzle_is_solved(place, posterhall):
    out = posterhall(*GAME, "4 9 10 13").out.splitlines()
    assert out[0].split() == ["problem", "answer", "solved", "calls", "tokens", "seconds"]
    assert "(13 - 9) * (10 - 4) = 24" in out[1]
    assert "yes" in out[1].split()


def test_a_file_of_puzzles_with_a_run_and_its_page(place, posterhall):
    (place / "puzzles.txt").write_text("13 10 9 4\n1 1 1 1\n")
    out = posterhall(*GAME, "puzzles.txt", "-o", "run").out
    totals = [line.split() for line in out.splitlines()]
    assert ["first", "by", "value", "1/2", "50.0%", "9.5%", "to", "90.5%"] in totals
    assert ["with", "the", "free", "checker", "1/2", "50.0%", "9.5%", "to", "90.5%"] in totals
    assert (place / "run/report.html").read_text().count('class="problem"') == 2
    manifest = json.loads((place / "run/manifest.json").read_text())
    assert manifest["inputs"][0]["path"].endswith("puzzles.txt")


def test_json_has_totals_and_solutions(place, posterhall):
    (place / "puzzles.txt").write_text("4 9 10 13\n1 1 1 1\n")
    said = json.loads(posterhall(*GAME, "puzzles.txt", "--json", "-o", "run").out)
    assert said["top_1"] == {
        "solved": 1,
        "share": 0.5,
        "low": pytest.approx(0.0945, abs=1e-3),
        "high": pytest.approx(0.9055, abs=1e-3),
    }
    assert said["settings"]["breadth"] == 5
    assert said["task_settings"]["target"] == 24
    assert [each["solved"] for each in said["solutions"]] == [True, False]
    assert "tree" not in said["solutions"][0]
    assert said["page"] == "run/report.html"
    assert said["asked"]["calls"] >= 8


def test_a_run_is_gone_on_with_and_not_overwritten(place, posterhall):
    posterhall(*GAME, "4 9 10 13", "-o", "run")
    assert "--resume" in posterhall(*GAME, "4 9 10 13", "-o", "run", code=4).err
    again = json.loads(posterhall(*GAME, "4 9 10 13", "-o", "run", "--resume", "--json").out)
    assert again["solved"] == 1
    assert "cannot resume" in posterhall(*GAME, "1 2 3 4", "-o", "run", "--resume", code=4).err
    posterhall(*GAME, "4 9 10 13", "--resume", code=2)


@pytest.mark.parametrize(
    ("method", "solved"), [("io", True), ("cot", False), ("cot-sc", False), ("best-of", False), ("dfs", True)]
)
def test_methods(place, posterhall, method, solved):
    said = json.loads(posterhall(*GAME, "4 9 10 13", "--method", method, "--json").out)
    assert bool(said["solved"]) == solved


def test_presets_decide_about_settings_and_the_original_about_the_task(place, posterhall):
    said = json.loads(posterhall(*GAME, "4 9 10 13", "--preset", "original", "--breadth", "2", "--json").out)
    assert said["task_settings"]["original"] is True
    assert (said["settings"]["steps"], said["settings"]["breadth"]) == (4, 2)
    assert "paper" in posterhall(*GAME, "4 9 10 13", "--preset", "papr", code=2).err


def test_settings_go_to_the_search_or_to_the_task(place, posterhall):
    said = json.loads(
        posterhall(*GAME, "4 9 10 13", "--set", "breadth=1", "--set", "target=36", "--json").out
    )
    assert (said["settings"]["breadth"], said["task_settings"]["target"]) == (1, 36)
    assert "Did you mean: breadth" in posterhall(*GAME, "4 9 10 13", "--set", "bredth=1", code=4).err


def test_skip_and_limit_choose_among_problems(place, posterhall):
    (place / "p.csv").write_text("Rank,Puzzles\n1,1 1 1 1\n2,4 9 10 13\n3,1 1 1 2\n")
    said = json.loads(posterhall(*GAME, "p.csv", "--skip", "1", "--limit", "1", "--json").out)
    assert [each["problem"] for each in said["solutions"]] == ["4 9 10 13"]
    posterhall(*GAME, "p.csv", "--skip", "3", code=4)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["four nine"], 4, "no puzzle"),
        (["1 2 3 4 5"], 4, "set count"),
        (["missing.txt"], 4, "no such file"),
        (["x" * 100_000], 4, "no puzzle"),
        (["4 9 10 13", "--method", "bsf"], 4, "bfs"),
        (["4 9 10 13", "--breadth", "0"], 4, "at least 1"),
        (["4 9 10 13", "--evaluator", "vote"], 2, "vote"),
        (["4 9 10 13", "--task", "game25"], 4, "game24"),
        (["4 9 10 13", "--task", "none.yaml"], 4, "none.yaml"),
        (["4 9 10 13", "--model", "scripted:none.jsonl"], 4, "none.jsonl"),
    ],
)
def test_bad_input_says_what_is_allowed(place, posterhall, arguments, code, said):
    result = posterhall(*GAME, *arguments, code=code)
    assert said in result.err
    assert len(result.err) < 1500


def test_a_budget_ends_the_search_with_the_best_so_far(place, posterhall):
    result = posterhall(*GAME, "4 9 10 13", "--max-calls", "3")
    assert "ended early" in result.err
    assert "no" in result.out.splitlines()[1].split()


def test_a_task_of_ones_own(place, posterhall):
    (place / "mine.yaml").write_text("name: mine\ndirect: 'Which? {problem} Answer:'\ncheck: exact\n")
    (place / "q.jsonl").write_text(
        '{"problem": "six times four less?", "answer": "(10 - 4) * (13 - 9) = 24"}\n'
    )
    said = json.loads(posterhall(*GAME, "q.jsonl", "--task", "mine.yaml", "--method", "io", "--json").out)
    assert said["solved"] == 1
    assert said["with_checker"] is None


def test_tasks_and_what_can_be_set(place, posterhall):
    listed = posterhall("search", "tasks").out
    assert [line.split()[0] for line in listed.splitlines()] == [
        "game24",
        "crosswords",
        "writing",
        "hanoi",
        "word-grid",
        "FILE.yaml",
    ]
    names = [
        each["name"] for each in json.loads(posterhall("search", "tasks", "game24", "--json").out)["settings"]
    ]
    assert {"target", "style", "original"} <= set(names)
    assert "problem" not in names
    assert "crosswords" in posterhall("search", "tasks", "crossword", code=4).err


def test_problems_are_made_and_lessons_about_others(place, posterhall):
    lines = posterhall("search", "problems", "game24", "-n", "5", "--set", "high=5").out
    assert len(lines.splitlines()) == 5
    (place / "held-out.txt").write_text(lines)
    made = posterhall(
        *(
            "search",
            "problems",
            "game24",
            "--lessons",
            "-n",
            "40",
            "--set",
            "high=5",
            "--without",
            "held-out.txt",
        )
    ).out
    lessons = [json.loads(line) for line in made.splitlines()]
    assert len(lessons) == 40
    asked = {each["prompt"] for each in lessons}
    assert not asked & {f"solve {puzzle} :" for puzzle in lines.splitlines()}
    posterhall("search", "problems", "game24", "--lessons", code=2)
    posterhall("search", "problems", "writing", code=2)
