"""Analogy evaluation against a plain transcription of each protocol, and against gensim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.embeddings import analogies
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError


def planted(pairs: int = 40, noise: float = 0.35, seed: int = 0, extra: int = 300):
    """Vectors v = entity + relation + noise in two relations, and their questions."""
    rng = np.random.default_rng(seed)
    words, rows, lines = [], [], []
    for section, name in enumerate(("capital", "gram1-plural")):
        entities = rng.normal(size=(pairs, 24))
        relation = rng.normal(size=24) * 1.2
        for i in range(pairs):
            words += [f"Base{section}x{i}", f"other{section}x{i}"]
            rows += [entities[i], entities[i] + relation]
        lines.append(f": {name}")
        for i in range(pairs):
            lines += [
                f"Base{section}x{i} Other{section}x{i} base{section}x{j} other{section}x{j}"
                for j in range(i + 1, min(pairs, i + 8))
            ]
    rows += list(rng.normal(size=(extra, 24)))
    words += [f"filler{i}" for i in range(extra)]
    matrix = np.array(rows) + noise * rng.normal(size=(len(rows), 24))
    order = rng.permutation(len(words))
    return WordVectors([words[i] for i in order], matrix[order]), lines


def by_the_book(vectors, lines, protocol, restrict=None, exclude=True, target="add"):
    """The protocols as their sources state them, one question at a time in float64."""
    words = vectors.words[:restrict]
    rows = vectors.matrix[:restrict].astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)

    def fold(word):
        return word.encode().upper().decode() if protocol == "original" else word.upper()

    upper = [fold(word) for word in words]
    first = {}
    for i, word in enumerate(upper):
        first.setdefault(word, i)
    right, covered, asked = [], [], []
    section = -1
    for line in lines:
        if line.startswith(":"):
            section += 1
            right.append(0), covered.append(0), asked.append(0)
            continue
        question = [fold(word) for word in line.split()]
        asked[section] += 1
        if any(word not in first for word in question):
            continue
        covered[section] += 1
        a, b, c = (unit[first[word]] for word in question[:3])
        if protocol == "original" and any(not v.any() for v in (a, b, c)):
            continue
        if target == "add":
            scores = unit @ (b - a + c)
        elif target == "mul":
            scores = ((unit @ b + 1) / 2) * ((unit @ c + 1) / 2) / ((unit @ a + 1) / 2 + 0.001)
        else:
            scores = unit @ c
        if exclude:
            for word in question[:3]:
                dropped = [i for i, w in enumerate(upper) if w == word]
                scores[dropped[:1] if protocol == "original" else dropped] = -np.inf
        best = int(scores.argmax())
        if protocol == "original" and not scores[best] > 0:
            continue
        right[section] += upper[best] == question[3]
    return right, covered, asked


def counts(scores):
    return tuple([getattr(s, name) for s in scores.sections] for name in ("correct", "covered", "asked"))


def write(tmp_path, lines):
    path = tmp_path / "questions.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("protocol", ["original", "strict"])
@pytest.mark.parametrize("restrict", [None, 300, 5000])
@pytest.mark.parametrize("threads", [1, 3])
def test_counts_are_those_of_the_protocol(tmp_path, protocol, restrict, threads):
    vectors, lines = planted()
    path = write(tmp_path, lines)
    found = analogies.evaluate(
        vectors, path, protocol=protocol, restrict=restrict, threads=threads, include_query=True, nearest=True
    )
    expected = by_the_book(vectors, lines, protocol, restrict)
    assert counts(found) == expected
    assert 0.3 < found.total.accuracy < 1
    assert found.total.correct == sum(expected[0])
    assert found.total.covered == sum(expected[1])
    assert found.total.accuracy_of_all == sum(expected[0]) / sum(expected[2])
    assert found.include_query.correct == sum(
        by_the_book(vectors, lines, protocol, restrict, exclude=False)[0]
    )
    assert found.nearest.correct == sum(by_the_book(vectors, lines, protocol, restrict, target="c")[0])


@pytest.mark.parametrize("protocol", ["original", "strict"])
def test_3cosmul_counts_are_those_of_its_formula(tmp_path, protocol):
    vectors, lines = planted(noise=0.5)
    found = analogies.evaluate(vectors, write(tmp_path, lines), protocol=protocol, method="3cosmul")
    assert counts(found) == by_the_book(vectors, lines, protocol, target="mul")


def test_blocks_and_parts_answer_as_one(tmp_path, monkeypatch):
    vectors, lines = planted()
    path = write(tmp_path, lines)
    whole = analogies.evaluate(vectors, path, threads=1)
    monkeypatch.setattr(analogies, "_BLOCK_CELLS", 1)  # 256 words a block
    monkeypatch.setattr(analogies, "_MOST_DISTINCT", 20)
    monkeypatch.setattr(analogies, "_PART", 50)
    parts = analogies.evaluate(vectors, path, threads=2)
    np.testing.assert_array_equal(whole.answers, parts.answers)
    np.testing.assert_array_equal(whole.right, parts.right)


def test_gensim_counts_the_same_in_the_strict_protocol(tmp_path):
    from gensim.models import KeyedVectors

    vectors, lines = planted(noise=0.45, seed=4)
    path = write(tmp_path, lines)
    peer = KeyedVectors(24)
    peer.add_vectors(list(vectors.words), np.array(vectors.matrix))
    for restrict in (200, 400):
        accuracy, sections = peer.evaluate_word_analogies(str(path), restrict_vocab=restrict)
        found = analogies.evaluate(vectors, path, protocol="strict", restrict=restrict)
        assert [s.correct for s in found.sections] == [len(s["correct"]) for s in sections[:-1]]
        assert found.total.covered == len(sections[-1]["correct"]) + len(sections[-1]["incorrect"])
        assert found.total.accuracy == pytest.approx(accuracy)


# king - man + woman points at queen, but the case variant Woman lies nearer.
CASES = WordVectors(
    ["man", "woman", "king", "queen", "Woman", "far"],
    [[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 0.6], [-0.2, 1, 0.8], [-1, -1, -1]],
)


def test_only_the_strict_protocol_excludes_other_cases_of_query_words(tmp_path):
    path = write(tmp_path, [": family", "man king woman queen"])
    original = analogies.evaluate(CASES, path, protocol="original")
    strict = analogies.evaluate(CASES, path, protocol="strict")
    assert CASES.words[original.answers[0]] == "Woman"
    assert not original.right[0]
    assert CASES.words[strict.answers[0]] == "queen"
    assert strict.right[0]


def test_an_answer_in_another_case_is_right(tmp_path):
    vectors = WordVectors(
        ["a", "b", "c", "Dee", "x"], [[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1], [0, 0, -1]]
    )
    path = write(tmp_path, [": s", "A B C dEE"])
    assert analogies.evaluate(vectors, path).right[0]
    exact = analogies.evaluate(vectors, path, ignore_case=False)
    assert exact.total.covered == 0
    assert exact.total.accuracy == 0
    assert exact.total.interval is None


def test_only_ascii_letters_have_another_case_in_the_original(tmp_path):
    vectors = WordVectors(
        ["a", "b", "c", "été", "x"], [[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1], [0, 0, -1]]
    )
    path = write(tmp_path, [": s", "a b c ÉTÉ", "A B C éTé"])
    assert analogies.evaluate(vectors, path, protocol="strict").total.correct == 2
    original = analogies.evaluate(vectors, path, protocol="original")
    assert original.total.covered == 1
    assert original.right.tolist() == [False, True]


def test_the_original_wants_a_score_above_zero_and_never_answers_for_zero_vectors(tmp_path):
    # b - a + c points away from everything that is left.
    vectors = WordVectors(["a", "b", "c", "d", "zero"], [[1, 0], [0, 1], [-1, 0.1], [1, -1], [0, 0]])
    path = write(tmp_path, [": s", "a b c d", "a zero c d"])
    assert analogies.evaluate(vectors, path, protocol="original").answers.tolist() == [-1, -1]
    assert vectors.words[analogies.evaluate(vectors, path, protocol="strict").answers[0]] in ("zero", "d")


def test_the_first_of_equal_vectors_is_the_answer(tmp_path):
    d = [0, 1, 1]
    vectors = WordVectors(["a", "b", "c", "wrong", "d"], [[1, 0, 0], [1, 0, 1], [0, 1, 0], d, d])
    assert not analogies.evaluate(vectors, write(tmp_path, [": s", "a b c d"])).right[0]


def test_sections_are_semantic_by_place_or_by_name(tmp_path):
    vectors, _ = planted()
    lines = []
    for i in range(7):
        lines += [f": gram{i}" if i % 2 else f": place{i}", "base0x0 other0x0 base0x1 other0x1"]
    path = write(tmp_path, lines)
    original = analogies.evaluate(vectors, path)
    assert [s.kind for s in original.sections] == ["semantic"] * 5 + ["syntactic"] * 2
    strict = analogies.evaluate(vectors, path, protocol="strict")
    assert [s.kind for s in strict.sections] == ["semantic", "syntactic"] * 3 + ["semantic"]
    assert (strict.semantic.asked, strict.syntactic.asked, strict.total.asked) == (4, 3, 7)


def test_intervals_hold_the_accuracy_and_are_wilson_at_the_edge(tmp_path):
    vectors, lines = planted()
    found = analogies.evaluate(vectors, write(tmp_path, lines))
    assert found.total.interval.low < found.total.accuracy < found.total.interval.high
    assert found.total.interval.n < found.total.covered  # pairs, not questions
    eye = np.eye(13)
    perfect = WordVectors([f"{x}{i}" for x in "ab" for i in range(12)], [*eye[:12], *(eye[:12] + eye[12])])
    every = [": s", *(f"a{i} b{i} a{j} b{j}" for i in range(12) for j in range(12) if i != j)]
    exact = analogies.evaluate(perfect, write(tmp_path, every)).total
    assert exact.accuracy == 1
    assert exact.interval.n == 12
    assert 0.7 < exact.interval.low < exact.interval.high == 1
    assert analogies.evaluate(perfect, write(tmp_path, every), intervals=False).total.interval is None


def test_scores_become_plain_json(tmp_path):
    import json

    vectors, lines = planted()
    found = analogies.evaluate(vectors, write(tmp_path, lines), include_query=True, nearest=True)
    back = json.loads(json.dumps(found.to_dict()))
    assert back["total"]["correct"] == found.total.correct
    assert back["sections"][1]["name"] == "gram1-plural"
    assert back["nearest"]["accuracy"] == found.nearest.accuracy
    assert len(back["total"]["interval"]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b": s\na b c\n", r"questions.txt:2: 'a b c' has 3 words"),
        (b": s\na b c d\na b c d e\n", r":3: 'a b c d e' has 5 words"),
        (b"", "holds no questions"),
        (b": only\n: sections\n", "holds no questions"),
        (b": s\na b c \xff\n", ":2: the line is not UTF-8"),
    ],
)
def test_files_that_are_no_questions(tmp_path, content, message):
    path = tmp_path / "questions.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        analogies.read_questions(path)


def test_what_cannot_be_evaluated_is_refused(tmp_path):
    path = write(tmp_path, ["man king woman queen"])
    assert analogies.read_questions(path).sections == ("questions",)
    for options in ({"protocol": "gensim"}, {"method": "cos"}, {"restrict": 0}):
        with pytest.raises(DataError):
            analogies.evaluate(CASES, path, **options)
    with pytest.raises(DataError, match="cannot be read"):
        analogies.evaluate(CASES, tmp_path / "missing.txt")


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["original", "strict"]), st.integers(4, 40))
def test_random_vectors_with_cases_and_unknown_words_agree_with_the_book(
    tmp_path_factory, seed, protocol, count
):
    rng = np.random.default_rng(seed)
    letters = [chr(97 + i) for i in range(12)]
    names = sorted({"".join(rng.choice(letters, 2)) for _ in range(count)})
    names += [name.upper() for name in names if rng.random() < 0.4]
    vectors = WordVectors(names, rng.normal(size=(len(names), 4)))
    asked = [*names, "unknown"]
    lines = [": s"] + [" ".join(rng.choice(asked, 4)) for _ in range(30)]
    found = analogies.evaluate(vectors, write(tmp_path_factory.mktemp("book"), lines), protocol=protocol)
    assert counts(found) == by_the_book(vectors, lines, protocol)
