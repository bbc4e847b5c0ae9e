"""Results of lm-evaluation-harness and BIG-bench, in the layout these programs write."""

from __future__ import annotations

import json

import pytest

from posterhall.errors import DataError
from posterhall.scaling.emergence import grouped, read


def big_bench(folder, family, params, scores, *, task="arithmetic", **model):
    path = folder / task / "results" / f"scores_{family}_{params:g}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "model": {"model_family": family, "model_name": f"{params:g}", "total_params": params, **model},
        "scores": [
            {
                "score_dict": {"exact_str_match": score, "bleu": 100 * score, "note": "text"},
                "number_of_shots": shots,
                "preferred_score": "exact_str_match",
                "subtask_description": subtask,
                "low_score": 0.0,
                "high_score": 1.0,
            }
            for subtask, shots, score in scores
        ],
    }
    path.write_text(json.dumps(data))
    return path


def lm_eval(folder, model, params, results, *, date="2024-05-01T10-00-00.123", samples=None, **more):
    data = {
        "results": {task: {"alias": task, **metrics} for task, metrics in results.items()},
        "config": {
            "model": "hf",
            "model_args": f"pretrained={model},dtype=float32",
            "model_num_parameters": params,
        },
        **more,
    }
    path = folder / f"results_{date}.json"
    path.write_text(json.dumps(data))
    for task, lines in (samples or {}).items():
        text = "\n".join(map(json.dumps, lines))
        (folder / f"samples_{task}_{date}.jsonl").write_text(text)
    return path


def test_big_bench_entries_are_told_apart_by_subtask_and_shots(tmp_path):
    for params, score in ((1e8, 0.0), (1e9, 0.1), (1e10, 0.5)):
        big_bench(tmp_path, "dense", params, [("arithmetic", 0, score / 2), ("3_digit", 2, score)])
    rows = read([tmp_path])
    found = {(each.task, each.metric): each for each in grouped(rows)}
    assert set(found) == {
        (task, metric)
        for task in ("arithmetic (0-shot)", "arithmetic: 3_digit (2-shot)")
        for metric in ("exact_str_match", "bleu")
    }
    series = found["arithmetic: 3_digit (2-shot)", "exact_str_match"]
    assert series.family == "dense"
    assert series.scales.tolist() == [1e8, 1e9, 1e10]
    assert series.scores.tolist() == [0, 0.1, 0.5]
    assert {row.metric for row in rows if row.preferred} == {"exact_str_match"}
    assert [row.chance for row in rows if row.metric == "bleu"] == [None] * 6


def test_big_bench_scale_is_the_papers_and_can_be_chosen(tmp_path):
    path = big_bench(tmp_path, "sparse", 5e9, [("", 0, 0.5)], flop_matched_non_embedding_params=4e8)
    assert read([path])[0].scale == 4e8
    assert read([path], columns={"scale": "total_params"})[0].scale == 5e9
    with pytest.raises(DataError, match="no number under size; its fields are model_family"):
        read([path], columns={"scale": "size"})


def test_lm_eval_metrics_filters_and_sizes(tmp_path):
    metrics = {
        "acc,none": 0.31,
        "acc_stderr,none": 0.01,
        "exact_match,strict-match": 0.2,
        "exact_match_stderr,strict-match": "N/A",
    }
    extra = {
        "n-samples": {"arc": {"original": 2000, "effective": 1000}},
        "higher_is_better": {"arc": {"acc": True}},
    }
    path = lm_eval(tmp_path, "EleutherAI/pythia-70m", 70_426_624, {"arc": metrics}, **extra)
    acc, exact = read([path])
    assert (acc.metric, acc.scale, acc.score, acc.n, acc.stderr, acc.higher_is_better) == (
        "acc", 70_426_624, 0.31, 1000, 0.01, True,
    )  # fmt: skip
    assert (exact.metric, exact.stderr) == ("exact_match,strict-match", None)


def test_a_model_of_unknown_size_needs_the_table_of_models(tmp_path):
    path = lm_eval(tmp_path, "org/api-model", None, {"arc": {"acc,none": 0.3}})
    with pytest.raises(DataError, match="how large org/api-model is"):
        read([path])
    (tmp_path / "models.csv").write_text("model,family,scale\norg/api-model,api,7e9\n")
    (row,) = read([path], models=tmp_path / "models.csv")
    assert (row.family, row.scale) == ("api", 7e9)


def test_logged_samples_beside_the_results_give_items(tmp_path):
    for i, params in enumerate((1e8, 1e9, 1e10, 1e11)):
        samples = [{"doc_id": j, "doc": {}, "target": "x", "acc": float(j < 2 * i)} for j in range(8)]
        lm_eval(
            tmp_path,
            f"m{i}",
            params,
            {"arc": {"acc,none": i / 4, "perplexity,none": 9.0 - i}},
            date=f"2024-05-0{i + 1}T00-00-00.0",
            samples={"arc": samples},
        )
    found = {each.metric: each for each in grouped(read([tmp_path]))}
    assert found["acc"].items.shape == (4, 8)
    assert found["acc"].scores.tolist() == [0, 0.25, 0.5, 0.75]
    assert found["perplexity"].items is None
    assert found["perplexity"].sign == -1


def test_a_task_named_as_a_path_opens_no_other_file(tmp_path):
    secret = tmp_path / "samples_x_2024-05-01T10-00-00.123.jsonl"
    secret.write_text('{"doc_id": 0, "acc": 1.0}\n')
    inner = tmp_path / "inner"
    inner.mkdir()
    path = lm_eval(inner, "m", 1e8, {"../samples_x": {"acc,none": 0.3}, "/etc/passwd": {"acc,none": 0.4}})
    rows = read([path])
    assert [row.item for row in rows] == ["", ""]
    assert [row.score for row in rows] == [0.3, 0.4]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"results": {"arc": {"acc,none": 0.3}}, "config": {"model_num_parameters": -1}}', "how large"),
        ('{"model": {}, "scores": [{"score_dict": {"a": 1}}]}', "no number under"),
        ('{"model": {"total_params": 1}, "scores": [3]}', "score 1: has no score_dict"),
        ("{}", "neither results"),
        ("[[", "no valid JSON"),
    ],
)
def test_results_that_lack_what_is_needed_are_refused(tmp_path, text, match):
    path = tmp_path / "results_x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=match):
        read([path])
