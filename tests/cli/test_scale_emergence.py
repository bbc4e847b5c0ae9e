"""`posterhall scale emergence` as it is typed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from posterhall.scaling.emergence import Toy

SCALES = np.logspace(8, 11.5, 8)
TOY = Toy()


@pytest.fixture
def scores(tmp_path):
    lines = ["family,scale,task,metric,score,n"]
    for scale, sharp, distance in zip(
        SCALES, TOY.sampled_accuracy(SCALES, 10, 1000, seed=0), TOY.edit_distance(SCALES, 10), strict=True
    ):
        lines.append(f"toy,{scale},10 tokens,exact_match,{sharp},1000")
        lines.append(f"toy,{scale},10 tokens,token_edit_distance,{distance},")
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(lines))
    return path


def test_the_table_shows_each_series_and_each_metric(posterhall, scores):
    result = posterhall("scale", "emergence", scores, "--resamples", 200)
    lines = result.out.splitlines()
    assert lines[0].split()[:6] == ["family", "task", "metric", "scales", "ES", "ES/(n-1)"]
    assert "exact_match" in lines[1]
    assert "token_edit_distance" in lines[2]
    assert "smooth" in lines[2]
    assert "noise-unknown" in lines[2]
    assert lines[4].startswith("metric")
    assert result.err == ""


def test_json_holds_every_number(posterhall, scores, tmp_path):
    figure = tmp_path / "f.svg"
    found = json.loads(
        posterhall("scale", "emergence", scores, "--json", "--resamples", 200, "--figure", figure).out
    )
    assert set(found) == {"series", "metrics", "single_scale", "fdr", "figure"}
    sharp, distance = found["series"]
    assert sharp["scales"] == pytest.approx(SCALES.tolist())
    assert sharp["resampled"] == "counts"
    assert sharp["p"] <= sharp["q"] <= 1
    assert distance["normalised"] == pytest.approx(1, abs=0.1)
    assert distance["interval"] is None
    assert figure.read_text().startswith("<?xml")


def test_the_same_seed_gives_the_same_answer(posterhall, scores):
    options = ("scale", "emergence", scores, "--json", "--resamples", 200, "--seed")
    assert posterhall(*options, 3).out == posterhall(*options, 3).out
    assert posterhall(*options, 3).out != posterhall(*options, 4).out


def test_series_can_be_chosen_and_a_wrong_name_is_helped(posterhall, scores):
    found = json.loads(
        posterhall(
            "scale", "emergence", scores, "--metric", "exact_match", "--task", "10 tokens", "--json"
        ).out
    )
    assert [each["metric"] for each in found["series"]] == ["exact_match"]
    result = posterhall("scale", "emergence", scores, "--task", "10 token", code=4)
    assert "Did you mean: 10 tokens" in result.err
    assert (
        "no score in the metrics bleu"
        in posterhall("scale", "emergence", scores, "--metric", "bleu", code=4).err
    )


def test_items_where_the_file_does_not_say_give_a_p_value(posterhall, tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("flops,acc\n" + "\n".join(f"{10.0**i},{i / 40}" for i in range(18, 26)))
    options = ("scale", "emergence", path, "--columns", "scale=flops,score=acc", "--json")
    (plain,) = json.loads(posterhall(*options).out)["series"]
    assert plain["p"] is None
    (known,) = json.loads(posterhall(*options, "--items", 500, "--chance", 0.5).out)["series"]
    assert 0.05 < known["p"] <= 1
    assert known["above_chance"] == 4


def test_a_plan_needs_no_scores(posterhall):
    found = json.loads(
        posterhall("scale", "emergence", "--plan", "1,5", "--p", 0.5, "--items", 100, "--json").out
    )
    assert [each["items_measured"] for each in found["lengths"]] == [100, 3100]
    assert found["least_rate"] == pytest.approx(0.5)
    text = posterhall("scale", "emergence", "--plan", "1,5", "--p", 0.5, "--error", 0.2).out
    assert "775" in text


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        ((), 2, "no scores"),
        (("--plan", "1,5"), 2, "--p"),
        (("--plan", "one", "--p", "0.5"), 2, "whole numbers"),
        (("--plan", "1", "--p", "1.5"), 4, "between 0 and 1"),
        (("missing.csv",), 4, "missing.csv"),
        (("SCORES", "--columns", "scale"), 2, "scale=flops"),
        (("SCORES", "--columns", "size=flops"), 4, "no column is called 'size'"),
        (("SCORES", "--p", "0.5"), 2, "belongs to --plan"),
        (("SCORES", "--unit", "pct"), 2, "fraction and percent"),
        (("SCORES", "--duplicates", "max"), 2, "refuse and mean"),
        (("SCORES", "--fdr", "0"), 4, "between 0 and 1"),
        (("SCORES", "--resamples", "5"), 4, "100 or more"),
        (("SCORES", "--figure", "x.html"), 4, ".svg"),
    ],
)
def test_mistakes_end_with_their_code_and_one_line(posterhall, scores, arguments, code, match):
    given = [scores if each == "SCORES" else each for each in arguments]
    result = posterhall("scale", "emergence", *given, code=code)
    assert match in result.err
    assert result.out == ""
