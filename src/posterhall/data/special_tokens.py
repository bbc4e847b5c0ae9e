"""Text in which some special tokens are meant and others are just letters, as token ids."""

from __future__ import annotations

import bisect
import copy
import itertools
import json
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posterhall.data.chat_template import ChatTemplate, Rendered, TemplateError
from posterhall.data.tokenizer import Tokenizer
from posterhall.errors import DataError
from posterhall.extras import require

_NAME, _NAME_END = "\ufdd4", "\ufdd5"
"""Around the numbers that stand for special tokens; see `chat_template` for the letters."""
_PROBE = "answer"


class SpecialTokens:
    """Encodes rendered conversations.

    The tokeniser is made once more with other names for its special tokens, names that no text has; they are
    put where a token is meant. So all of a text goes through the tokeniser at once, as it does in
    `transformers`, and with the same ids.

    Args:
        tokenizer: whose.

    Attributes:
        pattern: finds special tokens in a text.
        ids: of the special tokens.

    Raises:
        DataError: if the tokeniser does not let its tokens be renamed.
        MissingExtra: without `tokenizers`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizers = require("tokenizers", "train", "conversations as tokens")
        content = copy.deepcopy(tokenizer.to_json())
        special = [each for each in content.get("added_tokens") or () if each.get("special")]
        self._names = {each["content"]: f"{_NAME}{i}{_NAME_END}" for i, each in enumerate(special)}
        self.ids = sorted(int(each["id"]) for each in special)
        named = {self._names[each["content"]]: int(each["id"]) for each in special}
        for each in special:
            each["content"] = self._names[each["content"]]
        model = content["model"]
        if isinstance(model.get("vocab"), dict):
            model["vocab"] = {self._names.get(token, token): i for token, i in model["vocab"].items()}
        else:  # of pairs with their scores
            model["vocab"] = [[self._names.get(token, token), score] for token, score in model["vocab"]]
        if model.get("unk_token") in self._names:
            model["unk_token"] = self._names[model["unk_token"]]
        # It would take white space out of the places of tokens, and add tokens that templates write.
        content["post_processor"] = content["truncation"] = content["padding"] = None
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        for name, i in named.items():
            if self._backend.token_to_id(name) != i:
                raise DataError(
                    f"the tokeniser {tokenizer.name} has its special tokens in a form that is not "
                    "known here; save it again with transformers"
                )
        longest_first = sorted(self._names, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def encode(self, texts: Sequence[Rendered]) -> list[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Ids (n,) of each text, and the first and last + 1 letter of each token, (n, 2)."""
        written = [self._written(each) for each in texts]
        encoded = self._backend.encode_batch([text for text, _ in written], add_special_tokens=False)
        return [
            (np.array(each.ids, np.int32), _places(each.offsets, pieces))
            for each, (_, pieces) in zip(encoded, written, strict=True)
        ]

    def encode_apart(
        self, text: Rendered, edges: Sequence[int]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The same of one text whose pieces between `edges` are encoded one by one."""
        bounds = [0, *edges, len(text.text)]
        pieces = []
        for start, end in itertools.pairwise(bounds):
            literal = [(a - start, b - start) for a, b in text.literal if start <= a and b <= end]
            pieces.append(Rendered(text.text[start:end], (), tuple(literal)))
        encoded = self.encode(pieces)
        moved = [places + start for (_, places), start in zip(encoded, bounds, strict=False)]
        return np.concatenate([ids for ids, _ in encoded]), np.concatenate(moved)

    def ends(self, rendered: Rendered) -> bool:
        """Whether a text ends with a special token that is meant, white space after it aside."""
        text = rendered.text.rstrip()
        if any(start < len(text) <= end for start, end in rendered.literal):
            return False
        return self.without_end(text) != text

    def closing(self, template: ChatTemplate) -> list[int]:
        """What a template puts behind an answer's text, from the first special token on.

        The first is the end of the turn, at which sampling stops; what follows it (a newline, often) no model
        is asked for. Empty for a template that ends answers without a special token.
        """
        talk = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _PROBE}]
        try:
            text = template.render(talk)
        except TemplateError:  # one that wants a system's message, say
            return []
        at = text.text.rfind(_PROBE)
        if at < 0:
            return []
        ((ids, places),) = self.encode([text])
        behind = ids[places[:, 0] >= at + len(_PROBE)]
        special = np.flatnonzero(np.isin(behind, self.ids))
        found: list[int] = behind[special[0] :].tolist() if len(special) else []
        return found

    def without_end(self, text: str) -> str:
        """A text without the special token that it ends with, if it does."""
        name = max((each for each in self._names if text.endswith(each)), key=len, default="")
        return text.removesuffix(name)

    def _written(self, rendered: Rendered) -> tuple[str, list[tuple[int, int, int, int]]]:
        """The text for the tokeniser, and its pieces: (start, end) in it and in the text that was given."""
        parts: list[str] = []
        pieces: list[tuple[int, int, int, int]] = []
        length = 0

        def put(text: str, start: int, end: int) -> None:
            nonlocal length
            if text:
                parts.append(text)
                pieces.append((length, length + len(text), start, end))
                length += len(text)

        at = 0
        for start, end in [*rendered.literal, (len(rendered.text), len(rendered.text))]:
            for found in self.pattern.finditer(rendered.text, at, start):
                put(rendered.text[at : found.start()], at, found.start())
                put(self._names[found.group()], *found.span())
                at = found.end()
            put(rendered.text[at:end], at, end)
            at = end
        return "".join(parts), pieces


def _places(
    offsets: Sequence[tuple[int, int]], pieces: Sequence[tuple[int, int, int, int]]
) -> NDArray[np.int64]:
    starts = [piece[0] for piece in pieces]
    places = np.zeros((len(offsets), 2), np.int64)
    for i, (start, end) in enumerate(offsets):
        first = pieces[max(0, bisect.bisect_right(starts, start) - 1)]
        last = pieces[max(0, bisect.bisect_left(starts, end) - 1)]
        renamed = first[1] - first[0] != first[3] - first[2]
        places[i, 0] = first[2] if renamed else first[2] + start - first[0]
        renamed = last[1] - last[0] != last[3] - last[2]
        places[i, 1] = last[3] if renamed else last[2] + end - last[0]
    return places
