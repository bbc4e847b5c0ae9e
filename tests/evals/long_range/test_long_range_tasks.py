"""What there is to classify: images at other sizes, signals at other rates, files of every kind."""

from __future__ import annotations

import wave

import numpy as np
import pytest

from posterhall.data.synthetic import list_ops
from posterhall.errors import DataError
from posterhall.evals.long_range.settings import LongRangeSettings
from posterhall.evals.long_range.tasks import load, positions

FEW = {"train_rows": 12, "validation_rows": 4, "test_rows": 6}


def tone(path, hertz, *, rate=8000, seconds=0.02):
    at = np.arange(int(rate * seconds)) / rate
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((np.sin(2 * np.pi * hertz * at) * 30000).astype("<i2").tobytes())


@pytest.fixture
def sounds(tmp_path):
    for name, hertz in (("low", 200), ("high", 900)):
        for number in range(5):
            tone(tmp_path / "sounds" / name / f"{number}.wav", hertz + number)
    return tmp_path / "sounds"


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, n in (("train", 20), ("t10k", 6)):
        images = rng.integers(0, 256, (n, 4, 4), np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / name).write_bytes(head + array.tobytes())
    return folder


def test_images_are_enlarged_by_whole_pixels_and_reduced_by_their_means(mnist):
    settings = LongRangeSettings(task=f"mnist:{mnist}")
    own = load(settings, 16, 0)
    large, reduced = (load(settings, length, 0) for length in (64, 4))
    images = own.test.inputs.reshape(-1, 4, 4)
    np.testing.assert_array_equal(large.test.inputs.reshape(-1, 8, 8)[:, ::2, 1::2], images)
    wanted = images.reshape(-1, 2, 2, 2, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(reduced.test.inputs.reshape(-1, 2, 2), wanted, rtol=1e-6)
    for other in (large, reduced):
        np.testing.assert_array_equal(other.test.labels, own.test.labels)
        assert set(other.test.lengths.tolist()) == {positions(other.test)}


@pytest.mark.parametrize(("length", "said"), [(17, "16 or 25 would do"), (36, "16, 64, 4, ...")])
def test_images_of_a_size_that_does_not_go_into_theirs_are_refused(mnist, length, said):
    with pytest.raises(DataError, match=said):
        load(LongRangeSettings(task=f"mnist:{mnist}"), length, 0)


def test_samples_are_held_at_a_higher_rate_and_averaged_at_a_lower_one(mnist):
    settings = LongRangeSettings(task=f"mnist:{mnist}")
    own, held, mean = (load(settings, 16, 0, rate).test for rate in (1.0, 3.0, 0.5))
    np.testing.assert_array_equal(held.inputs[:, 2::3], own.inputs)
    np.testing.assert_array_equal(held.inputs[:, ::3], own.inputs)
    np.testing.assert_allclose(mean.inputs, (own.inputs[:, ::2] + own.inputs[:, 1::2]) / 2, rtol=1e-6)
    assert held.lengths.tolist() == [48] * 6
    assert mean.lengths.tolist() == [8] * 6
    for rate in (1.5, 0.3, 0.2):
        with pytest.raises(DataError, match="whole numbers, and 1 over those that divide"):
            load(settings, 16, 0, rate)


def test_sounds_are_read_anew_at_another_rate(sounds):
    settings = LongRangeSettings(task=f"audio:{sounds}", sample_rate=4000)
    own, twice = (load(settings, 0, 0, rate).test for rate in (1.0, 2.0))
    assert (positions(own), positions(twice)) == (80, 160)
    np.testing.assert_array_equal(own.labels, twice.labels)
    # At 8000 Hz the file itself; its tone at 4000 Hz is the same at every second sample.
    middle = slice(20, 60)
    np.testing.assert_allclose(own.inputs[:, middle], twice.inputs[:, ::2][:, middle], atol=0.02)
    padded = load(settings, 100, 0).test
    assert positions(padded) == 100
    assert padded.lengths.tolist() == own.lengths.tolist()
    with pytest.raises(DataError, match="longest sound has 80 samples at 4,000 Hz"):
        load(settings, 60, 0)
    with pytest.raises(DataError, match="whole number of Hz"):
        load(settings, 0, 0, 0.3001)


@pytest.mark.parametrize(("length", "dashes"), [(64, 3), (256, 7), (1024, 14)])
def test_paths_shrink_with_their_side(length, dashes):
    found = load(LongRangeSettings(task="pathfinder", **FEW), length, 0)
    assert found.train.inputs.shape == (12, length, 1)
    assert (found.classes, found.vocab) == (2, None)
    assert len(found.test.labels) == 6
    more = LongRangeSettings(task="pathfinder", dashes=dashes, **FEW)
    np.testing.assert_array_equal(load(more, length, 0).test.inputs, found.test.inputs)


def test_lists_have_a_quarter_of_the_length_at_least():
    found = load(LongRangeSettings(task="list-ops", **FEW), 64, 0)
    assert found.train.inputs.shape == (12, 64)
    assert (found.classes, found.vocab) == (10, len(list_ops.TOKENS))
    for part in (found.train, found.validation, found.test):
        assert part.lengths.min() > 16
        assert part.lengths.max() <= 64


def test_parts_of_a_seed_stay_the_same_at_every_length():
    pytest.importorskip("sklearn")
    settings = LongRangeSettings(task="digits")
    small, large = (load(settings, length, 3) for length in (64, 256))
    np.testing.assert_array_equal(small.test.labels, large.test.labels)
    pixels = large.test.inputs.reshape(-1, 16, 16)[:, ::2, ::2]
    np.testing.assert_allclose(pixels.reshape(-1, 64), small.test.inputs[..., 0], rtol=1e-6)


def test_files_of_nucleotides_and_of_the_long_range_arena_are_read(tmp_path):
    fasta = tmp_path / "a.fasta"
    fasta.write_text("".join(f">r{i} label={'ab'[i % 2]}\n{'ACGT'[i % 4] * (i + 1)}\n" for i in range(8)))
    found = load(LongRangeSettings(task=f"dna:{fasta}"), 0, 0)
    assert (positions(found.train), found.vocab, found.classes) == (8, 16, 2)
    for part in ("train", "val", "test"):
        (tmp_path / f"basic_{part}.tsv").write_text("Source\tTarget\n[MAX 1 2 ]\t2\n[MIN 3 4 5 ]\t3\n")
    settings = LongRangeSettings(task=f"lra:{tmp_path}")
    assert positions(load(settings, 0, 0).train) == 5
    assert positions(load(settings, 9, 0).train) == 9
    with pytest.raises(DataError, match="give a length of at least 5"):
        load(settings, 4, 0)
    with pytest.raises(DataError, match="made of tokens, which have no sampling rate"):
        load(settings, 0, 0, 2.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": "digit"}, "Did you mean: digits"),
        ({"task": "mnist"}, "--task mnist:PATH"),
        ({"task": "mnist:"}, "--task mnist:PATH"),
        ({"task": "digits:here"}, "digits needs no path"),
        ({"lengths": (64, 64)}, "give each once"),
        ({"lengths": (0,)}, "lengths has 0"),
        ({"evaluate_at": (-1,)}, "evaluate_at has -1"),
        ({"rates": (0.0,)}, "rates has 0.0"),
        ({"task": "list-ops", "rates": (2.0,)}, "made of tokens"),
        ({"lr": ()}, "lr is"),
        ({"lr": (float("nan"),)}, "lr has nan"),
        ({"seeds": 0}, "seeds is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"test_rows": 1}, "test_rows is 1"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"mixers": ("s4d+transformer",)}, "a model by itself"),
        ({"mixers": ("transformer:heads=2",)}, "has no settings"),
        ({"mixers": ("s4d:state",)}, "name:setting=value"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        LongRangeSettings(**given)
