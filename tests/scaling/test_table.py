"""Tables of runs: what is read, and every way in which a table can be wrong."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError, UsageError
from posterhall.scaling import Chinchilla, DataConstrained, FitSettings, read, runs182
from posterhall.scaling.table import pairs

QUICK = FitSettings(bootstrap=0, profile=False, held_out=0)


def good(count=12):
    """Columns of runs of two sizes, four budgets and up to three epochs."""
    i = np.arange(count)
    params = np.array([1e7, 4e7, 2e8])[i % 3] * (1 + 0.01 * (i // 3))
    tokens = np.geomspace(1e9, 2e10, count)
    unique = tokens / (1 + i % 4)
    loss = 1.7 + 400 / params**0.34 + 2000 / unique**0.37
    return {"params": params, "tokens": tokens, "unique_tokens": unique, "loss": loss}


def changed(**columns):
    table = {k: v.copy() for k, v in good().items()}
    for name, (rows, value) in columns.items():
        table[name][rows] = value
    return table


def write_csv(path, table, header=None):
    names = header or list(table)
    lines = [",".join(names), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_format_gives_the_same_runs(tmp_path):
    table = {"run": [f"r{i}" for i in range(12)], **{k: v.tolist() for k, v in good().items()}}
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    write_csv(tmp_path / "a.csv", table)
    found = [read(tmp_path / f"a.{kind}") for kind in ("csv", "jsonl", "parquet")] + [read(good())]
    for each in found:
        assert each.loss.tolist() == good()["loss"].tolist()
        assert each.unique_tokens.tolist() == good()["unique_tokens"].tolist()
    assert found[0].names[3] == "r3"
    assert found[3].names[3] == "row 4"


def test_the_columns_of_an_export_of_runs_are_known(tmp_path):
    g = good()
    table = {
        "run": [f"sweep/{i}" for i in range(12)],
        "params": g["params"],
        "params_non_embedding": g["params"] * 0.8,
        "tokens": g["tokens"],
        "unique_tokens": g["unique_tokens"],
        "epochs": g["tokens"] / g["unique_tokens"],
        "flops": 6 * g["params"] * g["tokens"],
        "loss": g["loss"],
        "seed": [0] * 12,
    }
    runs = read(write_csv(tmp_path / "runs.csv", table))
    assert runs.params.tolist() == g["params"].tolist()
    assert runs.flags == ()


def test_the_shipped_table_has_its_182_runs_and_says_nothing():
    runs = runs182.runs()
    assert (len(runs), runs.flags) == (182, ())
    assert runs.epochs.max() > 1000  # the paper says 1 to 500


@pytest.mark.parametrize(
    "names", [["N", "D", "U", "val_loss"], ["num-params", "Training Tokens", "unique", "eval_loss"]]
)
def test_usual_names_are_recognised(tmp_path, names):
    assert len(read(write_csv(tmp_path / "a.csv", good(), names))) == 12


def test_columns_and_units_can_be_said(tmp_path):
    table = good()
    table = {
        "p": table["params"] / 1e9,
        "t": table["tokens"] / 1e9,
        "u": table["unique_tokens"],
        "x": table["loss"] / math.log(2),
    }
    runs = read(
        write_csv(tmp_path / "a.csv", table),
        columns={"params": "p", "tokens": "t", "loss": "x"},
        units={"params": "billions", "tokens": 1e9, "loss": "bits"},
    )
    assert runs.params == pytest.approx(good()["params"])
    assert runs.loss == pytest.approx(good()["loss"])


def test_epochs_give_unique_tokens():
    g = good()
    runs = read(
        {
            "params": g["params"],
            "tokens": g["tokens"],
            "epochs": g["tokens"] / g["unique_tokens"],
            "loss": g["loss"],
        }
    )
    assert runs.repeats
    assert runs.unique_tokens == pytest.approx(g["unique_tokens"])
    assert not read({k: g[k] for k in ("params", "tokens", "loss")}).repeats


def test_a_table_of_another_benchmark_with_swapped_columns_is_refused(tmp_path):
    ours = runs182.runs()
    swapped = {
        "params": ours.params,
        "tokens": ours.unique_tokens,
        "unique_tokens": ours.tokens,
        "loss": ours.loss,
    }
    with pytest.raises(
        DataError, match="swapped: --columns tokens=unique_tokens,unique_tokens=tokens"
    ) as error:
        read(write_csv(tmp_path / "sld.csv", swapped))
    assert "(153 of 182 rows)" in str(error.value)
    mended = read(tmp_path / "sld.csv", columns={"tokens": "unique_tokens", "unique_tokens": "tokens"})
    assert mended.loss.tolist() == ours.loss.tolist()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            changed(unique_tokens=(3, 9e10)),
            r"row 4 has 9e\+10 unique tokens among .* Correct these rows: row 4",
        ),
        (changed(unique_tokens=(3, 0.0)), "unique_tokens is 0 in row 4; it must be"),
        (
            changed(loss=([2, 5], 0.0)),
            "loss is 0 or missing in row 3, row 6, which usually stands for a run that",
        ),
        (changed(loss=(2, math.nan)), "--drop-unfinished"),
        (changed(loss=(2, math.inf)), "infinite in row 3; leave out runs that diverged"),
        (changed(loss=(2, -1.0)), "negative in row 3; a loss in nats is positive"),
        (
            changed(params=([0, 3], [0.01, 0.02])),
            "two units in one column, as billions beside ones. See row 1, row 4",
        ),
        ({**good(), "params": good()["params"] / 1e9}, "--units params=billions"),
        (changed(params=(1, math.nan)), "params is nan in row 2"),
        (changed(tokens=(1, -5.0)), "tokens is -5 in row 2"),
        (
            {**good(), "flops": good()["params"] * good()["tokens"] * 6e-9},
            "compute is 1e-09 times 6 x params x tokens",
        ),
        (
            {k: v for k, v in good().items() if k != "loss"},
            "no column that is known to be the loss; it has: params",
        ),
        (
            {**good(), "val_loss": good()["loss"]},
            "loss, val_loss could be the loss; choose with --columns loss=loss",
        ),
        ({"params": [], "tokens": [], "loss": []}, "holds no runs"),
        ({**good(), "params": ["big"] * 12}, "row 1: params is 'big'; params must be a number"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_likely_cause(table, said):
    with pytest.raises(DataError, match=said):
        read(table)


def test_unfinished_runs_are_left_out_when_asked_and_counted():
    runs = read(changed(loss=([2, 5], [0.0, math.nan])), drop_unfinished=True)
    assert len(runs) == 10
    assert "row 3" not in runs.names
    assert runs.flags == ("2 unfinished runs were left out",)
    with pytest.raises(DataError, match="none of the 12 runs has finished"):
        read(changed(loss=(slice(None), 0.0)), drop_unfinished=True)


def large():
    """Runs of usual sizes with the losses of C4's law."""
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(5e7, 5e9, 4), np.geomspace(2e9, 8e10, 4)))
    return {"params": n, "tokens": d, "unique_tokens": d, "loss": DataConstrained().loss(n, d)}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({**large(), "loss": large()["loss"] / math.log(2)}, "in bits"),
        ({**large(), "loss": np.exp(large()["loss"])}, "are these perplexities"),
        ({**large(), "flops": 2 * large()["params"] * large()["tokens"]}, "differs from 6 x params x tokens"),
        (
            {k: np.concatenate([v, v[:3] * (1.001 if k == "loss" else 1)]) for k, v in large().items()},
            "6 runs share",
        ),
        ({k: np.concatenate([v, v[:3]]) for k, v in large().items()}, "3 of them repeat a row exactly"),
        ({**large(), "epochs": np.full(16, 2.0)}, "epochs differ from tokens"),
    ],
)
def test_what_is_odd_is_flagged(table, said):
    assert any(said in flag for flag in read(table).flags)
    assert read(large()).flags == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("params,tokens,loss\n1e8,1e9\n", "line 2: 2 cells for 3 columns"),
        ("params,params,loss\n", "column 'params' occurs twice"),
        ("", "is empty"),
        ('params,tokens,loss\n"1,000",1e9,3\n', "params is '1,000'"),
    ],
)
def test_a_broken_csv_names_the_line(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b'{"params": 1}\nnothing\n', "line 2: not JSON"),
        ("a.jsonl", b"[1, 2]\n", "line 1: not an object"),
        ("a.parquet", b"PAR0", "not a Parquet file"),
        ("a.csv", b"params\xff\n", "not UTF-8"),
        ("a.pkl", b"x", "tables of runs end in"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=said):
        read(tmp_path / name)
    with pytest.raises(DataError, match="cannot read"):
        read(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("columns", "units", "said"),
    [
        ({"size": "params"}, {}, "column 'size' is not one that is read"),
        ({"loss": "lss"}, {}, "no column 'lss'.*Did you mean: loss"),
        ({}, {"params": "dozens"}, "'dozens' is no unit of params"),
        ({}, {"loss": "billions"}, "no unit of loss; allowed are nats, bits"),
        ({}, {"name": "ones"}, "units are for"),
        ({}, {"params": 0}, "must be above 0"),
    ],
)
def test_columns_and_units_that_do_not_exist(columns, units, said):
    with pytest.raises(DataError, match=said):
        read(good(), columns=columns, units=units)


def test_pairs_of_options():
    assert pairs(["loss=val_loss, params=n", "tokens=t"], "--columns") == {
        "loss": "val_loss",
        "params": "n",
        "tokens": "t",
    }
    for wrong in (["loss"], ["=x"], ["loss="], ["a=1,a=2"]):
        with pytest.raises(UsageError, match="--columns"):
            pairs(wrong, "--columns")


@pytest.mark.parametrize(
    ("table", "law", "frozen", "said"),
    [
        (good(5), Chinchilla(), None, "5 runs; a fit needs at least 6"),
        (
            {**good(), "params": np.full(12, 1e8)},
            Chinchilla(),
            None,
            "same params .1e.08., so alpha cannot be seen",
        ),
        ({**good(), "tokens": np.full(12, 3e10)}, Chinchilla(), None, "same tokens"),
        (
            {k: good()[k] for k in ("params", "tokens", "loss")},
            DataConstrained(),
            "paper",
            "needs unique tokens",
        ),
        (large(), DataConstrained(), "paper", "no run repeats a token"),
        (
            {k: np.repeat(v[:4], 3) for k, v in good().items()},
            Chinchilla(),
            None,
            "4 different settings cannot show 5",
        ),
        (good(), Chinchilla(), "epoch", "all constants are frozen"),
        (good(), Chinchilla(), {"R_D": 3.0}, "has no constant 'R_D' to freeze"),
        (good(), Chinchilla(), {"E": -1.0}, "E is frozen at -1"),
        (good(), Chinchilla(), "hoffman", "no published constants are called 'hoffman'"),
    ],
)
def test_what_a_table_cannot_show_is_not_fitted(table, law, frozen, said):
    with pytest.raises(DataError, match=said):
        law.fit(table, frozen=frozen, settings=QUICK)


cell = st.one_of(st.floats(allow_nan=True), st.integers(-5, 10**13), st.text(max_size=5), st.none())


@given(rows=st.lists(st.tuples(cell, cell, cell, cell), min_size=1, max_size=8))
def test_any_table_is_read_or_refused_in_words(rows):
    table = {name: np.array([row[i] for row in rows], dtype=object) for i, name in enumerate(good())}
    try:
        runs = read(table)
    except DataError:
        return
    assert (runs.unique_tokens <= runs.tokens).all()
    assert (np.stack([runs.params, runs.tokens, runs.unique_tokens, runs.loss]) > 0).all()
