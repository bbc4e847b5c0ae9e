"""Nucleotides from FASTA files, with the ambiguity codes of IUPAC (Cornish-Bowden 1985).

A record begins with a line `>name description`; letters of all lines up to the next one are its sequence,
in either case. U is read as T. A class is given in the description, as `label=NAME`.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posterhall.data import sources
from posterhall.data.labelled import Divided, Sequences, divided, padded
from posterhall.errors import DataError

CODES = "ACGTRYSWKMBDHVN"
"""Letters by token, from 1 (0 is padding): four bases, then the ambiguity codes."""
BASES = {
    "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip
"""Which bases each ambiguity code may stand for."""
VOCAB = len(CODES) + 1

_TABLE = np.zeros(256, np.int64)
for _token, _letter in enumerate(CODES, 1):
    _TABLE[[ord(_letter), ord(_letter.lower())]] = _token
_TABLE[[ord("U"), ord("u")]] = 1 + CODES.index("T")

_COMPLEMENT = np.array([0, *(1 + CODES.index(letter) for letter in "TGCAYRSWMKVHDBN")], np.int64)


@dataclass(frozen=True)
class Record:
    """One sequence of a file.

    Attributes:
        name: the first word of its line.
        description: the rest of that line.
        tokens: int64 (n,), 1 to 15; see CODES.
        where: file and line, for messages.
    """

    name: str
    description: str
    tokens: NDArray[np.int64]
    where: str


def encode(letters: bytes, where: str = "the sequence") -> NDArray[np.int64]:
    """Tokens of letters, without white space.

    Raises:
        DataError: naming the first letter that is no nucleotide.
    """
    tokens = _TABLE[np.frombuffer(letters, np.uint8)]
    if len(tokens) and not tokens.all():
        at = int(np.argmin(tokens))
        raise DataError(
            f"{where}: {chr(letters[at])!r} at place {at + 1} is no nucleotide; allowed are {CODES} and U. "
            "Is it a protein, or an alignment with gaps?"
        )
    return tokens


def decode(tokens: NDArray[np.int64]) -> str:
    """Letters of tokens; padding is left out."""
    return "".join(CODES[token - 1] for token in tokens.tolist() if token)


def reverse_complement(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """The other strand, read in its own direction; ambiguity codes too (R, A or G, becomes Y, T or C)."""
    return _COMPLEMENT[tokens[::-1]]


def read(path: str | Path) -> Iterator[Record]:
    """Records of a FASTA file, gzipped or not, one at a time.

    Raises:
        DataError: naming file and line of a letter that is no nucleotide, a record without letters or
            name, or letters before the first record.
    """
    head, where, lines = "", "", list[NDArray[np.int64]]()
    file = Path(path)
    with sources.open_text(file) as opened:
        try:
            for number, raw in enumerate(opened, 1):
                line = raw.strip()
                if line.startswith(b">"):
                    if where:
                        yield _record(head, lines, where)
                    head, where, lines = line[1:].decode("utf-8", "replace"), f"{file}, line {number:,}", []
                elif line and not line.startswith(b";"):  # a comment, in old files
                    if not where:
                        raise DataError(
                            f"{file}, line {number:,}: letters before the first line that starts with >"
                        )
                    lines.append(encode(line, f"{file}, line {number:,}"))
        except (OSError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{file}: cannot be read to its end ({error}); copy it again") from None
    if not where:
        raise DataError(f"{file}: holds no records; each begins with a line that starts with >")
    yield _record(head, lines, where)


def _record(head: str, lines: list[NDArray[np.int64]], where: str) -> Record:
    name, _, description = head.strip().partition(" ")
    if not name:
        raise DataError(f"{where}: a record without a name; write >name")
    if not lines:
        raise DataError(f"{where}: the record {name!r} has no letters; leave it out")
    return Record(name, description.strip(), np.concatenate(lines), where)


def labelled(path: str | Path, *, length: int = 0, seed: int = 0) -> Divided:
    """Records with `label=NAME` in their descriptions; a tenth each for validation and test.

    Args:
        path: the file.
        length: letters that each is padded to; 0 is the longest one's. Nothing is cut.
        seed: of the parts.

    Raises:
        DataError: for a record without a label or longer than `length`, or fewer than two classes.
    """
    rows, names = [], []
    for record in read(path):
        found = re.search(r"\blabel=(\S+)", record.description)
        if found is None:
            raise DataError(f"{record.where}: {record.name!r} has no label=NAME after its name")
        if 0 < length < len(record.tokens):
            raise DataError(
                f"{record.where}: {record.name!r} has {len(record.tokens):,} letters, and the length is "
                f"{length:,}"
            )
        rows.append(record.tokens)
        names.append(found[1])
    classes = sorted(set(names))
    if len(classes) < 2:
        raise DataError(f"{path}: all records have the label {classes[0]!r}; at least two classes are needed")
    inputs, lengths = padded(rows, length=length)
    labels = np.array([classes.index(name) for name in names], np.int64)
    train, validation, test = divided(Sequences(inputs, labels, lengths), seed=seed)
    return Divided(train, validation, test, classes=len(classes), vocab=VOCAB)
