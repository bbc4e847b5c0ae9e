"""What every backend on one machine must do; Ray's module runs the same checks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
from contract import CHECKS, check_deaths

from posterhall.embeddings.parameter_server import DistributedSettings, Downpour, train_encoded
from posterhall.embeddings.parameter_server.processes import ProcessFleet
from posterhall.embeddings.parameter_server.recipe import Recipe, name_of
from posterhall.embeddings.parameter_server.words import WordWindow
from posterhall.errors import DataError, Interrupted, PosterhallError, UsageError
from posterhall.runs import Run


@pytest.mark.parametrize("backend", ["threads", "processes"])
@pytest.mark.parametrize("check", CHECKS)
def test_backend(small, backend, check):
    check(small, backend)


def test_a_killed_process_costs_at_most_its_unpushed_batch(small):
    def kill(fleet: ProcessFleet, slot: int) -> None:
        os.kill(fleet.pids[slot], signal.SIGKILL)

    death = check_deaths(small, "processes", kill)
    assert "SIGKILL" in death.reason


def test_a_worker_restarts_where_restarts_are_left(small, monkeypatch):
    train, calls = WordWindow.train, []

    def fail_once(self, *arguments):
        calls.append(1)
        if len(calls) == 30:
            raise RuntimeError("out of luck")
        return train(self, *arguments)

    monkeypatch.setattr(WordWindow, "train", fail_once)
    options = DistributedSettings(
        backend="threads", workers=1, restarts=1, n_fetch=2, n_push=2, batch_words=20
    )
    report = train_encoded(small.settings(), small.vocabulary, small.encoded, options).report
    (death,) = report.deaths
    assert death.reason == "RuntimeError: out of luck"
    assert (report.words_by_worker > 0).all()
    assert report.words == 2 * small.encoded.tokens_total


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_when_all_workers_die_their_reasons_are_told(small, backend):
    options = DistributedSettings(backend=backend)
    with pytest.raises(PosterhallError, match=r"all workers died.*diverges"):
        train_encoded(small.settings(alpha=1e5), small.vocabulary, small.encoded, options)


def test_a_run_continues_from_its_snapshot_to_the_same_bits(small, tmp_path):
    """Interrupted and resumed equals uninterrupted, with one worker: tables, squares, leases, losses."""
    settings = small.settings()
    options = DistributedSettings(
        backend="threads", workers=1, batch_words=20, rule="adagrad", gamma=0.02, n_fetch=5, n_push=5
    )
    whole = train_encoded(settings, small.vocabulary, small.encoded, options)

    def interrupt(standing, fleet) -> None:
        if standing.chunks_finished >= 10:
            raise KeyboardInterrupt

    def start(resume: bool) -> Run:
        return Run.start(tmp_path / "run", kind="test", config={"a": 1}, resume=resume)

    with start(False) as run, pytest.raises(Interrupted, match="--resume"):
        train_encoded(settings, small.vocabulary, small.encoded, options, run, observe=interrupt)
    with start(True) as run:
        resumed = train_encoded(settings, small.vocabulary, small.encoded, options, run)
    assert np.array_equal(whole.vectors.matrix, resumed.vectors.matrix)
    assert np.array_equal(whole.outputs, resumed.outputs)
    assert resumed.report.losses == whole.report.losses
    assert resumed.report.words == whole.report.words
    assert [line["loss"] for line in run.metrics() if "epoch" in line] == whole.report.losses
    with start(True) as run, pytest.raises(DataError, match="other settings"):
        train_encoded(replace(settings, seed=9), small.vocabulary, small.encoded, options, run)


def test_snapshots_while_processes_train_and_another_number_of_workers_on_resuming(small, tmp_path):
    settings = small.settings(epochs=8)
    options = DistributedSettings(workers=2, batch_words=20, n_fetch=5, n_push=5)

    def interrupt(standing, fleet) -> None:
        if standing.chunks_finished >= 20:
            raise KeyboardInterrupt

    with (
        Run.start(tmp_path / "run", kind="test", config={}) as run,
        pytest.raises(Interrupted),
    ):
        train_encoded(
            settings,
            small.vocabulary,
            small.encoded,
            options,
            run,
            observe=interrupt,
            checkpoint_seconds=0.01,
        )
    with Run.start(tmp_path / "run", kind="test", config={}, resume=True) as run:
        more = replace(options, backend="threads", workers=3, latency=0.0)
        report = train_encoded(settings, small.vocabulary, small.encoded, more, run).report
    assert report.words == 8 * small.encoded.tokens_total
    assert len(report.losses) == 8


def test_a_damaged_snapshot_is_refused(small, tmp_path):
    with Run.start(tmp_path / "run", kind="test", config={}) as run:
        run.checkpoint("server.npz").write_bytes(b"PK not really")
        with pytest.raises(DataError, match="not a readable snapshot"):
            train_encoded(
                small.settings(), small.vocabulary, small.encoded, DistributedSettings(backend="threads"), run
            )


def test_workers_go_when_their_parent_is_killed(small, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            import numpy as np
            from posterhall.data import corpus as corpora
            from posterhall.embeddings.parameter_server import DistributedSettings, train_encoded
            from posterhall.embeddings.settings import Word2VecSettings

            rng = np.random.default_rng(0)
            corpus = corpora.read([[f"w{i}" for i in row] for row in rng.integers(50, size=(500, 20))])
            def watch(standing, fleet):
                if standing.words:
                    print(*fleet.pids.values(), flush=True)
            options = DistributedSettings(latency=0.05, n_fetch=1, n_push=1)
            train_encoded(Word2VecSettings(dim=8), *corpus, options, observe=watch)
            """
        )
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_the_estimator_learns_from_sentences_and_reports(small):
    sentences = [["a", "b", "c", "d"] * 5] * 60
    model = Downpour(small.settings(min_count=1), backend="threads", workers=2, shards=3).fit(sentences)
    assert model.vectors_.matrix.shape == (4, 20)
    assert model.report_.words == 2 * 60 * 21
    assert model.report_.to_dict()["words_per_second"] > 0
    assert 1 <= model.report_.imbalance["inputs"] < 3


def test_options_are_checked_by_name_and_range():
    with pytest.raises(UsageError, match="Did you mean: workers"):
        Downpour(worker=3)
    with pytest.raises(UsageError, match="before fit"):
        Downpour().vectors_  # noqa: B018
    with pytest.raises(DataError, match="workers is 0"):
        DistributedSettings(workers=0)
    with pytest.raises(DataError, match="backend is 'mpi'"):
        DistributedSettings(backend="mpi")
    with pytest.raises(UsageError, match="push_queue"):
        DistributedSettings(bound=1, push_queue=1)


def test_parameters_larger_than_memory_are_refused_before_they_are_made(small, monkeypatch):
    monkeypatch.setattr("posterhall.devices.memory", lambda: 10_000)
    with pytest.raises(DataError, match="GB are free"):
        train_encoded(small.settings(), small.vocabulary, small.encoded, DistributedSettings())


def test_a_function_that_no_other_process_finds_is_refused():
    with pytest.raises(UsageError, match="module"):
        name_of(lambda: None)
    with pytest.raises(UsageError, match="can import"):
        Recipe("no.such.module:job", {}).build()
    assert name_of(Run.start).endswith(":Run.start")
