"""What a claim must state before it can be run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.claims import Budget, Claim, Paired, Row, claim, select
from posterhall.claims.base import coerce, declared
from posterhall.errors import DataError, UsageError

COMPLETE = {
    "__doc__": "A is higher than b.\n\nMore for readers of the code.",
    "__module__": __name__,
    "kind": Paired(metric="m", arms=("a", "b"), margin=0.1),
    "paper_value": "+1",
    "refuted_by": "no gain",
    "negative_control": "c must not be higher",
    "control_arms": ("c", "b"),
    "deviates": "smaller",
    "scales": {"smoke": Budget(n=1), "laptop": Budget(n=2), "full": Budget(n=3)},
    "run": lambda self, budget, seed: iter(()),
}


def declare(id: str, **changes):
    fields = {k: v for k, v in {**COMPLETE, **changes}.items() if v is not None}
    return claim(id=id, paper="toys", where="§1")(type("C", (Claim,), fields))


def test_statement_is_the_first_paragraph_of_the_docstring():
    cls = declare("complete")
    assert cls.statement == "A is higher than b."
    assert cls.control_kind() == Paired(metric="m", arms=("c", "b"), margin=0.1)
    assert cls in declared(__name__)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"__doc__": None}, "docstring"),
        ({"paper_value": None}, "paper_value"),
        ({"refuted_by": ""}, "refuted_by"),
        ({"negative_control": None}, "negative_control"),
        ({"deviates": None}, "deviates"),
        ({"kind": None}, "kind"),
        ({"control_arms": None}, "negative control"),
        ({"control": Paired(metric="m", arms=("d", "b"))}, "negative control"),  # both given
        ({"control_arms": ("a", "b")}, "the claim itself"),
        ({"scales": {"laptop": Budget()}}, "smoke"),
        ({"scales": {"smoke": Budget(seeds=4)}}, "5"),
        ({"run": None}, r"run\(\)"),
    ],
)
def test_nothing_may_be_left_to_decide_afterwards(changes, message):
    with pytest.raises(UsageError, match=message):
        declare("incomplete", **changes)


@pytest.mark.parametrize("id", ["", "Upper", "two words", "under_score"])
def test_ids_are_fit_for_a_command_line(id):
    with pytest.raises(UsageError, match="hyphens"):
        declare(id)


def test_an_id_is_taken_once():
    declare("taken")
    fields = {**COMPLETE, "__module__": "elsewhere"}
    with pytest.raises(UsageError, match="taken"):
        claim(id="taken", paper="toys", where="§1")(type("C", (Claim,), fields))


def test_a_declared_claim_is_final():
    with pytest.raises(TypeError, match="final"):
        type("Sub", (declare("final"),), {})


def test_items_excuse_few_seeds():
    assert declare("items", unit="item", scales={"smoke": Budget(seeds=1)}).budget("smoke").seeds == 1


def test_an_unknown_scale_names_those_there_are():
    with pytest.raises(UsageError, match="smoke, laptop, full"):
        declare("scaled").budget("huge")


def test_parameters_are_those_declared():
    cls = declare("with-params", params={"corpus": None, "size": 3})
    assert dict(cls({"size": 5}).params) == {"corpus": None, "size": 5}
    with pytest.raises(UsageError, match="corpus"):
        cls({"corpsu": "x"})


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [(1, "7", 7), (1.0, "1e-3", 1e-3), (None, "a.txt", "a.txt"), ("x", "1", "1"), (True, "no", False)],
)
def test_parameters_take_the_type_of_their_default(default, text, value):
    result = coerce("p", default, text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(("default", "text"), [(1, "many"), (1, "1.5"), (1.0, "x"), (True, "perhaps")])
def test_parameters_of_another_type_are_refused(default, text):
    with pytest.raises(DataError, match="p="):
        coerce("p", default, text)


def test_selecting_by_id_and_by_paper_keeps_the_declared_order():
    modules = ["toy_claims"]
    assert [c.id for c in select(["coins"], modules)] == ["loaded-coin", "fair-coin-is-loaded"]
    assert [c.id for c in select(["alone", "loaded-coin", "alone"], modules)] == ["loaded-coin", "alone"]
    with pytest.raises(UsageError, match="Did you mean: loaded-coin"):
        select(["loaded-coins"], modules)


def test_a_budget_does_not_change():
    budget = Budget(tokens=1e5, seeds=7)
    assert (budget.tokens, budget["seeds"], len(budget)) == (1e5, 7, 2)
    assert budget.replace(seeds=9) == {"seeds": 9, "tokens": 1e5}
    with pytest.raises(AttributeError):
        budget.tokens = 1
    with pytest.raises(AttributeError, match="it has seeds, tokens"):
        _ = budget.token
    with pytest.raises(DataError):
        Budget(seeds=0)
    for name in ("items", "get", "replace"):
        with pytest.raises(DataError, match=f"'{name}', which every mapping has"):
            Budget(**{name: 3})


finite_or_not = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True), finite_or_not | st.lists(finite_or_not)
    ),
    st.integers(0, 2**40),
    st.none() | st.lists(st.integers(-5, 5), max_size=5),
)
def test_rows_survive_json_whatever_their_numbers(metrics, seed, clusters):
    row = Row("arm", seed)
    row.metrics = {k: tuple(v) if isinstance(v, list) else v for k, v in metrics.items()}
    row.clusters = None if clusters is None else tuple(clusters)
    text = json.dumps(row.to_json(), allow_nan=False)
    assert Row.from_json(json.loads(text)) == row


def test_a_row_takes_numbers_and_lists_of_them():
    row = Row("a", 1, loss=np.float32(0.5), solved=np.array([True, False]), curve=[1, 2, 3])
    assert row["loss"] == 0.5
    assert row["solved"] == (1.0, 0.0)
    assert row.number("solved") == 0.5
    assert "loss=0.5" in repr(row)
    with pytest.raises(DataError, match="shape"):
        Row("a", 1, m=np.zeros((2, 2)))


@pytest.mark.parametrize(
    "broken",
    [{}, {"arm": "a", "seed": 0, "metrics": {"m": "high"}}, {"arm": "a", "seed": "x", "metrics": {}}],
)
def test_stored_rows_that_are_none_are_refused(broken):
    with pytest.raises(DataError, match="not a row"):
        Row.from_json(broken)


def test_nan_rows_are_equal_to_their_own_copy():
    assert Row("a", 0, m=math.nan) == Row("a", 0, m=math.nan)
    assert Row("a", 0, m=math.nan) != Row("a", 0, m=0.0)
