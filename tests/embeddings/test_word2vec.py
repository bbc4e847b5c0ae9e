"""Training: determinism, resumption, growth, the loss that is reported, and bad input."""

import numpy as np
import pytest

from posterhall.data import corpus as corpora
from posterhall.embeddings import CBOW, SkipGram
from posterhall.embeddings.plans import Planner, apply
from posterhall.embeddings.trainer import Parameters, Trainer, TrainingState
from posterhall.errors import DataError, UsageError
from posterhall.runs import Run
from posterhall.seeds import derive


def topical_text(sentences=1500, topics=6, words=12, seed=0):
    """Sentences of ten words from one topic each: words of a topic ought to become neighbours."""
    rng = np.random.default_rng(seed)
    return [
        [f"t{topic}w{word}" for word in rng.integers(0, words, 10)]
        for topic in rng.integers(0, topics, sentences)
    ]


SMALL = {"dim": 16, "min_count": 1, "epochs": 3, "subsample": 0.0, "chunk_words": 500, "seed": 5}


@pytest.mark.parametrize("estimator", [SkipGram, CBOW])
@pytest.mark.parametrize("loss", ["negative", "hierarchical", "hierarchical+negative", "nce", "softmax"])
def test_every_loss_finds_the_topics(estimator, loss):
    vectors = estimator(**{**SMALL, "loss": loss, "alpha": 0.1}).fit(topical_text()).vectors_
    right = 0
    for word in vectors.words:
        nearest = vectors.nearest(word, 5)
        right += sum(neighbor.word[:2] == word[:2] for neighbor in nearest)
    assert right / (5 * len(vectors)) > 0.9


def test_shuffled_text_has_no_topics_to_find():  # the control of the test above
    text = topical_text()
    words = np.random.default_rng(1).permutation([w for s in text for w in s])
    vectors = SkipGram(**SMALL, alpha=0.1).fit([list(s) for s in words.reshape(-1, 10)]).vectors_
    right = sum(n.word[:2] == w[:2] for w in vectors.words for n in vectors.nearest(w, 5))
    assert right / (5 * len(vectors)) < 0.35


def matrices(model):
    return model.parameters_.inputs, model.parameters_.outputs


@pytest.mark.parametrize("estimator", [SkipGram, CBOW])
def test_deterministic_result_does_not_depend_on_threads(estimator):
    text = topical_text(600)
    first = matrices(estimator(**SMALL).fit(text, threads=1, deterministic=True))
    for threads in (2, 5):
        again = matrices(estimator(**SMALL).fit(text, threads=threads, deterministic=True))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_another_seed_gives_other_vectors():
    text = topical_text(200)
    a = SkipGram(**SMALL).fit(text).vectors_.matrix
    b = SkipGram(**{**SMALL, "seed": 6}).fit(text).vectors_.matrix
    assert not np.array_equal(a, b)


def test_hogwild_threads_train_every_chunk_once():
    vocabulary, encoded = corpora.read(topical_text(), min_count=1, chunk_words=200)
    model = SkipGram(**{**SMALL, "chunk_words": 200}).fit_encoded(vocabulary, encoded, threads=3)
    alone = SkipGram(**{**SMALL, "chunk_words": 200}).fit_encoded(vocabulary, encoded, threads=1)
    # Pairs are drawn by chunk, so their number tells whether each chunk was trained exactly once.
    assert [e.terms for e in model.history_] == [e.terms for e in alone.history_]
    assert model.history_[-1].loss == pytest.approx(alone.history_[-1].loss, rel=0.05)


def test_reported_loss_is_the_mean_over_the_epochs_terms():
    settings = SkipGram(**{**SMALL, "epochs": 1, "alpha": 1e-12}).settings
    vocabulary, encoded = corpora.read(topical_text(300), min_count=1, chunk_words=500)
    planner = Planner(settings, vocabulary.counts)
    rng = np.random.default_rng(0)
    parameters = Parameters.initial(settings, planner.words, planner.output_rows)
    parameters.inputs[:, :16] = rng.normal(size=(planner.words, 16)) / 3
    parameters.outputs[:, :16] = rng.normal(size=(planner.words, 16)) / 3
    want, terms = 0.0, 0
    win, wout = parameters.inputs.astype(np.float64), parameters.outputs.astype(np.float64)
    for chunk in range(len(encoded)):
        plan = planner.plan(encoded.read(chunk), derive(settings.seed, "chunk", 0, chunk))
        for i in range(plan.n):
            drawn = slice(plan.start[i], plan.start[i + 1])
            for c in range(plan.lo[i], plan.hi[i]):
                if c != i:
                    z = plan.signs[drawn] * (wout[plan.rows[drawn]] @ win[plan.kept[c]])
                    want += np.logaddexp(0, -z).sum()
                    terms += 1
    trainer = Trainer(settings, planner, encoded, parameters=parameters)
    trainer.train()
    assert trainer.state.history[0].terms == terms
    assert trainer.state.history[0].loss == pytest.approx(want / terms, rel=1e-6)


def test_stopped_and_resumed_equals_uninterrupted(tmp_path):
    text = topical_text(600)
    whole = SkipGram(**SMALL).fit(text, deterministic=True)

    class Stop(Exception):
        pass

    seen = 0

    def stop_midway(snapshot):
        nonlocal seen
        seen += 1
        if seen == 17:
            raise Stop

    with Run.start(tmp_path / "run", kind="embed train", config=SMALL) as run:
        with pytest.raises(Stop):
            # a checkpoint after every chunk; the exception then loses the work of one
            SkipGram(**SMALL).fit(
                text, deterministic=True, run=run, checkpoint_seconds=0.0, observe=stop_midway
            )
        resumed = SkipGram(**SMALL).fit(text, deterministic=True, run=run, threads=2)
        assert seen > 0
        logged = [line["epoch"] for line in run.metrics()]
    assert logged == [1, 2, 3]
    for a, b in zip(matrices(whole), matrices(resumed), strict=True):
        assert np.array_equal(a, b)
    assert whole.history_ == resumed.history_


def test_resuming_with_another_corpus_or_setting_is_refused(tmp_path):
    with Run.start(tmp_path / "run", kind="embed train", config=SMALL) as run:
        model = SkipGram(**SMALL)
        model.fit(topical_text(200), run=run, checkpoint_seconds=0.0)
        assert run.checkpoint("state.npz").exists()
        with pytest.raises(DataError, match="other settings, words or corpus"):
            SkipGram(**SMALL).fit(topical_text(200, seed=1), run=run)
        with pytest.raises(DataError, match="other settings, words or corpus"):
            SkipGram(**{**SMALL, "dim": 8}).fit(topical_text(200), run=run)


def test_damaged_checkpoint_is_refused(tmp_path):
    with Run.start(tmp_path / "run", kind="embed train", config=SMALL) as run:
        SkipGram(**SMALL).fit(topical_text(200), run=run, checkpoint_seconds=0.0)
        path = run.checkpoint("state.npz")
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(DataError, match="not a readable checkpoint"):
            SkipGram(**SMALL).fit(topical_text(200), run=run)


def test_state_survives_its_text_form_exactly():
    state = TrainingState(2, 17, 1234.5678901234567, 99, 10**12, 0.1)
    assert TrainingState.from_json(state.to_json()) == state


def test_growing_keeps_old_words_and_learns_new_ones():
    model = SkipGram(**SMALL, alpha=0.1).fit(topical_text())
    before = model.vocabulary_
    new = [[w.replace("t5", "t9") for w in sentence] for sentence in topical_text(seed=3)]
    model.grow(new)
    after = model.vocabulary_
    assert list(after.items[: len(before)]) == list(before.items)
    assert sum(item.startswith("t9") for item in after.items) == 12
    vectors = model.vectors_
    for word in ("t9w0", "t9w3", "t5w1"):
        nearest = vectors.nearest(word, 5)
        assert sum(n.word[:2] == word[:2] for n in nearest) >= 4


def test_growing_a_tree_is_refused():
    model = SkipGram(**SMALL, loss="hierarchical").fit(topical_text(50))
    with pytest.raises(UsageError, match="Huffman"):
        model.grow(topical_text(50, seed=1))


def test_sequences_of_numbers_are_a_corpus_too():
    rng = np.random.default_rng(0)
    watched = [(rng.integers(0, 10, 8) + 10 * (i % 3)).tolist() for i in range(900)]
    vectors = CBOW(**SMALL, alpha=0.2).fit(watched).vectors_
    assert all(int(n.word) // 10 == 1 for n in vectors.nearest("15", 5))


def test_keep_and_drop_lists():
    text = [*topical_text(100), ["rare", "t0w1", "t0w2"]]
    model = SkipGram(**{**SMALL, "min_count": 3}).fit(text, keep=["rare"], drop=["t1w1"])
    assert "rare" in model.vocabulary_
    assert "t1w1" not in model.vocabulary_


@pytest.mark.parametrize("estimator", [SkipGram, CBOW])
def test_divergence_is_noticed_with_advice(estimator):
    with pytest.raises(DataError, match=r"diverges.*[Ll]ower it"):
        estimator(**{**SMALL, "alpha": 80.0}).fit(topical_text(), threads=2)


def test_empty_one_word_and_pruned_corpora_are_refused():
    with pytest.raises(DataError):
        SkipGram(**SMALL).fit([])
    with pytest.raises(DataError):
        SkipGram(**SMALL).fit([["a", "a", "a"]])
    with pytest.raises(DataError, match="min_count"):
        SkipGram(**{**SMALL, "min_count": 10_000}).fit(topical_text(50))


def test_unknown_setting_and_unfitted_estimator():
    with pytest.raises(UsageError, match="window"):
        SkipGram(windwo=3)
    with pytest.raises(UsageError, match="before fit"):
        _ = SkipGram().vectors_


def test_plan_of_an_empty_chunk_trains_nothing():
    settings = SkipGram(**SMALL).settings
    planner = Planner(settings, np.array([3, 2], np.int64))
    parameters = Parameters.initial(settings, 2, 2)
    before = parameters.inputs.copy()
    assert apply(planner.plan(np.array([-1, -1], np.int32), 1), *matrices_of(parameters), settings, 0.1) == (
        0.0,
        0,
    )
    assert np.array_equal(before, parameters.inputs)


def matrices_of(parameters):
    return parameters.inputs, parameters.outputs
