"""What a table of scores can get wrong is found and named; what it gets right becomes series."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.scaling.emergence import grouped, read
from posterhall.scaling.emergence.series import Row, lower_is_better

HEADER = "family,scale,task,metric,score,n"


def table(tmp_path, *lines, header=HEADER, name="scores.csv"):
    path = tmp_path / name
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return path


def rows(scores, scales=None, **fields):
    scales = range(1, len(scores) + 1) if scales is None else scales
    base = {"family": "f", "task": "t", "metric": "acc"} | fields
    return [
        Row(f"s.csv:{i}", scale=x, score=y, **base)
        for i, (x, y) in enumerate(zip(scales, scores, strict=True), 2)
    ]


def test_a_table_becomes_one_series_a_family_task_and_metric_in_order_of_scale(tmp_path):
    path = table(
        tmp_path, "a,3,add,acc,0.3,100", "b,1,add,acc,0.9,50", "a,1,add,acc,0.1,100", "a,2,add,acc,0.2,100"
    )
    a, b = grouped(read([path]))
    assert (a.family, a.task, a.metric) == ("a", "add", "acc")
    assert a.scales.tolist() == [1, 2, 3]
    assert a.scores.tolist() == [0.1, 0.2, 0.3]
    assert a.binary
    assert a.n.tolist() == [100, 100, 100]
    assert b.scores.tolist() == [0.9]


def test_the_same_table_reads_alike_in_every_format(tmp_path):
    records = [
        {"family": "a", "scale": 10.0**i, "task": "t", "metric": "acc", "score": i / 10, "n": 40}
        for i in range(1, 6)
    ]
    lines = [",".join(map(str, record.values())) for record in records]
    tabbed = [line.replace(",", "\t") for line in (HEADER, *lines)]
    paths = [table(tmp_path, *lines), table(tmp_path, *tabbed[1:], header=tabbed[0], name="t.tsv")]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "t.json").write_text(json.dumps(records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    paths += [tmp_path / "t.jsonl", tmp_path / "t.json", tmp_path / "t.parquet"]
    for path in paths:
        (found,) = grouped(read([path]))
        assert found.scores.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
        assert found.n.tolist() == [40] * 5


def test_columns_of_other_names_are_told(tmp_path):
    path = table(tmp_path, "1e9,0.2", "1e10,0.4", header="FLOPs total,acc")
    with pytest.raises(DataError, match=r"no column for the scale.*--columns scale="):
        read([path])
    (found,) = grouped(read([path], columns={"scale": "FLOPs total", "score": "acc"}))
    assert found.metric == "acc"
    assert found.scales.tolist() == [1e9, 1e10]


@pytest.mark.parametrize(
    ("lines", "header", "match"),
    [
        (["a,1.3B,t,acc,0.1,1"], HEADER, r"scores.csv:2: scale is '1.3B'"),
        (["a,1,t,acc,high,1"], HEADER, "score is 'high'"),
        (["a,1,t,acc"], HEADER, "fields as the header"),
        (["a,1,t,acc,1,1,1"], HEADER, "fields as the header"),
        (["1,2,0.3"], "params,flops,score", "could each be the scale"),
        (["1,0.3,maybe"], "scale,score,higher_is_better", "allowed are true and false"),
        (["1,0.3,0.4"], "scale,score,score", "two columns are called 'score'"),
        ([], HEADER, "no file holds a score"),
    ],
)
def test_rows_that_cannot_be_read_are_named(tmp_path, lines, header, match):
    with pytest.raises(DataError, match=match):
        read([table(tmp_path, *lines, header=header)])


def test_files_that_are_no_tables_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"scale,score\n1,\xff\xfe\n")
    (tmp_path / "b.jsonl").write_text('{"scale": 1, "score": 2}\n[1]\n')
    (tmp_path / "c.jsonl").write_text('{"scale": 1,')
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    (tmp_path / "e.pkl").write_bytes(b"\x80\x04.")
    (tmp_path / "f.json").write_text("[" * 100_000)
    (tmp_path / "g.csv").write_text("scale,score\n1," + "9" * 200_000)
    (tmp_path / "h.json").write_text('{"something": 1}')
    for name in (
        "a.csv",
        "b.jsonl",
        "c.jsonl",
        "d.parquet",
        "e.pkl",
        "f.json",
        "g.csv",
        "h.json",
        "none.csv",
    ):
        with pytest.raises(DataError, match=name):
            read([tmp_path / name])
    with pytest.raises(DataError, match="Did you mean: scale"):
        read([], columns={"scales": "x"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no results"):
        read([tmp_path / "empty"])


NEAR_TABLES = st.text(st.sampled_from('scale,ore\n\t"{}[]:.-1e9 naé\x00'), max_size=60)


@given(st.one_of(NEAR_TABLES, st.text(max_size=40)), st.sampled_from(["csv", "tsv", "jsonl", "json"]))
def test_any_text_is_a_table_or_a_data_error(text, ending):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"t.{ending}")
        path.write_text(f"scale,score\n{text}" if ending == "csv" else text, encoding="utf-8")
        with contextlib.suppress(DataError):
            grouped(read([path]))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.just(10**400) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "scores",
                    "model",
                    "results",
                    "score_dict",
                    "scale",
                    "score",
                    "config",
                    "n-shot",
                    "total_params",
                    "acc,none",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_read_or_a_data_error(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.json")
        path.write_text(json.dumps(data))
        with contextlib.suppress(DataError):
            grouped(read([path]))


def test_duplicate_scales_are_refused_with_both_places_or_averaged():
    twice = rows([0.1, 0.2, 0.4, 0.5], [1, 2, 2, 3])
    with pytest.raises(DataError, match=r"s.csv:4.*second score at scale 2 \(the first: s.csv:3\)"):
        grouped(twice)
    (found,) = grouped(twice, duplicates="mean")
    assert found.scores == pytest.approx([0.1, 0.3, 0.5])
    assert "scales-averaged" in found.flags


def test_two_families_pooled_under_no_name_are_found_as_duplicates():
    pooled = rows([0.1, 0.2, 0.3], family="") + rows([0.2, 0.3, 0.5], family="")
    with pytest.raises(DataError, match="Two families in one series"):
        grouped(pooled)


def test_per_cent_is_told_from_fractions_and_a_mixture_refused():
    (percent,) = grouped(rows([0, 25.0, 80.0]))
    assert percent.scores == pytest.approx([0, 0.25, 0.8])
    assert percent.flags[0] == "percent"
    with pytest.raises(DataError, match=r"s.csv:4.*scores 80, but 0.25 at s.csv:3"):
        grouped(rows([0.1, 0.25, 80.0], scales=[1, 2, 3])[1:])
    (said,) = grouped(rows([0.5, 3.0, 80.0]), unit="percent")
    assert said.scores == pytest.approx([0.005, 0.03, 0.8])
    with pytest.raises(DataError, match="scores 250"):
        grouped(rows([1.5, 250.0]))
    (distance,) = grouped(rows([0.5, 3.0, 80.0], metric="token_edit_distance"))
    assert distance.scores.tolist() == [0.5, 3.0, 80.0]


def test_missing_scores_and_log_zero_are_refused_or_dropped():
    with pytest.raises(DataError, match=r"s.csv:3: the score of f / t / acc is missing"):
        grouped(rows([0.1, math.nan, 0.3]))
    (found,) = grouped(rows([0.1, math.nan, 0.3]), drop_missing=True)
    assert found.scales.tolist() == [1, 3]
    with pytest.raises(DataError, match="as log 0 gives"):
        grouped(rows([1.0, math.inf], metric="nll"), drop_missing=True)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scales_without_a_logarithm_are_refused(scale):
    with pytest.raises(DataError, match="must be a positive number"):
        grouped(rows([0.1, 0.2], [1, scale]))


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("nll", True), ("perplexity,none", True), ("word_perplexity", True), ("token_edit_distance", True),
        ("brier", True), ("multiple_choice_brier_score", True), ("val_loss", True),
        ("bits_per_byte,none", True),
        ("acc_norm", False), ("exact_match,strict-match", False), ("log_likelihood", False), ("bleu", False),
        ("f1", False), ("lossless_recall", False),
    ],
)  # fmt: skip
def test_the_direction_of_known_metrics_is_known(metric, lower):
    assert lower_is_better(metric) is lower


def test_a_file_that_says_the_direction_is_believed_but_not_if_it_contradicts_itself():
    (found,) = grouped(rows([3.0, 2.0], metric="my_score", higher_is_better=False))
    assert found.sign == -1
    mixed = rows([3.0], metric="m", higher_is_better=False) + rows(
        [2.0], [9], metric="m", higher_is_better=True
    )
    with pytest.raises(DataError, match="better high here and low elsewhere"):
        grouped(mixed)


def test_a_missing_chance_level_is_flagged_where_guessing_scores():
    (unknown,) = grouped(rows([0.2, 0.3], n=100))
    assert "chance-unknown" in unknown.flags
    assert unknown.above_chance is None
    (known,) = grouped(rows([0.26, 0.6, 0.9], n=100), chance=0.25)
    assert (known.chance, known.above_chance, known.flags) == (0.25, 2, ())
    (match,) = grouped(rows([0.2, 0.3], metric="exact_match"), chance=0.25)
    assert match.chance is None
    (varying,) = grouped(rows([0.2], chance=0.25) + rows([0.3], [2], chance=0.5))
    assert "chance-varies" in varying.flags
    (percent,) = grouped(rows([20.0, 30.0], chance=25.0))
    assert percent.chance == 0.25


def test_acc_at_some_scales_and_acc_norm_at_others_is_flagged():
    split = rows([0.1, 0.2], [1, 2]) + rows([0.4, 0.5], [3, 4], metric="acc_norm")
    assert all("acc-and-acc_norm-split" in each.flags for each in grouped(split))
    both = rows([0.1, 0.2], [1, 2]) + rows([0.4, 0.5], [1, 2], metric="acc_norm")
    assert not any("acc-and-acc_norm-split" in each.flags for each in grouped(both))


def test_items_and_seeds_become_matrices_where_they_match_and_flags_where_not():
    items = [
        Row("x", "f", "t", "acc", scale, float(j < scale), item=f"i{j}")
        for scale in (1, 2, 3)
        for j in range(4)
    ]
    (found,) = grouped(items)
    assert found.items.shape == (3, 4)
    assert found.scores.tolist() == [0.25, 0.5, 0.75]
    assert found.n.tolist() == [4, 4, 4]
    (missing,) = grouped(items[:-1])
    assert missing.items is None
    assert "items-differ" in missing.flags
    seeds = [
        Row("x", "f", "t", "nll", scale, scale + s, seed=str(s)) for scale in (1, 2, 3) for s in range(5)
    ]
    (found,) = grouped(seeds)
    assert found.by_seed.shape == (3, 5)
    assert found.errors == pytest.approx(np.full(3, np.std(range(5), ddof=1) / math.sqrt(5)))
    (unequal,) = grouped(seeds[1:])
    assert unequal.by_seed is None
    assert "seeds-unequal" in unequal.flags


def test_a_score_of_nothing_right_is_not_without_error():
    (found,) = grouped(rows([0.0, 0.5], n=100))
    assert found.errors[0] > 0.004
    assert found.errors[1] == pytest.approx(0.05)


def test_scores_that_are_counts_are_known_as_right_or_wrong_whatever_the_metric():
    (counts,) = grouped(rows([0.25, 0.5], metric="solved", n=4))
    assert counts.binary
    (other,) = grouped(rows([0.2511, 0.5], metric="solved", n=4))
    assert not other.binary


@pytest.mark.parametrize("n", [0.0, -3.0, math.inf])
def test_impossible_numbers_of_items_are_refused(n):
    with pytest.raises(DataError, match=r"items"):
        grouped(rows([0.2, 0.3], n=n))


def test_names_are_data_and_lead_nowhere(tmp_path):
    path = table(tmp_path, "../../etc/passwd,1,../t,acc,0.1,10", "../../etc/passwd,2,../t,acc,0.2,10")
    (found,) = grouped(read([path]))
    assert (found.family, found.task) == ("../../etc/passwd", "../t")


def test_numbers_of_examples_are_averaged_and_differing_ones_flagged():
    both = rows([0.1, 0.3], shots="0") + rows([0.3, 0.5], shots="5")
    (found,) = grouped(both)
    assert found.scores == pytest.approx([0.2, 0.4])
    assert found.flags == ("chance-unknown",)
    (uneven,) = grouped(both[:-1])
    assert "shots-differ" in uneven.flags


def test_items_of_a_cluster_count_as_one_for_the_error():
    rng = np.random.default_rng(0)
    right = rng.integers(0, 2, (3, 50))  # 50 passages, asked for four times each
    data = [
        Row("x", "f", "t", "acc", 10.0**i, float(right[i, c]), item=f"{c}-{k}", cluster=str(c))
        for i in range(3)
        for c in range(50)
        for k in range(4)
    ]
    (found,) = grouped(data)
    assert found.items.shape == (3, 200)
    assert found.errors == pytest.approx(right.std(axis=1, ddof=1) / math.sqrt(50))
    sums, sizes = found.units()
    assert sums.shape == (3, 50)
    assert sizes.tolist() == [4] * 50


def test_the_items_that_eval_tasks_leaves_in_a_run_are_read(tmp_path):
    for scale in (1e6, 1e7, 1e8):
        kept = tmp_path / f"run{scale:g}" / "artifacts"
        kept.mkdir(parents=True)
        common = {"family": "mine", "scale": scale, "model": "m", "task": "sums", "cluster": None}
        common |= {"metric": "accuracy", "chance": 0.5, "higher_is_better": True}
        lines = [
            common | {"shots": shots, "item": str(i), "score": float(i < 4)}
            for shots in (0, 1)
            for i in range(10)
        ]
        (kept / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (kept / "scores.json").write_text('{"tasks": []}')  # what --json printed; no scores file of BIG-bench
    (found,) = grouped(read([tmp_path]))
    assert found.items.shape == (3, 10)
    assert found.scores == pytest.approx([0.4, 0.4, 0.4])
    assert found.clusters is None
    assert found.chance == 0.5
