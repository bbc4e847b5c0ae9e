"""Folders of Long Range Arena in small, written as the release and its generators write them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image

from posterhall.data import long_range
from posterhall.errors import DataError


def list_ops(path, lines=("( ( [MAX 4 ) 3 ) ]\t4", "( [MIN ( ( [SM 9 ) 5 ) ] ) 7 ]\t4")):
    for part in ("train", "val", "test"):
        (path / f"basic_{part}.tsv").write_text("\n".join(("Source\tTarget", *lines)) + "\n")


def test_list_ops_is_read_without_parentheses(tmp_path):
    list_ops(tmp_path)
    task = long_range.read(tmp_path)
    assert (task.classes, task.vocab) == (10, 16)
    assert task.test.lengths.tolist() == [4, 7]
    assert task.test.inputs[0].tolist() == [12, 5, 4, 15, 0, 0, 0]
    assert task.test.labels.tolist() == [4, 4]
    with pytest.raises(DataError, match="has 7 tokens, and the length is 5"):
        long_range.read(tmp_path, length=5)
    list_ops(tmp_path, ["[MAX 1 2 ]\t10"])
    with pytest.raises(DataError, match=r"basic_train\.tsv, line 2: .*0 to 9"):
        long_range.read(tmp_path)


def test_pairs_of_texts_keep_both_and_are_cut_as_published(tmp_path):
    for part in ("train", "eval", "test"):
        (tmp_path / f"new_aan_pairs.{part}.tsv").write_bytes(
            b"1.0\tP1\tP2\tab\tc\xff\n0.0\tP1\tP3\tab\t" + b"z" * 5000
        )
    task = long_range.read(tmp_path)
    assert task.train.inputs.shape == (2, 2, 4000)
    assert task.train.lengths.tolist() == [[2, 2], [2, 4000]]
    assert task.train.labels.tolist() == [1, 0]
    assert task.train.inputs[0, :, :3].tolist() == [[98, 99, 0], [100, 256, 0]]
    (tmp_path / "new_aan_pairs.eval.tsv").write_bytes(b"1.0\tP1\tP2\tab\tc\n2.0\tP1\tP2\ta\tb\n")
    with pytest.raises(DataError, match=r"eval\.tsv, line 2: needed are a label"):
        long_range.read(tmp_path)


def test_texts_are_bytes_with_their_class(tmp_path):
    for part in ("train", "test"):
        for name, text in (("neg", "bad"), ("pos", "good")):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(5):
                (tmp_path / part / name / f"{number}_1.txt").write_text(text)
    task = long_range.read(tmp_path, length=6)
    assert [len(part.labels) for part in (task.train, task.validation, task.test)] == [9, 1, 10]
    assert (task.test.lengths == np.where(task.test.labels, 4, 3)).all()
    assert bytes((task.test.inputs[-1, :4] - 1).tolist()) == b"good"
    (tmp_path / "test" / "pos" / "3_1.txt").write_text("")
    with pytest.raises(DataError, match=r"3_1\.txt: is empty"):
        long_range.read(tmp_path)


@pytest.fixture(params=["text", "array"])
def pathfinder(tmp_path, request):
    (tmp_path / "imgs" / "0").mkdir(parents=True)
    (tmp_path / "metadata").mkdir()
    rows = []
    for number in range(11):
        label = number % 2
        pixels = np.full((8, 8), 100 * label + number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "imgs" / "0" / f"sample_{number}.png")
        rows.append(["imgs/0", f"sample_{number}.png", str(number), str(label), "1.0", "14"])
    (tmp_path / "imgs" / "0" / "sample_7.png").write_bytes(b"")
    if request.param == "text":
        (tmp_path / "metadata" / "0.npy").write_text("".join(" ".join(row) + "\n" for row in rows))
    else:
        np.save(tmp_path / "metadata" / "0.npy", np.array(rows))
    return tmp_path


def test_pathfinder_is_read_from_lines_and_arrays_and_its_empty_file_left_out(pathfinder):
    task = long_range.read(pathfinder)
    parts = (task.train, task.validation, task.test)
    assert [part.inputs.shape for part in parts] == [(8, 64, 1), (1, 64, 1), (1, 64, 1)]
    levels = np.concatenate([np.rint(part.inputs[:, 0, 0] * 255) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    assert sorted(levels.tolist()) == [0, 2, 4, 6, 8, 10, 101, 103, 105, 109]
    assert ((levels > 99) == labels).all()
    assert task.refusals.refused["an empty file"] == 1
    assert "sample_7.png" in task.refusals.reasons()


def test_images_that_are_missing_or_cut_off_are_named(pathfinder):
    file = pathfinder / "imgs" / "0" / "sample_4.png"
    file.write_bytes(file.read_bytes()[:30])
    with pytest.raises(DataError, match=r"sample_4\.png: no PNG"):
        long_range.read(pathfinder)
    file.unlink()
    with pytest.raises(DataError, match=r"sample_4\.png: no such file, though"):
        long_range.read(pathfinder)


def test_a_folder_is_told_apart_or_refused_with_what_is_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"basic_train\.tsv \(listops\), new_aan_pairs"):
        long_range.read(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        long_range.read(tmp_path / "none")
    list_ops(tmp_path)
    assert long_range.task_of(tmp_path) == "listops"
    (tmp_path / "metadata").mkdir()
    with pytest.raises(DataError, match="holds listops and pathfinder"):
        long_range.read(tmp_path)


def test_a_gzip_file_that_ends_early_is_refused(tmp_path):
    list_ops(tmp_path)
    file = tmp_path / "basic_val.tsv"
    file.write_bytes(gzip.compress(file.read_bytes())[:-9])
    with pytest.raises(DataError, match=r"basic_val\.tsv: cannot be read to its end"):
        long_range.read(tmp_path)
