"""One prompt over many documents, resumable: what is answered is never asked again.

A run holds the answers as they come in `checkpoints/answers.jsonl`, each with the number of its document;
when all are there, they become `artifacts/replies.jsonl`, one row a sample in the order of the documents.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import re
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posterhall.data.documents import Split
from posterhall.errors import DataError
from posterhall.lm import parsing, records
from posterhall.lm.flow import each
from posterhall.lm.metered import Usage, money
from posterhall.lm.protocol import Message, Prompt, Request, Sample, server_facts, wait
from posterhall.lm.rows import Row, rows
from posterhall.lm.stack import Connected
from posterhall.lm.template import Template
from posterhall.lm.wrapping import BudgetExceeded, one_caller
from posterhall.progress import Progress
from posterhall.runs import Run, atomic_file, is_run, read_manifest
from posterhall.seeds import derive

ANSWERS = "answers.jsonl"
REPLIES = "replies.jsonl"
HOPELESS = 10
"""Documents that fail, with none that succeeds, after which the fault is not theirs."""
_ABSENT = -1


@dataclass(frozen=True)
class MapSettings:
    """What decides the replies."""

    prompt: str
    """With fields of a document, as "Is this about music? {text}"; {{ stands for a brace."""
    system: str | None = None
    """Told before the prompt; only with `form` chat."""
    form: Literal["chat", "text"] = "chat"
    """Whether the prompt is a message to be answered, or a text to be continued."""
    max_tokens: int = 256
    """The most tokens of a reply, >= 1."""
    temperature: float = 0.0
    """>= 0; 0 takes the most probable token always."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens that holds this probability, in (0, 1]."""
    stop: tuple[str, ...] = ()
    """A reply ends before the first of these texts."""
    n: int = 1
    """Replies a document, >= 1."""
    seed: int = 0
    """Of the sampling, where the temperature is above 0; equal prompts have equal replies."""
    parse: str = "none"
    """How a value is read from a reply: none, answer, json, classes:A,B,... or integer:LOW-HIGH."""
    schema: str | None = None
    """A JSON Schema, as text, that a reply must follow; with `parse` json."""
    uid_field: str | None = None
    """Field that names a document; None: its file and line."""
    split: Split = "line"
    """What a document of plain text is: file, line, or blank-line block."""
    limit: int | None = None
    """Only the first so many documents; None: all."""

    def __post_init__(self) -> None:
        if self.system is not None and self.form != "chat":
            raise DataError("system is for form chat; put it into the prompt of a text")
        if self.schema is not None and self.parse != "json":
            raise DataError("a schema is for parse json")
        if self.limit is not None and self.limit < 1:
            raise DataError(f"limit is {self.limit}; it must be at least 1")
        reader(self.parse, self.schema)
        Template(self.prompt)
        self.request("")

    def request(self, prompt: str) -> Request:
        """What a prompt asks a model for."""
        asked: Prompt = prompt
        if self.form == "chat":
            told = (Message("system", self.system),) if self.system is not None else ()
            asked = (*told, Message("user", prompt))
        return Request(
            asked,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            n=self.n,
            seed=derive(self.seed, "lm map", prompt) if self.temperature else None,
            schema=self.schema,
        )


def reader(spec: str, schema: str | None = None) -> Callable[[str], parsing.Parsed[Any]] | None:
    """What reads a value from a reply; None for none.

    Args:
        spec: see `MapSettings.parse`.
        schema: a JSON Schema, for json.

    Raises:
        DataError: for a spec that cannot be understood.
    """
    kind, _, rest = spec.partition(":")
    if kind == "none" and not rest:
        return None
    if kind == "answer" and not rest:
        return parsing.answer_line
    if kind == "json" and not rest:
        parsing.json_value("", schema)
        return lambda reply: parsing.json_value(reply, schema)
    if kind == "classes" and rest:
        names = [name.strip() for name in rest.split(",")]
        parsing.classes("", names)
        return lambda reply: parsing.classes(reply, names)
    if kind == "integer":
        low, high = _range(rest, spec)
        return lambda reply: parsing.integer(reply, low, high)
    raise DataError(
        f"parse is {spec!r}; write none, answer, json, classes:yes,no or integer:0-5 (or integer for any)"
    )


def _range(text: str, spec: str) -> tuple[int | None, int | None]:
    if not text:
        return None, None
    match = re.fullmatch(r"(-?\d+)-(-?\d+)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise DataError(f"parse is {spec!r}; a range is as integer:0-5")
    return int(match[1]), int(match[2])


class _Journal:
    """The answers of a run so far, each with the number of its document."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places = array("q")  # of each document, where its answer begins in the file; or -1
        self.answered = 0
        self.usage = Usage()
        self.failed = 0
        self.counts = parsing.Counts()
        self._end = 0
        self._lock = threading.Lock()
        if path.exists():
            with open(path, "rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):  # torn by a kill
                        break
                    self._note(json.loads(line), len(line), before=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(self._file, self._end)

    def __contains__(self, number: int) -> bool:
        return number < len(self.places) and self.places[number] != _ABSENT

    def write(self, number: int, lines: list[dict[str, Any]], usage: Usage) -> None:
        """Keep a document's rows; they survive the death of the process from here on."""
        answer = {"number": number, "rows": lines, "usage": usage.parts()}
        data = records.line(answer)
        with self._lock:  # who is interrupted closes it while the last replies come in
            if self._file < 0:
                return
            if os.pwrite(self._file, data, self._end) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            self._note(answer, len(data), before=False)

    def rows(self, total: int) -> Iterator[bytes]:
        """The rows of all documents in their order, a line each."""
        with open(self.path, "rb") as file:
            for number in range(total):
                file.seek(self.places[number])
                for row in json.loads(file.readline())["rows"]:
                    yield records.line(row)

    def close(self) -> None:
        """Let go of the file; what comes later is not kept."""
        with self._lock:
            os.close(self._file)
            self._file = -1

    def _note(self, answer: dict[str, Any], length: int, *, before: bool) -> None:
        place, self._end = self._end, self._end + length
        usage = Usage(**answer["usage"])
        self.usage += usage
        failed = "error" in answer["rows"][0]
        if failed and before:  # asked once more: what was in the way may be gone
            return
        self.answered += 1
        self.failed += failed
        for row in answer["rows"]:
            if "how" in row:
                self.counts.by_rung[row["how"]] += 1
        number = answer["number"]
        self.places.extend([_ABSENT] * (number + 1 - len(self.places)))
        self.places[number] = place


def run(
    lm: Connected,
    paths: Sequence[Path | str],
    settings: MapSettings,
    *,
    out: Path | str,
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Ask a model the same of many documents.

    All documents are read once before anything is asked, so that a broken one costs nothing. A document that
    the model refuses (because it is too long, say) gets a row with `error`. Memory does not grow with the
    number of documents, but for 8 bytes each.

    Args:
        lm: the model with its meter: what a run spent before it was interrupted counts towards the budget.
        paths: documents; see `posterhall.lm.rows`.
        settings: what is asked.
        out: the directory of the run; or a file that ends in .jsonl, for the rows, beside which the run is
            in a directory of the same name that ends in .run.
        resume: go on with the run that is there; one that is done is left as it is.
        quiet: no progress.

    Returns:
        run, replies (the file), model, documents, rows, failed, unread, how (replies by how they were read),
        usage.

    Raises:
        BudgetExceeded: when a budget ends; the run can go on with a larger one.
        DataError: for documents that cannot be read, or all of which the model refuses.
    """
    out = Path(out)
    file = out if out.suffix == ".jsonl" else None
    directory = out.with_suffix(".run") if file is not None else out
    if resume and is_run(directory) and (done := read_manifest(directory))["status"] == "done":
        return {name: value for name, value in done["facts"].items() if name != "server"}
    if file is not None and file.exists() and not is_run(directory):
        raise DataError(f"{file} exists; write to another file")
    total = _checked(paths, settings)
    config = {**dataclasses.asdict(settings), "model": lm.name, "fingerprint": lm.fingerprint()}
    with Run.start(
        directory, kind="lm map", config=config, inputs=list(paths), seeds=[settings.seed], resume=resume
    ) as kept:
        journal = _Journal(kept.checkpoint(ANSWERS))
        try:
            lm.meter.spent_before(journal.usage)
            ended = wait(_ask(lm, paths, settings, journal, total, quiet=quiet))
            if ended is not None:
                raise BudgetExceeded(
                    f"{ended}. {journal.answered:,} of {total:,} documents are answered; go on by --resume "
                    "with a larger budget",
                    limit=ended.limit,
                )
            written = _write(journal.rows(total), kept.artifact(REPLIES))
            if file is not None:
                _write(journal.rows(total), file)
        finally:
            journal.close()
        result: dict[str, Any] = {
            "run": str(directory),
            "replies": str(file or kept.artifact(REPLIES)),
            "model": lm.name,
            "documents": total,
            "rows": written,
            "failed": journal.failed,
            "unread": journal.counts.unread if settings.parse != "none" else None,
            "how": dict(sorted(journal.counts.by_rung.items())),
            "usage": dataclasses.asdict(lm.meter.usage),
        }
        kept.finish(**result, **server_facts(lm))
        journal.path.unlink()
    return result


def _checked(paths: Sequence[Path | str], settings: MapSettings) -> int:
    """How many documents there are, after all have been read and fit the prompt."""
    template = Template(settings.prompt)
    total = 0
    for row in _documents(paths, settings):
        template.fill(row.fields, row.where)
        total += 1
    if not total:
        raise DataError(f"no document in {', '.join(map(str, paths))}")
    return total


def _documents(paths: Sequence[Path | str], settings: MapSettings) -> Iterator[Row]:
    found = rows(paths, uid_field=settings.uid_field, split=settings.split)
    return itertools.islice(found, settings.limit)


async def _ask(
    lm: Connected,
    paths: Sequence[Path | str],
    settings: MapSettings,
    journal: _Journal,
    total: int,
    *,
    quiet: bool,
) -> BudgetExceeded | None:
    """Ask what is not answered yet; the budget that ended, if one did."""
    template = Template(settings.prompt)
    read = reader(settings.parse, settings.schema)
    ended: list[BudgetExceeded] = []

    def left() -> Iterator[tuple[int, Row]]:
        for number, row in enumerate(_documents(paths, settings)):
            if ended:
                return
            if number not in journal:
                yield number, row

    async def work(item: tuple[int, Row]) -> None:
        number, row = item
        with lm.meter.scope() as tally:
            try:
                [samples] = await lm.agenerate([settings.request(template.fill(row.fields, row.where))])
                lines = [_line(row, at, sample, read) for at, sample in enumerate(samples)]
            except BudgetExceeded as error:
                ended.append(error)  # what is under way is paid for: it is waited for
                return
            except DataError as error:
                if journal.failed + 1 >= HOPELESS and journal.failed == journal.answered:
                    raise
                lines = [{"id": row.uid, "error": str(error)}]
        # At once, not when the caller comes to it: a kill must not cost what is paid for.
        journal.write(number, lines, tally.usage)

    start = float(journal.answered)
    with one_caller(), Progress(total, label="map", unit="documents", quiet=quiet, start=start) as progress:
        async for _ in each(work, left(), width=lm.width):
            progress.update(journal.answered, spent=money(lm.meter.usage.cost))
    return ended[0] if ended else None


def _line(
    row: Row, at: int, sample: Sample, read: Callable[[str], parsing.Parsed[Any]] | None
) -> dict[str, Any]:
    line: dict[str, Any] = {
        "id": row.uid,
        "sample": at,
        "reply": sample.text,
        "finish_reason": sample.finish_reason,
        "tokens_in": sample.tokens_in,
        "tokens_out": sample.tokens_out,
    }
    if read is not None:
        parsed = read(sample.text)
        line |= {"value": parsed.value, "how": parsed.how, "failures": parsed.failures}
    return line


def _write(lines: Iterator[bytes], path: Path) -> int:
    with atomic_file(path) as file:
        count = 0
        for line in lines:
            file.write(line)
            count += 1
    return count
