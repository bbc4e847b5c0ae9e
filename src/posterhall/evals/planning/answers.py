"""Reading a path out of what a model says: arrows, commas, prose; names as people and models write them.

A `Reader` is made once for a set of names and then reads any number of replies. It looks at what follows the
last "Answer:", or, where there is none, at the last line that names two nodes or more; how a path was found,
and how many answers there were, is kept.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from posterhall.errors import DataError
from posterhall.evals.planning.scoring import UNKNOWN

How = Literal["answer", "last line", "unread"]

_AROUND = " \t\r.*`"
"""What may stand around a name between arrows."""
_PLAIN = 4
"""Characters between two names in which no other name can stand: " -> "."""
_ANSWER = re.compile(r"answer(?:\W{0,4}[:=]| is\b|(?<=\bfinal answer)\b)")
_ENUMERATED = re.compile(r"^[ \t]*(?:\d{1,3}[.)]|[-*•])[ \t]+", re.MULTILINE)
_NONE = re.compile(
    r"\bno (?:\w+ ){0,2}(?:path|route|way|chain|solution)\b|\bnone\b|\bimpossible\b|\bunreachable\b|"
    r"\bnot (?:possible|reachable|connected)\b|\bcan ?not be reached\b"
)
_BREAK = re.compile(r"[=:?!]|\.(?=\s|$)|\b(?:is|are|was|because|since|which|so|but|hence|therefore|or|not)\b")
_ASIDE = re.compile(r"\b\d+[ -](?:steps?|doors?|roads?|links?|moves?|hops?|edges?)\b")
_BRACKETS = re.compile(r"\([^()]*\)")
_SEPARATOR = re.compile(r"->|=>|→|⇒|➔|➜|—>|–>|-->|>|,|;|\|")
_ARROW = re.compile(r"->|=>|→|⇒|➔|➜|—>|–>|-->|>")
_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"(?<![\w.])\d{1,6}(?![\w]|\.\d)")
_WORDS = {
    word: value
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_LINKS = frozenset(
    word
    for words in (
        "to then and from the go goes through via into next finally a an at in is",
        "path route chain room rooms place places start end answer shortest",
    )
    for word in words.split()
)
_QUOTES = str.maketrans(
    dict.fromkeys("‘’‚‛′`´", "'")
    | dict.fromkeys("“”„‟″«»", '"')
    | dict.fromkeys("‐‑‒–—−", "-")
    | {"\xa0": " "}
)


class Reading(NamedTuple):
    """What was read in a reply."""

    path: tuple[int, ...] | None
    """Places of the names, in the order of the answer, `UNKNOWN` for what stands between separators and is no
    name; empty: the reply says that there is no path; None: unread."""
    how: How
    answers: int
    """How often the reply says "Answer:"; the last one counts."""


class Reader:
    """Reads paths over some names.

    Letters count whatever their case and accents, and quotation marks whatever their shape, unless that would
    make two names one. A longer name wins over one that is part of it. A short form ("7" for "room 7",
    "sunflower" for "the sunflower field") is taken where the text has nothing else to say.

    Args:
        names: what the nodes are called.
        short: a shorter form of each, such as its label; None: there are none.

    Raises:
        DataError: if two names cannot be told apart.
    """

    def __init__(self, names: Sequence[str], short: Sequence[str] | None = None) -> None:
        self._fold = folded
        folds = [folded(name) for name in names]
        if len(set(folds)) < len(folds):
            self._fold = _quoted
            folds = [_quoted(name) for name in names]
        if len(set(folds)) < len(folds):
            twice = next(name for name, fold in zip(names, folds, strict=True) if folds.count(fold) > 1)
            raise DataError(f"two nodes are both called {twice!r} but for quotation marks; rename one")
        self._full = {fold: place for place, fold in enumerate(folds)}
        self._short: dict[str, int] = {}
        for place, forms in enumerate(_short_forms(folds, [self._fold(each) for each in short or ()])):
            self._short |= {form: place for form in forms if form not in self._full}
        self._bracketed = any("(" in fold for fold in folds)
        every = sorted([*self._full, *self._short], key=len, reverse=True)
        alternatives = "|".join(map(_spaced, every))
        self._names = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)")

    def read(self, reply: str) -> Reading:
        """The path in a reply; never raises."""
        said, answers = last_answer(reply)
        if said is not None:
            text = self._fold(said)
            path = self._plain(text) or self._path(text)
            if path:
                return Reading(path, "answer", answers)
            if _NONE.search(text):
                return Reading((), "answer", answers)
        for line in reversed(self._fold(reply).splitlines()):
            path = self._path(line)
            if len(path) >= 2:
                return Reading(path, "last line", answers)
            if not answers and _NONE.search(line):
                return Reading((), "last line", answers)
        return Reading(None, "unread", answers)

    def _plain(self, text: str) -> tuple[int, ...] | None:
        """The path of an answer that is nothing but names and arrows, as most are; None for any other."""
        parts = text.split("->" if "->" in text else "→")
        if len(parts) < 2:
            return None
        try:
            return tuple([self._full[part.strip(_AROUND)] for part in parts])
        except KeyError:
            return None

    def one(self, reply: str) -> int | None:
        """The one name that a reply gives as its answer; None if it gives none, or several."""
        said, _ = last_answer(reply)
        for line in [said] if said is not None else reversed(reply.splitlines()):
            named = {self._place(match[0]) for match in self._names.finditer(self._fold(line))}
            if named:
                return named.pop() if len(named) == 1 else None
        return None

    def _path(self, text: str) -> tuple[int, ...]:
        """The places named in folded text, in order."""
        text = _ASIDE.sub(" ", text)
        if "(" in text and not self._bracketed:
            text = _BRACKETS.sub(" ", text)
        found = list(self._names.finditer(text))
        if not found:
            return ()
        if self._short:
            full = [match for match in found if _unspaced(match[0]) in self._full]
            # Short forms are dropped where they may mean something else: "3 steps: room 1 to room 2".
            if full and len(full) < len(found) and self._prose(text):
                found = full
        if len(found) > 1 and _BREAK.search(text):
            found = _longest_run(text, found)
        return tuple(self._with_unknown(text, found))

    def _with_unknown(self, text: str, found: list[re.Match[str]]) -> Iterator[int]:
        """The places found, and `UNKNOWN` where something else stands like a name between separators."""
        last = -1
        for match in found:
            if last >= 0 and match.start() - last > _PLAIN:
                yield from filter(None, map(_as_name, _SEPARATOR.split(text[last : match.start()])[1:-1]))
            elif last < 0 and match.start() > 0:
                before = text[: match.start()]
                if _ARROW.search(before):  # a path that begins with a name that is none
                    yield from filter(None, map(_as_name, _ARROW.split(before)[-2:-1]))
            yield self._place(match[0])
            last = match.end()
        after = _ARROW.split(text[last:])
        yield from filter(None, map(_as_name, after[1:]))

    def _prose(self, text: str) -> bool:
        rest = self._names.sub(" ", text)
        return any(word not in _LINKS for word in _WORD.findall(rest))

    def _place(self, name: str) -> int:
        name = _unspaced(name)
        return self._full[name] if name in self._full else self._short[name]


@functools.lru_cache(maxsize=4096)
def reader(names: tuple[str, ...], form: str) -> Reader:
    """A `Reader`, made once for the same names, of which `form` tells the label: "room {label}"."""
    before, _, after = form.partition("{label}")
    if not (before or after):
        return Reader(names)
    return Reader(names, [name[len(before) : len(name) - len(after)] for name in names])


def last_answer(reply: str) -> tuple[str | None, int]:
    """What follows the last "Answer:", and how many there are; None if there is none.

    It is the rest of the line, or, where that is empty, the lines after it up to an empty one, with what
    numbers them taken off.
    """
    lower = reply.lower()
    if len(lower) != len(reply):  # a few letters have no lower one of the same length
        lower = reply
    found = []
    at = lower.find("answer")
    while at >= 0:  # plain search first: replies are long, and the word is rare
        match = _ANSWER.match(lower, at)
        if match is not None:
            found.append(match)
        at = lower.find("answer", at + 6)
    if not found:
        return None, 0
    # "the answer is" in prose does not count beside a line that begins with "Answer:"
    marks = [match for match in found if match[0][-1] in ":="] or found
    rest = reply[marks[-1].end() :].lstrip(" \t*_:")
    line, _, more = rest.partition("\n")
    if line.strip(" \t*_`\r") or not more:
        return line, len(marks)
    block = more.lstrip("\n").partition("\n\n")[0]
    return _ENUMERATED.sub("", block).replace("\n", " , "), len(marks)


def number(reply: str) -> tuple[int | None, int]:
    """The number that a reply gives as its answer, in digits or words up to ten, and how many answers there
    are; None if there is none to be read."""
    said, answers = last_answer(reply)
    for text in (said, *reversed(reply.splitlines())):
        if text is None:
            continue
        text = folded(text)
        found = [int(match[0]) for match in _NUMBER.finditer(text)]
        found = found or [_WORDS[word] for word in _WORD.findall(text) if word in _WORDS]
        if found:
            return found[0], answers
    return None, answers


def folded(text: str) -> str:
    """Text without case, accents, and differences between quotation marks, dashes and spaces."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.translate(_QUOTES))
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


def _as_name(piece: str) -> int:
    """`UNKNOWN` for a piece of text that stands where a name should and has one or two words of its own, or a
    number; 0 for one that says nothing."""
    words = [word for word in _WORD.findall(piece) if word not in _LINKS]
    says = _NUMBER.search(piece) is not None or 1 <= len(words) <= 2
    return UNKNOWN if says else 0


def _quoted(text: str) -> str:
    """Text with one kind of quotation marks, dashes and spaces, and nothing else changed."""
    return unicodedata.normalize("NFC", text).translate(_QUOTES)


def _spaced(name: str) -> str:
    return r"\s+".join(map(re.escape, name.split()))


def _unspaced(name: str) -> str:
    return " ".join(name.split()) if "\n" in name or "  " in name or "\t" in name else name


def _short_forms(folds: Sequence[str], labels: Sequence[str]) -> list[set[str]]:
    """What else each may be called: its label, or a word of it that is in no other."""
    words = [[word for word in fold.split() if len(word) > 2 and word not in _LINKS] for fold in folds]
    counts: dict[str, int] = {}
    for some in words:
        for word in set(some):
            counts[word] = counts.get(word, 0) + 1
    forms = [{word for word in some[:1] if len(some) > 1 and counts[word] == 1} for some in words]
    if len(set(labels)) == len(folds):
        for own, label in zip(forms, labels, strict=True):
            own.add(label)
    return forms


def _longest_run(text: str, found: list[re.Match[str]]) -> list[re.Match[str]]:
    """The longest piece in which nothing but links stands between names; the last of equals.

    "The shortest path from 1 to 5 is 1 -> 3 -> 5": what stands on either side of "is" are two lists.
    """
    runs = [[found[0]]]
    for before, match in pairwise(found):
        gap = text[before.end() : match.start()]
        if _BREAK.search(gap) and not _ARROW.search(gap):
            runs.append([])
        runs[-1].append(match)
    return max(reversed(runs), key=len)
