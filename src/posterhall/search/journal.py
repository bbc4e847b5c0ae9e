"""The replies of a run on disk, so that a run that goes on pays for none of them twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from posterhall.errors import DataError
from posterhall.lm.metered import Meter, Usage
from posterhall.lm.protocol import LM, Request, Sample, Scored
from posterhall.lm.wrapping import WIDTH, Item, Wrapper


class Journaled(Wrapper):
    """Keeps each reply in a file before it hands it on, and answers from the file what is in it.

    A line a request: the hash of all that determines the reply, the reply, and what was paid for it. A line
    that a killed process left unfinished is dropped. A request has one reply in a run, whatever happens to
    the run. Other than a cache it belongs to one run, and to one process at a time.

    Args:
        inner: the model.
        path: the file; made if need be.
        meter: that of the model; it is told what the file says was spent before.
        width: see `Wrapper`.

    Attributes:
        resumed: replies that the file held at the beginning.

    Raises:
        DataError: if the file is none of these.
    """

    def __init__(self, inner: LM, path: Path, meter: Meter, *, width: int = WIDTH) -> None:
        super().__init__(inner, width=width)
        self.path = path
        self._meter = meter
        self._known: dict[bytes, tuple[int, int]] = {}  # where a reply is in the file: offset, bytes
        meter.spent_before(self._load())
        self.resumed = len(self._known)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._end = os.fstat(self._file).st_size

    async def generate_one(self, request: Request) -> list[Sample]:
        key = _key("generate", *(getattr(request, name) for name in _PARTS))
        line = await self._once(key, lambda: super(Journaled, self).generate_one(request))
        return [Sample(**{name: _tuple(value) for name, value in each.items()}) for each in line]

    async def score_one(self, item: Item) -> list[Scored]:
        key = _key("score", item[0], tuple(item[1]))
        line = await self._once(key, lambda: super(Journaled, self).score_one(item))
        return [Scored(**{name: _tuple(value) for name, value in each.items()}) for each in line]

    async def aclose(self) -> None:
        """Close the file; the model within is its owner's to close."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    async def _once(self, key: bytes, ask: Callable[[], Awaitable[Sequence[Sample | Scored]]]) -> list[Any]:
        """The reply as in the file, asked for if it is not there."""
        if key not in self._known:
            with self._meter.scope() as paid:
                reply = await ask()
            if key not in self._known:
                self._write(key, [_plain(each) for each in reply], paid.usage)
        at, length = self._known[key]
        kept: list[Any] = json.loads(os.pread(self._file, length, at).decode(*UTF8))["reply"]
        return kept

    def _write(self, key: bytes, reply: list[Any], paid: Usage) -> None:
        spent = {name: value for name, value in asdict(paid).items() if value != _NOTHING[name]}
        line = {"key": key.hex(), "reply": reply, "paid": spent}
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode(*UTF8)
        length, written = len(data), 0
        try:
            while written < length:
                written += os.write(self._file, data[written:])
        except OSError:  # the disk is full: leave no half line for the next one to run into
            os.truncate(self._file, self._end)
            raise
        self._known[key] = self._end, length
        self._end += length

    def _load(self) -> Usage:
        """Find what is there; returns what was spent on it."""
        spent, at, number = Usage(), 0, 0
        if not self.path.exists():
            return spent
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    os.truncate(self.path, at)
                    break
                try:
                    value = json.loads(line.decode(*UTF8))
                    self._known[bytes.fromhex(value["key"])] = at, len(line)
                    spent += Usage(**value["paid"])
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{self.path}:{number}: not a line of a search's replies ({error}); has the file "
                        "been changed? Begin again in a new directory"
                    ) from None
                at += len(line)
        return spent


UTF8 = ("utf-8", "surrogatepass")
"""Models may say half a character."""
_PARTS = tuple(each.name for each in fields(Request))
_NOTHING = asdict(Usage())


def _key(*parts: object) -> bytes:
    # repr tells texts, numbers, None and tuples of them apart, and is the same in every process.
    return hashlib.blake2b(repr(parts).encode(*UTF8), digest_size=16).digest()


def _plain(value: Sample | Scored) -> dict[str, Any]:
    """A reply's fields, those left out that are as by default."""
    return {
        each.name: found
        for each in fields(value)
        if (found := getattr(value, each.name)) != each.default or each.name == "text"
    }


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
