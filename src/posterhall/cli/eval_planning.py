"""`posterhall eval planning`: paths on graphs that a model is told of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli import asking
from posterhall.cli.output import ConfigFile, Json, Quiet, Resume, Seed, Sets, emit_json, emit_table
from posterhall.errors import UsageError


def planning(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="ADDRESS",
            help="Directory of a model or a run, owner/name on the hub, http://HOST/v1#NAME, replay:LOG, "
            "scripted:FILE, or echo.",
        ),
    ] = None,
    graphs: Annotated[
        str | None,
        typer.Option(
            "--graphs",
            metavar="LIST",
            help="A to F, files (.json, or edges line by line), random families, as "
            "clusters:groups=3:size=5; commas between [A,B,C,D,E,F].",
        ),
    ] = None,
    conditions: Annotated[
        str | None, typer.Option("--conditions", metavar="LIST", help="Commas between [all].")
    ] = None,
    domains: Annotated[
        str | None,
        typer.Option(
            "--domains",
            metavar="LIST",
            help="ordRooms, unordSpatial, socialTies, compact, own, or YAML files; commas between "
            "[the first three].",
        ),
    ] = None,
    repeats: Annotated[int | None, typer.Option("--repeats", help="Conversations a cell [30].")] = None,
    temperature: Annotated[
        list[float] | None, typer.Option("--temperature", help="May be repeated [0, 0.5 and 1].")
    ] = None,
    intervention: Annotated[
        str | None,
        typer.Option(
            "--intervention",
            help="none, bfs, dfs: a hint; hub: the hub is asked for first; tot: searched for step by step; "
            "map: planned by modules [none].",
        ),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=VALUE",
            help="With tot and map: a setting of the search, as breadth=3; may be repeated.",
        ),
    ] = None,
    wording: Annotated[
        str | None,
        typer.Option("--wording", help="pairs: every edge; groups: clusters 'all connected' [pairs]."),
    ] = None,
    turns: Annotated[
        str | None,
        typer.Option("--turns", help="Changes at once, 1, or in a second turn, 2 [auto: 2 on A to C]."),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Of a reply [1024].")] = None,
    judge: Annotated[
        str | None,
        typer.Option("--judge", metavar="ADDRESS", help="A model that judges too; its agreement is told."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="DIR", help="Ask nothing; write a task for lm-evaluation-harness."),
    ] = None,
    score: Annotated[
        Path | None,
        typer.Option("--score", metavar="RUN|FILE", help="Ask nothing; judge these conversations again."),
    ] = None,
    analyse: Annotated[
        list[Path] | None,
        typer.Option(
            "--analyse",
            metavar="RUN|FILE",
            help="Ask nothing; test what matters in these conversations. May be repeated.",
        ),
    ] = None,
    terms: Annotated[
        str | None,
        typer.Option(
            "--terms",
            metavar="LIST",
            help="With --analyse: what is tested, in this order, as graph,domain,graph:domain.",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", metavar="FILE.html", help="With --analyse: write the page of these runs."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Ask nothing; print one conversation of each cell, with its key.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="Run directory.")] = None,
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
    config: ConfigFile = None,
    sets: Sets = None,
    resume: Resume = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell a model of graphs, ask for shortest paths before and after changes, and judge what it says.

    Answers are walked on the graph: each is right, or has an invented edge, is longer than need be, loops,
    ends in the wrong place, gives no path, or cannot be read.
    """
    from posterhall import config as settings_room
    from posterhall.evals.planning import jobs

    asked = sum((model is not None, export is not None, score is not None, bool(analyse), show))
    if asked != 1:
        raise UsageError("give one of --model ADDRESS, --export DIR, --score RUN, --analyse RUN or --show")
    if (terms or page) and not analyse:
        raise UsageError("--terms and --page go with --analyse RUN")
    if analyse:
        from posterhall.cli.eval_planning_analysis import tell

        tell(analyse, _listed(terms), page, json)
        return
    if score is not None:
        _emit(jobs.rescore(score), json)
        return
    settings = settings_room.resolve(
        jobs.PlanningSettings,
        file=config,
        sets=sets or [],
        flags={
            "graphs": _listed(graphs),
            "conditions": _listed(conditions),
            "domains": _listed(domains),
            "repeats": repeats,
            "temperatures": temperature or None,
            "intervention": intervention,
            "search": search or None,
            "wording": wording,
            "turns": turns,
            "max_tokens": max_tokens,
            "seed": seed,
        },
    )
    if show:
        _show(settings, json)
        return
    if export is not None:
        from posterhall.evals.planning.export import write

        _emit_export(write(settings, export), json)
        return
    if resume and out is None:
        raise UsageError("--resume goes on with a run; name its directory with -o")
    if judge is not None and out is None:
        raise UsageError("--judge reads what a run keeps; name its directory with -o")
    options: dict[str, Any] = {
        "cache": cache,
        "log": log,
        "concurrency": concurrency,
        "api_key_env": api_key_env,
    }
    lm = asking.connect(
        str(model),
        max_calls=max_calls,
        max_tokens_total=max_tokens_total,
        max_cost=max_cost,
        max_seconds=max_seconds,
        device=device,
        dtype=dtype,
        **options,
    )
    with lm:
        result = jobs.evaluate(
            lm,
            settings,
            out=out,
            inputs=[lm.source] if lm.source else [],
            width=concurrency or 64,
            resume=resume,
            quiet=quiet,
            warn=asking.warn,
        )
        if out is not None:
            from posterhall.report import planning_page

            result["page"] = str(planning_page.write(out))
        result["usage"] = asking.usage_json(lm.usage)
        spent = asking.usage_line(lm.usage)
    if judge is not None and out is not None:
        from posterhall.evals.planning.judge import agreement

        with asking.connect(judge, **{**options, "log": None}) as other:
            result["judge"] = agreement(other, out, width=concurrency or 64, quiet=quiet)
    _emit(result, json, spent)


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _emit(result: dict[str, Any], as_json: bool, spent: str | None = None) -> None:
    if as_json:
        emit_json(result)
        return
    seen: dict[str, None] = {}
    for cell in result["cells"]:
        seen |= dict.fromkeys(cell["failures"])
    failures = list(seen)
    whole = {"graph": "all", "condition": "", "n": result["conversations"], **result}
    emit_table(
        [
            (
                cell["graph"],
                cell["condition"],
                f"{cell['n']:,}",
                _share(cell["accuracy"]),
                f"{_share(cell['low'])} to {_share(cell['high'])}",
                *(_share(cell["failures"].get(name, 0) / cell["n"]) for name in failures),
            )
            for cell in [*result["cells"], whole]
        ],
        header=("graph", "condition", "n", "right", "95 %", *failures),
        right=range(2, 5 + len(failures)),
    )
    for name, what in (
        ("first", "of the questions before the change"),
        ("hub", "of the hubs"),
        ("literal", "if clusters are cliques, as they are told"),
    ):
        if result[name] is not None:
            print(f"right {what}: {_share(result[name])}")
    if result["cut"]:
        print(f"cut off at the limit of tokens: {result['cut']:,} conversations; --max-tokens raises it")
    if result.get("judge"):
        found = result["judge"]
        kappa = "" if found["kappa"] is None else f", kappa {found['kappa']:.3f}"
        print(
            f"judge {found['judge']}: agrees on {_share(found['agreement']) or 'none'} of {found['judged']:,}"
            f"{kappa}; {found['unread']:,} of its replies unread"
        )
    if spent is not None:
        print(spent)
    if result["run"]:
        print(f"run: {result['run']}")
    if result.get("page"):
        print(f"page: {result['page']}")


def _share(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f} %"


def _emit_export(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(result)
        return
    print(f"{result['documents']:,} documents in {len(result['tasks'])} tasks: {result['directory']}")
    print(f"lm_eval --include_path {result['directory']} --tasks {result['group']} --apply_chat_template")


def _show(settings: Any, as_json: bool) -> None:
    """One conversation of each cell of graph, condition and domain."""
    from posterhall.cli.output import printable
    from posterhall.evals.planning.jobs import plan

    seen = set()
    shown = []
    for planned in plan(settings):
        cell = (planned.graph, planned.condition, planned.domain)
        conversation = None if cell in seen else planned.conversation()
        if conversation is None:
            continue
        seen.add(cell)
        question = conversation.item.question
        key = [[conversation.names[node] for node in path] for path in question.key()]
        shown.append(
            {
                "graph": planned.graph,
                "condition": planned.condition,
                "domain": planned.domain,
                "system": conversation.domain.system,
                "turns": [turn.text for turn in conversation.turns],
                "key": key or [[str(question.number)]],
            }
        )
    if as_json:
        emit_json({"conversations": shown})
        return
    for each in shown:
        print(f"# {each['graph']} {each['condition']} {each['domain']}")
        for number, text in enumerate(each["turns"], 1):
            print("\n".join(map(printable, f"[{number}] {text}".split("\n"))))
        for path in each["key"]:
            print(f"key: {printable(' -> '.join(path))}")
        print()
