"""Pathfinder: which dashes belong together is found anew from the pixels alone, by nearness."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from posterhall.data.synthetic.pathfinder import Pathfinder, path_x
from posterhall.errors import DataError

TASKS = {
    "lra": Pathfinder(),
    "path-x": path_x(),
    "small": Pathfinder(side=16, dashes=5, radius=1, distractors=2, short=2),
    "straight": Pathfinder(side=48, dashes=8, gap=2, turn=0.3, radius=2),
}


def joined(image, task):
    """Whether both markers touch one group of pixels, which are neighbours within the gap."""
    spots, count = ndimage.label(image == 255, np.ones((3, 3)))
    assert count == 2, "two markers apart"
    pixels = np.argwhere(image > 0)
    pairs = cKDTree(pixels).query_pairs(task.gap + 1, p=np.inf, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(pixels), len(pixels)))
    groups = connected_components(graph, directed=False)[1]
    one, other = (set(groups[spots[tuple(pixels.T)] == number].tolist()) for number in (1, 2))
    assert len(one) == len(other) == 1
    return one == other


@pytest.mark.parametrize("name", TASKS)
def test_the_class_is_whether_one_contour_joins_the_markers(name):
    task = TASKS[name]
    rows = task.draw(128, seed=2, split="train")
    images = np.rint(rows.inputs.reshape(-1, task.side, task.side) * 255).astype(int)
    assert set(np.unique(images)) == {0, 191, 255}
    assert [joined(image, task) for image in images] == rows.labels.astype(bool).tolist()


def test_classes_are_balanced_and_brightness_tells_nothing():
    rows = Pathfinder().draw(640, seed=0, split="test")
    assert rows.labels.mean() == 0.5
    light = rows.inputs.sum(axis=(1, 2))
    assert stats.ttest_ind(light[rows.labels == 0], light[rows.labels == 1]).pvalue > 1e-3


def test_an_image_follows_from_seed_split_and_number():
    task = TASKS["small"]
    many, few = (task.draw(n, seed=3, split="train") for n in (100, 70))
    assert (many.inputs[:70] == few.inputs).all()
    assert (many.labels[:70] == few.labels).all()
    for other in (task.draw(70, seed=4, split="train"), task.draw(70, seed=3, split="test")):
        assert (other.inputs != few.inputs).any()


def test_what_has_no_room_is_refused():
    with pytest.raises(DataError, match="found no room on 8 x 8"):
        Pathfinder(side=8, dashes=30, short=1, radius=1).draw(1, seed=0, split="train")
    for values, said in (
        ({"side": 4}, "8 to 1,024"),
        ({"gap": -1}, "gap is -1"),
        ({"turn": 4}, "pi"),
        ({"short": 15}, "short"),
    ):
        with pytest.raises(DataError, match=said):
            Pathfinder(**values)
