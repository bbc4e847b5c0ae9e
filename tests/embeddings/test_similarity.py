"""Word-similarity sets in the layouts people publish them in, scored against scipy and gensim."""

from __future__ import annotations

import numpy as np
import pytest

from posterhall.embeddings import similarity
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError

LAYOUTS = {
    "gensim": "# a comment\n# Word 1\tWord 2\tHuman (mean)\nlove\tsex\t6.77\ntiger\tcat\t7.35\n",
    "wordsim-csv": "Word 1,Word 2,Human (mean)\nlove,sex,6.77\ntiger,cat,7.35\n",
    "wordsim-ratings": "Word 1,Word 2,Human (mean),1,2,3\nlove,sex,6.77,9,6,8\ntiger,cat,7.35,9,7,8\n",
    "simlex": "word1\tword2\tPOS\tSimLex999\tconc(w1)\nlove\tsex\tN\t6.77\t4.2\ntiger\tcat\tN\t7.35\t5\n",
    "simverb": "love\tsex\tV\t6.77\tSYNONYMS\ntiger\tcat\tV\t7.35\tNONE\n",
    "men": "love sex 6.770000\ntiger cat 7.350000\n",
    "rg65": "love;sex;6.77\r\ntiger;cat;7.35\r\n",
    "rare-words": "love\tsex\t6.77\t10\t8\t9\ntiger\tcat\t7.35\t1\t2\t3\n",
    "quoted": '\ufeff"love","sex","6.77"\n\n"tiger","cat","7.35"\n',
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_read_alike(tmp_path, layout):
    path = tmp_path / "set.txt"
    path.write_bytes(LAYOUTS[layout].encode())
    found = similarity.read_pairs(path)
    assert found.name == "set"
    assert found.pairs == (("love", "sex"), ("tiger", "cat"))
    np.testing.assert_array_equal(found.scores, [6.77, 7.35])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no pairs"),
        (b"# nothing\n", "holds no pairs"),
        (b"word1\tword2\tscore\n", "no pairs below its header"),
        (b"a b 1\nc d\n", r"set.txt:2: 'c d' is not two words and a number"),
        (b"a b 1\nc d high\n", r"set.txt:2: 'c d high'"),
        (b"a b 1\nc d nan\n", r"set.txt:2"),
        (b"a\tb\t1\n\td\t2\n", r"set.txt:2"),
        (b"a b 1\n\xff b 2\n", r"set.txt:2: the line is not UTF-8"),
    ],
)
def test_files_that_are_no_pairs(tmp_path, content, message):
    path = tmp_path / "set.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        similarity.read_pairs(path)
    with pytest.raises(DataError, match="cannot be read"):
        similarity.read_pairs(tmp_path / "missing")


def random_set(tmp_path, count=60, unknown=5):
    rng = np.random.default_rng(2)
    vectors = WordVectors([f"W{i}" for i in range(40)], rng.normal(size=(40, 6)))
    lines = []
    # Different pairs: equal ones would tie or not by the last bit of a cosine.
    for i in range(count):
        a, b = i % 20, 20 + (i * 7 + i // 20) % 20
        lines.append(f"w{a}\tw{b}\t{vectors.similarity(f'W{a}', f'W{b}') + rng.normal(scale=0.4):.3f}")
    lines += [f"w1\tnobody{i}\t1.0" for i in range(unknown)]
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(lines))
    return vectors, path


def test_correlations_are_scipys_and_gensims(tmp_path):
    from gensim.models import KeyedVectors
    from scipy.stats import pearsonr, spearmanr

    vectors, path = random_set(tmp_path)
    found = similarity.evaluate(vectors, path)
    pairs = similarity.read_pairs(path)
    known = np.isfinite(found.cosines)
    assert (found.asked, found.covered, known.sum()) == (65, 60, 60)
    assert found.coverage == 60 / 65
    assert found.spearman.estimate == pytest.approx(spearmanr(found.cosines[known], pairs.scores[known])[0])
    assert found.spearman.low < found.spearman.estimate < found.spearman.high
    assert found.pearson == pytest.approx(pearsonr(found.cosines[known], pairs.scores[known])[0])
    peer = KeyedVectors(6)
    peer.add_vectors(list(vectors.words), np.array(vectors.matrix))
    pearson, spearman, unknown = peer.evaluate_word_pairs(str(path))
    assert (found.pearson, found.spearman.estimate) == pytest.approx((pearson[0], spearman[0]), abs=1e-4)
    assert unknown == pytest.approx(100 * 5 / 65)


def test_case_and_restriction_decide_what_is_known(tmp_path):
    vectors, path = random_set(tmp_path)
    assert similarity.evaluate(vectors, path, ignore_case=False).covered == 0
    few = similarity.evaluate(vectors, path, restrict=30)
    assert 0 < few.covered < 60
    upper = WordVectors(["Us", "US", "we"], np.eye(3))
    path.write_text("US we 1\nus we 2\n")
    scores = similarity.evaluate(upper, path)
    np.testing.assert_array_equal(scores.cosines, [0, 0])
    with pytest.raises(DataError, match="at least 1"):
        similarity.evaluate(vectors, path, restrict=0)


def test_too_few_pairs_have_no_correlation(tmp_path):
    vectors = WordVectors(["a", "b", "c"], np.eye(3) + 0.1)
    path = tmp_path / "pairs.txt"
    path.write_text("a b 1\nb c 2\na zz 3\n")
    found = similarity.evaluate(vectors, path)
    assert found.spearman is None
    assert found.pearson is None
    assert found.to_dict() == {
        "name": "pairs", "covered": 2, "asked": 3, "coverage": 2 / 3, "spearman": None, "interval": None,
        "pearson": None,
    }  # fmt: skip
