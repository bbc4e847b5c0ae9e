"""The claims that train or filter: text, noise and scores are what they say; each claim runs when tiny."""

from __future__ import annotations

import ast
import importlib
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from posterhall.claims import Budget, Row, load
from posterhall.claims.datablations import _noise, _text, cleaning, filtering, life, repetition
from posterhall.errors import DataError
from posterhall.scaling import Chinchilla, DataConstrained

pytest.importorskip("torch")
from posterhall.claims.datablations import _train

MODULES = [
    f"posterhall.claims.datablations.{name}"
    for name in ("repetition", "life", "filling", "cleaning", "filtering")
]
CLAIMS = load(MODULES)
SOURCE = '''"""Module text."""
import os  # a remark stays with its line

# only a remark
def f(x):
    """What f does,

    at length."""
    return "# no remark" + x


class C:
    "A class."
    y = """a string, no docstring"""
'''


# -- text -------------------------------------------------------------------------------------------


def test_code_has_no_docstring_and_prose_nothing_else():
    tree = ast.parse(SOURCE)
    assert _text.docstrings(tree) == "Module text.\n\nWhat f does,\n\nat length.\n\nA class."
    code = _text.without_prose(SOURCE, tree)
    assert code == (
        "import os  # a remark stays with its line\ndef f(x):\n"
        '    return "# no remark" + x\nclass C:\n    y = """a string, no docstring"""\n'
    )
    assert not [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Module) and ast.get_docstring(n)]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), 5)) for _ in range(300)]
    for i in range(60):
        drawn = rng.choice(words, 180).tolist()
        text = "\n\n".join(" ".join(drawn[at : at + 60]) for at in (0, 60, 120))
        (tmp_path / f"{i}.txt").write_text(text)
    return tmp_path


def test_lists_share_no_file_and_a_larger_draw_begins_with_a_smaller(folder):
    held, texts = _text.draw("prose", str(folder), [5000, 20_000], 3)
    again, more = _text.draw("prose", str(folder), [5000, 30_000], 3)
    assert again == held
    assert more[: len(texts)] == texts
    assert not set(held) & set(more)
    assert sum(map(len, held)) >= 5000
    assert _text.draw("prose", str(folder), [5000], 4) != [held]


def test_too_little_text_is_refused_and_says_what_to_give(folder):
    with pytest.raises(DataError, match=r"9,999,999 bytes of code.*--set code=PATH"):
        _text.draw("code", str(folder), [9_999_999], 0)


def test_the_library_gives_prose_and_code_without_a_corpus():
    (prose,), (code,) = (_text.draw(what, None, [20_000], 1) for what in ("prose", "code"))
    assert "the" in " ".join(prose).split()
    assert "return" in " ".join(code).split()


def test_pieces_end_at_paragraphs_and_lose_nothing():
    text = "one two\n\nthree\n\n" + "long " * 30 + "\n\nfour"
    found = _text.pieces([text], 20)
    assert found[0] == "one two\n\nthree"
    assert " ".join(" ".join(found).split()) == " ".join(text.split())


# -- noise ------------------------------------------------------------------------------------------


def test_shuffling_keeps_words_and_spaces_but_not_their_order():
    text = "alpha beta\n gamma  delta epsilon zeta eta theta"
    mixed = _noise.shuffled(text, np.random.default_rng(0))
    assert sorted(mixed.split()) == sorted(text.split())
    assert mixed.split() != text.split()
    assert [c for c in mixed if c.isspace()] == [c for c in text if c.isspace()]


@pytest.mark.parametrize("similarity", [0.9, 0.5])
def test_a_copy_is_as_similar_as_it_was_asked_to_be(similarity):
    rng = np.random.default_rng(1)
    text = " ".join(f"w{i}" for i in rng.integers(0, 10_000, 120))
    copy = _noise.near_copy(text, ["new", "words"], similarity, rng)
    a, b = ({tuple(t.split()[i : i + 5]) for i in range(116)} for t in (text, copy))
    true = len(a & b) / len(a | b)
    # One more word changes at most five shingles in each.
    assert similarity - 0.1 < true <= similarity
    assert _noise.jaccard(_noise.shingles(text), _noise.shingles(copy)) == pytest.approx(true)


def test_documents_that_repeat_others_are_left_out_before_copies_are_planted():
    rng = np.random.default_rng(2)
    one, two = (" ".join(f"w{i}" for i in rng.integers(0, 10_000, 50)) for _ in range(2))
    assert _noise.distinct([one, two, one + " end", "short"], words=20) == [one, two]


def test_a_pool_knows_which_documents_are_noise(folder):
    texts = [path.read_text() for path in sorted(folder.iterdir())]
    pool = _noise.pool(texts[:30], texts[30:40], copies=10, similarity=0.9, seed=5)
    assert len(pool.texts) == 50
    assert [t for t, bad in zip(pool.texts, pool.shuffled, strict=True) if bad] != texts[30:40]
    assert {" ".join(sorted(t.split())) for t, bad in zip(pool.texts, pool.shuffled, strict=True) if bad} == {
        " ".join(sorted(t.split())) for t in texts[30:40]
    }
    assert len(pool.copies) == 10
    for copy in pool.copies.tolist():
        base = pool.texts[pool.source[copy]]
        assert base in texts[:30]
        assert pool.similarity[copy] == _noise.jaccard(
            _noise.shingles(base), _noise.shingles(pool.texts[copy])
        )
    clean = (pool.source == np.arange(50)) & ~pool.shuffled
    assert sorted(pool.texts[i] for i in np.flatnonzero(clean)) == sorted(texts[:30])


def test_noisy_text_is_half_clean_a_quarter_shuffled_and_a_quarter_copied(folder):
    pool = filtering.noisy([path.read_text() for path in sorted(folder.iterdir())], 30_000, 1)
    sizes = np.array([len(text) for text in pool.texts])
    copies = np.zeros(len(sizes), bool)
    copies[pool.copies] = True
    assert sizes.sum() >= 30_000
    assert sizes[pool.shuffled].sum() / sizes.sum() == pytest.approx(0.25, abs=0.04)
    assert sizes[copies].sum() / sizes.sum() == pytest.approx(0.25, abs=0.04)
    with pytest.raises(DataError, match="corpus=PATH"):
        filtering.noisy(["too short"], 30_000, 1)


def test_precision_and_recall_count_pairs():
    #            clean, its copy, clean, its copy, alone
    source = np.array([0, 0, 2, 2, 4])
    pool = _noise.Pool([""] * 5, np.zeros(5, bool), source, np.ones(5))
    keep = np.array([False, True, True, True, False])  # one pair found, and one mistake
    assert cleaning.found(pool, keep) == (0.5, 0.5, 0.5)
    assert cleaning.found(pool, np.ones(5, bool)) == (0.0, 0.0, 0.0)
    both = np.array([False, False, True, False, True])  # a pair of which nothing is left is not found
    assert cleaning.found(pool, both)[:2] == (pytest.approx(1 / 3), 0.5)


# -- models and scores ------------------------------------------------------------------------------


def test_questions_have_one_right_ending_of_the_same_length_as_the_others(folder):
    texts = [path.read_text() for path in sorted(folder.iterdir())]
    task = _train.endings(texts, 50, 7)
    assert len(task.items) == 50
    assert task.chance == 0.25
    for item in task.items:
        (right,) = item.correct
        whole = item.fields["question"] + item.choices[right]
        assert whole in texts[int(item.cluster)]
        assert len(set(item.choices)) == 4
        assert len({len(choice) for choice in item.choices}) == 1
    assert len({item.correct for item in task.items}) == 4
    with pytest.raises(DataError, match="3 held-out documents"):
        _train.endings(texts[:3], 5, 7)


def test_one_who_knows_the_endings_is_at_one_and_a_guess_at_zero(monkeypatch, folder):
    from posterhall.lm import local
    from posterhall.lm.protocol import LM, Scored

    texts = [path.read_text() for path in sorted(folder.iterdir())]
    task = _train.endings(texts, 200, 7)

    def stands_in(better):
        class Known(LM):
            name = "known"

            def __init__(self, *args):
                pass

            async def agenerate(self, requests):
                raise AssertionError("nothing is generated")

            async def ascore(self, items):
                return [
                    [
                        Scored(c, tuple(c), (better(prompt, c),) + (0.0,) * (len(c) - 1), False)
                        for c in choices
                    ]
                    for prompt, choices in items
                ]

        return Known

    for better, expected, margin in (
        (lambda prompt, choice: -1.0 if any(prompt + choice in t for t in texts) else -9.0, 1.0, 1e-9),
        (lambda prompt, choice: -float(zlib.crc32(choice.encode()) % 97), 0.0, 0.15),
    ):
        monkeypatch.setattr(local, "LocalLM", stands_in(better))
        assert _train.downstream(None, task) == pytest.approx(expected, abs=margin)


def tiny(**more):
    return Budget(
        **{
            "tokens": 4096,
            "dim": 16,
            "layers": 1,
            "context": 64,
            "batch": 8,
            "lr": 1e-2,
            "held_out": 2048,
            **more,
        }
    )


def test_the_loss_of_a_model_that_learnt_nothing_is_a_guess_and_training_lowers_it(folder):
    held, texts = _text.draw("prose", str(folder), [5000, 20_000], 3)
    tokens, held_out = _text.stream(texts), _text.stream(held)
    none = _train.train(tokens, held_out, tiny(lr=1e-9), 1, total=512)
    some = _train.train(tokens, held_out, tiny(), 1, total=8192)
    assert none.loss == pytest.approx(math.log(258), abs=0.6)
    assert some.loss < none.loss - 1.5
    assert (some.tokens, some.unique) == (8192, 8192)
    again = _train.train(tokens, held_out, tiny(), 1, total=8192)
    assert again.loss == some.loss
    repeated = _train.train(tokens, held_out, tiny(), 1, total=8192, unique=1024)
    assert (repeated.tokens, repeated.unique) == (8192, 1024)


def test_a_mixture_has_its_shares_and_goes_through_all_rows_once_an_epoch(folder):
    def constant(value):
        return np.full(10_000, value, np.uint16)

    mixed = _train.mixture([(constant(1), 0.75), (constant(2), 0.25)], tiny(), 3)
    assert mixed.items == 64
    rows = mixed.take(0, 128)["ids"]
    for epoch in (rows[:64], rows[64:]):
        assert (epoch[:, 0] == 2).sum() == 16
    assert (rows[:64, 0] != rows[64:, 0]).any(), "shuffled anew"
    np.testing.assert_array_equal(mixed.take(60, 8)["ids"], rows[60:68])
    assert len(_train.mixture([(constant(1), 1.0), (constant(2), 0.0)], tiny(), 3).take(0, 64)["ids"]) == 64


# -- laws -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epochs", "share"), [(1, 1.0), (4, 0.931), (16, 0.661), (44, 0.351)])
def test_worth_of_epochs_is_the_papers(epochs, share):
    assert repetition.worth(epochs) == pytest.approx(share, abs=5e-4)


def test_the_predicted_curve_goes_through_both_fresh_runs():
    name = repetition._WORTH
    rows = [Row("1 epoch", s, val_loss=2.0) for s in range(5)] + [
        Row(name, s, val_loss=2.5) for s in range(5)
    ]
    curve = repetition.predicted(rows)
    assert curve[1.0] == 2.0
    assert curve[44.0] == pytest.approx(2.5)
    assert list(curve.values()) == sorted(curve.values())


BASE = {"E": 1.2, "A": 30.0, "B": 60.0, "alpha": 0.35, "beta": 0.35}


def made(live):
    law = DataConstrained({**BASE, "R_D": live, "R_N": math.inf}, effects="data")
    fresh = [(n, d, d) for n in (1e4, 3e4, 1e5) for d in (2.5e4, 5e4, 1e5, 2e5)]
    repeated = [(n, 2e5, 2e5 / e) for n in (1e4, 3e4, 1e5) for e in (2, 4, 8, 16)]
    return [[(*r, float(law.loss(*r))) for r in part] for part in (fresh, repeated)]


@pytest.mark.parametrize("live", [5.0, 15.4, 60.0])
def test_the_life_that_runs_were_made_with_is_found(live):
    fresh, repeated = made(live)
    base = life.chinchilla(fresh)
    assert base == pytest.approx(BASE, rel=0.02)
    found, low, high = life.life([*fresh, *repeated], base)
    assert found == pytest.approx(math.log10(live), abs=0.03)
    assert low <= found <= high


def test_fresh_data_said_to_be_repeated_have_no_end():
    fresh, repeated = made(15.4)
    noise = 1 + 1e-4 * np.random.default_rng(0).normal(size=len(repeated))
    losses = Chinchilla(BASE).loss(*np.array(repeated).T[:2]) * noise
    said = [(*run[:3], loss) for run, loss in zip(repeated, losses.tolist(), strict=True)]
    assert life.life([*fresh, *said], life.chinchilla(fresh))[0] > 3


def test_cost_of_epochs_is_against_the_fresh_run_of_the_same_size():
    row = Row(
        "runs", 0, params=(1, 2, 1, 2), tokens=(8, 8, 8, 8), unique=(8, 8, 2, 2), loss=(2.0, 1.0, 2.2, 1.05)
    )
    epochs, cost = life.cost_of_epochs([row])
    assert epochs == (4.0,)
    assert cost == (pytest.approx((0.1 + 0.05) / 2),)


# -- every claim, tiny ------------------------------------------------------------------------------

TINY = {
    "repeat-four-epochs": {"tokens": 11_264, "curve": True, "dim": 16, "layers": 1, "held_out": 1024},
    "life-of-data-in-own-runs": {"tokens": 4096, "sizes": "16 32", "layers": 1, "held_out": 1024},
    "half-code-is-free": {"tokens": 5120, "questions": 20, "dim": 16, "layers": 1, "held_out": 8192},
    "perplexity-finds-shuffled": {"documents": 20, "reference": 8000},
    "deduplication-finds-copies": {"documents": 20},
    "clean-then-repeat": {
        "tokens": 8192, "reference": 8000, "questions": 20, "dim": 16, "layers": 1, "held_out": 8192,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def contract():
    place = str(Path(__file__).parent.parent / "contracts")
    sys.path.insert(0, place)
    yield importlib.import_module("claim")
    sys.path.remove(place)


def test_every_claim_is_tried_below():
    assert set(TINY) == set(CLAIMS)


@pytest.mark.parametrize("id", sorted(CLAIMS))
def test_each_claim_keeps_the_contract(contract, id):
    cls = CLAIMS[id]
    contract.check_claim(cls)
    budget = cls.budget("smoke").replace(**TINY[id])
    first, again = (list(cls().run(budget, 2)) for _ in range(2))
    contract.check_rows(cls, first, again, 2, set())


def test_own_text_takes_the_place_of_the_library(folder):
    cls = CLAIMS["repeat-four-epochs"]
    budget = cls.budget("smoke").replace(**{**TINY["repeat-four-epochs"], "curve": False})
    own, other = (list(cls(params).run(budget, 2)) for params in ({"corpus": str(folder)}, {}))
    assert {row.arm for row in own} == {"1 epoch", "4 epochs", "44 epochs"}
    assert own[0]["val_loss"] < other[0]["val_loss"]  # ten letters and a space are soon learnt
