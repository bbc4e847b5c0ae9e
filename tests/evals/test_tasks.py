"""Files of tasks: what is read from them, what is refused and how, and items as text."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError, UsageError
from posterhall.evals import tasks
from posterhall.evals.tasks import Item, TaskSettings, parse

CHOICES = {"question": "Q?", "choices": ["red", "blue", "green"], "answer": 1}
PROMPT = {"prompt": "2+2=", "target": "4"}

word = st.text(string.printable + "äß中", min_size=1, max_size=20).filter(str.strip)


@given(
    question=word,
    choices=st.lists(word, min_size=2, max_size=6, unique=True),
    data=st.data(),
    extra=st.dictionaries(st.sampled_from(["passage", "topic"]), word),
)
def test_a_question_comes_back_however_its_answer_is_named(question, choices, data, extra):
    right = data.draw(st.integers(0, len(choices) - 1))
    letter = tasks.LETTERS[right]
    names = [right]
    if choices[right] not in tasks.LETTERS[: len(choices)]:
        names.append(choices[right])
    if letter not in choices:
        names.append(letter)
    for name in names:
        line = json.dumps({"question": question, "choices": choices, "answer": name, **extra})
        item = parse(json.loads(line), "f:1", default_id="0")
        assert item.choices == tuple(choices)
        assert item.correct == (right,)
        assert item.fields["question"] == question
        assert {key: item.fields[key] for key in extra} == extra


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | word, st.lists, max_leaves=5))
def test_any_value_is_read_or_refused_with_its_place(value):
    for changed in (
        value,
        {**CHOICES, "answer": value},
        {**CHOICES, "choices": value},
        {**CHOICES, "id": value},
        {**PROMPT, "target": value},
        {"prompt": value, "target": "x"},
    ):
        try:
            item = parse(changed, "file:7", default_id="0")
        except DataError as error:
            assert str(error).startswith("file:7: ")  # noqa: PT017
        else:
            assert isinstance(item, Item)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": 3}, "answer is 3, and there are 3 choices; give a number from 0 to 2"),
        ({"answer": -1}, "answer is -1"),
        ({"answer": True}, "not among the choices"),
        ({"answer": None}, "not among the choices"),
        ({"answer": "D"}, "not among the choices; give a number from 0 to 2, a letter from A to C"),
        ({"answer": "blu"}, "Did you mean: blue"),
        ({"answer": []}, "at least one choice must be right"),
        ({"answer": 1.0}, "not among the choices"),
        ({"choices": []}, "two or more texts"),
        ({"choices": ["only"]}, "two or more texts"),
        ({"choices": ["a", ""]}, "none of them empty"),
        ({"choices": ["a", 3]}, "two or more texts"),
        ({"choices": "ab"}, "two or more texts"),
        ({"choices": ["a", "b", "a"]}, "choices 0 and 2 are both 'a'"),
        ({"choices": [str(i) for i in range(27)]}, "27 choices"),
        ({"choices": ["B", "A"], "answer": "A"}, "text of choice 1 and the letter of choice 0"),
        ({"question": " "}, "question is ' '; it must be text"),
        ({"target": "4"}, "either question, choices and answer, or prompt and target"),
        ({"id": 1.5}, "id is 1.5"),
        ({"cluster": []}, "cluster is"),
    ],
)
def test_a_bad_question_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        parse({**CHOICES, **changes}, "file:1", default_id="0")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"prompt": "x"}, "either target, one text, or targets"),
        ({"prompt": "x", "target": "a", "targets": ["b"]}, "either target, one text, or targets"),
        ({"prompt": "x", "target": 4}, "a number goes in quotes"),
        ({"prompt": "x", "targets": []}, "not empty"),
        ({"prompt": "x", "targets": "abc"}, "not empty"),
        ({"prompt": "", "target": "a"}, "prompt is ''"),
        ({"promt": "x"}, "Did you mean: prompt"),
        ({}, "none"),
        ([1], "an item is a JSON object"),
    ],
)
def test_a_bad_prompt_is_refused(value, message):
    with pytest.raises(DataError, match=message):
        parse(value, "file:1", default_id="0")


def test_several_choices_may_be_right():
    item = parse({**CHOICES, "answer": ["green", 0, "A"]}, "f:1", default_id="0")
    assert item.correct == (0, 2)


def write(path, *lines):
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def test_a_file_is_a_task_with_its_settings_and_examples(tmp_path):
    path = write(tmp_path / "colours.jsonl", CHOICES, {**CHOICES, "question": "R?", "id": "r"})
    write(tmp_path / "colours.shots.jsonl", {**CHOICES, "question": "S?"})
    (tmp_path / "colours.yaml").write_text("style: letter\nchance: 0.25\n")
    write(tmp_path / "sums.jsonl", PROMPT)
    colours, sums = tasks.load([tmp_path])
    assert (colours.name, colours.kind, sums.name, sums.kind) == ("colours", "choices", "sums", "generate")
    assert [each.id for each in colours.items] == ["0", "r"]
    assert colours.items[1].where == f"{path}:2"
    assert colours.settings == TaskSettings(style="letter", chance=0.25)
    assert colours.shots[0].fields["question"] == "S?"
    assert len(colours.files) == 3
    assert (colours.chance, sums.chance) == (0.25, 0.0)
    [over] = tasks.load([path], sets=["style=text", "max-tokens=3"])
    assert (over.settings.style, over.settings.max_tokens) == ("text", 3)


def test_what_stands_for_a_task_fits_its_kind():
    items = (parse(PROMPT, "f:1", default_id="0"),)
    assert tasks.Task("t", items).primary == "exact_match"
    assert tasks.Task("t", items, settings=TaskSettings(primary="rouge_2")).primary == "rouge_2"
    with pytest.raises(DataError, match="it is one of exact_match, rouge_2"):
        tasks.Task("t", items, settings=TaskSettings(primary="accuracy"))


def test_chance_is_what_guessing_scores():
    items = (
        parse(CHOICES, "f:1", default_id="0"),
        parse({"question": "Q", "choices": ["a", "b"], "answer": [0, 1]}, "f:2", default_id="1"),
    )
    assert tasks.Task("t", items).chance == pytest.approx((1 / 3 + 1) / 2)


def test_files_that_are_no_task_are_refused(tmp_path):
    def refused(path, message):
        with pytest.raises(DataError, match=message):
            tasks.load([path])

    refused(write(tmp_path / "mixed.jsonl", CHOICES, PROMPT), r"mixed.jsonl:2: .*two files")
    refused(write(tmp_path / "empty.jsonl"), "holds no items")
    refused(
        write(tmp_path / "twice.jsonl", {**PROMPT, "id": 1}, {**PROMPT, "id": "1"}), "twice.jsonl:2: the id"
    )
    (tmp_path / "broken.jsonl").write_text(json.dumps(PROMPT) + "\n{\n")
    refused(tmp_path / "broken.jsonl", "broken.jsonl:2: not JSON")
    (tmp_path / "bytes.jsonl").write_bytes(json.dumps(PROMPT).encode() + b"\n\xff\n")
    refused(tmp_path / "bytes.jsonl", "bytes.jsonl:2: not UTF-8")
    refused(tmp_path / "none.jsonl", "cannot read")
    (tmp_path / "x.csv").write_text("a,b")
    refused(tmp_path / "x.csv", "MMLU's directory")
    (tmp_path / "bare").mkdir()
    refused(tmp_path / "bare", "holds no tasks")
    write(tmp_path / "bare" / "other.jsonl", PROMPT)
    write(tmp_path / "bare" / "other.shots.jsonl", CHOICES)
    refused(tmp_path / "bare", "examples must be like the items")
    one = write(tmp_path / "same.jsonl", PROMPT)
    (tmp_path / "b").mkdir()
    two = write(tmp_path / "b" / "same.jsonl", PROMPT)
    with pytest.raises(DataError, match="two tasks are named 'same'"):
        tasks.load([one, two])
    (tmp_path / "same.yaml").write_text("templte: x\n")
    refused(one, "same.yaml:1: unknown setting 'templte'. Did you mean: template")


def test_a_byte_order_mark_and_empty_lines_are_no_matter(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\n" + json.dumps(PROMPT).encode() + b"\r\n\r\n")
    assert len(tasks.read_jsonl(path)) == 1


def test_a_line_that_is_no_item_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "LARGEST_LINE", 100)
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({**PROMPT, "prompt": "x" * 200}))
    with pytest.raises(DataError, match=r"t.jsonl:1: longer than"):
        tasks.read_jsonl(path)


MMLU_ROW = '"What is ""x"", the\nunknown?",one,two,"three, or so",four,C\n'


def mmlu(root, test=MMLU_ROW, dev="Q1,a,b,c,d,A\nQ2,e,f,g,h,B\n"):
    for directory, text in (("test", test), ("dev", dev)):
        (root / directory).mkdir(parents=True)
        (root / directory / f"high_school_maths_{directory}.csv").write_text(text)
    return root


def test_mmlu_is_read_and_asked_as_it_is_meant(tmp_path):
    [task] = tasks.load([mmlu(tmp_path / "mmlu")])
    assert task.name == "high_school_maths"
    [item] = task.items
    assert item.choices == ("one", "two", "three, or so", "four")
    assert item.correct == (2,)
    assert tasks.render(item, task.settings) == (
        'What is "x", the\nunknown?\nA. one\nB. two\nC. three, or so\nD. four\nAnswer:'
    )
    assert tasks.answers(item, task.settings) == (" A", " B", " C", " D")
    assert task.settings.description == (
        "The following are multiple choice questions (with answers) about high school maths.\n\n"
    )
    assert [each.fields["question"] for each in task.shots] == ["Q1", "Q2"]
    [changed] = tasks.load([tmp_path / "mmlu"], sets=["style=text", "shot-order=random"])
    assert (changed.settings.style, changed.settings.shot_order) == ("text", "random")


def test_mmlu_may_have_equal_choices_since_letters_tell_them_apart(tmp_path):
    [task] = tasks.load([mmlu(tmp_path / "mmlu", test="q,a,b,a,d,C\n")])
    assert task.items[0].correct == (2,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,A,B,C,D,answer\n", "letter of the right choice. Does the file have a header"),
        ("q,a,b\n", "3 columns"),
        ("q,a,b,c,d,E\n", "answer is 4, and there are 4 choices"),
        ('q,a,b,c,"d\n', "CSV"),
        ("", "no questions"),
    ],
)
def test_mmlu_files_that_are_not_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        tasks.load([mmlu(tmp_path / "mmlu", test=text)])


def test_what_a_question_holds_is_never_a_template():
    value = {
        "question": "{answer.__class__} {choices} {options}",
        "choices": ["{question}", "x"],
        "answer": 0,
    }
    item = parse(value, "f:1", default_id="0")
    settings = TaskSettings(template="{question}|{options}|{{0}}")
    assert tasks.render(item, settings) == (
        "{answer.__class__} {choices} {options}|A. {question}\nB. x|{{0}}"
    )


def test_a_template_names_what_an_item_has():
    item = parse({**PROMPT, "topic": "sums"}, "f:1", default_id="0")
    assert tasks.render(item, TaskSettings(template="{topic}: {prompt}")) == "sums: 2+2="
    with pytest.raises(UsageError, match=r"names \{topics\}, and f:1 has no such text.*Did you mean: topic"):
        tasks.render(item, TaskSettings(template="{topics}"))


@pytest.mark.parametrize("changes", [{"max_tokens": 0}, {"stop": ("",)}, {"chance": 25.0}, {"chance": 1.0}])
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(DataError):
        TaskSettings(**changes)
