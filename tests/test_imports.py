"""Every module imports with the core dependencies alone, and without a warning."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import posterhall

ROOT = Path(posterhall.__file__).parent
MODULES = sorted(
    ".".join(("posterhall", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.name != "__main__.py"
)

# One process for all modules: loading numba and its like once takes long enough.
IMPORT_ALL = """
import importlib, importlib.abc, json, sys, traceback

given = json.load(sys.stdin)
blocked = set(given["blocked"])

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r} (not in the core)", name=name)

sys.meta_path.insert(0, Block())
errors = {}
for module in given["modules"]:
    try:
        importlib.import_module(module)
    except BaseException:
        errors[module] = traceback.format_exc(limit=-4)
json.dump(errors, sys.stdout)
"""


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def core():
    """Names of the distributions that `pip install posterhall` brings, followed to the end."""
    from packaging.requirements import Requirement

    found, waiting = set(), ["posterhall"]
    while waiting:
        name = canonical(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            declared = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another platform
            continue
        requirements = map(Requirement, declared)
        waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def outside_the_core():
    """Top-level modules of all that is installed here beside the core."""
    allowed = core()
    return sorted(
        module
        for module, distributions in metadata.packages_distributions().items()
        if not allowed & set(map(canonical, distributions))
    )


@pytest.fixture(scope="module")
def errors():
    given = json.dumps({"modules": MODULES, "blocked": outside_the_core()})
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_what_is_blocked_is_what_extras_bring():
    blocked = set(outside_the_core())
    assert {"pytest", "hypothesis"} <= blocked
    assert not blocked & {"numpy", "scipy", "numba", "llvmlite", "typer", "yaml", "posterhall"}
    for extra in ("torch", "ray", "gensim", "usearch", "transformers"):
        try:
            metadata.version(extra)
        except metadata.PackageNotFoundError:
            continue
        assert extra in blocked


@pytest.mark.parametrize("module", MODULES)
def test_it_imports_with_the_core_alone(errors, module):
    assert module not in errors, errors[module]


def test_importing_the_package_loads_no_room():
    code = "import sys, posterhall; print([m for m in sys.modules if m[:11] in ('posterhall.', 'numpy')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "['posterhall.lazy']\n"


def test_every_room_is_reached_from_the_package():
    rooms = {place.parent.name for place in Path(posterhall.__file__).parent.glob("*/__init__.py")}
    assert rooms - {"cli"} <= set(posterhall.__all__)
    for name in posterhall.__all__:
        assert getattr(posterhall, name) is not None
    assert set(posterhall.__all__) - {"__version__"} <= set(dir(posterhall))
    with pytest.raises(AttributeError, match="no_such_room"):
        _ = posterhall.no_such_room
