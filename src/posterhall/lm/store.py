"""Where answers are kept: one SQLite file, which several processes may use at once."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from posterhall.errors import DataError, PosterhallError

SCHEMA_VERSION = 1
LARGEST = 2 << 30
"""Bytes on disk beyond which what was not used for the longest time goes."""
USED_EVERY = 3600
"""Seconds to which the time of last use is exact: reading should not mean writing."""
WAL_PAGES = 4000
"""Pages of 4 KiB that gather before they are put into their places: fewer would halve the speed."""
TOUCHED = 10_000
"""Answers read whose time of use is held back, to be written with the next that is new."""
WAIT = 30.0
"""Seconds to wait for another process that writes."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS answers (
    key BLOB NOT NULL, number INTEGER NOT NULL, value TEXT NOT NULL,
    made INTEGER NOT NULL, used INTEGER NOT NULL,
    UNIQUE (key, number)
);
CREATE INDEX IF NOT EXISTS by_use ON answers (used);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


@dataclass(frozen=True)
class Contents:
    """What a store holds."""

    path: Path
    answers: int
    bytes: int
    """On disk, without what is free for reuse."""
    oldest: int | None
    """Unix time at which the oldest was made; None if there is none."""
    newest: int | None


class Store:
    """Answers by key and number, kept until the file is larger than a limit.

    An answer is in the file when `put` returns: it survives the death of the process (not that of the
    machine, for which the disk would have to be waited for). The file can be read by its owner alone.

    Args:
        path: the file; made if need be.
        largest: bytes beyond which the answers go that were not used for the longest time; see `LARGEST`.
        clock: seconds since 1970.

    Raises:
        DataError: if it cannot be opened, is no such store, or one of a newer version.
        PosterhallError: later, when the disk is full or the file broken.
    """

    def __init__(
        self, path: Path | str, *, largest: int = LARGEST, clock: Callable[[], float] = time.time
    ) -> None:
        if largest < 1:
            raise DataError(f"the largest size of a store is {largest}; it must be at least 1 byte")
        self.path = Path(path)
        self.largest = largest
        self._clock = clock
        self._lock = threading.Lock()
        self._touched: dict[tuple[bytes, int], int] = {}
        self._written = 0
        self._process = os.getpid()
        self._connection: sqlite3.Connection | None = self._open()

    def get(self, key: bytes, first: int, n: int) -> dict[int, str]:
        """The answers to `key` numbered first to first + n - 1 that are there, by number."""
        with self._using() as connection:
            rows = connection.execute(
                "SELECT number, value, used FROM answers WHERE key = ? AND number >= ? AND number < ?",
                (key, first, first + n),
            ).fetchall()
            now = int(self._clock())
            for number, _, used in rows:
                if now - used > USED_EVERY:
                    self._touched[key, number] = now
            if len(self._touched) >= TOUCHED:
                with _transaction(connection):
                    self._write_touched(connection)
        return {number: value for number, value, _ in rows}

    def put(self, answers: Iterable[tuple[bytes, int, str]]) -> None:
        """Keep answers (key, number, value); what is there already stays as it is."""
        now = int(self._clock())
        rows = [(key, number, value, now, now) for key, number, value in answers]
        with self._using() as connection:
            with _transaction(connection):
                connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)", rows)
                self._write_touched(connection)
            self._written += sum(len(row[2]) for row in rows)
            if self._written > self.largest // 50:  # looked at now and then: counting pages is not free
                self._written = 0
                self._evict(connection)

    def contents(self) -> Contents:
        """What there is."""
        with self._using() as connection:
            count, oldest, newest = connection.execute(
                "SELECT count(*), min(made), max(made) FROM answers"
            ).fetchone()
            return Contents(self.path, count, _size(connection), oldest, newest)

    def clear(self, *, before: float | None = None) -> int:
        """Drop all answers, or those made before a time (seconds since 1970); how many that were."""
        with self._using() as connection:
            self._touched.clear()
            with _transaction(connection):
                if before is None:
                    dropped = connection.execute("DELETE FROM answers").rowcount
                else:
                    dropped = connection.execute("DELETE FROM answers WHERE made < ?", (before,)).rowcount
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(dropped)

    def close(self) -> None:
        """Let go of the file; harmless when done twice."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                with contextlib.suppress(sqlite3.Error):  # when an answer was last used is a nicety
                    if self._touched:
                        with _transaction(self._connection):
                            self._write_touched(self._connection)
                self._connection.close()
            self._connection = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Made here, because SQLite would let everybody read it; its other files take over the mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(
                self.path, timeout=WAIT, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"{self.path}: cannot be used as a cache: {error}; choose another place"
            ) from None
        try:
            # In one statement, so of one moment: another process may be making the tables.
            version, tables = connection.execute(
                "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
            ).fetchone()
            if version > SCHEMA_VERSION:
                raise DataError(
                    f"{self.path}: a cache of version {version}, and this program knows {SCHEMA_VERSION}; "
                    "update posterhall, or choose another file"
                )
            if version == 0 and tables:
                raise DataError(f"{self.path}: a database of something else; choose another file")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            if version < SCHEMA_VERSION:
                connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            connection.close()
            raise DataError(
                f"{self.path}: not a cache of answers ({error}); choose another file, or delete it"
            ) from None
        except DataError:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None or self._process != os.getpid():
                # A forked process must not use its parent's connection, nor close it.
                self._connection, self._process = self._open(), os.getpid()
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise PosterhallError(f"{self.path}: the cache cannot be used: {error}") from None

    def _write_touched(self, connection: sqlite3.Connection) -> None:
        if self._touched:
            rows = [(now, key, number) for (key, number), now in self._touched.items()]
            connection.executemany("UPDATE answers SET used = ? WHERE key = ? AND number = ?", rows)
            self._touched.clear()

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Drop what was not used for the longest time until a tenth is free, if there is too much."""
        if _size(connection) <= self.largest:
            return
        while _size(connection) > 0.9 * self.largest:
            with _transaction(connection):
                gone = connection.execute(
                    "DELETE FROM answers WHERE rowid IN ("
                    "SELECT rowid FROM answers ORDER BY used LIMIT "
                    "max(1, (SELECT count(*) FROM answers) / 20))"
                ).rowcount
            if not gone:
                return


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _size(connection: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {each}").fetchone()[0])
        for each in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
