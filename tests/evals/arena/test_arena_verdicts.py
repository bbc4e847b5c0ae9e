"""Files of verdicts: several writings of the same games, and what is wrong with a row, by line."""

from __future__ import annotations

import contextlib
import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.evals.arena.verdicts import FIRST, NONE, SECOND, TIE, Verdicts, example, read


def games_of(verdicts):
    return [
        (verdicts.questions[q], verdicts.players[a], verdicts.players[b], int(r))
        for q, a, b, r in zip(
            verdicts.question, verdicts.first, verdicts.second, verdicts.result, strict=True
        )
    ]


WANTED = [("1", "x", "y", FIRST), ("1", "y", "x", SECOND), ("2", "x", "y", TIE), ("3", "x", "y", NONE)]
WRITINGS = {
    "own.csv": "question,model_a,model_b,winner,order\n1,x,y,a,ab\n1,x,y,a,ba\n2,x,y,tie,\n3,x,y,none,ab\n",
    "published.csv": "model_first,model_second,prompt_id,verdict\nx,y,1,1\ny,x,1,2\nx,y,2,3\nx,y,3,-1\n",
    "named.csv": "Question,Model_A,Model_B,Winner\r\n1,x,y,x\r\n1,y,x,x\r\n2,x,y,Tie\r\n3,x,y,\r\n",
    "fastchat.tsv": "question_id\tmodel_a\tmodel_b\twinner\n1\tx\ty\tmodel_a\n1\ty\tx\tmodel_b\n2\tx\ty\t"
    "tie (bothbad)\n3\tx\ty\terror\n",
}


@pytest.mark.parametrize("name", WRITINGS)
def test_all_writings_give_the_same_games(tmp_path, name):
    path = tmp_path / name
    path.write_text(WRITINGS[name])
    assert games_of(read([path])) == WANTED
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + WRITINGS[name].encode()))
    assert games_of(read([packed])) == WANTED


def test_json_lines_and_other_columns(tmp_path):
    path = tmp_path / "v.jsonl"
    rows = [
        {"item": 1, "left": "x", "right": "y", "better": 1, "who": "ann"},
        {"item": 1, "left": "y", "right": "x", "better": 2, "who": "ann"},
        {"item": 2, "left": "x", "right": "y", "better": 3, "who": "ben"},
        {"item": 3, "left": "x", "right": "y", "better": -1, "who": "ben"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read([path], columns={"winner": "better", "judge": "who"})
    assert games_of(found) == WANTED
    assert [found.judges[j] for j in found.judge] == ["ann", "ann", "ben", "ben"]
    assert len(found.of("ben").judged()) == 1
    assert len(found.decisive()) == 2


def test_scores_decide_where_no_winner_is_given(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(
        "question,model_a,model_b,order,score_a,score_b\n1,x,y,ab,8,7.5\n1,x,y,ba,8,9\n2,x,y,ab,5,5\n3,x,y,ab,5,\n"
    )
    found = read([path])
    assert games_of(found) == [
        ("1", "x", "y", FIRST), ("1", "y", "x", FIRST), ("2", "x", "y", TIE), ("3", "x", "y", NONE)
    ]  # fmt: skip
    assert found.score_first.tolist()[:3] == [8, 9, 5]
    assert np.isnan(found.score_second[3])


def test_the_example_is_whole():
    found = example()
    assert (len(found), len(found.judged()), len(found.questions), len(found.players)) == (4480, 4467, 80, 8)


def test_self_play_and_repeats_are_left_out_and_counted():
    games = [
        ("q", "a", "b", "first"),
        ("q", "a", "b", "first"),
        ("q", "b", "a", "first"),
        ("q", "a", "a", "tie"),
    ]
    named = Verdicts.of_games(games, judges=["j"] * 4)
    assert (len(named), named.self_play, named.repeated) == (2, 1, 1)
    assert len(Verdicts.of_games(games, judges=["j"] * 4, repeats="keep")) == 3
    # Judges without a name may be several people.
    assert len(Verdicts.of_games(games)) == 3


HEAD = "question,model_a,model_b,winner,order\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "1,x,y,a,ab\n2,x,y,c?,ab\n", r"line 3: winner is 'c\?'; allowed are a, b, tie and none"),
        (HEAD + '1,"x\nx",y,a,ab\n2,,y,a,ab\n', "line 4: no model in model_a"),
        (HEAD + "1,x,y,a,abc\n", "line 2: order is 'abc'"),
        (HEAD + "1,x,y,a\n", "line 2: 4 cells under 5 columns"),
        (HEAD + '1,x,y,"a"b,ab\n', "line 2: not CSV"),
        (HEAD, "no verdict in"),
        ("", "empty; the first line names the columns"),
        ("question,model_a,winner\n1,x,a\n", "line 2: no column for model_b; there are: question"),
        ("question,model_a,model_b,score_a,score_b\n1,x,y,good,3\n", "line 2: a score is 'good'"),
        ("question,model_a,model_b,score_a,score_b\n1,x,y,inf,3\n", "line 2: a score is 'inf'"),
    ],
)
def test_what_is_wrong_is_named_by_line(tmp_path, text, says):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        read([path])


def test_many_bad_rows_are_told_at_once(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(HEAD + "1,x,y,?,ab\n" * 9)
    with pytest.raises(DataError, match="and 4 more rows like these"):
        read([path])


def test_files_that_are_no_verdicts_are_refused(tmp_path):
    (tmp_path / "v.txt").write_text("x")
    (tmp_path / "latin.csv").write_bytes(HEAD.encode() + b"1,x,y,a,ab\n2,\xe9,y,a,ab\n")
    wrong = {
        tmp_path / "v.txt": "are in .csv",
        tmp_path: "without artifacts",
        tmp_path / "latin.csv": "line 3: not UTF-8",
        tmp_path / "no.csv": "cannot be read",
    }
    for path, says in wrong.items():
        with pytest.raises(DataError, match=says):
            read([path])
    with pytest.raises(DataError, match=r"no column is called 'winer'.*Did you mean: winner"):
        read([tmp_path / "latin.csv"], columns={"winer": "x"})
    with pytest.raises(DataError, match="no judge 'z'"):
        example().of("z")


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "v.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError):
        read([path])
    path.write_bytes((HEAD + text).encode("utf-8", "surrogatepass"))
    with contextlib.suppress(DataError):
        read([path])
