"""The n-gram model against the formulas of Chen & Goodman 1998 written out with dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.curation.ngram import KenLM, NGramModel, open_model
from posterhall.data.tokenizer import train_bpe
from posterhall.errors import DataError, MissingExtra, UsageError

FALLBACK = (0.5, 1.0, 1.5)


class Textbook:
    """Interpolated modified Kneser-Ney, straight from the equations; sentences are lists of words."""

    def __init__(self, sentences, order, min_count):
        frequency = Counter(word for sentence in sentences for word in sentence)
        known = {word for word, many in frequency.items() if many >= min_count}
        self.order = order
        self.vocabulary = known | {"<unk>", "</s>"}
        padded = [["<s>", *(w if w in known else "<unk>" for w in s), "</s>"] for s in sentences]
        raw = [
            Counter(tuple(s[i : i + n]) for s in padded for i in range(len(s) - n + 1))
            for n in range(1, order + 1)
        ]
        self.counts = []
        for n in range(1, order + 1):
            if n == order:
                counts = dict(raw[n - 1])
            else:
                left = Counter(gram[1:] for gram in raw[n])  # one for each distinct word to the left
                counts = {g: (c if g[0] == "<s>" else left[g]) for g, c in raw[n - 1].items()}
            counts.pop(("<s>",), None)
            self.counts.append(counts)
        self.discounts = [self.discount(counts) for counts in self.counts]
        self.followers = [defaultdict(dict) for _ in range(order)]
        for n, counts in enumerate(self.counts):
            for gram, many in counts.items():
                self.followers[n][gram[:-1]][gram[-1]] = many

    @staticmethod
    def discount(counts):
        n = Counter(counts.values())
        if not all(n[j] for j in (1, 2, 3, 4)):
            return FALLBACK
        y = n[1] / (n[1] + 2 * n[2])
        found = (1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3])
        return found if all(0 <= d <= j for j, d in enumerate(found, 1)) else FALLBACK

    def probability(self, word, history):
        """p(word | the last order - 1 words of history)."""
        history = tuple(history)[-(self.order - 1) :] if self.order > 1 else ()
        n = len(history)
        lower = 1 / len(self.vocabulary) if n == 0 else self.probability(word, history[1:])
        following = self.followers[n].get(history, {})
        total = sum(following.values())
        if total == 0:
            return lower
        taken = self.discounts[n]
        many = following.get(word, 0)
        discounted = many - taken[min(many, 3) - 1] if many else 0.0
        mass = sum(taken[min(c, 3) - 1] for c in following.values()) / total
        return discounted / total + mass * lower

    def logs(self, sentence):
        history, found = ["<s>"], []
        for word in [*sentence, "</s>"]:
            word = word if word in self.vocabulary else "<unk>"
            found.append(math.log(self.probability(word, history)))
            history.append(word)
        return found


def corpus(seed, sentences, words=12, longest=9):
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, words + 1)
    return [
        [f"w{i}" for i in rng.choice(words, rng.integers(1, longest), p=weights / weights.sum())]
        for _ in range(sentences)
    ]


def lines(sentences):
    return ["\n".join(" ".join(sentence) for sentence in sentences)]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("size", "words", "min_count"), [(3, 12, 1), (40, 12, 1), (400, 60, 2), (1500, 300, 3)]
)
def test_it_is_the_textbook_model(order, size, words, min_count):
    trained, other = corpus(1, size, words), corpus(2, 30, words + 5)
    model = NGramModel.train(lines(trained), order=order, min_count=min_count, unit="whitespace")
    book = Textbook(trained, order, min_count)
    np.testing.assert_allclose(model.trie.discounts, book.discounts, rtol=1e-12)
    for sentence in [*trained[:20], *other]:
        found = model.log_probabilities(" ".join(sentence))
        np.testing.assert_allclose(found, book.logs(sentence), rtol=2e-6, atol=2e-6)


def test_the_discounts_of_a_large_corpus_are_estimated_not_fallen_back_on():
    model = NGramModel.train(lines(corpus(3, 1500, 300)), order=3, unit="whitespace")
    assert model.trie.fallback == (False, False, False)
    for one, two, three in model.trie.discounts:
        assert 0 < one < two < three < 3


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6), min_size=1, max_size=15),
    st.lists(st.sampled_from("abcdefgh"), max_size=6),
    st.integers(1, 5),
)
def test_probabilities_sum_to_one_after_any_history(sentences, history, order):
    model = NGramModel.train(lines(sentences), order=order, min_count=1, unit="whitespace")
    known = sorted({word for sentence in sentences for word in sentence})
    text = " ".join(history)
    total = 0.0
    for word in [*known, "never-seen"]:
        total += math.exp(model.log_probabilities(f"{text} {word}")[len(history)])
    total += (
        math.exp(model.log_probabilities(text)[-1])
        if history
        else math.exp(Textbook(sentences, order, 1).logs([])[0])
    )
    assert total == pytest.approx(1, abs=1e-5)


def test_words_are_letters_in_lower_case_numbers_and_signs():
    model = NGramModel.train(["The cat, 1999! the CAT, 5! Été étÉ"], order=1, min_count=1)
    assert set(model.words.bytes()[3:]) == {b"the", b"cat", b",", b"0", b"!", "été".encode()}
    alone = NGramModel.train(["日本語です。ab ไทย 한국"], order=1, min_count=1)
    assert b"".join(sorted(alone.words.bytes()[3:])).decode() == "".join(
        sorted([*"日本語です。ไทย", "ab", "한국"])
    )
    assert len(alone.words.bytes()) == 3 + 6 + 1 + 3 + 1
    spaced = NGramModel.train(["The cat, 1999! the CAT, 5!"], order=1, min_count=1, unit="whitespace")
    assert set(spaced.words.bytes()[3:]) == {b"The", b"cat,", b"1999!", b"the", b"CAT,", b"5!"}


def test_each_line_is_a_sentence_and_blank_ones_are_none():
    model = NGramModel.train(["a b\nb a"], order=2, min_count=1)
    total, words = model.score(["a b\n\n  \nb a\n", "a b", "b a", "", " \n "])
    assert words.tolist() == [6, 3, 3, 0, 0]
    assert total[0] == pytest.approx(total[1] + total[2])
    assert total[3] == total[4] == 0


def test_pieces_are_the_tokens_of_a_tokeniser(tmp_path):
    texts = ["été 1\n\nab", "ab ab"]
    model = NGramModel.train(texts, order=3, unit="pieces:byte")
    total, words = model.score(texts)
    assert words.tolist() == [len("été 1".encode()) + 1 + 3, 6]
    spelled = ["\n".join(" ".join(map(str, line.encode())) for line in t.split("\n")) for t in texts]
    same = NGramModel.train(spelled, order=3, unit="whitespace")
    np.testing.assert_array_equal(same.score(spelled)[0], total)
    model.save(tmp_path / "m.npz")
    again = NGramModel.load(tmp_path / "m.npz", unit="pieces:byte")
    np.testing.assert_array_equal(again.score(texts)[0], total)
    with pytest.raises(DataError, match="pieces of a tokeniser"):
        NGramModel.load(tmp_path / "m.npz")
    pytest.importorskip("tokenizers")
    bpe = str(tmp_path / "bpe")
    train_bpe(["ab ab été"] * 5, 262).save(bpe)
    with pytest.raises(DataError, match="pieces of another tokeniser"):
        NGramModel.load(tmp_path / "m.npz", unit=f"pieces:{bpe}")
    assert NGramModel.train(texts, unit=f"pieces:{bpe}").score(["ab"])[1][0] < 4


def test_special_words_in_a_text_are_only_text():
    model = NGramModel.train(["a b <s> </s> a"], order=3, min_count=1, unit="whitespace")
    logs = model.log_probabilities("a </s> <s> <unk> b")
    assert len(logs) == 6
    assert model.words.bytes()[:3] == [b"<unk>", b"<s>", b"</s>"]
    assert logs[1] == pytest.approx(model.log_probabilities("a <unk> x")[1])


def test_perplexity_is_normalised_and_short_texts_have_none():
    text = "the river is wide and the stream is narrow"
    model = NGramModel.train([text] * 3 + ["a longer walk by the river"], order=3)
    total, words = model.score([text])
    assert model.perplexity([text])[0] == pytest.approx(math.exp(-total[0] / words[0]))
    long = model.perplexity(["\n".join([text] * 50)])[0]
    assert long == pytest.approx(model.perplexity([text])[0])
    found = model.perplexity(["", "the river", "the river is wide", "xqz vbn mkl wrt ghj"])
    assert np.isnan(found[:2]).all()
    assert found[3] > 5 * found[2]
    assert not np.isnan(model.perplexity(["the river"], min_words=3)).any()


def test_gibberish_surprises_unless_rare_words_are_made_unknown():
    real = [" ".join(s) for s in corpus(4, 300, 500)]
    gibberish = ["xqz vbn mkl wrt ghj plm"]
    every, common = (NGramModel.train(real, min_count=n, unit="whitespace") for n in (1, 4))
    typical = np.nanmedian(every.perplexity(real))
    assert every.perplexity(gibberish)[0] > 20 * typical
    assert common.perplexity(gibberish)[0] < every.perplexity(gibberish)[0] / 20


def test_shuffled_words_are_more_surprising(tmp_path):
    rng = np.random.default_rng(0)
    real = [
        "the cat sat on the mat and the dog sat on the log",
        "a bird in the hand is worth two in the bush",
    ] * 5
    model = NGramModel.train(real, min_count=1)
    for text in real[:2]:
        shuffled = " ".join(rng.permutation(text.split()))
        assert model.perplexity([shuffled])[0] > 2 * model.perplexity([text])[0]


def test_batches_and_arrow_slices_change_nothing():
    texts = [" ".join(s) for s in corpus(5, 200, 40)]
    whole = NGramModel.train(texts, order=4)
    column = pa.chunked_array(
        [pa.array(["skipped", *texts[:70]], pa.large_string())[1:], pa.array(texts[70:], pa.large_string())]
    )
    parts = NGramModel.train(column, order=4)
    np.testing.assert_array_equal(parts.score(column)[0], whole.score(texts)[0])


def test_a_word_too_long_for_the_vocabulary_is_unknown():
    model = NGramModel.train(["a b " * 5 + "x" * 1000], order=2, min_count=1)
    assert len(model.words.bytes()) == 5
    assert len(model.log_probabilities("a " + "é" * 5000)) == 3


@pytest.mark.parametrize("name", ["m.npz", "m.arpa", "m.arpa.gz"])
@pytest.mark.parametrize("order", [1, 4])
def test_saved_and_loaded_it_gives_the_same_numbers(tmp_path, name, order):
    texts = ["\n".join(" ".join(s) for s in corpus(6, 200, 40))]
    model = NGramModel.train(texts, order=order)
    model.save(tmp_path / name)
    again = open_model(tmp_path / name, unit="words")
    assert isinstance(again, NGramModel)
    assert (again.unit, again.order) == ("words", order)
    asked = [" ".join(s) for s in corpus(7, 50, 50)]
    np.testing.assert_allclose(again.score(asked)[0], model.score(asked)[0], rtol=1e-5)
    if name == "m.npz":
        np.testing.assert_array_equal(again.score(asked)[0], model.score(asked)[0])


ARPA = """
\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.5\t</s>
-0.25\ta\t-0.125

\\2-grams:
-0.1\t<s> a
-0.2\ta </s>

\\end\\
"""


def test_the_arpa_of_another_program_is_scored_by_backing_off(tmp_path):
    path = tmp_path / "other.arpa"
    path.write_text(ARPA)
    model = NGramModel.load(path)
    assert model.unit == "whitespace"
    logs = model.log_probabilities("a a B") / math.log(10)
    # <s> a is there; a a is not: back off; a <unk> is not; <unk> has no back-off weight.
    np.testing.assert_allclose(logs, [-0.1, -0.125 - 0.25, -0.125 - 1.0, -0.5], atol=1e-6)
    assert NGramModel.load(path, unit="words").unit == "words"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-0.25\ta", "nought\ta", r"line 10: a probability is no number"),
        ("-0.25\ta", "0.25\ta", r"line 10: 0\.25 is no logarithm"),
        ("-0.1\t<s> a", "-0.1\t<s> b", r"line 13: the word 'b' is not among"),
        ("ngram 2=2", "ngram 2=3", r"line 16: 1 fields"),
        ("\\end\\", "", "ends too early"),
        ("-0.5\t</s>", "-0.5\tc", r"lack one of <unk>, <s> and </s>"),
        ("-0.2\ta </s>", "-0.2\t<s> a", "twice"),
        ("ngram 1=4", "ngram 7=4", "instead of 'ngram 1="),
    ],
)
def test_a_broken_arpa_file_is_named_by_its_line(tmp_path, old, new, message):
    path = tmp_path / "broken.arpa"
    assert old in ARPA
    path.write_text(ARPA.replace(old, new))
    with pytest.raises(DataError, match=message):
        NGramModel.load(path)


def test_damaged_arrays_are_refused_before_any_kernel_sees_them(tmp_path):
    NGramModel.train(lines(corpus(8, 50)), order=3, unit="whitespace").save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        sound = dict(file)
    for name, value in [
        ("children", sound["children"] + 1),
        ("children", sound["children"][::-1]),
        ("words", sound["words"] + 1000),
        ("words", sound["words"][:-1]),
        ("levels", sound["levels"][::-1]),
        ("probabilities", np.full_like(sound["probabilities"], np.nan)),
        ("vocabulary", sound["vocabulary"][2:]),
        ("version", np.array(9)),
    ]:
        np.savez(tmp_path / "bad.npz", **{**sound, name: value})
        with pytest.raises(DataError, match=r"bad\.npz"):
            NGramModel.load(tmp_path / "bad.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK no")
    with pytest.raises(DataError, match="not a language model"):
        NGramModel.load(tmp_path / "bad.npz")


def test_misuse_is_refused(tmp_path):
    with pytest.raises(DataError, match="no word"):
        NGramModel.train([" \n"])
    with pytest.raises(DataError, match="no word occurs 2 times"):
        NGramModel.train(["a b c"], min_count=2)
    with pytest.raises(UsageError, match="order is 9"):
        NGramModel.train(["a"], order=9)
    with pytest.raises(UsageError, match="min_count"):
        NGramModel.train(["a"], min_count=0)
    with pytest.raises(UsageError, match="one string"):
        NGramModel.train("a b")
    with pytest.raises(UsageError, match="name it"):
        NGramModel.train(["a a"]).save(tmp_path / "m.bin")
    NGramModel.train(["a a"]).save(tmp_path / "m.npz")
    with pytest.raises(DataError, match="trained on the unit 'words'"):
        NGramModel.load(tmp_path / "m.npz", unit="whitespace")
    for unit in ("pieces", "pieces:", "letters"):
        with pytest.raises(UsageError, match=f"unit is '{unit}'"):
            NGramModel.load(tmp_path / "m.npz", unit=unit)


def test_kenlms_own_files_need_kenlm(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kenlm", None)
    with pytest.raises(MissingExtra, match="KenLM"):
        open_model(tmp_path / "model.binary")


def test_with_kenlm_its_scores_are_natural_logarithms_over_words_and_ends(monkeypatch):
    class Model:
        def __init__(self, path):
            self.path = path

        def score(self, sentence, bos, eos):
            assert bos
            assert eos
            return -float(len(sentence.split()))

    stand_in = type(math)("kenlm")
    stand_in.Model = Model
    monkeypatch.setitem(__import__("sys").modules, "kenlm", stand_in)
    total, words = KenLM("x.binary").score(["a b\n\nc", ""])
    np.testing.assert_allclose(total, [-3 * math.log(10), 0])
    assert words.tolist() == [5, 0]


def test_kenlm_reads_what_is_written_and_agrees(tmp_path):
    pytest.importorskip("kenlm")
    texts = ["\n".join(" ".join(s) for s in corpus(9, 300, 80))]
    model = NGramModel.train(texts, order=4, unit="whitespace")
    model.save(tmp_path / "m.arpa")
    asked = [" ".join(s) for s in corpus(10, 50, 100)]
    for found, expected in zip(KenLM(tmp_path / "m.arpa").score(asked), model.score(asked), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_arpa_file_begins_with_its_data(tmp_path):  # KenLM refuses a comment before it
    NGramModel.train(["a b"], order=2).save(tmp_path / "m.arpa")
    assert (tmp_path / "m.arpa").read_bytes().startswith(b"\\data\\\nngram 1=5\n")
