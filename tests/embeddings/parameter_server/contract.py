"""Checks that every backend passes in the same words."""

from __future__ import annotations

import numpy as np

from posterhall.embeddings.parameter_server import Death, DistributedSettings, train_encoded


def check_one_worker_is_the_sequential_trainer(small, backend: str) -> None:
    settings = small.settings()
    expected, losses = small.sequential(settings)
    options = DistributedSettings(backend=backend, workers=1, n_fetch=3, n_push=3, batch_words=20)
    result = train_encoded(settings, small.vocabulary, small.encoded, options)
    assert np.abs(result.vectors.matrix - expected[0]).max() < 2e-5
    assert np.abs(result.outputs - expected[1]).max() < 2e-5
    assert np.allclose(result.report.losses, losses, rtol=1e-5)
    assert result.report.staleness_summary()["max"] == 0


def check_two_workers_train_everything_once(small, backend: str) -> None:
    settings = small.settings(epochs=4)
    options = DistributedSettings(backend=backend, workers=2, shards=2, n_fetch=2, n_push=2, batch_words=20)
    report = train_encoded(settings, small.vocabulary, small.encoded, options).report
    assert report.words == 4 * small.encoded.tokens_total
    assert report.words_by_worker.sum() == report.words
    assert (report.words_by_worker > 0).all()
    assert report.deaths == []
    assert report.refused == report.repeats == 0
    assert report.staleness.sum() == report.pushes
    assert 0 < report.staleness_summary()["mean"] < 3
    reference = small.sequential(settings)[1]
    assert abs(report.losses[-1] / reference[-1] - 1) < 0.05


CHECKS = [check_one_worker_is_the_sequential_trainer, check_two_workers_train_everything_once]


def check_deaths(small, backend: str, kill) -> Death:
    """A worker killed while it works: the run says so, trains everything and learns as well."""
    settings = small.settings(epochs=12)
    killed: list[int] = []

    def watch(standing, fleet) -> None:
        if not killed and (fleet.office.words_by_slot() > 0).all():
            killed.append(standing.words)
            kill(fleet, 1)

    options = DistributedSettings(backend=backend, workers=2, n_fetch=2, n_push=2, batch_words=20)
    report = train_encoded(settings, small.vocabulary, small.encoded, options, observe=watch).report
    assert killed
    assert killed[0] < report.words
    assert report.words == 12 * small.encoded.tokens_total
    (death,) = report.deaths
    assert death.worker == 1
    assert death.words_lost_at_most <= 2 * 20
    assert "worker 1 died" in str(death)
    reference = small.sequential(settings)[1]
    assert abs(report.losses[-1] / reference[-1] - 1) < 0.05
    return death
