"""One self-contained HTML page of a search: every tree, its values, what was left out, the path chosen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posterhall import __version__, runs
from posterhall.errors import DataError
from posterhall.lm.metered import Usage, money
from posterhall.progress import duration
from posterhall.report.provenance import date, provenance
from posterhall.search.jobs import KIND, read_solutions
from posterhall.search.settings import WITHOUT_TREE
from posterhall.search.solution import Solution
from posterhall.search.tasks.files import one_line
from posterhall.search.tree import Node, Tree
from posterhall.stats import wilson

PAGE = "report.html"
LONG = 160
"""Characters of a thought beyond which its rest is folded away."""
FEW = 6
"""Children that lead nowhere which are shown one by one; more are folded into one line."""
DEEPEST = 60
"""Levels that are drawn; below them nodes are counted only."""


@dataclass
class Branch:
    """A state as the template shows it."""

    thought: str
    number: int
    status: str
    note: str
    value: str
    votes: str
    chosen: bool
    children: list[Branch] = field(default_factory=list)
    folded: list[Branch] = field(default_factory=list)
    """Children that lead nowhere, when there are many."""
    fold: str = ""
    """What they are, in words."""


@dataclass(frozen=True)
class Entry:
    """A problem as the template shows it."""

    number: int
    anchor: str
    title: str
    problem: str
    solved: bool
    any_solved: bool
    answer: str
    why: str
    calls: str
    facts: tuple[tuple[str, str], ...]
    kept: tuple[tuple[str, bool, str], ...]
    branches: tuple[Branch, ...]
    tally: str


def write(run: Path | str, out: Path | str | None = None) -> Path:
    """Write the page of a run of `search solve`.

    Args:
        run: the run directory; it need not be done.
        out: the HTML file; None means report.html in the run.

    Returns:
        The file's path.

    Raises:
        DataError: if there is no such run, or the file cannot be written.
    """
    path = Path(out) if out is not None else Path(run) / PAGE
    runs.write_atomic(path, render(run))
    return path


def render(run: Path | str) -> str:
    """The page as HTML; see `write`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    run = Path(run)
    manifest = runs.read_manifest(run)
    if manifest["kind"] != KIND:
        raise DataError(f"{run} is a run of `{manifest['kind']}`; give one of `{KIND}`")
    solutions = read_solutions(run)
    config = manifest["config"]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("tree.html.j2").render(
        title=_title(solutions),
        task=config["task"],
        method=config["method"],
        facts=_facts(manifest, solutions),
        totals=_totals(solutions),
        entries=[_entry(number, solution) for number, solution in enumerate(solutions, 1)],
        single=len(solutions) == 1,
        has_trees=config["method"] not in WITHOUT_TREE,
        settings=_settings(config),
        provenance=[("run", str(run)), *provenance(manifest)],
        unfinished=sum(solution.stopped_by is not None for solution in solutions),
        planned=len(config["problems"]),
        version=__version__,
    )
    return page + "\n"


def _title(solutions: Sequence[Solution]) -> str:
    if len(solutions) == 1:
        return f"{'Solved' if solutions[0].solved else 'Not solved'}: {one_line(solutions[0].problem, 60)}"
    return f"{sum(solution.solved for solution in solutions)} of {len(solutions)} problems solved"


def _facts(manifest: Mapping[str, Any], solutions: Sequence[Solution]) -> list[tuple[str, str]]:
    config = manifest["config"]
    asked = sum((solution.usage for solution in solutions), start=Usage())
    paid = Usage(**manifest["facts"]["paid"]) if "paid" in manifest.get("facts", {}) else None
    facts = [
        ("Task", config["task"]),
        ("Method", _method(config)),
        ("Model", config["model"]),
        ("Asked", f"{asked.calls:,} calls, {asked.tokens_in:,} tokens read, {asked.tokens_out:,} generated"),
    ]
    if paid is not None:
        saved = f"; {paid.calls_saved:,} answered from memory" if paid.calls_saved else ""
        facts.append(("Paid", f"{paid.calls:,} calls, {money(paid.cost)}{saved}"))
    facts.append(("Date", date(manifest["start"])))
    facts.append(("Took", duration(manifest["wall_seconds"])))
    return facts


def _method(config: Mapping[str, Any]) -> str:
    method = str(config["method"])
    if method in WITHOUT_TREE:
        return f"{method}, no search"
    parts = [method]
    if method == "bfs":
        parts.append(f"breadth {config['breadth']}")
    parts.append(f"{config['generator']} × {config['proposals']}")
    votes = f" × {config['votes']}" if config["evaluator"] in ("value", "vote") else ""
    return ", ".join([*parts, f"{config['evaluator']}{votes}"])


def _totals(solutions: Sequence[Solution]) -> list[tuple[str, str, str, str]]:
    """What is called solved, in each sense: name, count, share, interval."""
    if not solutions:
        return []
    rows = []
    for name, solved in (
        ("first by value", sum(solution.solved for solution in solutions)),
        ("any of those kept", sum(solution.any_solved for solution in solutions)),
    ):
        interval = wilson(solved, len(solutions))
        rows.append(
            (
                name,
                f"{solved}/{len(solutions)}",
                f"{interval.estimate:.1%}",
                f"{interval.low:.1%} to {interval.high:.1%}",
            )
        )
    return rows


def _entry(number: int, solution: Solution) -> Entry:
    tree = solution.tree
    usage = solution.usage
    facts = [
        ("calls", f"{usage.calls:,}"),
        ("tokens", f"{usage.tokens_in:,} read, {usage.tokens_out:,} generated"),
        ("seconds", f"{solution.seconds:.1f}"),
    ]
    if usage.cost:
        facts.append(("cost without cache", money(usage.cost)))
    if solution.unread:
        facts.append(
            ("could not be read", ", ".join(f"{count:,} ({name})" for name, count in solution.unread.items()))
        )
    if solution.truncated:
        facts.append(("cut off at the most tokens", f"{solution.truncated:,} replies"))
    if parts := solution.check.parts:
        facts.append(("scores", ", ".join(f"{name} {part:.0%}" for name, part in parts.items())))
    if solution.stopped_by is not None:
        facts.append(("ended early", solution.stopped_by))
    return Entry(
        number=number,
        anchor=f"p{number}",
        title=one_line(solution.problem, 90),
        problem=_pretty(solution.problem),
        solved=solution.solved,
        any_solved=solution.any_solved,
        answer=solution.answer or "no answer",
        why=solution.check.why,
        calls=f"{usage.calls:,} {'call' if usage.calls == 1 else 'calls'}",
        facts=tuple(facts),
        kept=tuple(
            (answer if answer is not None else "no answer", check.solved, check.why)
            for answer, check in zip(solution.answers, solution.checks, strict=True)
        ),
        branches=tuple(_branches(tree)),
        tally=_tally(tree),
    )


def _branches(tree: Tree) -> list[Branch]:
    """The children of the root, with all below them."""
    below = tree.children()
    on_path = {node.number for node in tree.path(tree.nodes[tree.chosen])} if tree.chosen else set()

    def branch(node: Node) -> Branch:
        return Branch(
            thought=node.thought or "(empty)",
            number=node.number,
            status=node.status,
            note=_note(node, below),
            value="" if node.value is None else _number(node.value),
            votes=" · ".join(
                f"{name} × {count}" if count > 1 else name for name, count in node.votes.items()
            ),
            chosen=node.number in on_path,
        )

    def grow(node: Node, level: int) -> tuple[list[Branch], list[Branch], str]:
        children = below.get(node.number, [])
        if level >= DEEPEST:
            return [], [], f"{len(children)} more below" if children else ""
        idle = [each for each in children if each.status != "kept" and each.number not in below]
        many = len(idle) > FEW
        shown, folded = [], []
        for child in children:
            made = branch(child)
            if many and child.status != "kept" and child.number not in below and not made.chosen:
                folded.append(made)
                continue
            made.children, made.folded, made.fold = grow(child, level + 1)
            shown.append(made)
        return shown, folded, _counted(folded)

    shown, folded, fold = grow(tree.root, 0)
    if folded:
        shown.append(Branch("", 0, "fold", "", "", "", False, [], folded, fold))
    return shown


def _note(node: Node, below: Mapping[int, Sequence[Node]]) -> str:
    if node.status == "duplicate":
        return f"same as {node.same_as}"
    if node.status in ("pruned", "dropped"):
        return node.status
    if node.finished:
        return "finished"
    if node.status == "open" and node.number not in below:
        return "not followed"
    return ""


_WORDS = {
    "kept": "kept",
    "dropped": "dropped",
    "pruned": "pruned",
    "duplicate": "the same as others",
    "open": "not followed",
}


def _counted(branches: Sequence[Branch]) -> str:
    """As in "9 dropped, 3 the same as others"."""
    counts = Counter[str](each.status for each in branches)
    return ", ".join(f"{counts[status]:,} {word}" for status, word in _WORDS.items() if counts[status])


def _tally(tree: Tree) -> str:
    counts = Counter[str](node.status for node in tree.nodes[1:])
    total = f"{len(tree.nodes) - 1:,} {'state' if len(tree.nodes) == 2 else 'states'}"
    return ", ".join([total, *(f"{counts[key]:,} {word}" for key, word in _WORDS.items() if counts[key])])


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.3g}"


def _pretty(problem: str) -> str:
    """A problem that is JSON, a part a line."""
    if not problem.startswith("{"):
        return problem
    try:
        value = json.loads(problem)
    except (ValueError, RecursionError):
        return problem
    return "\n".join(_lines(value)) if isinstance(value, dict) else problem


def _lines(value: Mapping[str, Any]) -> Iterator[str]:
    for name, each in value.items():
        if isinstance(each, Mapping):
            yield f"{name}:"
            yield from (f"  {line}" for line in _lines(each))
        else:
            text = ", ".join(map(str, each)) if isinstance(each, list) else str(each)
            yield f"{name}: {text}"


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All settings of the search, then those of the task."""
    found = [
        (name.replace("_", " "), _value(value))
        for name, value in config.items()
        if name not in ("task", "task_settings", "model", "problems")
    ]
    return found + [
        (f"task: {name.replace('_', ' ')}", _value(value))
        for name, value in config["task_settings"].items()
        if not isinstance(value, dict)
    ]


def _value(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
