"""Reading and representing data: words and documents, tokens and rows, corpora of known truth.

Modules are imported on first use. Word vectors read `posterhall.data.corpus`, `.vocabulary` and
`.phrases`; language models `.documents`, `.tokenizer`, `.tokens` and `.packing`, `.chat` where they are
fine-tuned, and `.preference` where they are aligned. `.labelled` is what sequences with a class are;
`.long_range`, `.image_sequences`, `.audio` and `.dna` read them. `.python_text` is the text that every
machine with Python has, `.synthetic` is made here.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = (
    "audio",
    "chat",
    "chat_batches",
    "chat_template",
    "chat_tokens",
    "corpus",
    "dna",
    "documents",
    "encoded",
    "epochs",
    "image_sequences",
    "labelled",
    "long_range",
    "objects",
    "packing",
    "phrases",
    "preference",
    "preference_forms",
    "preference_tokens",
    "prompts",
    "python_text",
    "refusals",
    "sources",
    "special_tokens",
    "synthetic",
    "tokenizer",
    "tokens",
    "vocabulary",
)


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'posterhall.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_MODULES))
