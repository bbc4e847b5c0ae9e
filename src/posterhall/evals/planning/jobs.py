"""The planning benchmark as a job: a model in, a table of cells and a run directory out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from posterhall.config import canonical, finite, plain, to_dict
from posterhall.errors import DataError, UsageError
from posterhall.evals.planning import graphs, rows, tables
from posterhall.evals.planning.conditions import CONDITIONS, Item, make
from posterhall.evals.planning.domains import PACKS, PAPER
from posterhall.evals.planning.domains import load as load_domain
from posterhall.evals.planning.families import FAMILIES
from posterhall.evals.planning.prompts import Conversation, Turns, Wording, converse
from posterhall.evals.planning.walks import THINKING, walk
from posterhall.lm import flow
from posterhall.lm.protocol import LM, Request, server_facts, wait
from posterhall.progress import Progress
from posterhall.runs import Run, is_run, read_manifest, write_atomic
from posterhall.seeds import derive, generator

Intervention = Literal["none", "bfs", "dfs", "hub", "tot", "map"]
KIND = "eval planning"
SCORES = "scores.json"
_REPLIES = "replies.jsonl"
_SEEDS = 1 << 31  # what every server takes


@dataclass(frozen=True)
class PlanningSettings:
    """Everything that determines the conversations, beside the model and the files of graphs and domains."""

    graphs: tuple[str, ...] = ("A", "B", "C", "D", "E", "F")
    """Published letters, files, or random families, as clusters:groups=3:size=5."""
    conditions: tuple[str, ...] = ()
    """Of `conditions.CONDITIONS`; empty: all that a graph admits."""
    domains: tuple[str, ...] = PAPER
    """Cover stories: ordRooms, unordSpatial, socialTies, compact, own, or YAML files."""
    repeats: int = 30
    """Conversations a cell, >= 1, each with names and order drawn anew (Momennejad et al. 2023: 30)."""
    temperatures: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Each >= 0; the paper's three."""
    intervention: Intervention = "none"
    """bfs or dfs: a description of that search is added; hub: the hub is asked for first; tot: the path is
    searched for, a step a thought (Yao et al. 2023); map: planned by modules (Webb et al. 2023). The last two
    are told of changes at once, and asked for paths only."""
    search: tuple[str, ...] = ()
    """With tot and map: settings of the search, as breadth=3 or without=[monitor]."""
    wording: Wording = "pairs"
    """pairs: every edge is told; groups: clusters "are all connected to each other", judged both ways."""
    turns: Turns = "auto"
    """2: what changes comes in a second turn; 1: at once; auto: 2 for graphs with a start, as published."""
    step_cost: float = 0.0
    """What a step takes off a reward, >= 0."""
    max_tokens: int = 1024
    """Of a reply, >= 1; the published number."""
    top_p: float = 0.95
    """In (0, 1]; the published number."""
    seed: int = 0
    """Of all that is drawn."""

    def __post_init__(self) -> None:
        for name in ("graphs", "domains", "temperatures"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise DataError(f"{name} is {list(given)}; give one or more, each once")
        for name in self.conditions:
            if name not in CONDITIONS:
                make(name, graphs.PUBLISHED["A"])  # says what is allowed
        if len(set(self.conditions)) < len(self.conditions):
            raise DataError(f"conditions is {list(self.conditions)}; give each once")
        for name in ("repeats", "max_tokens"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not all(0 <= temperature < 100 for temperature in self.temperatures):
            raise DataError(f"temperatures is {list(self.temperatures)}; each must be 0 or above")
        if self.intervention not in get_args(Intervention):
            raise DataError(
                f"intervention is {self.intervention!r}; allowed are {', '.join(get_args(Intervention))}"
            )
        if self.search and self.intervention not in THINKING:
            raise DataError(f"search is {list(self.search)}, which goes with intervention tot or map")
        if not 0 < self.top_p <= 1:
            raise DataError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.step_cost < float("inf"):
            raise DataError(f"step_cost is {self.step_cost}; it must be 0 or above")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The conditions, all of them where none are named."""
        return self.conditions or tuple(CONDITIONS)

    @property
    def files(self) -> list[Path]:
        """Files of graphs and domains, for a run's record."""
        named = [name for name in self.graphs if name not in graphs.PUBLISHED]
        named += [name for name in self.domains if name not in PACKS]
        return [Path(name) for name in named if Path(name).is_file()]


@dataclass(frozen=True)
class Planned:
    """One conversation to be had."""

    graph: str
    condition: str
    domain: str
    temperature: float
    repetition: int
    settings: PlanningSettings = field(repr=False)

    @property
    def name(self) -> str:
        """What it is kept under: unique in a run."""
        return canonical([self.graph, self.condition, self.domain, self.temperature, self.repetition])

    def item(self) -> Item | None:
        """What is asked; None if the graph does not admit the condition."""
        its = self.settings
        found = _item(self.graph, self.condition, self.repetition, its.seed, its.step_cost)
        if found is not None and found.question.kind == "clusters" and its.intervention in THINKING:
            return None  # a number is no path to be searched for
        return found

    def conversation(self) -> Conversation | None:
        """What is said in it, the same at every temperature; None if there is no item."""
        its, item = self.settings, self.item()
        if item is None:
            return None
        hint = its.intervention if its.intervention != "tot" and its.intervention != "map" else "none"
        path = ("planning", "words", self.graph, self.condition, self.domain, self.repetition)
        return converse(
            item,
            load_domain(self.domain),
            generator(its.seed, *path),
            intervention=hint,
            wording=its.wording,
            turns="1" if its.intervention in THINKING else its.turns,
        )


@lru_cache(maxsize=8192)
def _item(graph: str, condition: str, repetition: int, seed: int, step_cost: float) -> Item | None:
    drawn = _graph(graph, seed, repetition if graph.partition(":")[0] in FAMILIES else 0)
    return make(condition, drawn, seed=seed, repetition=repetition, step_cost=step_cost)


@lru_cache(maxsize=1024)
def _graph(name: str, seed: int, repetition: int) -> graphs.Graph:
    return graphs.load(name, seed=seed, repetition=repetition)


def plan(settings: PlanningSettings) -> Iterator[Planned]:
    """All conversations in order, those too that a graph does not admit."""
    for graph in settings.graphs:
        for condition in settings.wanted:
            for domain in settings.domains:
                for temperature in settings.temperatures:
                    for repetition in range(settings.repeats):
                        yield Planned(graph, condition, domain, temperature, repetition, settings)


@dataclass
class _Kept:
    """The replies so far, in a file to which each conversation is appended at once; none without a file."""

    path: Path | None
    said: dict[str, dict[str, Any]] = field(default_factory=dict)

    def load(self) -> None:
        """Take up what is in the file; a line torn by a kill is cut off."""
        if self.path is None or not self.path.exists():
            return
        *lines, torn = self.path.read_bytes().split(b"\n")
        for line in lines:
            value = json.loads(line)
            self.said[value.pop("name")] = value
        if torn:
            os.truncate(self.path, sum(len(line) + 1 for line in lines))

    def add(self, name: str, said: dict[str, Any]) -> None:
        """Keep a conversation; it survives the death of the process from the moment this returns."""
        self.said[name] = said
        if self.path is not None:
            with open(self.path, "ab") as file:
                file.write((json.dumps({"name": name, **said}) + "\n").encode())


def evaluate(
    lm: LM,
    settings: PlanningSettings | None = None,
    *,
    out: Path | None = None,
    inputs: Sequence[Path] = (),
    width: int = 64,
    resume: bool = False,
    quiet: bool = True,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Have all conversations with a model, and judge what it says.

    Args:
        lm: the model.
        settings: what to ask; None means the paper's grid.
        out: directory of the run; None keeps nothing.
        inputs: files that the model was read from, for the run's record.
        width: conversations under way at once, >= 1; it does not change what is asked.
        resume: go on with the run that is there; a finished one is left as it is.
        quiet: no progress on stderr.
        warn: is told what the user should know.

    Returns:
        What scores.json holds; see `summary`.

    Raises:
        DataError: for graphs, conditions or domains that cannot be used, or a run that is there already.
        UsageError: if no graph admits any of the conditions.
    """
    settings = settings or PlanningSettings()
    todo = [each for each in plan(settings) if each.item() is not None]
    for each in todo:  # what cannot be put in words shows now, before anything is paid for
        if each.temperature == settings.temperatures[0]:
            each.conversation()
    skipped = _skipped(settings, todo)
    if not todo:
        raise UsageError(
            f"none of the graphs {', '.join(settings.graphs)} admits any of {', '.join(settings.wanted)}"
        )
    if settings.conditions:
        for graph, condition in skipped:
            warn(f"graph {graph} does not admit {condition}; left out")
    if out is None:
        return _work(lm, todo, skipped, settings, None, width, quiet)
    if resume and is_run(out) and read_manifest(out)["status"] == "done":
        result: dict[str, Any] = json.loads((out / "artifacts" / SCORES).read_bytes())
        return result
    config = {**to_dict(settings), "model": lm.name}
    with Run.start(
        out,
        kind=KIND,
        config=config,
        inputs=[*inputs, *settings.files],
        seeds=[settings.seed],
        resume=resume,
    ) as run:
        result = _work(lm, todo, skipped, settings, run, width, quiet)
        run.checkpoint(_REPLIES).unlink(missing_ok=True)
        facts = {"conversations": result["conversations"], "accuracy": result["accuracy"]}
        run.finish(model=lm.name, **facts, **server_facts(lm))
    return result


def _skipped(settings: PlanningSettings, todo: Sequence[Planned]) -> list[tuple[str, str]]:
    have = {(each.graph, each.condition) for each in todo}
    return [
        (graph, name) for graph in settings.graphs for name in settings.wanted if (graph, name) not in have
    ]


def _work(
    lm: LM,
    todo: Sequence[Planned],
    skipped: Sequence[tuple[str, str]],
    settings: PlanningSettings,
    run: Run | None,
    width: int,
    quiet: bool,
) -> dict[str, Any]:
    kept = _Kept(run.checkpoint(_REPLIES) if run else None)
    kept.load()
    left = [one for one in todo if one.name not in kept.said]
    with Progress(
        len(todo), label="plan", unit="conversations", quiet=quiet, start=len(todo) - len(left)
    ) as progress:
        wait(_ask_all(lm, left, settings, kept, progress, width))
    table = rows.score(_table(lm, todo, settings, kept))
    result = summary(table, run=run.path if run else None)
    result["skipped"] = [{"graph": graph, "condition": condition} for graph, condition in skipped]
    if run is not None:
        rows.save(table, run.artifact(rows.FILE))
        text = json.dumps(finite(plain(result)), indent=2, ensure_ascii=False)
        write_atomic(run.artifact(SCORES), text + "\n")
    return result


async def _ask_all(
    lm: LM, left: Sequence[Planned], settings: PlanningSettings, kept: _Kept, progress: Progress, width: int
) -> None:
    done = progress.done
    async for number, said in flow.each(lambda one: _talk(lm, one, settings), left, width=width):
        kept.add(left[number].name, said)
        done += 1
        progress.update(done)


async def _talk(lm: LM, planned: Planned, settings: PlanningSettings) -> dict[str, Any]:
    """Have one conversation, turn by turn."""
    conversation = planned.conversation()
    if conversation is None:
        raise UsageError(f"graph {planned.graph} does not admit {planned.condition}")
    if settings.intervention in THINKING:
        return await walk(
            lm,
            conversation,
            settings.intervention,
            sets=settings.search,
            temperature=planned.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            seed=derive(settings.seed, "planning", "reply", planned.name) % _SEEDS,
        )
    replies: list[str] = []
    tokens_in = tokens_out = 0
    cut = False
    for turn in range(len(conversation.turns)):
        request = Request(
            conversation.prompt(replies),
            max_tokens=settings.max_tokens,
            temperature=planned.temperature,
            top_p=settings.top_p,
            stop=(conversation.domain.stop,) if conversation.domain.stop else (),
            seed=derive(settings.seed, "planning", "reply", planned.name, turn) % _SEEDS,
        )
        sample = (await lm.agenerate([request]))[0][0]
        replies.append(sample.text)
        tokens_in += sample.tokens_in
        tokens_out += sample.tokens_out
        cut = cut or sample.finish_reason == "length"
    return {"replies": replies, "tokens": [tokens_in, tokens_out], "cut": cut}


def _table(lm: LM, todo: Sequence[Planned], settings: PlanningSettings, kept: _Kept) -> pa.Table:
    found = []
    for planned in todo:
        conversation, said = planned.conversation(), kept.said[planned.name]
        if conversation is None:
            continue
        found.append(
            rows.row(
                conversation,
                said["replies"],
                model=lm.name,
                temperature=planned.temperature,
                repetition=planned.repetition,
                intervention=settings.intervention,
                wording=settings.wording,
                tokens=tuple(said["tokens"]),
                cut=said["cut"],
                graph=planned.graph,
            )
        )
    return pa.Table.from_pylist(found, schema=rows.SAID)


def summary(table: pa.Table, *, run: Path | None = None) -> dict[str, Any]:
    """What is said of scored conversations.

    Returns:
        models; conversations; accuracy, low, high and failures over all of them; cells (graph by condition)
        and, each in the form of `tables.cells`, by_graph, by_condition, by_domain, by_temperature, by_model;
        tokens_in, tokens_out; unread, the share of replies in which nothing could be read; two_answers, how
        many replies said "Answer:" more than once; run.
    """
    whole = tables.cells(table, [])[0]
    return {
        "models": sorted(set(table["model"].to_pylist())),
        "conversations": len(table),
        **{name: whole[name] for name in ("correct", "accuracy", "low", "high", "failures", "first", "hub")},
        "literal": whole["literal"],
        "unread": whole["failures"].get("unread", 0) / len(table),
        "two_answers": sum(1 for times in table["answers"].to_pylist() if times and times > 1),
        "cut": whole["cut"],
        "tokens_in": int(sum(table["tokens_in"].to_pylist())),
        "tokens_out": int(sum(table["tokens_out"].to_pylist())),
        "cells": tables.cells(table, ["graph", "condition"]),
        **{
            f"by_{name}": tables.cells(table, [name])
            for name in ("graph", "condition", "domain", "temperature", "model")
        },
        "run": str(run) if run else None,
    }


def rescore(path: Path) -> dict[str, Any]:
    """Judge the conversations of a run, or of a file of them, again; nothing is asked and nothing changed.

    Raises:
        DataError: if there are none.
    """
    table = rows.load(path)
    if not len(table):
        raise DataError(f"{path}: no conversations in it")
    return {**summary(rows.score(table), run=path if path.is_dir() else None), "skipped": []}
