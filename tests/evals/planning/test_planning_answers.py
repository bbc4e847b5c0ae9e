"""Reading a path out of what models say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.evals.planning.answers import Reader, number

ROOMS = Reader([f"room {i}" for i in range(22)], [str(i) for i in range(22)])
PLACES = Reader(
    ["the sunflower field", "the clock tower", "the rose court"],
    ["sunflower field", "clock tower", "rose court"],
)


@pytest.mark.parametrize(
    ("reply", "path"),
    [
        ("Answer: room 1 -> room 3 -> room 5", (1, 3, 5)),
        ("**Answer:** Room 1 → Room 3 → Room 5.", (1, 3, 5)),
        ("ANSWER : room 1, room 3, room 5", (1, 3, 5)),
        ("Answer: 1, 3, 11", (1, 3, 11)),
        ("Answer: 1-3-11", (1, 3, 11)),
        ("Answer: [1, 3, 5]", (1, 3, 5)),
        ("Answer: rooms 1, 3 and 5", (1, 3, 5)),
        ("Answer: room\t1 to  room 3", (1, 3)),
        ("Answer: start in room 1, go to room 3, then enter room 5", (1, 3, 5)),
        ("Answer: The shortest path from room 1 to room 5 is room 1 -> room 3 -> room 5.", (1, 3, 5)),
        ("Answer: the path from 1 to 5 is: 1 -> 3 -> 5", (1, 3, 5)),
        ("Answer: 3 steps: room 1 to room 2", (1, 2)),
        ("Answer: room 1 -> room 5 (3 steps)", (1, 5)),
        ("Answer: 1 -> 3 -> 5, which takes 2 steps", (1, 3, 5)),
        ("Answer:\n1. room 1\n2. room 3\n3. room 5\n\nThere are 2 steps.", (1, 3, 5)),
        ("Answer:\nroom 1 -> room 3", (1, 3)),
        ("So it is room 7 -> room 8.\nThe final answer is room 4 -> room 7", (4, 7)),
        ("I go from room 1 to room 3.\nFrom room 3 to room 5 there is a door.", (3, 5)),  # the last line
        ("1 3 5", (1, 3, 5)),
        ("Answer: room 1 -> room 1 -> room 3", (1, 1, 3)),
        ("Answer: there is no path.", ()),
        ("Answer: It is impossible to get there", ()),
        ("No path leads there.", ()),
        ("", None),
        ("I do not know.", None),
        ("Answer:", None),
        ("\x00\n \n", None),
        ("Answer: room 1 -> room 30 -> room 5", (1, -1, 5)),  # a room that is none is not passed over
        ("Answer: 1, 30, 5", (1, -1, 5)),
        ("Answer: room 30 -> room 5", (-1, 5)),
        ("Answer: room 5 -> the attic", (5, -1)),
    ],
)
def test_paths_are_read_as_they_are_written(reply, path):
    assert ROOMS.read(reply).path == path


def test_the_last_of_two_answers_counts_and_both_are_recorded():
    found = ROOMS.read("Answer: room 1 -> room 2\nWait, that is wrong.\nAnswer: room 1 -> room 3")
    assert (found.path, found.answers, found.how) == ((1, 3), 2, "answer")
    assert ROOMS.read("from 1 to 3 to 5").how == "last line"


def test_an_echoed_pattern_is_no_answer():
    assert ROOMS.read(r"Answer: (room \d+)( -> room \d+)*").path is None


@pytest.mark.parametrize(
    ("reply", "path"),
    [
        ("Answer: The Sunflower Field -> clock tower", (0, 1)),
        ("Answer: sunflower, then clock, rose", (0, 1, 2)),  # a word that only one has is enough
        ("Answer: the sunflower field -> the moon base -> the rose court", (0, -1, 2)),
        ("Answer: the sunflowers field", None),
    ],
)
def test_places_are_known_by_their_own_words(reply, path):
    assert PLACES.read(reply).path == path


def test_a_longer_name_wins_over_one_within_it():
    reader = Reader(["Kim", "Kimber", "Kim Lee", "1", "11"])
    assert reader.read("Answer: Kimber -> Kim -> Kim Lee -> 11 -> 1").path == (1, 0, 2, 4, 3)
    assert reader.read("Answer: Kimberly").path is None


def test_names_may_hold_commas_accents_quotation_marks_and_brackets():
    reader = Reader(["Smith, John", "Zoë", "O’Neil", 'the "Old" Mill', "Bank (north)", "a.b*"])
    said = "Answer: SMITH, JOHN → Zoe → O'Neil → the “old” mill → Bank (North) → A.B*"
    assert reader.read(said).path == (0, 1, 2, 3, 4, 5)


def test_accents_count_where_nothing_else_tells_names_apart():
    assert Reader(["Rene", "René"]).read("Answer: René -> Rene").path == (1, 0)
    with pytest.raises(DataError, match="both called"):
        Reader(["O'Neil", "O’Neil"])


def test_a_single_name_is_read_for_a_hub():
    assert ROOMS.one("I think of room 3 and room 4.\nAnswer: room 7.") == 7
    assert ROOMS.one("Answer: room 7 or room 8") is None
    assert ROOMS.one("nothing") is None


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("There are 15 rooms.\nAnswer: 3", 3),
        ("Answer: three clusters.", 3),
        ("**Answer:** There are 4", 4),
        ("I see 15 rooms\nin 3 clusters", 3),
        ("none", None),
        ("", None),
        ("Answer: 3.5", None),
    ],
)
def test_numbers_are_read(reply, value):
    assert number(reply)[0] == value


@given(st.text(max_size=200))
def test_nothing_that_is_said_breaks_the_reader(text):
    for said in (text, "Answer:" + text, text + "\nAnswer: room 1 -> " + text):
        path = ROOMS.read(said).path
        assert path is None or all(-1 <= place < 22 for place in path)
        number(said)


@given(
    st.lists(st.integers(0, 21), min_size=2, max_size=12),
    st.sampled_from([" -> ", ", ", "→", " – ", "; ", " to ", ", then "]),
    st.sampled_from(["room {}", "Room {}", "the room {}"]),
    st.sampled_from(["Answer: {}", "**Answer:** {}.", "First, think.\n\nanswer: {}\n"]),
)
def test_any_path_comes_back_however_it_is_written(path, between, form, frame):
    said = frame.format(between.join(form.format(place) for place in path))
    assert ROOMS.read(said).path == tuple(path)
