"""WAV files written by Python's wave and by scipy, damaged ones, and a tone at another rate."""

from __future__ import annotations

import struct
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from posterhall.data.audio import read_folder, read_wav, resampled
from posterhall.errors import DataError


def write(path, values, *, bits=16, channels=1, rate=8000):
    """Integers (n * channels,) as PCM, by Python's wave."""
    wide = bits // 8
    shift = 128 if bits == 8 else 0
    data = b"".join(int(v + shift).to_bytes(wide, "little", signed=bits > 8) for v in values)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(wide)
        file.setframerate(rate)
        file.writeframes(data)


@given(st.data(), st.sampled_from([8, 16, 24, 32]), st.integers(1, 3), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_every_width_gives_the_integers_over_their_range(tmp_path_factory, data, bits, channels, steps):
    top = 2 ** (bits - 1)
    size = steps * channels
    values = data.draw(st.lists(st.integers(-top, top - 1), min_size=size, max_size=size))
    path = tmp_path_factory.mktemp("wav") / "a.wav"
    write(path, values, bits=bits, channels=channels, rate=44100)
    samples, rate = read_wav(path)
    assert rate == 44100
    assert samples.dtype == np.float32
    expected = (np.array(values, np.float64) / top).reshape(-1, channels)
    np.testing.assert_allclose(samples, expected, rtol=1e-7)


def test_it_reads_what_scipy_reads(tmp_path):
    path = tmp_path / "a.wav"
    values = np.random.default_rng(0).integers(-(2**15), 2**15, (50, 2), dtype=np.int16)
    wavfile.write(path, 16000, values)
    samples, rate = read_wav(path)
    assert rate == 16000
    np.testing.assert_array_equal(samples, values / 2.0**15)


def test_the_extensible_format_and_odd_chunks_before_the_sound_are_read(tmp_path):
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 24000, 3, 24, 22, 24, 4) + guid
    sound = (-(2**22)).to_bytes(3, "little", signed=True) + b"\0\0\x20"
    chunks = [(b"LIST", b"abc"), (b"fmt ", form), (b"data", sound)]
    body = b"".join(struct.pack("<4sI", n, len(d)) + d + b"\0" * (len(d) % 2) for n, d in chunks)
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    np.testing.assert_array_equal(read_wav(path)[0].ravel(), [-0.5, 0.25])


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_damaged_files_are_refused_or_read_and_never_crash(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("wav") / "a.wav"
    write(path, range(20))
    whole = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        samples, rate = read_wav(path)
    except DataError:
        return
    assert samples.size
    assert rate > 0


def test_errors_say_what_is_read(tmp_path):
    path = tmp_path / "a.wav"
    write(path, range(9))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="18 bytes of sound are promised, and 14 follow"):
        read_wav(path)
    wavfile.write(path, 8000, np.zeros(4, np.float32))
    with pytest.raises(DataError, match=r"floating point.*read is PCM"):
        read_wav(path)
    write(path, [])
    with pytest.raises(DataError, match="0 bytes of sound"):
        read_wav(path)
    path.write_bytes(b"OggS" + bytes(40))
    with pytest.raises(DataError, match="starts with RIFF"):
        read_wav(path)
    with pytest.raises(DataError, match=r"none\.wav: cannot be read"):
        read_wav(tmp_path / "none.wav")


def test_a_tone_keeps_its_pitch_at_another_rate_and_one_above_it_vanishes():
    def tone(hertz, rate):
        return np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32)[:, None]

    low = resampled(tone(440, 16000), 16000, 11025)
    assert low.shape == (11025, 1)
    np.testing.assert_allclose(low[200:-200], tone(440, 11025)[200:-200], atol=2e-3)
    assert np.abs(resampled(tone(7000, 16000), 16000, 8000)[200:-200]).max() < 0.01
    with pytest.raises(DataError, match="at least 1"):
        resampled(low, 0, 8000)


def folder(path, rates=(8000, 8000)):
    for name, rate in zip(("no", "yes", "_background_noise_"), (*rates, 8000), strict=True):
        (path / name).mkdir()
        for number in range(6):
            write(path / name / f"{number}.wav", [1000] * (rate // 100 + number), rate=rate)


def test_a_folder_is_one_class_a_folder_at_one_rate(tmp_path):
    folder(tmp_path, (8000, 16000))
    task = read_folder(tmp_path, rate=8000)
    assert task.classes == 2
    assert [len(part.labels) for part in (task.train, task.validation, task.test)] == [10, 1, 1]
    assert task.train.inputs.shape == (10, 85, 1)
    lengths = np.concatenate([part.lengths for part in (task.train, task.validation, task.test)])
    assert sorted(lengths.tolist()) == sorted([80, 81, 82, 83, 84, 85, 80, 81, 81, 82, 82, 83])


def test_the_lists_of_a_release_make_the_parts(tmp_path):
    folder(tmp_path)
    (tmp_path / "validation_list.txt").write_text("no/0.wav\nyes/1.wav\n")
    with pytest.raises(DataError, match=r"testing_list\.txt: missing beside validation_list\.txt"):
        read_folder(tmp_path)
    (tmp_path / "testing_list.txt").write_text("yes/5.wav\n")
    task = read_folder(tmp_path, rate=8000)
    assert (task.validation.labels.tolist(), task.test.labels.tolist()) == ([0, 1], [1])
    assert task.test.lengths.tolist() == [85]
    (tmp_path / "testing_list.txt").write_text("yes/5.wav\nyes/9.wav\n")
    with pytest.raises(DataError, match=r"line 2: 'yes/9\.wav' is not in the folder"):
        read_folder(tmp_path)


def test_a_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(DataError, match="0 folders"):
        read_folder(tmp_path)
    folder(tmp_path)
    for file in (tmp_path / "yes").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"yes: no \*\.wav"):
        read_folder(tmp_path)
