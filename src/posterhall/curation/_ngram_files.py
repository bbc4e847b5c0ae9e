"""Files of n-gram models: arrays (.npz) and the ARPA text form that other programs read."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from posterhall.curation._kneser_ney import Trie
from posterhall.curation._ngram_kernels import LONGEST_ORDER
from posterhall.curation._vocabulary import SPECIALS
from posterhall.errors import DataError, UsageError
from posterhall.runs import atomic_file

_VERSION = 1
_LN10 = np.log(10)
_LINES = 1 << 16

Loaded = tuple[Trie, list[bytes], str | None]


def is_ours(path: Path) -> bool:
    """Whether a file's name says that it can be read here."""
    return path.suffix == ".npz" or _is_arpa(path)


def save(path: Path, trie: Trie, words: list[bytes], unit: str) -> None:
    """Write a model; see `NGramModel.save`."""
    if path.suffix == ".npz":
        with atomic_file(path) as handle:
            _write_arrays(handle, trie, words, unit)
    elif _is_arpa(path):
        with atomic_file(path) as handle:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=handle, mode="wb", mtime=0) as packed:
                    _write_arpa(packed, trie, words)
            else:
                _write_arpa(handle, trie, words)
    else:
        raise UsageError(f"cannot tell the format of {path}: name it .npz, .arpa or .arpa.gz")


def load(path: Path) -> Loaded:
    """Read a model: n-grams, words, and the unit, which ARPA files do not say."""
    if path.suffix == ".npz":
        return _read_arrays(path)
    if _is_arpa(path):
        return _read_arpa(path)
    raise UsageError(f"cannot tell the format of {path}: it should be named .npz, .arpa or .arpa.gz")


def _is_arpa(path: Path) -> bool:
    return path.suffix == ".arpa" or path.suffixes[-2:] == [".arpa", ".gz"]


def _write_arrays(handle: Any, trie: Trie, words: list[bytes], unit: str) -> None:
    arrays = {
        "version": np.array(_VERSION),
        "unit": np.frombuffer(unit.encode(), np.uint8),
        "vocabulary": np.frombuffer(b"\n".join(words), np.uint8),
        "levels": np.array(trie.levels, np.int64),
        "discounts": np.array(trie.discounts, np.float64).reshape(-1, 3),
        "fallback": np.array(trie.fallback, bool),
        "children": trie.children,
        "words": trie.words,
        "probabilities": trie.probabilities,
        "backoffs": trie.backoffs,
    }
    np.savez(handle, **arrays)  # type: ignore[arg-type]


def _read_arrays(path: Path) -> Loaded:
    try:
        with np.load(path, allow_pickle=False) as file:
            got = {name: file[name] for name in file.files}
        if int(got["version"]) != _VERSION:
            raise DataError(f"{path}: version {int(got['version'])} of the format; this reads {_VERSION}")
        words = got["vocabulary"].astype(np.uint8).tobytes().split(b"\n")
        trie = Trie(
            children=got["children"].astype(np.int64),
            words=got["words"].astype(np.int32),
            probabilities=got["probabilities"].astype(np.float32),
            backoffs=got["backoffs"].astype(np.float32),
            levels=tuple(got["levels"].tolist()),
            discounts=tuple((a, b, c) for a, b, c in got["discounts"].tolist()),
            fallback=tuple(got["fallback"].tolist()),
        )
        unit = got["unit"].astype(np.uint8).tobytes().decode()
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        raise DataError(f"{path}: not a language model of this program ({error})") from None
    _check(path, trie, words)
    return trie, words, unit


def _check(path: Path, trie: Trie, words: list[bytes]) -> None:
    """Refuse what would lead the kernels astray, which look at no bounds."""
    grams, below = sum(trie.levels), sum(trie.levels[:-1])
    sound = (
        1 <= trie.order <= LONGEST_ORDER
        and trie.levels[0] == len(words) == len(set(words))
        and [each.decode("utf-8", "replace") for each in words[:3]] == list(SPECIALS)
        and trie.children.shape == (below + 1,)
        and trie.words.shape == trie.probabilities.shape == (grams,)
        and trie.backoffs.shape == (below,)
        and trie.children[0] == len(words)
        and trie.children[-1] == grams
        and (np.diff(trie.children) >= 0).all()
        and trie.words.min() >= 0
        and trie.words.max() < len(words)
        and bool(np.isfinite(trie.probabilities).all())
        and bool(np.isfinite(trie.backoffs).all())
    )
    if sound:  # the n-grams of a context must be of the next length
        firsts = np.cumsum((0, *trie.levels))
        sound = all(trie.children[a] == b for a, b in itertools.pairwise(firsts[:-1]))
    if not sound:
        raise DataError(f"{path}: damaged: its tables contradict one another; train the model again")


def _write_arpa(handle: Any, trie: Trie, words: list[bytes]) -> None:
    names = [each.decode() for each in words]
    firsts = np.cumsum((0, *trie.levels)).tolist()
    head = ["\\data\\"]  # first, with nothing before or behind: KenLM accepts no comments
    head += [f"ngram {n}={many}" for n, many in enumerate(trie.levels, 1)]
    handle.write(("\n".join(head) + "\n").encode())
    parents = np.concatenate([np.full(trie.levels[0], -1, np.int64), trie.parents()])
    for n in range(1, trie.order + 1):
        handle.write(f"\n\\{n}-grams:\n".encode())
        for begin in range(firsts[n - 1], firsts[n], _LINES):
            end = min(begin + _LINES, firsts[n])
            columns: list[list[int]] = []
            nodes = np.arange(begin, end)
            for _ in range(n):
                columns.insert(0, trie.words[nodes].tolist())
                nodes = parents[nodes]
            logs = (trie.probabilities[begin:end].astype(np.float64) / _LN10).tolist()
            down = [None] * (end - begin)
            if n < trie.order:
                down = (trie.backoffs[begin:end].astype(np.float64) / _LN10).tolist()
            lines = []
            for log, back, *ids in zip(logs, down, *columns, strict=True):
                text = f"{log:.7g}\t{' '.join(names[i] for i in ids)}"
                lines.append(text if back is None else f"{text}\t{back:.7g}")
            handle.write(("\n".join(lines) + "\n").encode())
    handle.write(b"\n\\end\\\n")


class _Arpa:
    """Lines of an ARPA file with their numbers."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.number = path, 0
        self._file = file

    def wrong(self, what: str) -> DataError:
        return DataError(f"{self.path}, line {self.number:,}: {what}; is it an ARPA file?")

    def next(self) -> str:
        """The next line that is not blank.

        Raises:
            DataError: at the end of the file, or if it is not UTF-8.
        """
        while True:
            raw = self._file.readline(1 << 16)
            self.number += 1
            if not raw:
                raise self.wrong("ends too early")
            try:
                line = raw.decode().strip("\r\n ")
            except UnicodeDecodeError:
                raise self.wrong("not UTF-8") from None
            if line:
                return line


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield io.BufferedReader(unpacked)
            else:
                yield file
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _read_arpa(path: Path) -> Loaded:
    with _opened(path) as file:
        arpa = _Arpa(path, file)
        line = arpa.next()
        while line != "\\data\\":
            line = arpa.next()
        sizes: list[int] = []
        while (line := arpa.next()).startswith("ngram "):
            order, _, many = line.removeprefix("ngram ").partition("=")
            if order.strip() != str(len(sizes) + 1) or not many.strip().isdigit():
                raise arpa.wrong(f"'{line}' instead of 'ngram {len(sizes) + 1}=...'")
            sizes.append(int(many))
        if not 1 <= len(sizes) <= LONGEST_ORDER:
            raise arpa.wrong(f"n-grams of up to {len(sizes)} words; 1 to {LONGEST_ORDER} are allowed")
        tables = []
        words: dict[str, int] = {}
        for n, size in enumerate(sizes, 1):
            if line != f"\\{n}-grams:":
                raise arpa.wrong(f"'{line}' instead of '\\{n}-grams:'")
            tables.append(_section(arpa, n, size, words, last=n == len(sizes)))
            line = arpa.next()
        if line != "\\end\\":
            raise arpa.wrong(f"'{line}' instead of '\\end\\'")
    return _assembled(path, tables, words), [each.encode() for each in words], None


def _section(
    arpa: _Arpa, n: int, many: int, words: dict[str, int], *, last: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Word numbers (m, n), log10 probabilities and back-offs of the n-grams of one length."""
    ids: list[int] = []
    logs: list[float] = []
    down: list[float] = []
    special = 0
    if n == 1:
        words.update({name: i for i, name in enumerate(SPECIALS)})
    for _ in range(many):
        line = arpa.next()
        fields = line.split()
        if len(fields) not in ((n + 1,) if last and n > 1 else (n + 1, n + 2)):
            raise arpa.wrong(f"{len(fields)} fields, where an n-gram of {n} words has {n + 1} or {n + 2}")
        names = fields[1 : n + 1]
        if n == 1:
            name = {"<UNK>": "<unk>"}.get(names[0], names[0])
            special += name in SPECIALS
            if name in words and name not in SPECIALS:
                raise arpa.wrong(f"the word '{name}' stands there twice")
            ids.append(words.setdefault(name, len(words)))
        else:
            try:
                ids += [words["<unk>" if name == "<UNK>" else name] for name in names]
            except KeyError as error:
                raise arpa.wrong(f"the word {error} is not among the unigrams") from None
        try:
            logs.append(float(fields[0]))
            down.append(float(fields[n + 1]) if len(fields) > n + 1 else 0.0)
        except ValueError:
            raise arpa.wrong("a probability is no number") from None
        if not (logs[-1] <= 1e-6 and np.isfinite(down[-1])):
            raise arpa.wrong(f"{fields[0]} is no logarithm of a probability")
    if n == 1 and special < len(SPECIALS):
        raise arpa.wrong("the unigrams lack one of <unk>, <s> and </s>")
    table = np.array(ids, np.int64).reshape(many, n)
    return table, np.array(logs, np.float64), np.array(down, np.float64)


def _assembled(path: Path, tables: list[Any], words: dict[str, int]) -> Trie:
    """Sort the n-grams into a trie."""
    shift = max((len(words) - 1).bit_length(), 1)
    keys: list[NDArray[np.int64]] = []  # per length from 2, sorted
    found: dict[str, list[NDArray[Any]]] = {"words": [], "logs": [], "down": [], "starts": []}
    first = len(words)

    def place(ids: NDArray[np.int64], what: str) -> NDArray[np.int64]:
        """Numbers of n-grams within their length."""
        numbers = ids[:, 0]
        for column, known in enumerate(keys[: ids.shape[1] - 1], 1):
            wanted = (numbers << shift) | ids[:, column]
            numbers = np.searchsorted(known, wanted)
            if known.size == 0 or (known[np.minimum(numbers, known.size - 1)] != wanted).any():
                raise DataError(
                    f"{path}: the {what} of an n-gram of {ids.shape[1] + 1} words is missing; build the "
                    "model again without entropy pruning"
                )
        return numbers

    for n, (ids, logs, down) in enumerate(tables, 1):
        if n == 1:
            order = np.argsort(ids[:, 0])
            if len(order) != len(words):
                raise DataError(f"{path}: a unigram stands there twice")
        else:
            context = place(ids[:, :-1], "beginning")
            place(ids[:, 1:], "end")
            key = (context << shift) | ids[:, -1]
            order = np.argsort(key)
            key = key[order]
            if (key[1:] == key[:-1]).any():
                raise DataError(f"{path}: an n-gram of {n} words stands there twice")
            above = len(found["words"][-1])
            found["starts"].append(first + np.searchsorted(context[order], np.arange(above)))
            first += len(order)
            keys.append(key)
        found["words"].append(ids[order, -1])
        found["logs"].append(logs[order])
        if n < len(tables):
            found["down"].append(down[order])
    joined = {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in found.items()}
    return Trie(
        children=np.concatenate([*found["starts"], [first]]).astype(np.int64),
        words=joined["words"].astype(np.int32),
        probabilities=(np.maximum(joined["logs"], -99) * _LN10).astype(np.float32),
        backoffs=(np.maximum(joined["down"], -99) * _LN10).astype(np.float32),
        levels=tuple(len(each) for each in found["words"]),
    )
