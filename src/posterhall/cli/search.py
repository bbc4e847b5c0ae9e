"""`posterhall search`: solve problems by searching over a model's thoughts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli import asking
from posterhall.cli.output import (
    ConfigFile,
    Json,
    Quiet,
    Resume,
    Seed,
    Sets,
    Threads,
    emit_json,
    emit_table,
)
from posterhall.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from posterhall.search import Report, SearchSettings, Task

app = typer.Typer(help="Solve problems by searching over a model's thoughts.", no_args_is_help=True)

TaskName = Annotated[
    str,
    typer.Option("--task", metavar="NAME|FILE.yaml", help="Kind of problem; `search tasks` lists them."),
]


@app.callback()
def _group() -> None:
    """Solve problems by searching over a model's thoughts."""


@app.command()
def solve(
    problem: Annotated[
        list[str],
        typer.Argument(metavar="PROBLEM|FILE...", help='Problems, as "4 9 10 13", or files of them.'),
    ],
    task: TaskName,
    model: asking.Model,
    method: Annotated[
        str | None,
        typer.Option(
            help="bfs, dfs, best-first, astar, mcts, map, io, cot, cot-sc, best-of or refine [bfs]."
        ),
    ] = None,
    breadth: Annotated[int | None, typer.Option("--breadth", "-b", help="States kept a step [5].")] = None,
    proposals: Annotated[int | None, typer.Option(help="Replies of the generator a state [1].")] = None,
    votes: Annotated[int | None, typer.Option(help="Replies of the evaluator [3].")] = None,
    generator: Annotated[str | None, typer.Option(help="propose or sample [propose].")] = None,
    evaluator: Annotated[
        str | None, typer.Option(help="value, vote, logprob, random or free [value].")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="paper, or original: as the code of its authors does.")
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="Column or key with the problem, in CSV and JSON files [problem].")
    ] = None,
    skip: Annotated[int, typer.Option(min=0, help="Leave out the first problems.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Most problems.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="RUN", help="Run directory, with a page of trees.")
    ] = None,
    cache: asking.Cache = None,
    log: asking.Log = None,
    max_calls: asking.MaxCalls = None,
    max_tokens_total: asking.MaxTokensTotal = None,
    max_cost: asking.MaxCost = None,
    max_seconds: asking.MaxSeconds = None,
    concurrency: asking.Concurrency = None,
    api_key_env: asking.ApiKeyEnv = None,
    device: asking.Device = None,
    dtype: asking.Dtype = None,
    seed: Seed = None,
    threads: Threads = None,
    config: ConfigFile = None,
    sets: Sets = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Solve problems with a model, by search or by a baseline.

    --set changes any setting of the search or of the task; limits hold for all problems together, those of
    one problem are settings (problem_calls, problem_tokens, problem_cost, problem_seconds).
    """
    from posterhall.devices import cores, limit_threads
    from posterhall.search import solve_all
    from posterhall.search.jobs import PARALLEL
    from posterhall.search.presets import resolved

    limit_threads(threads or cores())
    of_search, of_task = _parted(sets or [], task)
    made = _task(task, of_task, original=preset == "original")
    settings = resolved(
        made.name,
        preset_name=preset,
        file=config,
        sets=of_search,
        flags={
            "method": method,
            "breadth": breadth,
            "proposals": proposals,
            "votes": votes,
            "generator": generator,
            "evaluator": evaluator,
            "seed": seed,
        },
    )
    if resume and out is None:
        raise UsageError("--resume goes on with a run; name its directory with -o")
    problems, inputs = _problems(problem, field)
    problems = problems[skip:][:limit]
    if not problems:
        raise DataError(f"--skip {skip} leaves no problem")
    with asking.connect(
        model,
        cache=cache,
        log=log,
        max_calls=max_calls,
        max_tokens_total=max_tokens_total,
        max_cost=max_cost,
        max_seconds=max_seconds,
        concurrency=concurrency,
        api_key_env=api_key_env,
        device=device,
        dtype=dtype,
    ) as lm:
        report = solve_all(
            made,
            problems,
            lm,
            settings=settings,
            out=out,
            resume=resume,
            parallel=concurrency or PARALLEL,
            inputs=inputs,
            quiet=quiet,
        )
    page = None
    if report.run is not None:
        from posterhall.report.tree_page import write

        page = write(report.run)
    for solution in report.solutions:
        if solution.stopped_by is not None:
            asking.warn(f"{report.unfinished} of {len(problems)} ended early: {solution.stopped_by}")
            break
    if json:
        emit_json(_as_json(made, settings, report, page))
    else:
        _show(made, report, page)


@app.command("tasks")
def tasks_(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE.yaml]", help="A task, to see what can be set.")
    ] = None,
    json: Json = False,
) -> None:
    """List the kinds of problems, or what can be set of one."""
    from posterhall.config import describe
    from posterhall.search import tasks as room

    if name is None:
        rows = [(each, _first_line(room.task_class(each))) for each in room.TASKS]
        if json:
            emit_json({"tasks": [{"name": each, "what": what} for each, what in rows]})
        else:
            emit_table([*rows, ("FILE.yaml", "A task of your own: prompts and a checker in a file.")])
        return
    settings = [each for each in describe(room.settings_class(name)) if each.name != "problem"]
    if room.is_file(name):
        room.load(name)
    if json:
        emit_json(
            {
                "name": name,
                "settings": [
                    {"name": each.name, "type": each.type, "default": _default(each.default), "doc": each.doc}
                    for each in settings
                ],
            }
        )
        return
    emit_table(
        [(each.name, _default(each.default), " ".join(each.doc.split())) for each in settings],
        header=("setting", "default", "what it is"),
    )


@app.command()
def problems(
    task: Annotated[str, typer.Argument(metavar="TASK", help="game24, word-grid, crosswords or hanoi.")],
    number: Annotated[
        int | None, typer.Option("--number", "-n", min=1, help="How many, drawn at random [all].")
    ] = None,
    lessons: Annotated[
        bool, typer.Option("--lessons", help="Lessons for a small model instead, a JSON object a line.")
    ] = False,
    without: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Leave out the problems of this file.")
    ] = None,
    seed: Seed = None,
    sets: Sets = None,
) -> None:
    """Make problems that have a solution, one a line, or lessons about them.

    --set: for game24 target, count, operators, modulus, low, high; for word-grid size, letters, clues,
    candidates, seed (of the lexicon);
    for hanoi disks.
    """
    import json as json_format

    from posterhall.search.tasks import files, making

    left_out = files.read(without) if without is not None else []
    if not lessons:
        for each in making.problems(task, number=number, seed=seed or 0, sets=sets or [], without=left_out):
            print(each)
        return
    if number is None:
        raise UsageError("--lessons has no end; say how many with --number")
    for prompt, answer in making.lessons(task, number, seed=seed or 0, sets=sets or [], without=left_out):
        print(json_format.dumps({"prompt": prompt, "answer": answer}, ensure_ascii=False))


def _parted(sets: Sequence[str], task: str) -> tuple[list[str], list[str]]:
    """--set texts for the search, and those for the task."""
    from dataclasses import fields

    from posterhall.search import SearchSettings
    from posterhall.search import tasks as room

    of_search = {each.name for each in fields(SearchSettings)}
    of_task = {each.name for each in fields(room.settings_class(task))} - {"problem"}
    parted: tuple[list[str], list[str]] = ([], [])
    for text in sets:
        name = text.partition("=")[0].strip().replace("-", "_")
        if name not in of_search | of_task:
            raise DataError(
                f"--set {text}: neither a search nor the task {task} has a setting '{name}'."
                + (did_you_mean(name, of_search | of_task) or f" The task has {', '.join(sorted(of_task))}.")
            )
        parted[name not in of_search].append(text)
    return parted


def _task(name: str, sets: Sequence[str], *, original: bool) -> Task:
    from posterhall.search import tasks as room

    given = [*sets, "original=true"] if original and name == "game24" else list(sets)
    return room.load(name, sets=given)


def _problems(given: Sequence[str], field: str | None) -> tuple[list[str], list[Path]]:
    """The problems named one by one and in files, and those files."""
    from posterhall.search.tasks import files

    found: list[str] = []
    inputs: list[Path] = []
    for text in given:
        path = Path(text)
        if _is_file(path):
            found += files.read(path, field=field)
            inputs.append(path)
        elif path.suffix in (".txt", ".csv", ".json", ".jsonl", ".ndjson") and len(text.split()) == 1:
            raise DataError(f"{text}: no such file")
        else:
            found.append(text)
    return found, inputs


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a problem is no name of a file: too long, or with a NUL in it
        return False


def _shares(report: Report, task: Task) -> dict[str, dict[str, Any] | None]:
    """What was solved, in each of the senses that are called so, with Wilson intervals."""
    from posterhall.stats import wilson

    total = len(report.solutions)

    def share(solved: int) -> dict[str, Any]:
        interval = wilson(solved, total)
        return {"solved": solved, "share": solved / total, "low": interval.low, "high": interval.high}

    kept = share(sum(each.any_solved for each in report.solutions))
    return {
        "top_1": share(sum(each.solved for each in report.solutions)),
        "any_kept": kept,
        "with_checker": kept if task.checkable else None,
    }


def _as_json(task: Task, settings: SearchSettings, report: Report, page: Path | None) -> dict[str, Any]:
    from posterhall.config import to_dict
    from posterhall.search.jobs import described

    return {
        "task": task.name,
        "task_settings": described(task),
        "settings": to_dict(settings),
        **report.to_dict(),
        **_shares(report, task),
        "solutions": [each.to_dict(tree=False) for each in report.solutions],
        "page": page,
    }


def _show(task: Task, report: Report, page: Path | None) -> None:
    from posterhall.search.tasks.files import one_line

    emit_table(
        [
            (
                one_line(each.problem, 40),
                None if each.answer is None else one_line(each.answer.replace("\n", " / "), 60),
                "yes" if each.solved else "no",
                f"{each.usage.calls:,}",
                f"{each.usage.tokens:,}",
                f"{each.seconds:.1f}",
            )
            for each in report.solutions
        ],
        header=("problem", "answer", "solved", "calls", "tokens", "seconds"),
        right=(3, 4, 5),
    )
    total = len(report.solutions)
    shares = _shares(report, task)
    print()
    if total > 1:
        names = {
            "top_1": "first by value",
            "any_kept": "any of those kept",
            "with_checker": "with the free checker",
        }
        emit_table(
            [
                (
                    names[name],
                    f"{each['solved']}/{total}",
                    f"{each['share']:.1%}",
                    f"{each['low']:.1%} to {each['high']:.1%}",
                )
                for name, each in shares.items()
                if each is not None
            ],
            header=("solved", "problems", "share", "95 %"),
            right=(1, 2),
        )
        print()
    print(f"asked: {asking.usage_line(report.usage)}")
    print(f"paid:  {asking.usage_line(report.paid)}")
    if report.run is not None:
        print(f"run:   {report.run}")
        print(f"page:  {page}")


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()


def _default(value: object) -> object:
    import dataclasses

    if value is dataclasses.MISSING:
        return "must be given"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value
