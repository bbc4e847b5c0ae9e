"""Reading and representing data: words and documents, tokens and rows, corpora of known truth.

Modules are imported on first use. Word vectors read `posterhall.data.corpus`, `.vocabulary` and
`.phrases`; language models `.documents`, `.tokenizer`, `.tokens` and `.packing`, `.chat` where they are
fine-tuned, and `.preference` where they are aligned. `.labelled` is what sequences with a class are;
`.long_range`, `.image_sequences`, `.audio` and `.dna` read them. `.python_text` is the text that every
machine with Python has, `.synthetic` is made here.
"""

from __future__ import annotations

from posterhall import lazy

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

__getattr__, __dir__ = lazy.attributes(__name__, modules=_MODULES)
