"""Settings: what wins, what is refused, and that what was written can be read back."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from posterhall.config import canonical, describe, digest, dump, resolve, to_dict
from posterhall.errors import DataError

Mode = Literal["skipgram", "cbow"]


@dataclass(frozen=True)
class Settings:
    """A bit of everything."""

    dim: int = 100
    """Length of a vector,
    >= 1."""
    alpha: float = 0.025
    shrink: bool = True
    """Whether windows shrink."""
    mode: Mode = "skipgram"
    name: str = "x"
    corpus: Path = Path("corpus.txt")
    limit: int | None = None
    rate: Optional[float] = None  # noqa: UP045 - old annotations are read too
    hidden: tuple[int, ...] = (32, 16)
    betas: tuple[float, float] = (0.9, 0.999)
    tags: tuple[str, ...] = ()
    steps: int | Literal["auto"] = "auto"
    order: Literal[1, 2, None] = 1
    label: str | None = None

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise DataError(f"dim is {self.dim}; it must be at least 1")


@dataclass(frozen=True)
class Child(Settings):
    dim: int = 300
    """Longer."""
    extra: int = field(kw_only=True)


def write(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def given_by_file(tmp_path, text):
    return resolve(Settings, file=write(tmp_path, text), environ={})


def given_by_set(*entries):
    return resolve(Settings, sets=entries, environ={})


# -- sources ----------------------------------------------------------------------------------------


def test_a_later_source_wins(tmp_path):
    file = write(tmp_path, "dim: 1\nalpha: 1.0\nname: file\nlimit: 1\n")
    cfg = resolve(
        Settings,
        file=file,
        environ={"POSTERHALL_ALPHA": "2", "POSTERHALL_NAME": "environ", "POSTERHALL_LIMIT": "2"},
        sets=["name=set", "limit=3"],
        flags={"limit": 4, "dim": None},
    )
    assert (cfg.dim, cfg.alpha, cfg.name, cfg.limit, cfg.mode) == (1, 2.0, "set", 4, "skipgram")


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("POSTERHALL_DIM", "7")
    monkeypatch.setenv("POSTERHALL_OTHER_THING", "left alone")
    monkeypatch.setenv("POSTERHALL_NAME", "")
    assert resolve(Settings) == Settings(dim=7)


def test_an_empty_file_is_all_defaults(tmp_path):
    assert given_by_file(tmp_path, "# nothing\n") == Settings()


def test_dashes_may_stand_for_underscores_in_sets():
    assert resolve(Child, sets=["extra=1", "shrink=no"], environ={}).shrink is False


def test_a_setting_without_a_default_must_be_given(tmp_path):
    with pytest.raises(DataError, match=r"extra.*--set extra="):
        resolve(Child, environ={})
    assert resolve(Child, flags={"extra": 2}, environ={}).dim == 300


# -- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "name", "value"),
    [
        ("dim=5", "dim", 5),
        ("dim=1e6", "dim", 1_000_000),
        ("dim=30_000", "dim", 30_000),
        ("dim=9007199254740993", "dim", 2**53 + 1),
        ("alpha=1e-5", "alpha", 1e-5),
        ("alpha=inf", "alpha", math.inf),
        ("shrink=Off", "shrink", False),
        ("shrink=1", "shrink", True),
        ("mode=cbow", "mode", "cbow"),
        ("name=a=b", "name", "a=b"),
        ("name=none", "name", "none"),
        ("corpus=a/b c.txt", "corpus", Path("a/b c.txt")),
        ("limit=none", "limit", None),
        ("limit=3", "limit", 3),
        ("hidden=8", "hidden", (8,)),
        ("hidden=[8, 4]", "hidden", (8, 4)),
        ("hidden=", "hidden", ()),
        ("betas=0.5,0.9", "betas", (0.5, 0.9)),
        ("tags=a, b", "tags", ("a", "b")),
        ("steps=auto", "steps", "auto"),
        ("steps=12", "steps", 12),
        ("order=2", "order", 2),
        ("order=none", "order", None),
        ("label=none", "label", None),
        ("label=7", "label", "7"),
    ],
)
def test_typed_text_becomes_the_declared_type(entry, name, value):
    got = getattr(given_by_set(entry), name)
    assert got == value
    assert type(got) is type(value)


def test_the_text_of_a_flag_is_typed_text():
    assert resolve(Settings, flags={"hidden": "8,4", "limit": "none"}, environ={}).hidden == (8, 4)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("alpha: 1e-5", "alpha", 1e-5),  # YAML 1.1 reads this as text
        ("alpha: 1", "alpha", 1.0),
        ("alpha: .inf", "alpha", math.inf),
        ("dim: 1e3", "dim", 1000),
        ("dim: 2.0", "dim", 2),
        ("limit: null", "limit", None),
        ("label: 'none'", "label", "none"),
        ("hidden: [1, 2, 3]", "hidden", (1, 2, 3)),
        ("tags: [a, 'b,c']", "tags", ("a", "b,c")),
        ("tags: []", "tags", ()),
    ],
)
def test_yaml_becomes_the_declared_type(tmp_path, line, name, value):
    got = getattr(given_by_file(tmp_path, line), name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dim: 1.5", r"dim is 1\.5; it must be a whole number"),
        ("dim: true", "dim is true; it must be a whole number"),
        ("dim: ", "dim is empty; it must be a whole number"),
        ("alpha: fast", "alpha is 'fast'; it must be a number"),
        ("alpha: no", "alpha is false; it must be a number"),
        ("shrink: 1", "shrink is 1; it must be true or false"),
        ("mode: skipgrm", "mode is 'skipgrm'; it must be one of: skipgram, cbow. Did you mean: skipgram"),
        ("name: 007", "it must be text. In YAML, put it in quotes"),
        ("name: 2024-01-01", "put it in quotes"),
        ("limit: many", "it must be a whole number or none"),
        ("hidden: 3", r"it must be a list, each a whole number. In YAML: \[a, b\]"),
        ("hidden: [1, x]", "it must be a list, each a whole number"),
        ("betas: [0.9]", "it must be a list of 2: a number, a number"),
        ("steps: never", "a whole number or one of: auto"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_line_and_what_is_allowed(tmp_path, line, said):
    with pytest.raises(DataError, match=said) as caught:
        given_by_file(tmp_path, f"# settings\n\n{line}\n")
    assert str(caught.value).startswith(f"{tmp_path / 'settings.yaml'}:3: ")


def test_yaml_switches_words_to_booleans_and_the_message_says_so(tmp_path):
    @dataclass(frozen=True)
    class Switch:
        cache: Literal["on", "off"] = "on"

    with pytest.raises(DataError, match="put it in quotes"):
        resolve(Switch, file=write(tmp_path, "cache: off"), environ={})


@pytest.mark.parametrize("number", ["1e999999999", "1e-5", "nan", "inf", "0x10", "1.5", "", "١.٥"])
def test_what_is_no_whole_number_is_refused_at_once(number):
    with pytest.raises(DataError, match="whole number"):
        given_by_set(f"dim={number}")


@pytest.mark.parametrize(
    ("arguments", "origin"),
    [
        ({"environ": {"POSTERHALL_DIM": "x"}}, "POSTERHALL_DIM: "),
        ({"sets": ["dim=x"]}, "--set: "),
        ({"flags": {"dim": "x"}}, "--dim: "),
    ],
)
def test_an_error_names_the_source(arguments, origin):
    with pytest.raises(DataError, match=f"^{origin}"):
        resolve(Settings, **{"environ": {}, **arguments})


def test_a_range_error_of_the_class_is_given_its_line(tmp_path):
    with pytest.raises(DataError, match=r"settings\.yaml:2: dim is 0; it must be at least 1"):
        given_by_file(tmp_path, "alpha: 1\ndim: 0\n")
    with pytest.raises(DataError, match=r"^--set: dim is 0"):
        given_by_set("dim=0")


@pytest.mark.parametrize("source", ["file", "sets", "flags"])
def test_an_unknown_setting_names_its_nearest_match(tmp_path, source):
    given = {"file": write(tmp_path, "dmi: 3"), "sets": ["dmi=3"], "flags": {"dmi": 3}}[source]
    with pytest.raises(DataError, match=r"unknown setting 'dmi'\. Did you mean: dim"):
        resolve(Settings, environ={}, **{source: given})


def test_an_unknown_setting_without_a_near_one_lists_them_all():
    with pytest.raises(DataError, match="Known settings: dim, alpha"):
        given_by_set("zzzzzz=3")


def test_a_set_without_a_value_is_refused():
    with pytest.raises(DataError, match="expected key=value"):
        given_by_set("dim")


def test_an_annotation_that_is_not_supported_is_the_programmers_error():
    @dataclass(frozen=True)
    class Odd:
        table: dict[str, int] = field(default_factory=dict)

    with pytest.raises(TypeError, match="cannot be of type"):
        resolve(Odd, sets=["table=1"], environ={})


# -- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dim: 1\nalpha: 2\ndim: 3\n", r":3: 'dim' was given already on line 1"),
        ("- dim\n", ":1: settings are lines of the form"),
        ("just text\n", ":1: settings are lines of the form"),
        ("model:\n  dim: 3\n", ":1: 'model' holds a group"),
        ("dim: [1, 2\nalpha: 3\n", r":2: not valid YAML"),
        ("dim: &a 3\nlimit: *a\n", r":2: anchors and aliases"),
        ("? [a, b]\n: 1\n", ":1: a setting's name is a word"),
        ("dim: !!python/object/apply:os.getcwd []\n", ":1: cannot read the value of 'dim'"),
        ("dim: 1\n---\ndim: 2\n", ":2: not valid YAML"),
        ("hidden: " + "[" * 1500, "not valid YAML"),
        ("dim: \x00", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_flat_mapping_is_refused_by_line(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        given_by_file(tmp_path, text)


def test_a_nest_of_aliases_is_not_expanded(tmp_path):  # the "billion laughs"
    lines = ["a: &a [x, x]"] + [
        f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    ]
    with pytest.raises(DataError, match="aliases"):
        given_by_file(tmp_path, "\n".join(lines))


def test_files_that_cannot_be_settings_are_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        resolve(Settings, file=tmp_path / "none.yaml")
    with pytest.raises(DataError, match="Is a directory"):
        resolve(Settings, file=tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 9"):
        resolve(Settings, file=tmp_path / "latin.yaml")
    (tmp_path / "corpus.txt").write_bytes(b"a " * (1 << 20))
    with pytest.raises(DataError, match="no settings file"):
        resolve(Settings, file=tmp_path / "corpus.txt")


# -- there and back ---------------------------------------------------------------------------------

numbers = st.floats(allow_nan=False)
any_settings = st.builds(
    Settings,
    dim=st.integers(1, 2**70),
    alpha=numbers,
    shrink=st.booleans(),
    mode=st.sampled_from(["skipgram", "cbow"]),
    name=st.text(),
    corpus=st.text(min_size=1).map(Path),
    limit=st.none() | st.integers(),
    rate=st.none() | numbers,
    hidden=st.lists(st.integers(), max_size=3).map(tuple),
    betas=st.tuples(numbers, numbers),
    tags=st.lists(st.text(), max_size=3).map(tuple),
    steps=st.integers() | st.just("auto"),
    order=st.sampled_from([1, 2, None]),
    label=st.none() | st.text(),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("round") / "settings.yaml"


@given(cfg=any_settings)
@example(cfg=Settings(name="\x85\u2028\u2029 \ufeff"))  # line ends to Unicode and to PyYAML
def test_what_is_dumped_resolves_to_the_same_settings(path, cfg):
    path.write_text(dump(cfg), encoding="utf-8", newline="")
    assert resolve(Settings, file=path, environ={}) == cfg
    path.write_text(dump(to_dict(cfg)), encoding="utf-8", newline="")
    assert resolve(Settings, file=path, environ={}) == cfg


@given(any_settings)
def test_every_settings_object_has_strict_canonical_json(cfg):
    decoded = json.loads(canonical(cfg), parse_constant=pytest.fail)
    assert list(decoded) == sorted(decoded)
    assert digest(cfg) == digest(to_dict(cfg))


def test_digest_ignores_order_and_notices_every_value():
    assert digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    digests = {digest(dataclasses.replace(Settings(), **change)) for change in ({}, {"dim": 1}, {"limit": 0})}
    assert len(digests) == 3
    assert digest({"a": math.inf}) != digest({"a": math.nan})


def test_digest_never_changes():  # runs of older versions must still resume
    expected = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert digest({"a": 1}) == expected  # sha256 of {"a":1}


def test_dump_is_readable():
    assert dump({"dim": 3, "hidden": (1, 2), "corpus": Path("a"), "café": None}) == (
        "dim: 3\nhidden:\n- 1\n- 2\ncorpus: a\ncafé: null\n"
    )


def test_numpy_values_are_dumped_as_numbers():
    values = {
        "a": np.float64(0.5),
        "b": np.float32(0.5),
        "c": np.int64(3),
        "d": np.bool_(True),
        "e": np.str_("x"),
    }
    assert dump(values) == "a: 0.5\nb: 0.5\nc: 3\nd: true\ne: x\n"


# -- documentation ----------------------------------------------------------------------------------


def test_settings_describe_themselves():
    table = {setting.name: setting for setting in describe(Settings)}
    assert list(table) == [f.name for f in dataclasses.fields(Settings)]
    assert table["dim"].doc == "Length of a vector,\n>= 1."
    assert table["alpha"].doc == ""
    assert table["mode"].type == "one of: skipgram, cbow"
    assert table["limit"].type == "a whole number or none"
    assert table["hidden"].default == (32, 16)


def test_a_subclass_inherits_and_overrides_docs():
    table = {setting.name: setting for setting in describe(Child)}
    assert table["dim"].doc == "Longer."
    assert table["shrink"].doc == "Whether windows shrink."
    assert table["extra"].default is dataclasses.MISSING


def test_classes_without_source_have_no_docs():
    made = dataclasses.make_dataclass("Made", [("a", int, 3)], frozen=True)
    assert [setting.doc for setting in describe(made)] == [""]
