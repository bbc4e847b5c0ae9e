"""The tasks of lm-evaluation-harness (`lm_eval`), asked of any of our models.

The harness builds the prompts and sums up; this room answers its requests through the `LM` protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from posterhall.config import finite
from posterhall.extras import require
from posterhall.lm.protocol import LM, Request
from posterhall.runs import Run, atomic_file, write_atomic

if TYPE_CHECKING:
    from posterhall.evals.jobs import EvalSettings

_MAX_TOKENS = 256
"""Where a task does not say: the harness's own default."""


def require_harness() -> Any:
    """The package `lm_eval`.

    Raises:
        MissingExtra: if it is not installed.
    """
    return require("lm_eval", "harness", "running the tasks of lm-evaluation-harness")


def harness_model(lm: LM) -> Any:
    """A model of ours as an `lm_eval.api.model.LM`, to be given to `lm_eval.simple_evaluate(model=...)`.

    `loglikelihood` scores the continuations of equal contexts together, so that a context is read once
    however many choices it has. `generate_until` is greedy unless the task asks for sampling.
    `loglikelihood_rolling` takes texts that fit in the model's context.

    Raises:
        MissingExtra: if the harness is not installed.
    """
    base: Any = require("lm_eval.api.model", "harness", "running the tasks of lm-evaluation-harness").LM

    class HarnessModel(base):  # type: ignore[misc]
        """Answers the three kinds of request of the harness."""

        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            return loglikelihood(lm, [each.args for each in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            texts = [each.args[0] for each in requests]
            return [scored[0].total for scored in lm.score_many([("", [text]) for text in texts])]

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            return generate_until(lm, [each.args for each in requests])

    return HarnessModel()


def loglikelihood(lm: LM, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
    """(log p, whether greedy) of each continuation of a context, in order; equal contexts are read once.

    A space at a context's end belongs to the continuation: tokens rarely end in a space.
    """
    moved = []
    for context, continuation in pairs:
        bare = context.rstrip(" ")
        moved.append((bare, context[len(bare) :] + continuation))
    together: dict[str, dict[str, tuple[float, bool]]] = {}
    for context, continuation in moved:
        together.setdefault(context, {})[continuation] = (0.0, False)
    items = [(context, list(continuations)) for context, continuations in together.items()]
    for (context, _), scored in zip(items, lm.score_many(items), strict=True):
        together[context] = {each.continuation: (each.total, each.is_greedy) for each in scored}
    return [together[context][continuation] for context, continuation in moved]


def generate_until(lm: LM, pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The text that follows each context, under the harness's generation arguments."""
    requests = []
    for number, (context, wanted) in enumerate(pairs):
        until = wanted.get("until") or ()
        sampled = bool(wanted.get("do_sample", False))
        requests.append(
            Request(
                context,
                max_tokens=int(wanted.get("max_gen_toks") or wanted.get("max_new_tokens") or _MAX_TOKENS),
                temperature=float(wanted.get("temperature", 1.0)) if sampled else 0.0,
                top_p=float(wanted.get("top_p", 1.0)),
                stop=tuple(each for each in ([until] if isinstance(until, str) else until) if each),
                seed=number if sampled else None,
            )
        )
    return [samples[0].text for samples in lm.generate(requests)]


def run_tasks(lm: LM, settings: EvalSettings, run: Run | None) -> list[dict[str, Any]]:
    """Run the tasks of the harness that the settings name, for each number of examples.

    With a run, artifacts/harness-K-shot.json has what the harness returned (`scale emergence` reads it)
    and artifacts/harness-K-shot-samples.jsonl its samples. A number of examples that is done is not run
    again on resuming.

    Returns:
        One row a task, number of examples and metric: task, shots, metric, score, stderr,
        higher_is_better.
    """
    found: list[dict[str, Any]] = []
    model = harness_model(lm)
    for shots in sorted(settings.shots, reverse=True):
        kept = run.artifact(f"harness-{shots}-shot.json") if run else None
        if kept is not None and kept.exists():
            results = json.loads(kept.read_bytes())
        else:
            results = require_harness().simple_evaluate(
                model=model,
                tasks=list(settings.harness),
                num_fewshot=shots,
                limit=settings.limit,
                random_seed=settings.seed,
                numpy_random_seed=settings.seed,
                torch_random_seed=settings.seed,
                fewshot_random_seed=settings.seed,
                log_samples=run is not None,
            )
            samples = results.pop("samples", {})
            results = json.loads(json.dumps(finite(results), default=str))
            if run is not None and kept is not None:
                with atomic_file(run.artifact(f"harness-{shots}-shot-samples.jsonl")) as file:
                    for task, each in samples.items():
                        for sample in each:
                            line = json.dumps({"task": task, **sample}, default=str, ensure_ascii=False)
                            file.write(line.encode() + b"\n")
                write_atomic(kept, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        found += list(_rows(results, shots))
    return sorted(found, key=lambda row: (row["task"], row["metric"], row["shots"]))


def _rows(results: Mapping[str, Any], shots: int) -> list[dict[str, Any]]:
    """The scores in what the harness returns: {"results": {task: {"acc,none": x, "acc_stderr,none": y}}}."""
    rows = []
    for task, scores in results["results"].items():
        better = (results.get("higher_is_better") or {}).get(task) or {}
        for key, score in scores.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(score, int | float):
                continue
            error = scores.get(f"{metric}_stderr,{filtered}")
            rows.append(
                {
                    "task": task,
                    "shots": shots,
                    "metric": metric if filtered == "none" else key,
                    "score": float(score),
                    "stderr": float(error) if isinstance(error, int | float) else None,
                    "higher_is_better": better.get(metric),
                }
            )
    return rows
