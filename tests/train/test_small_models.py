"""Small models, trained once and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from posterhall.data.packing import IGNORED
from posterhall.errors import DataError
from posterhall.train.small import RECIPE, Lessons, SmallSettings, small_model

pytest.importorskip("torch")
TINY = SmallSettings(steps=4, batch=8, dim=8, layers=1, heads=2, ffn_dim=8, max_length=16, log_every=1)


def sums(drawn: list[int] | None = None, *, count: int = 300, shift: int = 0) -> Iterator[tuple[str, str]]:
    for i in range(count):
        if drawn is not None:
            drawn.append(i)
        a, b = i % 5, i // 5 % 5
        yield f"{a} + {b} =", str((a + b + shift) % 5)


def test_a_kept_model_is_found_without_drawing_all_lessons(tmp_path: Path) -> None:
    first, again = [], []
    made = small_model(sums(first), TINY, recipe={"kind": "sums"}, cache=tmp_path)
    weights = (made / "model.safetensors").read_bytes()
    assert small_model(sums(again), TINY, recipe={"kind": "sums"}, cache=tmp_path) == made
    assert (len(first), len(again)) == (300, 256)
    assert (made / "model.safetensors").read_bytes() == weights


def test_another_recipe_settings_or_lessons_are_another_model(tmp_path: Path) -> None:
    from dataclasses import replace

    places = {
        small_model(sums(), TINY, recipe={"kind": "sums"}, cache=tmp_path),
        small_model(sums(), TINY, recipe={"kind": "other"}, cache=tmp_path),
        small_model(sums(), replace(TINY, seed=1), recipe={"kind": "sums"}, cache=tmp_path),
        small_model(sums(shift=1), TINY, recipe={"kind": "sums"}, cache=tmp_path),
    }
    assert len(places) == 4


@pytest.mark.parametrize("damage", ["truncate", "remove", "recipe"])
def test_damage_is_noticed_and_made_good(tmp_path: Path, damage: str) -> None:
    made = small_model(sums(), TINY, recipe={}, cache=tmp_path)
    whole = (made / "model.safetensors").read_bytes()
    if damage == "truncate":
        (made / "model.safetensors").write_bytes(whole[:-8])
    elif damage == "remove":
        (made / "tokenizer.json").unlink()
    else:
        (made / RECIPE).write_text("{")
    shutil.copytree(made, made.with_name(f".{made.name}.part"))  # as a killed process leaves it
    assert small_model(sums(), TINY, recipe={}, cache=tmp_path) == made
    assert (made / "model.safetensors").read_bytes() == whole
    assert (made / "tokenizer.json").is_file()


def test_of_processes_that_ask_at_once_one_trains(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from posterhall.train.small import SmallSettings, small_model\n"
        "settings = SmallSettings(steps=60, batch=8, dim=8, layers=1, heads=2, ffn_dim=8, max_length=16)\n"
        "drawn = []\n"
        "lessons = (drawn.append(i) or (f'{i % 7} is', str(i % 3)) for i in range(400))\n"
        "print(small_model(lessons, settings, recipe={}, cache=sys.argv[1]), len(drawn))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=100)[0].split() for process in asking)
    assert said[0][0] == said[1][0]
    assert [drawn for _, drawn in said] == ["256", "400"]


def test_the_model_is_an_ordinary_checkpoint_that_has_learnt(tmp_path: Path) -> None:
    from posterhall.lm import Request, connect

    settings = SmallSettings(steps=150, batch=25, dim=32, heads=2, max_length=8)
    lessons = [(f"{a} + {b} =", str((a + b) % 5)) for a in range(5) for b in range(5)]
    made = small_model(lessons, settings, recipe={}, cache=tmp_path)
    with connect(str(made)) as lm:
        asked = [Request(prompt, max_tokens=4, temperature=0.0) for prompt, _ in lessons]
        said = [samples[0] for samples in lm.generate(asked)]
    assert [each.text for each in said] == [answer for _, answer in lessons]
    assert {each.finish_reason for each in said} == {"stop"}  # it says the end of a text by itself


def test_only_answers_are_labels_and_every_lesson_comes_once_an_epoch() -> None:
    rows = [np.array([0, *range(3, 3 + n), 2, 0], np.int32) for n in (1, 5, 3, 2, 4, 1, 6)]
    learnt = np.array([len(row) - 2 for row in rows])  # the answer and the end
    lessons = Lessons(rows, learnt, batch=2, seed=0)
    seen = []
    for first in range(0, 14, 2):
        batch = lessons.take(first, 2)
        for ids, labels in zip(batch["ids"], batch["labels"], strict=True):
            kept = np.flatnonzero(labels != IGNORED)
            assert labels[kept].tolist() == [2, 0]
            assert ids[kept[0] + 1] == 2 if kept[0] + 1 < len(ids) else True
            seen.append(kept[0])
    assert sorted(seen) == sorted([1, 5, 3, 2, 4, 1, 6] * 2)
    assert seen[:7] != seen[7:]


def test_a_text_alone_is_learnt_whole(tmp_path: Path) -> None:
    lessons = Lessons([np.array([0, 5, 6, 0], np.int32)], np.array([1]), batch=1, seed=0)
    assert lessons.take(0, 1)["labels"].tolist() == [[5, 6, 0]]


def test_what_cannot_be_learnt_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no lessons"):
        small_model([], TINY, recipe={}, cache=tmp_path)
    with pytest.raises(DataError, match="lesson 1 has 20 words"):
        small_model(["a", "b " * 20], TINY, recipe={}, cache=tmp_path)
    with pytest.raises(DataError, match="JSON"):
        small_model(["a"], TINY, recipe={"x": {1, 2}}, cache=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot keep a model"):
        small_model(["a"], TINY, recipe={}, cache=tmp_path / "file")
    assert not [each for each in tmp_path.iterdir() if each.name.endswith(".part")]
