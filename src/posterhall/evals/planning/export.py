"""The benchmark as tasks of lm-evaluation-harness: YAML and JSONL, no code.

One task for each graph and condition, and a group over them. The harness compares answers with the key (all
right paths) by exact match, where this package walks them on the graph: a start left out, or bare numbers
for rooms, count as wrong there. Changes are told at once, since its tasks have one turn.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from posterhall.errors import DataError, UsageError
from posterhall.evals.planning.domains import load as load_domain
from posterhall.evals.planning.jobs import PlanningSettings, plan
from posterhall.evals.planning.prompts import Conversation
from posterhall.runs import write_atomic

GROUP = "posterhall_planning"


def write(settings: PlanningSettings, directory: Path) -> dict[str, Any]:
    """Write the tasks into a new or empty directory.

    Args:
        settings: what to ask; of the temperatures only the first counts.
        directory: what ``lm_eval --include_path`` is given. The tasks name their data by absolute path, as
            the harness wants it: write them again rather than move them.

    Returns:
        directory; group; tasks, their names; documents, how many there are.

    Raises:
        DataError: if the directory is not empty.
        UsageError: for hub, tot and map, which take several turns, or if there is nothing to ask.
    """
    if settings.intervention in ("hub", "tot", "map"):
        raise UsageError(
            f"the intervention {settings.intervention} takes several turns; a task of lm-evaluation-harness "
            "has one"
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DataError(f"{directory} is there and not empty; choose another directory")
    settings = replace(settings, turns="1", temperatures=settings.temperatures[:1])
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for planned in plan(settings):
        conversation = planned.conversation()
        if conversation is not None:
            documents = found.setdefault((planned.graph, planned.condition), [])
            documents.append(
                {
                    "id": f"{planned.domain}-{planned.repetition}",
                    "prompt": _prompt(conversation),
                    "targets": _targets(conversation),
                }
            )
    if not found:
        raise UsageError("no graph admits any of the conditions; there is nothing to write")
    forms = {load_domain(name).form for name in settings.domains}
    if len(forms) > 1:
        raise UsageError(
            "chat domains and text domains (compact) are answered differently; export them apart"
        )
    stop = load_domain(settings.domains[0]).stop
    directory.mkdir(parents=True, exist_ok=True)
    names: dict[str, None] = {}
    for (graph, condition), documents in found.items():
        name = _named(f"{GROUP}_{graph}_{condition}", names)
        data = (directory / f"{name}.jsonl").resolve()
        lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in documents)
        write_atomic(data, lines)
        task = _task(name, data, settings.max_tokens, stop, chat="chat" in forms)
        write_atomic(directory / f"{name}.yaml", yaml.safe_dump(task, sort_keys=False, width=110))
    group = {
        "group": GROUP,
        "task": list(names),
        "aggregate_metric_list": [{"metric": "exact_match", "aggregation": "mean", "weight_by_size": True}],
        "metadata": {"version": 1.0},
    }
    write_atomic(directory / f"{GROUP}.yaml", yaml.safe_dump(group, sort_keys=False, width=110))
    return {
        "directory": str(directory),
        "group": GROUP,
        "tasks": list(names),
        "documents": sum(map(len, found.values())),
    }


def _named(wanted: str, names: dict[str, None]) -> str:
    """A name of a task and of its files: letters, digits and underscores, each once."""
    name = base = re.sub(r"\W+", "_", wanted)
    number = 2
    while name in names:
        name, number = f"{base}_{number}", number + 1
    names[name] = None
    return name


def _prompt(conversation: Conversation) -> str:
    prompt = conversation.prompt(())
    return prompt if isinstance(prompt, str) else "\n\n".join(message.content for message in prompt)


def _targets(conversation: Conversation) -> list[str]:
    question = conversation.item.question
    if question.kind == "clusters":
        return [str(question.number)]
    between = " " if conversation.domain.form == "text" else " -> "
    return [between.join(conversation.names[node] for node in path) for path in question.key()]


def _task(name: str, data: Path, max_tokens: int, stop: str, *, chat: bool) -> dict[str, Any]:
    pattern = r"(?i)answer\W{0,4}:[\s*_]*([^\n]+)" if chat else r"^\s*([^\n]+)"
    metric: dict[str, Any] = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    if chat:  # "Room 1 → the room 3." is "room 1 -> room 3"; without their nouns 1, 11 would be 11, 1
        metric |= {"ignore_case": True, "regexes_to_ignore": [r"(?i)\bthe\b", r"\W+"]}
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "targets",
        "generation_kwargs": {
            "until": [stop] if stop else [],
            "do_sample": False,
            "max_gen_toks": max_tokens,
        },
        "filter_list": [
            {
                "name": "last answer",
                "filter": [
                    {"function": "regex", "regex_pattern": pattern, "group_select": -1 if chat else 0},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [metric],
        "metadata": {"version": 1.0},
    }
