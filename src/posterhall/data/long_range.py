"""Files of Long Range Arena (Tay et al. 2021, arXiv 2011.04006), told apart by what a folder holds.

| task | files |
|---|---|
| ListOps | basic_train.tsv, basic_val.tsv, basic_test.tsv: Source and Target |
| retrieval | new_aan_pairs.train.tsv, .eval.tsv, .test.tsv: label, two ids, two texts |
| Pathfinder | metadata/*.npy (lines of text in spite of their name) and imgs/ |
| text | train and test, each with pos/*.txt and neg/*.txt (IMDb's own folder aclImdb) |

Images of Long Range Arena are CIFAR-10 in grey: `posterhall.data.image_sequences.cifar10`. Texts are read
as bytes. Long Range Arena cuts texts at 4,096 (text) and 4,000 (retrieval) bytes, which `length` does;
nothing else is cut.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posterhall.data import sources
from posterhall.data.image_sequences import decoded, sequences
from posterhall.data.labelled import BYTES, Divided, Sequences, divided, padded
from posterhall.data.refusals import Refusals
from posterhall.data.synthetic import list_ops
from posterhall.errors import DataError

TASKS = ("listops", "retrieval", "pathfinder", "text")


def task_of(folder: str | Path) -> str:
    """Which of TASKS a folder holds.

    Raises:
        DataError: if it holds none of them.
    """
    path = Path(folder)
    marks = {
        "listops": path / "basic_train.tsv",
        "retrieval": path / "new_aan_pairs.train.tsv",
        "pathfinder": path / "metadata",
        "text": path / "train" / "pos",
    }
    found = [task for task, mark in marks.items() if mark.exists()]
    if len(found) == 1:
        return found[0]
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; give one of Long Range Arena's")
    if found:
        raise DataError(f"{path}: holds {' and '.join(found)}; move the files of each to a folder of its own")
    wanted = ", ".join(f"{mark.relative_to(path)} ({task})" for task, mark in marks.items())
    raise DataError(f"{path}: nothing of Long Range Arena in it; one of these is looked for: {wanted}")


def read(folder: str | Path, *, length: int = 0, seed: int = 0) -> Divided:
    """A task from its folder.

    Args:
        folder: see the table above.
        length: bytes of a text, at which it is cut (of both, in retrieval); 0 is the published 4,096
            or 4,000. For ListOps, tokens that every row is padded to; 0 is the longest row's. Pathfinder
            has the length of its images.
        seed: of the parts where the release has none: Pathfinder (a tenth for validation, a tenth to
            test) and text (a tenth of the training texts for validation).

    Raises:
        DataError: naming file and line of what is not right.
    """
    task = task_of(folder)
    path = Path(folder)
    if length < 0 or (length and task == "pathfinder"):
        raise DataError(f"length is {length}; allowed is 0, or for texts and ListOps a number of tokens")
    if task == "listops":
        files = [path / f"basic_{part}.tsv" for part in ("train", "val", "test")]
        held = [_list_ops(file) for file in files]
        steps = length or max(len(row) for rows, _ in held for row in rows)
        train, validation, test = (_rows(rows, labels, steps) for rows, labels in held)
        return Divided(train, validation, test, classes=10, vocab=len(list_ops.TOKENS))
    if task == "retrieval":
        files = [path / f"new_aan_pairs.{part}.tsv" for part in ("train", "eval", "test")]
        train, validation, test = (_pairs(file, length or 4000) for file in files)
        return Divided(train, validation, test, classes=2, vocab=BYTES)
    if task == "text":
        whole = _texts(path / "train", length or 4096)
        train, validation = divided(whole, seed=seed, test=0)
        return Divided(train, validation, _texts(path / "test", length or 4096), classes=2, vocab=BYTES)
    images, refusals = _pathfinder(path)
    train, validation, test = divided(images, seed=seed)
    return Divided(train, validation, test, classes=2, refusals=refusals)


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Lines that are not empty, each with its place."""
    with sources.open_text(path) as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number:,}", line.rstrip(b"\r\n")
        except (OSError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: cannot be read to its end ({error}); copy it again") from None


def _rows(rows: list[NDArray[np.int64]], labels: list[int], length: int) -> Sequences:
    inputs, lengths = padded(rows, length=length)
    return Sequences(inputs, np.array(labels, np.int64), lengths)


def _list_ops(path: Path) -> tuple[list[NDArray[np.int64]], list[int]]:
    rows, labels = [], []
    for number, (where, line) in enumerate(_lines(path)):
        cells = line.split(b"\t")
        if number == 0 and cells == [b"Source", b"Target"]:
            continue
        if len(cells) != 2 or cells[1] not in [b"%d" % digit for digit in range(10)]:
            raise DataError(f"{where}: needed are an expression, a tab and its value of 0 to 9")
        rows.append(list_ops.encode(cells[0].decode("utf-8", "replace"), where))
        labels.append(int(cells[1]))
    if not rows:
        raise DataError(f"{path}: holds no expressions")
    return rows, labels


def _tokens(text: bytes, length: int) -> NDArray[np.int64]:
    return np.frombuffer(text[:length], np.uint8).astype(np.int64) + 1


def _pairs(path: Path, length: int) -> Sequences:
    texts: list[NDArray[np.int64]] = []
    labels = []
    for where, line in _lines(path):
        cells = line.split(b"\t")
        if len(cells) != 5 or cells[0] not in (b"0", b"1", b"0.0", b"1.0"):
            raise DataError(
                f"{where}: needed are a label of 0 or 1, two ids and two texts, with tabs between"
            )
        if not (cells[3] and cells[4]):
            raise DataError(f"{where}: a text is empty; leave the pair out")
        texts += [_tokens(cells[3], length), _tokens(cells[4], length)]
        labels.append(int(cells[0][:1]))
    inputs, lengths = padded(texts, length=length)
    return Sequences(inputs.reshape(-1, 2, length), np.array(labels, np.int64), lengths.reshape(-1, 2))


def _texts(folder: Path, length: int) -> Sequences:
    rows, labels = [], []
    for label, name in enumerate(("neg", "pos")):
        files = sorted((folder / name).glob("*.txt"))
        if not files:
            raise DataError(f"{folder / name}: no *.txt in it; give IMDb's folder, with train and test")
        for file in files:
            text = file.read_bytes()
            if not text:
                raise DataError(f"{file}: is empty; leave it out, at least one byte is needed")
            rows.append(_tokens(text, length))
            labels.append(label)
    return _rows(rows, labels, length)


def _pathfinder(folder: Path) -> tuple[Sequences, Refusals]:
    refusals = Refusals()
    images: list[NDArray[np.uint8]] = []
    labels = []
    files = sorted((folder / "metadata").glob("*.npy"), key=lambda file: (len(file.stem), file.stem))
    for file in files:
        for where, cells in _metadata(file):
            if len(cells) < 4 or cells[3] not in ("0", "1") or ".." in Path(cells[0], cells[1]).parts:
                raise DataError(f"{where}: needed are a folder, a file, a number and a label of 0 or 1")
            image = folder / cells[0].lstrip("/") / cells[1].lstrip("/")
            if not image.is_file():
                raise DataError(f"{image}: no such file, though {where} names it; unpack the whole release")
            data = image.read_bytes()
            if not data:  # the release itself has one: pathfinder32/curv_baseline/imgs/0/sample_172.png
                refusals.refuse("an empty file", str(image))
                continue
            pixels = decoded(data, str(image))
            if pixels.ndim != 2 or (images and pixels.shape != images[0].shape):
                wanted = f" like the first, {images[0].shape}" if images else ""
                raise DataError(f"{image}: an image of {pixels.shape}; needed is one channel{wanted}")
            images.append(pixels)
            labels.append(int(cells[3]))
    if not images:
        raise DataError(f"{folder / 'metadata'}: names no images")
    return sequences(np.stack(images), np.array(labels)), refusals


def _metadata(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Cells of each row: lines of text in the release, an array of texts where the generator saved it."""
    with file.open("rb") as opened:
        array = opened.read(6) == b"\x93NUMPY"
    if not array:
        for where, line in _lines(file):
            yield where, line.decode("utf-8", "replace").split()
        return
    try:
        rows = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file}: no array of texts ({error})") from None
    if rows.ndim != 2 or rows.dtype.kind not in "US":
        raise DataError(
            f"{file}: an array of {rows.dtype} {rows.shape}; needed is one of texts, a row an image"
        )
    for number, row in enumerate(rows.astype(str).tolist(), 1):
        yield f"{file}, row {number:,}", row
