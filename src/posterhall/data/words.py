"""A tokeniser whose tokens are words: for small models of small languages, where a number is one token."""

from __future__ import annotations

from collections.abc import Iterable

from posterhall.data.tokenizer import END_OF_TEXT, PAD, BPETokenizer
from posterhall.errors import DataError
from posterhall.extras import require

UNKNOWN = "<unk>"
"""Stands for a word that the tokeniser has not."""
_WORD = r"\n|\S+"


def word_tokenizer(words: Iterable[str]) -> BPETokenizer:
    """A tokeniser of given words, written as an ordinary tokenizer.json (WordLevel).

    A word is what stands between white space, and an end of line is one too. Spaces are no tokens: texts
    that differ only in them have the same ids, and decoding puts one space between two words of a line. So
    the text of a prompt and that of its continuation can be joined with or without a space between them.

    Args:
        words: the vocabulary; ids are in this order, after that of unknown words and before those of the
            end of a text and of padding. Words that come again are passed over.

    Returns:
        The tokeniser; end of text is both its bos and its eos.

    Raises:
        DataError: for a word with white space in it, or none at all.
        MissingExtra: without `tokenizers`.
    """
    tokenizers = require("tokenizers", "train", "a tokeniser of words")
    vocabulary: dict[str, int] = {UNKNOWN: 0}
    for word in words:
        if word != "\n" and word.split() != [word]:
            raise DataError(f"{word!r} is no word: a word is not empty and has no white space in it")
        # The special ones follow outside this vocabulary: a text that spells one does not get it.
        if word not in (END_OF_TEXT, PAD):
            vocabulary.setdefault(word, len(vocabulary))
    if len(vocabulary) == 1:
        raise DataError("a tokeniser of words needs one word at least")
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.add_special_tokens([END_OF_TEXT, PAD])
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(_WORD), behavior="removed", invert=True
    )
    decoders = tokenizers.decoders
    # WordPiece's decoder joins by spaces; no word begins with a line end, which is what it would cut off.
    backend.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="\r\n", cleanup=False),
            decoders.Fuse(),
            decoders.Replace(tokenizers.Regex(" ?\n ?"), "\n"),
        ]
    )
    return BPETokenizer(
        backend, bos=END_OF_TEXT, eos=END_OF_TEXT, pad=PAD, name=f"words-{len(vocabulary) + 2}"
    )
