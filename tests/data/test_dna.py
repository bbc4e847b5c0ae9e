"""FASTA: written and read again in any layout, and the ambiguity codes by what they stand for."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.data import dna
from posterhall.errors import DataError

LETTERS = "ACGTURYSWKMBDHVN"
PAIR = {"A": "T", "C": "G", "G": "C", "T": "A"}


@st.composite
def files(draw):
    """Text of a FASTA file in some layout, and what is in it."""
    names = st.text("abcXYZ019._|", min_size=1, max_size=8)
    records = draw(
        st.lists(
            st.tuples(
                names,
                st.text("ab= 1", max_size=6),
                st.text(LETTERS + LETTERS.lower(), min_size=1, max_size=40),
            ),
            min_size=1,
            max_size=5,
        )
    )
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = draw(st.sampled_from(["", end]))
    for name, description, letters in records:
        wide = draw(st.integers(1, 50))
        lines = [letters[at : at + wide] for at in range(0, len(letters), wide)]
        text += end.join([f">{name} {description}".rstrip(), *lines]) + end + draw(st.sampled_from(["", end]))
    return text, records


@given(files(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_any_layout_gives_the_records(tmp_path_factory, file, zipped):
    text, records = file
    path = tmp_path_factory.mktemp("fasta") / "a.fa"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    read = list(dna.read(path))
    assert [(r.name, r.description) for r in read] == [(n, d.strip()) for n, d, _ in records]
    assert [dna.decode(r.tokens) for r in read] == [s.upper().replace("U", "T") for _, _, s in records]


@given(st.text(LETTERS, max_size=30))
def test_the_reverse_complement_stands_for_the_complementary_bases(letters):
    tokens = dna.encode(letters.encode())
    other = dna.reverse_complement(tokens)
    for code, opposite in zip(dna.decode(tokens)[::-1], dna.decode(other), strict=True):
        bases = set(dna.BASES.get(code, code))
        assert {PAIR[base] for base in bases} == set(dna.BASES.get(opposite, opposite))
    assert (dna.reverse_complement(other) == tokens).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (">a\nACGT\nAC-T\n", r"line 3: '-' at place 3 is no nucleotide"),
        (">a\nMEEPQ\n", r"line 2: 'E' at place 2.*protein"),
        ("ACGT\n", "line 1: letters before"),
        (">a\n>b\nA\n", "line 1: the record 'a' has no letters"),
        (">\nA\n", "without a name"),
        ("\n", "holds no records"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, text, said):
    path = tmp_path / "a.fa"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        list(dna.read(path))


def test_a_gzip_file_that_ends_early_is_refused(tmp_path):
    path = tmp_path / "a.fa.gz"
    path.write_bytes(
        gzip.compress(b">a\n" + bytes(np.random.default_rng(0).choice(list(b"ACGT"), 5000)))[:-200]
    )
    with pytest.raises(DataError, match="cannot be read to its end"):
        list(dna.read(path))


def test_labels_make_classes(tmp_path):
    path = tmp_path / "a.fa"
    path.write_text("".join(f">r{n} label={'xy'[n % 2]} more\n{'ACGT'[: 1 + n % 4]}\n" for n in range(20)))
    task = dna.labelled(path)
    assert (task.classes, task.vocab) == (2, 16)
    for part, size in ((task.train, 16), (task.validation, 2), (task.test, 2)):
        assert len(part.labels) == size
        assert ((part.lengths - 1) % 2 == part.labels).all()
    with pytest.raises(DataError, match="'r2' has 3 letters, and the length is 2"):
        dna.labelled(path, length=2)
    path.write_text(">a label=x\nA\n>b\nC\n")
    with pytest.raises(DataError, match="line 3: 'b' has no label=NAME"):
        dna.labelled(path)
    path.write_text(">a label=x\nA\n")
    with pytest.raises(DataError, match="at least two classes"):
        dna.labelled(path)
