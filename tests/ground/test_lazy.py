"""Rooms offer their names and modules, and import them on first use."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import posterhall
from posterhall import lazy

ROOMS = [
    each.name
    for each in pkgutil.walk_packages(posterhall.__path__, "posterhall.")
    if each.ispkg and hasattr(importlib.import_module(each.name), "__getattr__")
]


def test_rooms_are_found():
    assert {"posterhall.scaling", "posterhall.train", "posterhall.evals.planning"} <= set(ROOMS)


@pytest.mark.parametrize("name", ["posterhall", *ROOMS])
def test_what_a_room_lists_it_has(name):
    room = importlib.import_module(name)
    listed = dir(room)
    assert listed
    for each in listed:
        assert getattr(room, each) is not None
    assert set(getattr(room, "__all__", ())) - {"__version__"} <= set(listed)


def test_a_name_is_found_in_its_module_and_a_module_as_itself():
    get, listed = lazy.attributes("posterhall.stats", names={"mean_interval": "estimates"}, modules=["rank"])
    from posterhall.stats import estimates, rank

    assert get("mean_interval") is estimates.mean_interval
    assert get("rank") is rank
    assert listed() == ["mean_interval", "rank"]


def test_a_name_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(
        AttributeError, match=r"'posterhall.scaling' has no attribute 'Chinchila'. Did you mean"
    ):
        _ = posterhall.scaling.Chinchila
    assert not hasattr(posterhall, "scalling")
    assert not hasattr(posterhall.scaling, "__wrapped__")


def test_nothing_is_imported_before_it_is_used():
    code = (
        "import sys, posterhall, posterhall.scaling, posterhall.lm, posterhall.train\n"
        "print([m for m in sys.modules if m in ('numpy', 'numba', 'torch', 'posterhall.scaling.fit')])\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
