"""Filters that have a name: the quality and repetition rules of Gopher, for any language.

Rae et al. 2021 (arXiv 2112.11446), A.1.1 and table A1. Left out is the rule that at least two of eight
English stop words occur.
"""

from __future__ import annotations

from functools import reduce

from posterhall.curation.filters import And, Comparison, Filter, threshold

_QUALITY: tuple[tuple[str, Comparison, float], ...] = (
    ("words", ">=", 50),
    ("words", "<=", 100_000),
    ("mean_word_length", ">=", 3),
    ("mean_word_length", "<=", 10),
    ("symbol_ratio", "<=", 0.1),
    ("bullet_lines", "<=", 0.9),
    ("ellipsis_lines", "<=", 0.3),
    ("alphabetic_words", ">=", 0.8),
)
_REPETITION: tuple[tuple[str, Comparison, float], ...] = (
    ("repeated_lines", "<=", 0.30),
    ("repeated_line_chars", "<=", 0.20),
    ("top_2grams", "<=", 0.20),
    ("top_3grams", "<=", 0.18),
    ("top_4grams", "<=", 0.16),
    ("repeated_5grams", "<=", 0.15),
    ("repeated_6grams", "<=", 0.14),
    ("repeated_7grams", "<=", 0.13),
    ("repeated_8grams", "<=", 0.12),
    ("repeated_9grams", "<=", 0.11),
    ("repeated_10grams", "<=", 0.10),
)


def _all(rules: tuple[tuple[str, Comparison, float], ...]) -> Filter:
    return reduce(And, (threshold(*rule) for rule in rules))


PRESETS: dict[str, Filter] = {
    "gopher_quality": _all(_QUALITY),
    "gopher_repetition": _all(_REPETITION),
    "gopher": And(_all(_QUALITY), _all(_REPETITION)),
}
"""By name, for the filter language."""
