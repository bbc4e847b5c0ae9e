"""Tokenisers: text to token ids and back.

`ByteTokenizer` is built in and needs nothing; byte-level BPE is that of Hugging Face `tokenizers`, trained
here or loaded. Both are saved as a `tokenizer.json` that `tokenizers` and `transformers` load.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError
from posterhall.extras import require
from posterhall.runs import write_atomic

END_OF_TEXT = "<|endoftext|>"
"""Ends a document and begins the next one, as in GPT-2; both bos and eos."""
PAD = "<|pad|>"
_LINE_END = re.compile(r"(?<=\S)\n(?=\S)")
_PIECE = 1 << 20
"""Characters of a text handed to the library at a time; it holds what it is given several times over."""
FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"

_ROLES = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "[BOS]", "[CLS]", END_OF_TEXT),
    "eos": ("</s>", "<eos>", "<|end_of_text|>", "[EOS]", "[SEP]", END_OF_TEXT),
    "pad": ("<pad>", PAD, "[PAD]"),
}
"""Usual names of special tokens, for a tokenizer.json that comes without tokenizer_config.json."""


class Tokenizer(ABC):
    """What every tokeniser does.

    Encoding never gives a special token, whatever the text says: those are put where they belong by who
    builds training rows or prompts.

    Attributes:
        name: for people, as "byte" or "bpe-32000".
        vocab_size: ids are below this.
        bos_id, eos_id, pad_id: special tokens, None where there is none.
    """

    name: str
    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The ids of each text."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special and unknown ones are left out, bytes that are no UTF-8 become U+FFFD."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What tokenizer.json holds."""

    def encode(self, text: str) -> list[int]:
        """The ids of one text, without special tokens."""
        ids: list[int] = self.encode_batch([text])[0].tolist()
        return ids

    def pieces(self, text: str, size: int) -> Iterator[str]:
        """A text in pieces of at least `size` characters (but for the last) whose ids, joined, are its own.

        An empty text has none. Encoding a long text at once takes a hundred times its size in memory.
        """
        yield from _cut_at_lines(text, size)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what determines the ids."""
        content = json.dumps([self.to_json(), self.bos_id, self.eos_id, self.pad_id], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def save(self, directory: Path | str) -> None:
        """Write tokenizer.json and tokenizer_config.json, as `transformers.AutoTokenizer` loads them."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        content = self.to_json()
        write_atomic(directory / FILE, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
            "add_eos_token": False,
        }
        special = {each["id"]: each["content"] for each in content.get("added_tokens", [])}
        for role, token in (("bos", self.bos_id), ("eos", self.eos_id), ("pad", self.pad_id)):
            if token is not None and token in special:
                config[f"{role}_token"] = special[token]
        write_atomic(directory / CONFIG, json.dumps(config, indent=1) + "\n")


class ByteTokenizer(Tokenizer):
    """Each byte of the UTF-8 text is a token: ids 0 to 255, then end of text (bos and eos) and padding."""

    name = "byte"
    vocab_size = 258
    bos_id: int | None = 256
    eos_id: int | None = 256
    pad_id: int | None = 257

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The UTF-8 bytes of each text.

        Raises:
            DataError: for half of a surrogate pair, which has none.
        """
        try:
            return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]
        except UnicodeEncodeError as error:
            raise DataError(f"half of a surrogate pair at character {error.start}; it is not text") from None

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`."""
        return bytes(each for each in ids if 0 <= each < 256).decode("utf-8", "replace")

    def pieces(self, text: str, size: int) -> Iterator[str]:
        """See `Tokenizer.pieces`; here any place will do."""
        yield from (text[at : at + size] for at in range(0, len(text), size))

    def to_json(self) -> dict[str, Any]:
        """A byte-level BPE without merges, whose 256 letters have the values of their bytes as ids."""
        byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [_special(256, END_OF_TEXT), _special(257, PAD)],
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", **byte_level},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", **byte_level},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {**{letter: i for i, letter in enumerate(_letters())}, END_OF_TEXT: 256, PAD: 257},
                "merges": [],
            },
        }


class BPETokenizer(Tokenizer):
    """A tokeniser of Hugging Face `tokenizers`, of whatever kind its tokenizer.json says.

    Args:
        backend: a `tokenizers.Tokenizer`.
        bos, eos, pad: contents of its special tokens; None means none, or not said.
        name: for people.

    Raises:
        DataError: for a special token that it does not have.
    """

    def __init__(
        self, backend: Any, *, bos: str | None, eos: str | None, pad: str | None, name: str | None = None
    ) -> None:
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True  # "</s>" in a text is four letters, not the end of it
        self._backend = backend
        self.vocab_size = int(backend.get_vocab_size(with_added_tokens=True))
        self.name = name or f"bpe-{self.vocab_size}"
        self.bos_id, self.eos_id, self.pad_id = (self._id(token) for token in (bos, eos, pad))

    def _id(self, token: str | None) -> int | None:
        if token is None:
            return None
        found: int | None = self._backend.token_to_id(token)
        if found is None:
            raise DataError(f"the tokeniser has no token {token!r}, which its configuration names")
        return found

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """See `Tokenizer.encode_batch`."""
        encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(each.ids, np.int32) for each in encoded]

    def pieces(self, text: str, size: int) -> Iterator[str]:
        """See `Tokenizer.pieces`; whole, if this tokeniser does not treat lines apart from each other."""
        if len(text) > size and self._lines_apart:
            yield from _cut_at_lines(text, size)
        elif text:
            yield text

    @cached_property
    def _lines_apart(self) -> bool:
        """Whether lines can be encoded one by one; not so where each text gets a space put before it."""
        first, second = "a line of words, 12 of them.\n", "Then: another\tline"
        return self.encode(first + second) == self.encode(first) + self.encode(second)

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`."""
        known = [int(each) for each in ids if 0 <= each < self.vocab_size]
        return str(self._backend.decode(known, skip_special_tokens=True))

    def to_json(self) -> dict[str, Any]:
        """What tokenizer.json holds."""
        content: dict[str, Any] = json.loads(self._backend.to_str())
        return content


def train_bpe(texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2) -> BPETokenizer:
    """Learn a byte-level BPE (Sennrich et al. 2016; GPT-2's splitting of words) from texts.

    The same texts give the same tokeniser. All 256 bytes are in it, so that any text can be encoded.

    Args:
        texts: read once; what is counted, the different words, must fit into memory.
        vocab_size: largest number of tokens, special ones included; fewer if the texts give no more.
        min_frequency: pairs seen less often are not merged.

    Raises:
        DataError: for a size that leaves no room for the bytes and the two special tokens.
        MissingExtra: without `tokenizers`.
    """
    if vocab_size < 258:
        raise DataError(f"vocab_size is {vocab_size}; it must be at least 258 (256 bytes, 2 special tokens)")
    tokenizers = require("tokenizers", "train", "training a BPE tokeniser")
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = byte_level(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=False,
    )
    pieces = (piece for text in texts for piece in _cut_at_lines(text, _PIECE))
    backend.train_from_iterator(pieces, trainer)
    return BPETokenizer(backend, bos=END_OF_TEXT, eos=END_OF_TEXT, pad=PAD)


def load(path: Path | str) -> Tokenizer:
    """A tokeniser by name or place.

    Args:
        path: "byte", a tokenizer.json, or a directory (of a model, say) that holds one.

    Raises:
        DataError: if there is none, or it cannot be understood.
        MissingExtra: without `tokenizers`, for any but the byte tokeniser.
    """
    if str(path) == ByteTokenizer.name:
        return ByteTokenizer()
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    try:
        raw = file.read_text(encoding="utf-8")
        content = json.loads(raw)
        said = file.with_name(CONFIG)
        config = json.loads(said.read_text(encoding="utf-8")) if said.exists() else None
    except FileNotFoundError:
        raise DataError(
            f"{path}: no {FILE} there. Give 'byte', a {FILE}, or a directory with one; other formats "
            "(tokenizer.model, vocab.txt) are converted by transformers: "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as a tokeniser: {error}") from None
    if content == ByteTokenizer().to_json():
        return ByteTokenizer()
    tokenizers = require("tokenizers", "train", f"the tokeniser in {file}")
    try:
        backend = tokenizers.Tokenizer.from_str(raw)
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{file}: not a tokeniser that 'tokenizers' understands: {error}") from None
    if config is not None:
        roles = {role: _content(config.get(f"{role}_token")) for role in _ROLES}
    else:
        added = {each["content"] for each in content.get("added_tokens") or ()}
        roles = {role: next((n for n in names if n in added), None) for role, names in _ROLES.items()}
    try:
        return BPETokenizer(backend, **roles)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _special(id: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": id, "content": content, **flags}


def _letters() -> list[str]:
    """The letter by which byte-level tokenisers write each byte (GPT-2): itself where it is printable."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (chr(code) for code in range(256, 512))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]


def _cut_at_lines(text: str, size: int) -> Iterator[str]:
    """Cut where a single newline stands between words: no tokeniser looks across that, but across more white
    space (GPT-2's takes it together only where nothing follows)."""
    at = 0
    while at < len(text):
        found = _LINE_END.search(text, at + size)
        end = found.end() if found else len(text)
        yield text[at:end]
        at = end


def _content(token: Any) -> str | None:
    """A special token as tokenizer_config.json has it: its text, or an object that holds it."""
    return token.get("content") if isinstance(token, dict) else token
