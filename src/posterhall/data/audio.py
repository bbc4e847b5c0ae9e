"""Sound from WAV files: PCM of 8, 16, 24 and 32 bits, resampled, a class a folder.

RIFF chunks are read here, by `struct`: the `wave` of Python 3.11 refuses the extensible format that most
files of 24 bits have. A file that ends early is refused, not filled up.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posterhall.data.labelled import Divided, Sequences, divided
from posterhall.errors import DataError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


def read_wav(path: str | Path) -> tuple[NDArray[np.float32], int]:
    """Samples of a WAV file.

    Returns:
        Samples in [-1, 1), float32 (n, channels), and the sampling rate in Hz.

    Raises:
        DataError: if it is no WAV file of PCM, is cut off, or has no samples.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise DataError(f"{path}: starts with {data[:4]!r}; a WAV file starts with RIFF, its size and WAVE")
    form, at = b"", 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        if name == b"fmt ":
            form = body
        if name == b"data":
            if len(body) < size:
                raise DataError(
                    f"{path}: {size:,} bytes of sound are promised, and {len(body):,} follow; copy it again"
                )
            return _samples(body, form, str(path))
        at += 8 + size + size % 2  # chunks begin at even places
    raise DataError(f"{path}: there is no sound in it (no chunk named data)")


def _samples(body: bytes, form: bytes, path: str) -> tuple[NDArray[np.float32], int]:
    if len(form) < 16:
        raise DataError(f"{path}: the format (chunk fmt) is missing before the sound, or cut off")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if kind == _EXTENSIBLE and len(form) >= 26:
        kind = struct.unpack_from("<H", form, 24)[0]
    if kind != _PCM or bits not in (8, 16, 24, 32):
        named = {_FLOAT: " (floating point)", 6: " (A-law)", 7: " (µ-law)", 0x55: " (MP3)"}.get(kind, "")
        raise DataError(
            f"{path}: format {kind}{named} of {bits} bits; read is PCM (format 1) of 8, 16, 24 or 32 bits. "
            "Convert it, for example: ffmpeg -i in.wav -c:a pcm_s16le out.wav"
        )
    if channels < 1 or rate < 1:
        raise DataError(f"{path}: {channels} channels at {rate} Hz; at least one of each is needed")
    wide = bits // 8
    if not body or len(body) % (wide * channels):
        raise DataError(
            f"{path}: {len(body):,} bytes of sound; needed are {wide * channels} for each step, "
            "and one step at least"
        )
    if bits == 8:  # the only one without a sign
        whole = (np.frombuffer(body, np.uint8).astype(np.int32) - 128) << 24
    else:
        four = np.zeros((len(body) // wide, 4), np.uint8)
        four[:, 4 - wide :] = np.frombuffer(body, np.uint8).reshape(-1, wide)
        whole = four.view("<i4").ravel()
    return (whole / 2.0**31).astype(np.float32).reshape(-1, channels), rate


def resampled(samples: NDArray[np.float32], rate: int, to: int) -> NDArray[np.float32]:
    """Samples (n, channels) at another rate: polyphase, with a filter against aliases.

    Args:
        samples: at `rate`.
        rate, to: sampling rates, Hz, at least 1.

    Returns:
        float32 (ceil(n * to / rate), channels); the samples themselves where the rates are equal.

    Raises:
        DataError: for a rate below 1.
    """
    from scipy.signal import resample_poly

    if rate < 1 or to < 1:
        raise DataError(f"rates are {rate} and {to} Hz; each must be at least 1")
    if rate == to:
        return samples
    common = math.gcd(rate, to)
    return np.asarray(resample_poly(samples, to // common, rate // common, axis=0), np.float32)


def read_folder(folder: str | Path, *, rate: int = 16000, seed: int = 0) -> Divided:
    """Sounds of a folder that has one for each class (the form of Speech Commands), one channel each.

    Channels are averaged, shorter sounds padded with silence at their end. With `validation_list.txt` and
    `testing_list.txt` (as in Speech Commands, Warden 2018) these files make those parts; else a tenth
    each, drawn by the seed. Folders whose names begin with _ or . are left out (noise is no class).

    Args:
        folder: with a folder of *.wav for each class.
        rate: that all are resampled to, Hz.
        seed: of the parts.

    Raises:
        DataError: for fewer than two classes, a class without sounds, a list that names what is not
            there, or a file that cannot be read.
    """
    path = Path(folder)
    names = sorted(each.name for each in path.iterdir() if each.is_dir()) if path.is_dir() else []
    classes = [name for name in names if name[0] not in "_."]
    if len(classes) < 2:
        raise DataError(
            f"{path}: {len(classes)} folders in it; needed is one of *.wav for each class, two at least"
        )
    files = [
        (label, file) for label, name in enumerate(classes) for file in sorted((path / name).glob("*.wav"))
    ]
    empty = set(range(len(classes))) - {label for label, _ in files}
    if empty:
        raise DataError(f"{path / classes[min(empty)]}: no *.wav in it; add some, or take the folder away")
    sounds = []
    for _, file in files:
        samples, given = read_wav(file)
        sounds.append(resampled(samples.mean(axis=1, keepdims=True, dtype=np.float32), given, rate))
    lengths = np.array([len(sound) for sound in sounds], np.int64)
    inputs = np.zeros((len(sounds), int(lengths.max()), 1), np.float32)
    for row, sound in enumerate(sounds):
        inputs[row, : len(sound)] = sound
    whole = Sequences(inputs, np.array([label for label, _ in files], np.int64), lengths)
    listed = _listed(path, [file.relative_to(path).as_posix() for _, file in files])
    parts = [whole.take(rows) for rows in listed] if listed else divided(whole, seed=seed)
    train, validation, test = parts
    return Divided(train, validation, test, classes=len(classes))


def _listed(path: Path, files: list[str]) -> list[NDArray[np.int64]]:
    """Rows of training, validation and test by the lists of a folder; nothing if it has none."""
    lists = [path / "validation_list.txt", path / "testing_list.txt"]
    there = [file.is_file() for file in lists]
    if not any(there):
        return []
    if not all(there):
        raise DataError(
            f"{lists[there.index(False)]}: missing beside {lists[there.index(True)].name}; needed are both"
        )
    known = {file: row for row, file in enumerate(files)}
    part = np.zeros(len(files), np.int64)
    for number, file in enumerate(lists, 1):
        for line, name in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if not name.strip() or name.startswith("_"):
                continue
            if name.strip() not in known:
                raise DataError(f"{file}, line {line}: {name.strip()!r} is not in the folder")
            part[known[name.strip()]] = number
    return [np.flatnonzero(part == number) for number in range(3)]
