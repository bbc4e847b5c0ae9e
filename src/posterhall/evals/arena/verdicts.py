"""Verdicts on pairs of answers: games between models, read from CSV or JSON lines of any origin.

A row has `question`, `model_a`, `model_b`, `winner` (a, b, tie or none), and may have `judge`, `order`
(ab: a's answer was shown first; ba) and, in place of a winner or beside it, `score_a` and `score_b`. Other
programs' names of these are known too, as `model_first`, `model_second`, `prompt_id` and `verdict`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from posterhall.data.documents import byte_blocks
from posterhall.errors import DataError, did_you_mean
from posterhall.lm.rows import rows

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Repeats = Literal["first", "keep"]

FIRST, SECOND, TIE, NONE = 0, 1, 2, 3
"""What came out: the answer shown first wins, the second, neither, or there is no verdict."""
EXAMPLE = "vicuna-gpt4.csv.gz"
_SHOWN = 5  # bad rows named in a message

NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question_id", "prompt_id", "message_id", "prompt", "item"),
    "model_a": ("model_first", "player_a", "left"),
    "model_b": ("model_second", "player_b", "right"),
    "winner": ("verdict", "choice", "label", "preference", "answer"),
    "judge": ("annotator", "worker", "worker_id", "workerid", "rater", "judge_id"),
    "order": ("shown",),
    "score_a": ("score_first",),
    "score_b": ("score_second",),
}
"""Columns, and other names by which they are known."""
WINNERS = {
    **dict.fromkeys(("a", "1", "model_a", "first", "left"), "a"),
    **dict.fromkeys(("b", "2", "model_b", "second", "right"), "b"),
    **dict.fromkeys(("tie", "3", "c", "draw", "equal", "neither", "both", "tie (bothbad)"), "tie"),
    **dict.fromkeys(("none", "-1", "", "null", "nan", "n/a", "error", "unread"), "none"),
}


@dataclass(frozen=True)
class Verdicts:
    """Games, an entry each; arrays have shape (n,)."""

    players: tuple[str, ...]
    questions: tuple[str, ...]
    judges: tuple[str, ...]
    """"" is a judge without a name."""
    first: Ints
    """Number of the player whose answer was shown first."""
    second: Ints
    question: Ints
    judge: Ints
    result: npt.NDArray[np.int8]
    """FIRST, SECOND, TIE or NONE."""
    score_first: Floats
    """NaN where there is none."""
    score_second: Floats
    self_play: int = 0
    """Rows left out because a model met itself."""
    repeated: int = 0
    """Rows left out because the same judge had judged the same two answers in the same order before."""

    def __len__(self) -> int:
        return len(self.result)

    def take(self, wanted: npt.NDArray[np.bool_]) -> Verdicts:
        """The games of a mask; players, questions and judges keep their numbers."""
        names = ("first", "second", "question", "judge", "result", "score_first", "score_second")
        return Verdicts(
            self.players,
            self.questions,
            self.judges,
            **{name: getattr(self, name)[wanted] for name in names},
            self_play=self.self_play,
            repeated=self.repeated,
        )

    def judged(self) -> Verdicts:
        """Without games that have no verdict."""
        return self.take(self.result != NONE)

    def decisive(self) -> Verdicts:
        """Without ties, and without games that have no verdict."""
        return self.take(self.result < TIE)

    def of(self, judge: str) -> Verdicts:
        """One judge's.

        Raises:
            DataError: if there is no such judge.
        """
        if judge not in self.judges:
            named = [name for name in self.judges if name]
            raise DataError(
                f"no judge {judge!r}; there are: {', '.join(named) or 'none with a name'}."
                f"{did_you_mean(judge, named)}"
            )
        return self.take(self.judge == self.judges.index(judge))

    def player(self, name: str) -> int:
        """Number of a player.

        Raises:
            DataError: if there is no such player.
        """
        if name not in self.players:
            raise DataError(
                f"no model {name!r} in the verdicts; there are: {', '.join(self.players[:20])}."
                f"{did_you_mean(name, self.players)}"
            )
        return self.players.index(name)

    @classmethod
    def of_games(
        cls,
        games: Sequence[tuple[str, str, str, str]],
        *,
        judges: Sequence[str] | None = None,
        scores: Sequence[tuple[float, float]] | None = None,
        repeats: Repeats = "first",
    ) -> Verdicts:
        """From tuples (question, shown first, shown second, winner), winner first, second, tie or none.

        Args:
            games: the games.
            judges: of each, if they have names.
            scores: of the first and second answer of each, if there are any; NaN for none.
            repeats: first: what a judge with a name says again of the same two answers in the same order is
                left out (a file read twice would make intervals too narrow); keep: it counts.

        Raises:
            DataError: for other winners, or lists of different lengths.
        """
        judges = [""] * len(games) if judges is None else judges
        scores = [(math.nan, math.nan)] * len(games) if scores is None else scores
        if not len(games) == len(judges) == len(scores):
            raise DataError(f"{len(games)} games, {len(judges)} judges, {len(scores)} scores; give as many")
        outcomes = {"first": FIRST, "second": SECOND, "tie": TIE, "none": NONE}
        names: tuple[dict[str, int], ...] = ({}, {}, {})
        seen: set[tuple[int, int, int, int]] = set()
        kept: list[tuple[int, int, int, int, int, float, float]] = []
        alone = again = 0
        for (question, first, second, winner), judge, (x, y) in zip(games, judges, scores, strict=True):
            if winner not in outcomes:
                raise DataError(f"winner is {winner!r}; it must be first, second, tie or none")
            if first == second:
                alone += 1
                continue
            # In turn, so that players are numbered as they come.
            a, b = (names[0].setdefault(name, len(names[0])) for name in (first, second))
            at = names[1].setdefault(question, len(names[1]))
            by = names[2].setdefault(judge, len(names[2]))
            key = (at, a, b, by)
            if judge and repeats == "first":
                if key in seen:
                    again += 1
                    continue
                seen.add(key)
            kept.append((a, b, at, by, outcomes[winner], x, y))
        columns = list(zip(*kept, strict=True)) if kept else [()] * 7
        whole = [np.asarray(column, dtype=np.int32) for column in columns[:4]]
        return cls(
            players=tuple(names[0]),
            questions=tuple(names[1]),
            judges=tuple(names[2]),
            first=whole[0],
            second=whole[1],
            question=whole[2],
            judge=whole[3],
            result=np.asarray(columns[4], dtype=np.int8),
            score_first=np.asarray(columns[5], dtype=np.float64),
            score_second=np.asarray(columns[6], dtype=np.float64),
            self_play=alone,
            repeated=again,
        )


def example() -> Verdicts:
    """The 4,480 verdicts of GPT-4 between eight chat models on 80 prompts; see the README beside the file."""
    with as_file(files("posterhall.evals.arena") / EXAMPLE) as path:
        return read([path])


def read(
    paths: Sequence[Path | str],
    *,
    columns: Mapping[str, str] | None = None,
    repeats: Repeats = "first",
) -> Verdicts:
    """Read verdicts.

    Args:
        paths: .csv, .tsv or .jsonl files, also compressed (.gz, .zst), or directories of judging runs.
        columns: names in the files of columns of `NAMES`, as {"winner": "better"}; others are found by
            themselves.
        repeats: see `Verdicts.of_games`.

    Raises:
        DataError: naming file and line, for what cannot be read, a missing column, a row without models, or
            a winner that is none of `WINNERS`.
    """
    reader = _Reader(dict(columns or {}))
    for path in paths:
        for where, fields in _rows(_file(Path(path))):
            reader.add(where, fields)
    if reader.bad:
        more = len(reader.bad) - _SHOWN
        raise DataError(
            "\n".join(reader.bad[:_SHOWN]) + (f"\nand {more:,} more rows like these" if more > 0 else "")
        )
    if not reader.games:
        raise DataError(f"no verdict in {', '.join(map(str, paths)) or 'no file'}")
    return Verdicts.of_games(reader.games, judges=reader.judges, scores=reader.scores, repeats=repeats)


@dataclass
class _Reader:
    columns: dict[str, str]
    games: list[tuple[str, str, str, str]] = field(default_factory=list)
    judges: list[str] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    _found: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in NAMES:
                raise DataError(
                    f"no column is called {name!r} here; name one of {', '.join(NAMES)}."
                    f"{did_you_mean(name, NAMES)}"
                )

    def add(self, where: str, fields: dict[str, str]) -> None:
        """Take up a row; what is wrong with it goes to `bad`."""
        names = self._names(where, tuple(fields))
        value = {name: fields.get(column, "").strip() for name, column in names.items()}
        a, b = value["model_a"], value["model_b"]
        if not a or not b:
            self.bad.append(f"{where}: no model in {names['model_a'] if not a else names['model_b']}")
            return
        try:
            score_a, score_b = (_score(value.get(name, "")) for name in ("score_a", "score_b"))
        except ValueError as error:
            self.bad.append(f"{where}: a score is {error}; it must be a number, or empty")
            return
        said = _winner(value["winner"], a, b) if "winner" in names else _higher(score_a, score_b)
        if said is None:
            self.bad.append(
                f"{where}: {names['winner']} is {value['winner']!r}; allowed are a, b, tie and none (also "
                "1, 2, 3 and -1, or a model's name)"
            )
            return
        order = value.get("order", "").lower() or "ab"
        if order not in ("ab", "ba"):
            self.bad.append(f"{where}: {names['order']} is {value['order']!r}; ab: a was shown first; or ba")
            return
        turned = order == "ba"
        sides = {"a": "second" if turned else "first", "b": "first" if turned else "second"}
        question = value.get("question") or where  # a row without one is a prompt of its own
        self.games.append((question, *((b, a) if turned else (a, b)), sides.get(said, said)))
        self.judges.append(value.get("judge", ""))
        self.scores.append((score_b, score_a) if turned else (score_a, score_b))

    def _names(self, where: str, given: tuple[str, ...]) -> dict[str, str]:
        """Which column is what, for rows with these columns."""
        if given in self._found:
            return self._found[given]
        lower = {column.strip().lower(): column for column in given}
        found: dict[str, str] = {}
        for name, others in NAMES.items():
            wanted = (self.columns[name].lower(),) if name in self.columns else (name, *others)
            column = next((lower[each] for each in wanted if each in lower), None)
            if column is not None:
                found[name] = column
            elif name in self.columns:
                raise DataError(
                    f"{where}: no column {self.columns[name]!r}; there are: {', '.join(given)}."
                    f"{did_you_mean(self.columns[name], given)}"
                )
        needed = ["model_a", "model_b"]
        if not {"score_a", "score_b"} <= set(found):
            needed.append("winner")
        missing = [name for name in needed if name not in found]
        if missing:
            raise DataError(
                f"{where}: no column for {', '.join(missing)}; there are: {', '.join(given) or 'none'}. "
                f"Rename them, or say which is which, as {missing[0]}=NAME"
            )
        self._found[given] = found
        return found


def _winner(text: str, a: str, b: str) -> str | None:
    """a, b, tie or none; None for what cannot be understood."""
    if text in (a, b) and a != b:  # before the words: a model may be called "first"
        return "a" if text == a else "b"
    return WINNERS.get(text.lower().removesuffix(".0"))


def _score(text: str) -> float:
    if text.lower() in ("", "none", "null", "nan", "-1"):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise ValueError(repr(text)) from None
    if not math.isfinite(value):
        raise ValueError(repr(text))
    return value


def _higher(a: float, b: float) -> str:
    if math.isnan(a) or math.isnan(b):
        return "none"
    return "tie" if a == b else "a" if a > b else "b"


def _file(path: Path) -> Path:
    """The file; of a judging run, its verdicts."""
    inside = path / "artifacts" / "verdicts.csv"
    if path.is_dir():
        if not inside.is_file():
            raise DataError(f"{path}: a directory without artifacts/verdicts.csv; name a file of verdicts")
        return inside
    return path


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    suffixes = [each.lower() for each in path.suffixes if each.lower() not in (".gz", ".zst")]
    kind = suffixes[-1] if suffixes else ""
    if kind in (".csv", ".tsv"):
        yield from _csv(path, "\t" if kind == ".tsv" else ",")
    elif kind in (".jsonl", ".ndjson", ".parquet"):
        yield from ((row.where, row.fields) for row in rows([path]))
    else:
        raise DataError(f"{path}: verdicts are in .csv, .tsv, .jsonl or .parquet files (also .gz)")


def _csv(path: Path, delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    raw = b"".join(byte_blocks(path))
    try:
        text = raw.decode("utf-8-sig")  # spreadsheets write a mark of the byte order
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line:,}: not UTF-8; save the table as CSV UTF-8") from None
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(lines, None)
        if header is None:
            raise DataError(f"{path}: empty; the first line names the columns, as {','.join(NAMES)}")
        before = lines.line_num
        for row in lines:
            where, before = f"{path}, line {before + 1:,}", lines.line_num
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(f"{where}: {len(row)} cells under {len(header)} columns")
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {lines.line_num:,}: not CSV ({error})") from None
