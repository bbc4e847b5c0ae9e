"""Images as sequences of pixels, row by row: MNIST and CIFAR-10 from files, digits that scikit-learn brings.

Nothing is downloaded. CIFAR-10's version for Python holds pickles, which run code when they are read; its
binary version and Parquet (as on Hugging Face) are read instead.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.data import sources
from posterhall.data.labelled import Divided, Sequences, divided
from posterhall.errors import DataError
from posterhall.extras import require

_RECORD = 1 + 3 * 32 * 32
"""Bytes of an image in CIFAR-10's binary version: label, then red, green and blue."""
_GREY = np.array([0.2989, 0.5870, 0.1140], np.float32)
"""Weights of red, green and blue, as Long Range Arena's own conversion has them."""


def sequences(images: NDArray[Any], labels: NDArray[Any]) -> Sequences:
    """Images (n, rows, columns) or (n, rows, columns, channels) uint8 as samples in [0, 1]."""
    held = images.reshape(len(images), images.shape[1] * images.shape[2], -1).astype(np.float32) / 255
    return Sequences(held, labels.astype(np.int64), np.full(len(held), held.shape[1]))


def digits(*, length: int = 64, seed: int = 0) -> Divided:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn brings: 1,297 and 500 to test.

    From the UCI machine learning repository (Alpaydin and Kaynak 1998, test part). A tenth of the first
    1,297 is for validation. Both divisions follow from the seed.

    Args:
        length: steps of a sequence: (8 k)², each pixel k x k times.
        seed: of the division.

    Raises:
        DataError: for another length.
        MissingExtra: without scikit-learn.
    """
    times = math.isqrt(max(length, 0)) // 8
    if times < 1 or (8 * times) ** 2 != length:
        raise DataError(
            f"length is {length}; digits of 8 x 8 pixels make 64, 256, 576, 1024, ... (8 k)² steps"
        )
    data = require("sklearn.datasets", "train", "reading the handwritten digits").load_digits()
    images = np.kron(data.images / 16, np.ones((times, times))).astype(np.float32)
    labels = data.target.astype(np.int64)
    whole = Sequences(images.reshape(len(labels), length, 1), labels, np.full(len(labels), length))
    rest, test = divided(whole, seed=seed, validation=500 / len(labels), test=0)
    train, validation = divided(rest, seed=seed, test=0)
    return Divided(train, validation, test, classes=10)


def mnist(folder: str | Path, *, seed: int = 0) -> Divided:
    """MNIST (or a set of the same form) from its four idx files, gzipped or not: 784 steps of one channel.

    A tenth of the training images, drawn by the seed, is for validation.

    Raises:
        DataError: naming the file that is missing, damaged or of another size.
    """
    parts = []
    for part in ("train", "t10k"):
        images = _idx(_one_of(Path(folder), f"{part}-images-idx3-ubyte", f"{part}-images.idx3-ubyte"), 3)
        file = _one_of(Path(folder), f"{part}-labels-idx1-ubyte", f"{part}-labels.idx1-ubyte")
        labels = _idx(file, 1)
        if len(labels) != len(images):
            raise DataError(
                f"{file}: {len(labels):,} labels for {len(images):,} images; are they of one set?"
            )
        parts.append(sequences(images, labels))
    train, validation = divided(parts[0], seed=seed, test=0)
    return Divided(train, validation, parts[1], classes=1 + int(max(p.labels.max() for p in parts)))


def cifar10(path: str | Path, *, grey: bool = True, seed: int = 0) -> Divided:
    """CIFAR-10 from a folder: data_batch_*.bin and test_batch.bin, or train*.parquet and test*.parquet.

    Args:
        path: the folder, or one that has them in `cifar-10-batches-bin`.
        grey: one channel (Long Range Arena's image task), else three; 1,024 steps.
        seed: of the tenth of the training images that is for validation.

    Raises:
        DataError: naming the file that is missing or damaged.
    """
    folder = Path(path)
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    parts = []
    for part, pattern in (("train", "data_batch_*.bin"), ("test", "test_batch.bin")):
        binary = sorted(folder.glob(pattern))
        tables = sorted(folder.rglob(f"{part}*.parquet"))
        if binary:
            read = [_cifar_binary(file) for file in binary]
        elif tables:
            read = [_cifar_table(file) for file in tables]
        else:
            pickles = (folder / "data_batch_1").is_file()
            raise DataError(
                f"{folder}: neither {pattern} nor {part}*.parquet in it"
                + (
                    "; data_batch_1 is a pickle of the version for Python, which is not read"
                    if pickles
                    else ""
                )
                + "; give the folder of CIFAR-10's binary version, or of Parquet files"
            )
        images = np.concatenate([images for images, _ in read])
        if grey:
            images = np.rint(images @ _GREY).clip(0, 255).astype(np.uint8)
        parts.append(sequences(images, np.concatenate([labels for _, labels in read])))
    train, validation = divided(parts[0], seed=seed, test=0)
    return Divided(train, validation, parts[1], classes=10)


def decoded(data: bytes, where: str) -> NDArray[np.uint8]:
    """Pixels of a PNG, uint8 (rows, columns) or (rows, columns, channels).

    Raises:
        DataError: if it is none, or cut off.
    """
    from matplotlib.image import imread

    try:
        pixels = imread(io.BytesIO(data), format="png")
    except (OSError, SyntaxError, ValueError) as error:  # what pillow raises for damaged files
        raise DataError(f"{where}: no PNG that can be read ({error})") from None
    return np.asarray(np.rint(pixels * 255), np.uint8)


def _one_of(folder: Path, *names: str) -> Path:
    for name in names:
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                return file
    raise DataError(
        f"{folder}: neither {names[0]} nor {names[0]}.gz in it; give the folder with the four idx files"
    )


def _idx(path: Path, axes: int) -> NDArray[np.uint8]:
    with sources.open_text(path) as file:
        try:
            data = file.read()
        except (OSError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: no sound gzip file ({error}); copy or download it again") from None
    wanted = bytes([0, 0, 8, axes])
    if data[:4] != wanted:
        raise DataError(
            f"{path}: starts with {data[:4].hex() or 'nothing'}; an idx file of bytes with {axes} axes "
            f"starts with {wanted.hex()}"
        )
    if len(data) < 4 + 4 * axes:
        raise DataError(f"{path}: ends within its header, after {len(data)} bytes; copy it again")
    shape = tuple(np.frombuffer(data, ">u4", axes, 4).tolist())
    size = math.prod(shape)
    if len(data) != 4 + 4 * axes + size:
        raise DataError(
            f"{path}: {size:,} bytes are promised, and {len(data) - 4 - 4 * axes:,} follow; copy it again"
        )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _cifar_binary(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    size = file.stat().st_size
    if size == 0 or size % _RECORD:
        raise DataError(f"{file}: {size:,} bytes; CIFAR-10's binary version has {_RECORD:,} for each image")
    records = np.fromfile(file, np.uint8).reshape(-1, _RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), _checked(file, records[:, 0])


def _cifar_table(file: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: no Parquet file that can be read ({error})") from None
    image = next((name for name in ("img", "image") if name in table.column_names), None)
    if image is None or "label" not in table.column_names:
        raise DataError(
            f"{file}: has the columns {', '.join(table.column_names)}; needed are img (or image) and label"
        )
    images = np.empty((table.num_rows, 32, 32, 3), np.uint8)
    for row, cell in enumerate(table[image].to_pylist()):
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        where = f"{file}, row {row}"
        if not isinstance(data, bytes):
            raise DataError(f"{where}: {image} holds no bytes of a PNG")
        pixels = decoded(data, where)
        if pixels.shape != (32, 32, 3):
            raise DataError(f"{where}: an image of {pixels.shape}; CIFAR-10 has (32, 32, 3)")
        images[row] = pixels
    return images, _checked(file, table["label"].to_numpy())


def _checked(file: Path, labels: NDArray[Any]) -> NDArray[Any]:
    if len(labels) and not 0 <= labels.min() <= labels.max() <= 9:
        wrong = int(np.argmax((labels < 0) | (labels > 9)))
        raise DataError(
            f"{file}: image {wrong} has the label {labels[wrong]}; CIFAR-10 has 0 to 9. Is it CIFAR-100?"
        )
    return labels
