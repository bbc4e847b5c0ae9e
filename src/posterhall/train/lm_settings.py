"""What determines a language model that `train lm` makes, and whether a run has made it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall.config import to_dict
from posterhall.data.documents import MAX_DOCUMENT_BYTES, Split
from posterhall.data.packing import Packing
from posterhall.data.sources import EncodingErrors
from posterhall.data.tokenizer import ByteTokenizer
from posterhall.errors import DataError
from posterhall.models.config import DecoderConfig, FeedForwardKind, Positions, mixer_settings
from posterhall.runs import is_run, read_manifest
from posterhall.train.settings import TrainSettings

KIND = "train lm"
"""Of its runs."""


@dataclass(frozen=True)
class LmSettings(TrainSettings):
    """Everything that determines a language model, beside the text; a run's config.yaml holds these.

    Raises:
        DataError: for a value outside its range.
    """

    tokenizer: str = "byte"
    """byte; bpe:N, learnt from the text with N tokens; or a tokenizer.json, or a directory with one."""
    dim: int = 256
    """Width of the model, a multiple of 2 x heads (of the heads without rotary positions)."""
    layers: int = 4
    """Blocks, >= 1."""
    heads: int = 4
    """Query heads."""
    kv_heads: int | None = None
    """Key and value heads, a divisor of heads; none: as many."""
    ffn_dim: int | None = None
    """Width of the feed-forward layer; none: 8/3 dim, rounded up to a multiple of 64; 0: no such layers."""
    ffn: FeedForwardKind = "dense"
    """Its matrices: dense, monarch (two block-diagonal factors and a permutation) or block_diagonal."""
    ffn_blocks: int = 4
    """Blocks of matrices that are not dense, a divisor of dim and ffn_dim; for monarch its square divides
    the lesser."""
    mixers: tuple[str, ...] = ("attention",)
    """What mixes the positions of a sequence: one name for all layers, or one a layer."""
    mixer_settings: tuple[str, ...] = ()
    """Settings of mixers, each as mixer.setting=value: mamba.state=32."""
    positions: Positions = "rotary"
    """Attention by rotary positions, learned vectors of the positions, or none but the mixers' order."""
    tie_embeddings: bool = True
    """One matrix for the embedding and the head."""
    dropout: float = 0.0
    """Share dropped in training, in [0, 1). Muennighoff et al. have 0.1; below their sizes it costs more
    than it saves, except over many epochs."""
    context: int = 256
    """Tokens a row, >= 1; the model's longest sequence."""
    packing: Packing = "contiguous"
    """Rows see across the ends of documents (contiguous), or attention stays within one (documents)."""
    unique_tokens: int | None = None
    """Train on that many tokens of the text only; a smaller number takes a subset of a larger one's."""
    eval_fraction: float = 0.05
    """Share of the text held out for evaluation where no other text is given for it; 0: none."""
    eval_tokens: int = 1_000_000
    """Most tokens of held-out text that are used, the first ones, >= 1."""
    text_field: str = "text"
    """Field or column of JSON lines and Parquet files."""
    split: Split = "file"
    """A document of plain text: the whole file, each line, or what stands between blank lines."""
    encoding_errors: EncodingErrors = "strict"
    """Bytes that are not UTF-8: strict, replace or ignore."""
    max_document_bytes: int = MAX_DOCUMENT_BYTES
    """Largest document, >= 1; one at a time is held in memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eval_fraction < 1:
            raise DataError(f"eval_fraction is {self.eval_fraction}; it must be at least 0 and below 1")
        for name in ("context", "eval_tokens", "max_document_bytes"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        bpe_size(self.tokenizer)
        self.shape(ByteTokenizer.vocab_size)

    def shape(self, vocab_size: int) -> DecoderConfig:
        """The model's shape."""
        return DecoderConfig(
            vocab_size=vocab_size,
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            ffn_dim=self.ffn_dim,
            ffn=self.ffn,
            ffn_blocks=self.ffn_blocks,
            max_length=self.context,
            mixers=self.mixers,
            mixer_settings=mixer_settings(self.mixer_settings),
            positions=self.positions,
            tie_embeddings=self.tie_embeddings,
            dropout=self.dropout,
        )


def finished(directory: Path, settings: TrainSettings) -> dict[str, Any] | None:
    """What came out of the run there, if it is finished.

    Raises:
        DataError: if it is, but was made with other settings.
    """
    if not is_run(directory):
        return None
    manifest = read_manifest(directory)
    if manifest["status"] != "done":
        return None
    now = to_dict(settings)
    for name, was in manifest["config"].items():
        if now.get(name) != was:
            raise DataError(
                f"{directory} is finished and was made with {name} {was} (now {now.get(name)}); choose "
                "another directory with -o, or remove it"
            )
    return dict(manifest["facts"])


def bpe_size(tokenizer: str) -> int | None:
    """N of "bpe:N"; None for other tokenisers."""
    kind, colon, number = tokenizer.partition(":")
    if not colon or kind != "bpe":
        return None
    if not number.isdecimal() or int(number) < 258:
        raise DataError(
            f"tokenizer is '{tokenizer}'; the number of tokens of a BPE is at least 258, as bpe:4096"
        )
    return int(number)
