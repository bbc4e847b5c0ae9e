"""`posterhall data mix` as a user meets it."""

from __future__ import annotations

import json

import pytest

from posterhall.cli.pools import amount
from posterhall.errors import UsageError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"text": f"prose number {i}"}) for i in range(200)]
    (tmp_path / "prose.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "code").mkdir()
    for i in range(50):
        (tmp_path / "code" / f"{i}.py").write_text(f"def function_{i}():\n    return {i}\n")
    return tmp_path


def test_prose_and_code_by_share(posterhall, folder):
    sources = ("prose.jsonl:0.75", "code/*.py:25%")
    result = json.loads(posterhall("data", "mix", *sources, "--tokens", "4k", "-o", "m.jsonl", "--json").out)
    assert result["unit"] == "tokens"
    assert result["manifest"] == "m.jsonl.manifest.json"
    prose, code = result["sources"]
    assert (prose["name"], code["name"]) == ("prose.jsonl", "code/*.py")
    assert prose["share"] == pytest.approx(0.75, abs=0.01)
    assert len(code["files"]) == 50
    assert (
        json.loads((folder / "m.jsonl.manifest.json").read_text())["sources"][1]["epochs"] == code["epochs"]
    )
    table = posterhall("data", "mix", *sources, "--bytes", 4000, "-o", "m.jsonl").out
    assert table.startswith("source")
    assert "bytes in m.jsonl" in table


def test_unique_tokens_are_repeated(posterhall, folder):
    arguments = (
        "data",
        "mix",
        "prose.jsonl",
        "--bytes",
        3000,
        "--unique-bytes",
        500,
        "-o",
        "m.jsonl",
        "--seed",
        3,
    )
    result = json.loads(posterhall(*arguments, "--json").out)
    assert result["sources"][0]["epochs"] == pytest.approx(6, abs=0.3)
    first = (folder / "m.jsonl").read_bytes()
    posterhall(*arguments)
    assert (folder / "m.jsonl").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "no source"),
        (("prose.jsonl",), 2, "give -o FILE"),
        (("prose.jsonl", "-o", "m.jsonl"), 2, "either --tokens or --bytes"),
        (("prose.jsonl", "-o", "m.jsonl", "--bytes", "many"), 2, "--bytes is 'many'"),
        (
            ("prose.jsonl", "-o", "m.jsonl", "--bytes", "9", "--unique-tokens", "3"),
            2,
            "has the unit of the budget",
        ),
        (("prose.jsonl:1", "code", "-o", "m.jsonl", "--bytes", "9"), 2, "some have none"),
        (("prose.jsonl:0", "-o", "m.jsonl", "--bytes", "9"), 2, "no source has a weight"),
        (("none.jsonl:1", "-o", "m.jsonl", "--bytes", "9"), 4, "none.jsonl"),
        (("prose.jsonl", "-o", "m.jsonl", "--bytes", "1M", "--unique-bytes", "0.5M"), 4, "wants 500,000"),
        (("prose.jsonl", "-o", "prose.jsonl", "--bytes", "9"), 4, "would be overwritten"),
    ],
)
def test_what_is_wrong_is_one_line(posterhall, folder, arguments, code, message):
    done = posterhall("data", "mix", *arguments, code=code)
    assert done.err.startswith("error: ")
    assert message in done.err
    assert not (folder / "m.jsonl").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e8", 10**8),
        ("100M", 10**8),
        ("2k", 2000),
        ("1_000", 1000),
        ("1.5G", 1_500_000_000),
        ("2b", 2 * 10**9),
    ],
)
def test_amounts_of_tokens(text, value):
    assert amount(text, "--tokens") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("2GB", 2 * 10**9), ("5 MB", 5 * 10**6), ("1GiB", 2**30), ("1.5Ki", 1536), ("700b", 700), ("1e3", 1000)],
)
def test_amounts_of_bytes(text, value):
    assert amount(text, "--bytes", of_bytes=True) == value


@pytest.mark.parametrize("text", ["", "-1", "0", "x", "nan", "1e30", "1.2.3", "1Kix"])
@pytest.mark.parametrize("of_bytes", [False, True])
def test_what_is_no_amount(text, of_bytes):
    with pytest.raises(UsageError, match="--budget is"):
        amount(text, "--budget", of_bytes=of_bytes)
    with pytest.raises(UsageError):
        amount("5bb" if of_bytes else "1Gi", "--budget", of_bytes=of_bytes)
