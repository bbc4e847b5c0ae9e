"""Claims of Dettmers, Pagnoni, Holtzman & Zettlemoyer 2023, "QLoRA: Efficient Finetuning of Quantized LLMs".

That a model can be tuned through weights frozen in 4 bits at no loss, and that its tournament of chat models
says what it is said to say.

- `codes`: errors of codes on drawn weights, how evenly they are used, quantised scales.
- `perplexity`: language models after quantising, by code and block.
- `tuning`: QLoRA against full fine-tuning, LoRA, and adapters on fewer layers.
- `memory`: the plan of memory against measured bytes.
- `tournament`: the released verdicts replayed.

Language models are small ones of bytes, trained here on text that every machine with Python has;
``--set corpus=PATH`` and ``--set code=PATH`` put text of one's own in its place.
"""

from __future__ import annotations

# In the order in which they are listed and reported.
from posterhall.claims.qlora import tuning, codes, perplexity, memory, tournament  # isort: skip

__all__ = ["codes", "memory", "perplexity", "tournament", "tuning"]
