"""Suffix sorting in linear time, and the passages that different documents share (numba).

Suffix arrays are built by induced sorting (Nong, Zhang and Chan 2009): sort the suffixes at which the text
turns upwards, which is the same problem on a text at most half as long, and induce the order of the others in
two scans. `posterhall.curation.dedup.suffixes` drives the levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.curation.dedup._lsh_kernels import sort

SEPARATOR = 0xFF
"""After each document: a byte that UTF-8 never has."""


@njit(cache=True, nogil=True)
def classify(text: Any, rises: Any) -> Any:
    """Mark in ``rises`` (n,) uint8 the suffixes smaller than the next one; return the number of turns.

    A turn is a suffix that rises after one that does not.
    """
    n = text.size
    rises[n - 1] = 0  # the empty suffix after it is smaller
    turns = 0
    for i in range(n - 2, -1, -1):
        rises[i] = text[i] < text[i + 1] or (text[i] == text[i + 1] and rises[i + 1])
        turns += rises[i + 1] and not rises[i]
    return turns


@njit(cache=True, nogil=True)
def turns(rises: Any, out: Any) -> None:
    """Places of the turns, ascending."""
    at = 0
    for i in range(1, rises.size):
        if rises[i] and not rises[i - 1]:
            out[at] = i
            at += 1


@njit(cache=True, nogil=True)
def buckets(text: Any, rises: Any, falling: Any, rising: Any) -> None:
    """Where the suffixes of each letter begin: ``falling`` (letters + 1,), and the rising ones of them.

    Of one letter, the suffixes that rise are the greater ones.
    """
    falling[:] = 0
    rising[:] = 0
    for i in range(text.size):
        if rises[i]:
            falling[text[i] + 1] += 1
        else:
            rising[text[i]] += 1
    for c in range(rising.size):
        rising[c] += falling[c]
        falling[c + 1] += rising[c]


@njit(cache=True, nogil=True)
def induce(text: Any, rises: Any, seeds: Any, falling: Any, rising: Any, sa: Any) -> None:
    """Sort all suffixes, given those at turns in their order (or in any: then turns come out as substrings).

    ``sa`` (n,) is written.
    """
    n = text.size
    sa[:] = -1
    place = rising.copy()
    for k in range(seeds.size):
        i = seeds[k]
        sa[place[text[i]]] = i
        place[text[i]] += 1
    place = falling.copy()
    sa[place[text[n - 1]]] = n - 1
    place[text[n - 1]] += 1
    for k in range(n):
        i = sa[k] - 1
        if i >= 0 and not rises[i]:
            sa[place[text[i]]] = i
            place[text[i]] += 1
    place = falling.copy()
    for k in range(n - 1, -1, -1):
        i = sa[k] - 1
        if i >= 0 and rises[i]:
            c = text[i] + 1
            place[c] -= 1
            sa[place[c]] = i


@njit(cache=True, nogil=True)
def name(text: Any, rises: Any, sa: Any, spots: Any, names: Any, reduced: Any) -> Any:
    """The reduced text: each turn's substring (up to the next turn) by its rank.

    Args:
        sa: suffixes in an order in which the turns are sorted by these substrings.
        spots: places of the turns.
        names: (n // 2 + 1,) scratch: turns lie at least two apart.
        reduced: (turns,) to be written.

    Returns:
        the number of different substrings.
    """
    n = text.size
    last = np.int64(-1)
    count = 0
    for k in range(n):
        i = sa[k]
        if i <= 0 or not rises[i] or rises[i - 1]:
            continue
        if last >= 0:
            a = last
            b = np.int64(i)
            same = True
            length = 0
            while True:
                if a == n or b == n or text[a] != text[b] or rises[a] != rises[b]:
                    same = False
                    break
                if length and rises[a] and not rises[a - 1]:
                    same = rises[b] and not rises[b - 1]
                    break
                a += 1
                b += 1
                length += 1
            if not same:
                count += 1
        names[i >> 1] = count
        last = np.int64(i)
    for k in range(spots.size):
        reduced[k] = names[spots[k] >> 1]
    return count + 1


@njit(cache=True, nogil=True)
def before(sa: Any, out: Any) -> None:
    """For each suffix the one before it in order; -1 for the first."""
    previous = -1
    for k in range(sa.size):
        out[sa[k]] = previous
        previous = sa[k]


@njit(cache=True, nogil=True)
def linked(text: Any, starts: Any, characters: Any, previous: Any, out: Any) -> None:
    """Mark each place whose next ``characters`` characters are those at the suffix before it in order.

    A window lies within its document; ``out`` (n,) is uint8. Common prefixes are found in the order of the
    text, one letter shorter each time (Karkkainen, Manzini and Puglisi 2009), so this is linear however much
    the text repeats itself.

    Args:
        starts: (documents + 1,) where documents begin; each ends with a separator.
        previous: of `before`.
    """
    n = text.size
    common = 0
    for d in range(starts.size - 1):
        last = starts[d + 1] - 1  # its separator
        stop = starts[d]  # end of the window that begins at i
        ahead = 0
        while stop < last and ahead < characters:
            stop += 1
            ahead += stop == last or (text[stop] & 0xC0) != 0x80
        for i in range(starts[d], last + 1):
            other = previous[i]
            if other < 0:
                common = 0
            else:
                while i + common < n and other + common < n and text[i + common] == text[other + common]:
                    common += 1
            letter = i < last and (text[i] & 0xC0) != 0x80
            out[i] = letter and ahead == characters and other >= 0 and common >= stop - i
            if letter:  # the window leaves this character behind and takes one more
                ahead -= 1
                if stop < last:
                    stop += 1
                    while stop < last and (text[stop] & 0xC0) == 0x80:
                        stop += 1
                    ahead += 1
            common = max(common - 1, 0)


@njit(cache=True, nogil=True)
def _piece(starts: Any, place: Any) -> Any:
    low, high = 0, starts.size - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if starts[middle] <= place:
            low = middle
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def shared(sa: Any, starts: Any, document: Any, marks: Any, seen: Any) -> Any:
    """Windows that several documents have.

    Args:
        starts: (pieces + 1,) where pieces of documents begin in the text.
        document: (pieces,) the document of each.
        marks: (n,) uint8 from `linked`; on return 1 where the window at a place occurs in another document,
            3 where one of those comes earlier, 0 elsewhere.
        seen: (a power of two,) uint64, zeros: hashes of sets written before, to write most of them once.

    Returns:
        (members, ends): the sets of documents that share a window, one after another, each ascending; equal
        sets may come more than once.
    """
    n = sa.size
    members = np.empty(1024, np.int64)
    ends = np.empty(256, np.int64)
    used = 0
    sets = 0
    k = 0
    while k < n:
        j = k + 1
        while j < n and marks[sa[j]] == 1:
            j += 1
        if j - k == 1:
            k = j
            continue
        docs = np.empty(j - k, np.int64)
        several = False
        first = np.int64(-1)
        for i in range(k, j):
            docs[i - k] = document[_piece(starts, sa[i])]
            if i == k or docs[i - k] < first:
                first = docs[i - k]
            several |= docs[i - k] != docs[0]
        for i in range(k, j):
            marks[sa[i]] = (3 if docs[i - k] != first else 1) if several else 0
        if several:
            sort(docs)
            h = np.uint64(0x9E3779B97F4A7C15)
            count = 0
            for i in range(docs.size):
                if i == 0 or docs[i] != docs[i - 1]:
                    docs[count] = docs[i]
                    count += 1
                    h = (h ^ np.uint64(docs[i])) * np.uint64(0xD6E8FEB86659FD93)
                    h ^= h >> np.uint64(32)
            slot = np.int64(h) & (seen.size - 1)
            if seen[slot] != h:
                seen[slot] = h
                if used + count > members.size:
                    larger = np.empty(2 * (used + count), np.int64)
                    larger[:used] = members[:used]
                    members = larger
                if sets == ends.size:
                    longer = np.empty(2 * sets, np.int64)
                    longer[:sets] = ends
                    ends = longer
                members[used : used + count] = docs[:count]
                used += count
                ends[sets] = used
                sets += 1
        k = j
    return members[:used].copy(), ends[:sets].copy()


@njit(cache=True, nogil=True)
def spans(text: Any, starts: Any, marks: Any, bit: Any, characters: Any, shift: Any) -> Any:
    """The stretches that marked windows cover, a row (piece, start, stop) each, in characters.

    Args:
        bit: which mark counts.
        shift: (pieces,) characters of the document before each piece.
    """
    rows = np.empty((256, 3), np.int64)
    used = 0
    for p in range(starts.size - 1):
        at = shift[p]
        stop = np.int64(-1)
        for i in range(starts[p], starts[p + 1] - 1):
            if (text[i] & 0xC0) == 0x80:
                continue
            if marks[i] & bit:
                if at > stop:
                    if used == rows.shape[0]:
                        longer = np.empty((2 * used, 3), np.int64)
                        longer[:used] = rows
                        rows = longer
                    rows[used, 0] = p
                    rows[used, 1] = at
                    used += 1
                stop = at + characters
                rows[used - 1, 2] = stop
            at += 1
    return rows[:used].copy()


@njit(cache=True, nogil=True)
def first_other(members: Any, ends: Any, match: Any) -> None:
    """The first document with which each shares something, into ``match`` (documents,) int64, -1.

    Args:
        members, ends: sets of documents as `shared` gives them.
    """
    begin = 0
    for end in ends:
        for i in range(begin, end):
            other = members[begin] if i > begin else members[begin + 1]
            d = members[i]
            if match[d] < 0 or other < match[d]:
                match[d] = other
        begin = end


@njit(cache=True, nogil=True)
def claim(members: Any, groups: Any, owner: Any, match: Any) -> None:
    """Keep the first document of what is shared: one goes if a kept one before it shares a passage with it.

    Args:
        members: documents, ascending; ``groups`` the set that each is in.
        owner: (sets,) int64, -1.
        match: (documents,) int64, -1: on return the first kept document with which each that goes shares.
    """
    i = 0
    while i < members.size:
        j = i
        d = members[i]
        while j < members.size and members[j] == d:
            held = owner[groups[j]]
            if held >= 0 and (match[d] < 0 or held < match[d]):
                match[d] = held
            j += 1
        if match[d] < 0:
            for k in range(i, j):
                owner[groups[k]] = d
        i = j
