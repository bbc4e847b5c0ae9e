"""`posterhall scale fit` and `scale allocate`: what they print, write and refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest

from posterhall.scaling import Chinchilla, DataConstrained, FitSettings, runs182


def table(path, columns):
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def published(tmp_path):
    runs = runs182.runs()
    return table(
        tmp_path / "runs.csv",
        {
            "name": runs.names,
            "params": runs.params,
            "tokens": runs.tokens,
            "unique_tokens": runs.unique_tokens,
            "val_loss": runs.loss,
        },
    )


@pytest.fixture
def fresh(tmp_path):
    """Runs of Chinchilla's law at equal compute, with a little noise."""
    flops = np.repeat([1e18, 1e19, 1e20, 1e21], 7)
    best = np.repeat([Chinchilla("c4").allocate(c).params for c in (1e18, 1e19, 1e20, 1e21)], 7)
    params = best * np.exp(np.tile(np.linspace(-1.5, 1.5, 7), 4))
    tokens = flops / (6 * params)
    noise = np.exp(0.001 * np.random.default_rng(0).standard_normal(params.size))
    return table(
        tmp_path / "fresh.csv",
        {"N": params, "D": tokens, "loss": Chinchilla("c4").loss(params, tokens) * noise},
    )


def test_the_published_runs_with_the_papers_constants(posterhall, published):
    done = posterhall(
        "scale",
        "fit",
        published,
        "--law",
        "data-constrained",
        "--frozen",
        "paper",
        "--bootstrap",
        "60",
        "--json",
        "--quiet",
    )
    found = json.loads(done.out)
    assert {"law", "params", "objective", "interval", "minima", "flags"} <= set(found)
    assert found["objective"] <= 0.015806
    lives = [(m["params"]["R_D"], m["params"]["R_N"]) for m in found["minima"]]
    assert any(pair == pytest.approx((15.39, 5.31), rel=2e-3) for pair in lives)
    assert lives[0] == pytest.approx((95.37, 1.706), rel=1e-3)
    assert found["interval"]["R_D"]["high"] is None
    assert found["interval"]["R_D"]["method"].startswith("profile")
    assert found["interval_bootstrap"]["R_D"]["method"].startswith("bootstrap")
    assert found["profile"]["R_D"][-1]["value"] is None  # a life that never ends
    assert (len(found["draws"]), len(found["draws"][0])) == (60, 7)
    assert done.err == ""


def test_the_published_allocation(posterhall):
    found = json.loads(
        posterhall("scale", "allocate", "--flops", "1e22", "--unique-tokens", "25e9", "--json").out
    )
    assert {"params", "tokens", "epochs", "loss", "interval", "flags"} <= set(found)
    assert found["params"] == pytest.approx(7.026e9, rel=1e-3)
    assert found["epochs"] == pytest.approx(9.488, rel=1e-3)
    low, high = found["interval"]["epochs"]
    assert low < found["epochs"] < high


def test_a_fit_is_read_by_allocate(posterhall, published, tmp_path):
    options = [
        "--law",
        "data-constrained",
        "--frozen",
        "paper",
        "--bootstrap",
        "60",
        "--set",
        "profile=false",
    ]
    (tmp_path / "fit.json").write_text(posterhall("scale", "fit", published, *options, "--json").out)
    done = posterhall(
        *(
            "scale",
            "allocate",
            "--flops",
            "1e22",
            "--unique-tokens",
            "25e9",
            "--law-file",
            tmp_path / "fit.json",
        ),
        "--json",
    )
    found = json.loads(done.out)
    quick = FitSettings(bootstrap=0, profile=False, held_out=0)
    law = DataConstrained().fit(runs182.runs(), frozen="paper", settings=quick)
    expected = law.allocate(1e22, 25e9, draws=False)
    assert found["params"] == pytest.approx(expected.params, rel=1e-6)
    assert found["draws"] == 60
    text = posterhall("scale", "allocate", "--flops", "1e26", "--law-file", tmp_path / "fit.json").out
    assert "note: extrapolation: flops 1e+26" in text


def test_a_law_with_an_endless_life_survives_the_file(posterhall, published, tmp_path):
    options = [
        "--law",
        "data-constrained",
        "--effects",
        "params",
        "--frozen",
        "c4",
        "--bootstrap",
        "0",
        "--json",
    ]
    (tmp_path / "fit.json").write_text(posterhall("scale", "fit", published, *options).out)
    assert json.loads((tmp_path / "fit.json").read_text())["params"]["R_D"] is None
    done = posterhall("scale", "allocate", "--flops", "1e21", "--law-file", tmp_path / "fit.json", "--json")
    assert json.loads(done.out)["interval"] == {}


def test_text_has_the_constants_the_minima_and_the_notes(posterhall, published):
    out = posterhall(
        *("scale", "fit", published, "--law", "data-constrained", "--frozen", "paper", "--bootstrap", "0")
    ).out
    assert "R_D                95.365  " in out
    assert "no upper bound" in out
    assert "minima found:" in out
    assert "0.01582593  0.7722  15.37  5.315" in out
    assert "note: R_D has no upper bound" in out


def test_figures(posterhall, published, fresh, tmp_path):
    first, second, again = (tmp_path / f"{name}.svg" for name in ("fit", "allocation", "again"))
    posterhall(
        *("scale", "fit", published, "--law", "data-constrained", "--frozen", "paper", "--bootstrap", "0"),
        *("--figure", first),
    )
    assert "never ends" in first.read_text()
    budget = ["--flops", "1e22", "--unique-tokens", "25e9"]
    posterhall("scale", "allocate", *budget, "--figure", second)
    posterhall("scale", "allocate", *budget, "--figure", again)
    assert "unique tokens" in second.read_text()
    assert again.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_figures_of_other_kinds(posterhall, fresh, tmp_path, ending, magic):
    path = tmp_path / f"fit.{ending}"
    posterhall("scale", "fit", fresh, "--bootstrap", "0", "--figure", path)
    assert path.read_bytes().startswith(magic)


@pytest.mark.parametrize("approach", ["1", "2"])
def test_the_older_approaches_say_how_they_are_biased(posterhall, fresh, approach):
    found = json.loads(posterhall("scale", "fit", fresh, "--approach", approach, "--json").out)
    assert found["law"] == f"approach-{approach}"
    assert found["params"]["a"] == pytest.approx(0.5, abs=0.1)
    assert f"approach {approach}" in found["flags"][0]
    assert "optima:" in posterhall("scale", "fit", fresh, "--approach", approach).out


def test_an_approach_without_a_law_cannot_allocate(posterhall, fresh, tmp_path):
    (tmp_path / "two.json").write_text(posterhall("scale", "fit", fresh, "--approach", "2", "--json").out)
    done = posterhall("scale", "allocate", "--flops", "1e20", "--law-file", tmp_path / "two.json", code=4)
    assert "fit --approach 3" in done.err


def test_swapped_columns_end_with_the_command_that_mends_it(posterhall, published, tmp_path):
    swapped = tmp_path / "swapped.csv"
    text = published.read_text().replace("tokens,unique_tokens", "unique_tokens,tokens")
    swapped.write_text(text)
    done = posterhall("scale", "fit", swapped, "--law", "data-constrained", "--frozen", "paper", code=4)
    assert "(153 of 182 rows)" in done.err
    mending = done.err.split("--columns ")[1].split()[0].rstrip(".")
    posterhall(
        *("scale", "fit", swapped, "--law", "data-constrained", "--frozen", "paper", "--bootstrap", "0"),
        *("--columns", mending),
    )


def test_unfinished_runs(posterhall, fresh, tmp_path):
    lines = fresh.read_text().splitlines()
    lines[3] = ",".join([*lines[3].split(",")[:2], "0"])
    fresh.write_text("\n".join(lines) + "\n")
    assert "--drop-unfinished" in posterhall("scale", "fit", fresh, code=4).err
    out = posterhall("scale", "fit", fresh, "--drop-unfinished", "--bootstrap", "0").out
    assert "note: 1 unfinished runs were left out" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--law", "chinchila"], 2, "Did you mean: chinchilla"),
        (["--law", "chinchilla", "--decay", "geometric"], 2, "--decay does not apply"),
        (["--law", "saturating", "--tied"], 2, "--tied does not apply"),
        (["--approach", "2", "--frozen", "c4"], 2, "knows no law of loss"),
        (["--frozen", "E=big"], 2, "give numbers"),
        (["--columns", "loss"], 2, "expected OURS=THEIRS"),
        (["--columns", "loss=lss"], 4, "has no column 'lss'"),
        (["--units", "params=dozens"], 4, "no unit of params"),
        (["--bootstrap", "7"], 4, "at least 50 resamples"),
        (["--figure", "a.gif"], 4, "does not end in .svg, .png, .pdf"),
        (["--set", "deltaa=1"], 4, "Did you mean: delta"),
    ],
)
def test_what_is_asked_wrongly(posterhall, fresh, arguments, code, said):
    assert said in posterhall("scale", "fit", fresh, *arguments, code=code).err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--flops", "0"], 4, "flops is 0"),
        (["--flops", "1e21", "--unique-tokens", "-3"], 4, "unique_tokens is -3"),
        (["--flops", "1e21", "--constants", "gpt5"], 4, "no published constants are called 'gpt5'"),
        (["--flops", "1e21", "--law-file", "missing.json"], 4, "cannot read missing.json"),
        ([], 2, "--flops"),
    ],
)
def test_budgets_asked_wrongly(posterhall, arguments, code, said):
    assert said in posterhall("scale", "allocate", *arguments, code=code).err


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"law": "chinchilla"}', '{"law": "astrology", "params": {}}', "7"]
)
def test_files_that_are_no_fit(posterhall, tmp_path, text):
    (tmp_path / "fit.json").write_text(text)
    done = posterhall("scale", "allocate", "--flops", "1e20", "--law-file", tmp_path / "fit.json", code=4)
    assert "scale fit --json" in done.err


def test_frozen_values_and_options_by_name(posterhall, fresh):
    found = json.loads(
        posterhall(
            *("scale", "fit", fresh, "--frozen", "E=1.8691,alpha=0.35266", "--bootstrap", "0"),
            *("--set", "held_out=0", "--json"),
        ).out
    )
    assert found["params"]["E"] == pytest.approx(1.8691)
    assert found["fitted"] == ["A", "B", "beta"]
    assert found["held_out"] is None
    tied = json.loads(posterhall("scale", "fit", fresh, "--tied", "--bootstrap", "0", "--json").out)
    assert tied["params"]["alpha"] == pytest.approx(tied["params"]["beta"])


def test_other_published_constants(posterhall):
    chinchilla, c4 = (
        json.loads(posterhall("scale", "allocate", "--flops", "5.76e23", "--constants", name, "--json").out)
        for name in ("chinchilla", "c4")
    )
    assert (chinchilla["law"], c4["law"]) == ("chinchilla", "data-constrained")
    assert c4["params"] == pytest.approx(69.96e9, rel=1e-3)
    assert chinchilla["interval"] == {}
