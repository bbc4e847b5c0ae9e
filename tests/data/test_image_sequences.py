"""Images from files written here, byte by byte or by pillow, and the digits of scikit-learn."""

from __future__ import annotations

import gzip
import io
import struct

import matplotlib.image
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posterhall.data.image_sequences import cifar10, digits, mnist
from posterhall.errors import DataError

RNG = np.random.default_rng(0)


def idx(path, array):
    data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def mnist_folder(tmp_path):
    for part, n in (("train", 20), ("t10k", 5)):
        images = RNG.integers(0, 256, (n, 28, 28), np.uint8)
        images[:, 0, 0] = np.arange(n)
        idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        idx(tmp_path / f"{part}-labels-idx1-ubyte", (np.arange(n) % 10).astype(np.uint8))
    return tmp_path


def test_mnist_keeps_images_with_their_labels(mnist_folder):
    task = mnist(mnist_folder)
    assert task.classes == 10
    assert [part.inputs.shape for part in (task.train, task.validation, task.test)] == [
        (18, 784, 1), (2, 784, 1), (5, 784, 1),
    ]  # fmt: skip
    for part in (task.train, task.validation, task.test):
        assert (np.rint(part.inputs[:, 0, 0] * 255) % 10 == part.labels).all()


def test_damaged_idx_files_are_refused_by_name(mnist_folder):
    file = mnist_folder / "t10k-labels-idx1-ubyte"
    whole = file.read_bytes()
    for data, said in (
        (whole[:-1], "5 bytes are promised, and 4 follow"),
        (whole[:6], "ends within its header"),
        (b"\x89PNG" + whole, "starts with 89504e47"),
        (struct.pack(">HBBI", 0, 8, 1, 4) + bytes(4), "4 labels for 5 images"),
    ):
        file.write_bytes(data)
        with pytest.raises(DataError, match=f"{file.name}: {said}"):
            mnist(mnist_folder)
    file.unlink()
    with pytest.raises(DataError, match=r"neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte\.gz"):
        mnist(mnist_folder)


@pytest.mark.parametrize("form", ["binary", "parquet"])
def test_cifar_gives_colours_and_their_luminance(tmp_path, form):
    images = RNG.integers(0, 256, (24, 32, 32, 3), np.uint8)
    images[:, 0, 0] = np.arange(24)[:, None]
    labels = np.arange(24) % 10
    for part, rows in (("train", slice(0, 20)), ("test", slice(20, 24))):
        if form == "binary":
            records = [
                bytes([k]) + i.transpose(2, 0, 1).tobytes()
                for i, k in zip(images[rows], labels[rows], strict=True)
            ]
            name = "test_batch.bin" if part == "test" else "data_batch_1.bin"
            (tmp_path / name).write_bytes(b"".join(records))
        else:
            cells = []
            for image in images[rows]:
                held = io.BytesIO()
                matplotlib.image.imsave(held, image, format="png")
                # imsave adds opacity; the release has none.
                from PIL import Image

                flat = io.BytesIO()
                Image.open(held).convert("RGB").save(flat, "PNG")
                cells.append({"bytes": flat.getvalue(), "path": None})
            pq.write_table(
                pa.table({"img": cells, "label": labels[rows]}), tmp_path / f"{part}-00000.parquet"
            )
    colour, grey = cifar10(tmp_path, grey=False), cifar10(tmp_path)
    assert colour.train.inputs.shape == (18, 1024, 3)
    np.testing.assert_array_equal(np.rint(colour.test.inputs * 255).reshape(-1, 32, 32, 3), images[20:])
    light = images[20:] @ [0.2989, 0.587, 0.114]
    np.testing.assert_allclose(grey.test.inputs[..., 0] * 255, light.reshape(4, -1), atol=0.51)
    for part in (colour.train, colour.validation, colour.test):
        assert (np.rint(part.inputs[:, 0, 0] * 255) % 10 == part.labels).all()


def test_what_is_no_cifar_10_is_refused(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02")
    with pytest.raises(DataError, match="pickle of the version for Python"):
        cifar10(tmp_path)
    file = tmp_path / "data_batch_1.bin"
    file.write_bytes(bytes(3072))
    with pytest.raises(DataError, match=r"3,072 bytes; .* 3,073 for each"):
        cifar10(tmp_path)
    file.write_bytes(bytes(3073) + bytes([11]) + bytes(3072))
    with pytest.raises(DataError, match=r"image 1 has the label 11; .*CIFAR-100\?"):
        cifar10(tmp_path)
    file.unlink()
    pq.write_table(pa.table({"img": [b"\x89PNG"], "label": [1]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="row 0: no PNG"):
        cifar10(tmp_path)


def test_digits_are_those_of_scikit_learn_at_any_size():
    small, large = digits(seed=3), digits(length=256, seed=3)
    assert [len(part.labels) for part in (small.train, small.validation, small.test)] == [1167, 130, 500]
    enlarged = large.test.inputs.reshape(-1, 8, 2, 8, 2)
    assert (enlarged == small.test.inputs.reshape(-1, 8, 1, 8, 1)).all()
    assert (small.test.labels == large.test.labels).all()
    assert (digits(seed=4).test.inputs != small.test.inputs).any()
    with pytest.raises(DataError, match="64, 256, 576"):
        digits(length=100)
