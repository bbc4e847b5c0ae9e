"""From a model's directory to what a job trains of it, and back into files.

Fine-tuning and preferences begin alike: any causal model, its weights perhaps quantised, with an adapter
that it has or is given, or trained whole. They end alike too: an adapter as PEFT has it or a whole
checkpoint, with the tokeniser's files as they were and the chat template that was used.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from posterhall import devices
from posterhall.data import chat_template
from posterhall.data import tokenizer as tokenizers
from posterhall.data.chat_template import ChatTemplate
from posterhall.data.preference_tokens import Layout
from posterhall.data.tokenizer import Tokenizer
from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models import Decoder, causal, foreign_files, hub
from posterhall.models.foreign import Foreign
from posterhall.runs import read_manifest
from posterhall.runs.files import write_atomic
from posterhall.train.adapter_settings import ALL_LINEAR, AdapterSettings

MODEL = "model"
"""Folder in artifacts/."""
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "chat_template.jinja", "chat_template.json",
    hub.GENERATION,
)  # fmt: skip


@dataclass(frozen=True)
class Start:
    """What a job begins with."""

    directory: Path
    """Where the model is."""
    base: str
    """Where the weights under an adapter are, or their id on the hub."""
    weights: Path
    """The directory of these weights."""
    model: Any
    """A `CausalModel`; what is to be trained of it has gradients."""
    tokenizer: Tokenizer
    template: ChatTemplate | None
    """The chat template that it comes with."""
    adapted: bool
    """Whether an adapter is trained."""

    @property
    def layout(self) -> Layout:
        """How batches come to it: texts after each other, if it keeps them apart."""
        config = self.model.config
        apart = isinstance(self.model, Decoder) and set(config.layer_mixers) == {"attention"}
        return "trees" if apart else "rows"

    def counts(self) -> tuple[int, int]:
        """Numbers that are trained, and all (those of quantised weights included)."""
        from posterhall.quantize.linear import QuantizedLinear

        sizes = [(each.numel(), each.requires_grad) for each in self.model.parameters()]
        frozen = sum(
            each.in_features * each.out_features
            for each in self.model.modules()
            if isinstance(each, QuantizedLinear)
        )
        return sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes) + frozen


def begin(
    settings: AdapterSettings, model: Path | str, *, device: str | None, now: datetime | None = None
) -> Start:
    """Read a model and make ready what is to be trained.

    Args:
        settings: what that is.
        model: a directory of a model or an adapter, a run, or an id of the hub.
        device: as torch names it; None takes an accelerator if there is one.
        now: what a chat template that asks for the date is told.

    Raises:
        DataError: for a model that cannot be read, quantised weights without an adapter, or an adapter on
            one that has one.
    """
    from posterhall.adapters import add_lora, placing, saving

    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    directory = hub.locate(model)
    with devices.memory_told("Take a smaller model, or keep it quantised: --quantize nf4 --lora-rank 64"):
        loaded: Any = causal.load(directory, dtype=torch.float32, device=where, quantize=settings.quantize)
    _without_dropout(loaded)
    has = any(True for _ in placing.adapters(loaded))
    if settings.lora_rank is not None:
        if has:
            raise DataError(
                f"{directory} has an adapter already, which is trained on without lora_rank; to begin a new "
                "one, `posterhall model merge` it first"
            )
        add_lora(
            loaded,
            rank=settings.lora_rank,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            targets=ALL_LINEAR if settings.lora_targets == (ALL_LINEAR,) else settings.lora_targets,
            seed=settings.seed,
        )
    elif has:
        placing.freeze(loaded)
        for _, layer in placing.adapters(loaded):
            layer.settings = dataclasses.replace(layer.settings, dropout=settings.lora_dropout)
    elif _is_quantized(loaded):
        raise DataError(
            f"the weights of {directory} are quantised and cannot be trained; train an adapter on them: "
            "--lora-rank 64"
        )
    else:
        loaded.requires_grad_(True)
    tokenizer = tokenizers.load(directory)
    if loaded.config.vocab_size < tokenizer.vocab_size:
        raise DataError(
            f"{directory}: the tokeniser has {tokenizer.vocab_size:,} tokens, the model only "
            f"{loaded.config.vocab_size:,}"
        )
    template = chat_template.load(directory, now=now)
    if has:
        base, weights = saving.read_config(directory).base, causal.base_of(directory)[0]
    else:
        base, weights = str(directory.resolve()) if Path(model).exists() else str(model), directory
    adapted = has or settings.lora_rank is not None
    return Start(directory, base, weights, loaded, tokenizer, template, adapted)


def time_of(run: Path) -> datetime:
    """When a run was started, however often it is resumed: what a template that asks for the date is told."""
    return datetime.fromisoformat(read_manifest(run)["start"])


def save(
    start: Start, directory: Path, *, template: ChatTemplate | None, ends: frozenset[int] = frozenset()
) -> None:
    """Write the trained model, or its adapter, with tokeniser and chat template.

    Args:
        start: what was trained.
        directory: where; files in it are replaced.
        template: which conversations were written by; None: none.
        ends: tokens that end an answer beside those that the model says.
    """
    from posterhall import adapters

    files = Texts(start, template, ends)
    if start.adapted:
        adapters.save(start.model, directory, base=start.base, files=start.weights)
        files.save(directory)
    elif isinstance(start.model, Decoder):
        hub.save(start.model, directory, tokenizer=files)
    else:
        foreign_files.write(start.model.model, directory)
        files.save(directory)


class Texts:
    """A tokeniser that is saved by copying what it was read from, which may be more than we would write, and
    with the chat template; see `save`."""

    def __init__(
        self, start: Start, template: ChatTemplate | None, ends: frozenset[int] = frozenset()
    ) -> None:
        self._source, self._template, self._ends = start.directory, template, ends
        tokenizer = start.tokenizer
        self.bos_id, self.eos_id, self.pad_id = tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id

    def save(self, directory: Path) -> None:
        """Write them."""
        for name in _TOKENIZER_FILES:
            if (self._source / name).is_file():
                shutil.copyfile(self._source / name, directory / name)
        if self._template is not None and chat_template.load(directory) is None:
            self._template.save(directory)
        known = hub.end_ids(self._source) | ({self.eos_id} if self.eos_id is not None else set())
        file = directory / hub.GENERATION
        if self._ends - known or not file.is_file():  # beside an adapter there is no config.json to say it
            said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            said["eos_token_id"] = sorted(known | self._ends)
            write_atomic(file, json.dumps(said, indent=2) + "\n")


def _without_dropout(model: nn.Module) -> None:
    """Models of transformers drop by torch's own draws, which no resumed run could repeat, and some do so by
    default. Adapters have their own."""
    if not isinstance(model, Foreign):
        return
    from posterhall.adapters.lora import LoraLinear

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif not isinstance(module, LoraLinear):
            for name, value in vars(module).items():
                if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
                    setattr(module, name, 0.0)


def _is_quantized(model: nn.Module) -> bool:
    from posterhall.quantize.linear import QuantizedLinear

    return any(isinstance(each, QuantizedLinear) for each in model.modules())
