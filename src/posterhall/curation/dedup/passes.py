"""Passes over texts: batch by batch here, or file by file on several processes or machines.

A `Step` is what a pass does with a batch of texts; it gives arrays, and nothing else is kept of them. `Here`
takes the steps one after the other. `Mapped` leaves the arrays of every file on disk with a marker that it is
done, so that a pass that was killed goes on where it was, and can be spread over a Ray cluster.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from posterhall import config as settings_room
from posterhall.curation.dedup.texts import Batch, Texts, batches
from posterhall.curation.pool import TEXT, Pool
from posterhall.curation.shards import map_shards
from posterhall.errors import DataError
from posterhall.runs import atomic_file

Watch = Callable[[str, int], None]
"""Called with a stage and the bytes of text done in it; with "STAGE files" and the files done."""

Record: TypeAlias = dict[str, NDArray[Any]]
"""What a step gives for a batch: arrays by name, the same names for every batch."""

_TASK = "posterhall.curation.dedup.passes:take"


class Step(ABC):
    """What is done with each batch of a pass. A subclass is a frozen dataclass whose fields are `settings`
    (a flat dataclass), whole numbers and arrays, so that it can be done elsewhere."""

    stage: ClassVar[str]
    """What it is called while it is watched, and where its results lie."""
    settings: Any

    @abstractmethod
    def __call__(self, batch: Batch) -> Record:
        """The arrays of a batch. Texts are counted within the batch."""

    @property
    def idle(self) -> bool:
        """Whether no text is needed, so that a file need not be read."""
        return False

    def within(self, first: int, last: int) -> Step:
        """The step for the texts ``first`` to ``last - 1``, counted from ``first``."""
        del first, last
        return self


class Passes(ABC):
    """Texts that steps go through, each from the start.

    Attributes:
        texts: the texts themselves.
        documents, bytes: texts, and bytes of them, once a pass has ended.
    """

    texts: Texts
    documents: int
    bytes: int

    @abstractmethod
    def run(self, step: Step) -> Iterator[tuple[int, Record]]:
        """Take a step for all batches: (number of the batch's first text, arrays), in order.

        Raises:
            DataError: if there are not as many texts as in the pass before.
        """


class Here(Passes):
    """Passes made in this process, a batch at a time.

    Args:
        texts: a list, an Arrow array, or a function that returns batches of Arrow arrays.
        watch: told stage and bytes.
    """

    def __init__(self, texts: Texts, watch: Watch | None = None) -> None:
        self.texts = texts
        self.documents = -1
        self.bytes = 0
        self._watch = watch

    def run(self, step: Step) -> Iterator[tuple[int, Record]]:
        documents = done = 0
        for batch in batches(self.texts):
            documents = batch.first + len(batch)
            if 0 <= self.documents < documents:
                break
            yield batch.first, step(batch)
            done += batch.bytes
            if self._watch is not None:
                self._watch(step.stage, done)
        if self.documents not in (-1, documents):
            raise DataError("the texts changed while they were read: there are not as many as at first")
        self.documents, self.bytes = documents, done


class Mapped(Passes):
    """Passes made file by file, their results kept in a folder.

    Every file is read by one process with one thread. What a step gives does not depend on how texts are
    divided into batches, so the result is that of `Here`.

    Args:
        pool: its files are the shards.
        directory: where results go, one folder a stage; every machine must see it under this name.
        workers, ray: see `map_shards`.
        watch: told "STAGE files" and their number.
    """

    def __init__(
        self,
        pool: Pool,
        directory: Path,
        *,
        workers: int = 1,
        ray: str | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.pool = pool
        self.texts = self._texts
        self.documents = -1
        self.bytes = 0
        self._directory = directory
        self._spread: dict[str, Any] = {"workers": workers, "ray": ray}
        self._watch = watch
        self._sizes: list[int] | None = None

    def _texts(self) -> Iterator[Any]:
        return (batch.column(TEXT) for batch in self.pool.batches([TEXT]))

    def run(self, step: Step) -> Iterator[tuple[int, Record]]:
        watch = self._watch
        folder = self._directory / step.stage
        done = map_shards(
            _TASK,
            {"step": f"{type(step).__module__}:{type(step).__qualname__}", "pool": self.pool.reading},
            self.pool.paths,
            folder,
            suffix=".arrays",
            own=self._parts(step, folder),
            observe=None if watch is None else lambda files: watch(f"{step.stage} files", files),
            **self._spread,
        )
        if self._sizes is None:
            self._sizes = [int(each.facts["documents"]) for each in done]
            self.documents = sum(self._sizes)
            self.bytes = sum(int(each.facts["bytes"]) for each in done)
        offset = 0
        for each, size in zip(done, self._sizes, strict=True):
            if not each.facts["idle"] and int(each.facts["documents"]) != size:
                raise DataError(f"{each.shard} changed while it was worked on; run the same again")
            for first, record in _read(each.out, each.facts["names"], int(each.facts["batches"])):
                yield offset + first, record
            offset += size

    def _parts(self, step: Step, folder: Path) -> list[dict[str, Any]]:
        """The step as each file needs it, in what JSON can hold; arrays lie in files named by their content,
        so that a step counts as done if it had the same."""
        steps = [step] * len(self.pool.paths)
        if self._sizes is not None:
            ends = np.cumsum(self._sizes).tolist()
            steps = [step.within(end - size, end) for end, size in zip(ends, self._sizes, strict=True)]
        packed = {id(each): each for each in steps}  # most steps are the same for all files
        found = {key: _packed(each, folder) for key, each in packed.items()}
        return [found[id(each)] for each in steps]


def take(shard: Path, config: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The task of `Mapped`: a step for all texts of a file."""
    step = _unpacked(config)
    names: list[str] = []
    documents = size = number = 0
    pool = Pool((shard,), **config["pool"])
    with atomic_file(out) as file:
        if not step.idle:
            for batch in batches(lambda: (each.column(TEXT) for each in pool.batches([TEXT]))):
                record = step(batch)
                names = list(record)
                np.save(file, np.int64(batch.first), allow_pickle=False)
                for name in names:
                    np.save(file, record[name], allow_pickle=False)
                documents, size, number = batch.first + len(batch), size + batch.bytes, number + 1
    return {"documents": documents, "bytes": size, "batches": number, "names": names, "idle": step.idle}


def _read(path: Path, names: list[str], number: int) -> Iterator[tuple[int, Record]]:
    try:
        with path.open("rb") as file:
            for _ in range(number):
                first = int(np.load(file, allow_pickle=False))
                yield first, {name: np.load(file, allow_pickle=False) for name in names}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); remove it, and run the same again"
        ) from None


def _packed(step: Step, folder: Path) -> dict[str, Any]:
    fields = {each.name: getattr(step, each.name) for each in dataclasses.fields(step)}  # type: ignore[arg-type]
    settings = fields.pop("settings")
    arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    numbers = {name: value for name, value in fields.items() if name not in arrays}
    return {
        "settings": settings_room.to_dict(_alone(settings)),
        "numbers": numbers,
        "arrays": {name: str(_kept(value, folder)) for name, value in arrays.items()},
    }


def _alone(settings: Any) -> Any:
    """Settings with one thread, and without what only concerns how the results are put together."""
    usual = {each.name: each.default for each in dataclasses.fields(settings)}
    return dataclasses.replace(settings, **{**{k: usual[k] for k in ("keep", "memory")}, "threads": 1})


def _kept(array: NDArray[Any], folder: Path) -> Path:
    digest = hashlib.sha256(array.tobytes()).hexdigest()[:32]
    path = folder.resolve() / f"{digest}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            np.save(file, array, allow_pickle=False)
    return path


def _unpacked(config: Mapping[str, Any]) -> Step:
    module, _, name = config["step"].partition(":")
    kind = getattr(importlib.import_module(module), name)
    settings = typing.get_type_hints(kind)["settings"](**config["settings"])
    arrays = {key: np.load(path, allow_pickle=False) for key, path in config["arrays"].items()}
    step: Step = kind(settings, **config["numbers"], **arrays)
    return step
