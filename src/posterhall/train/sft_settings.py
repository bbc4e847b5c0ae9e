"""What determines a supervised fine-tuning. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from posterhall.data.chat import Form
from posterhall.data.chat_tokens import LearnFrom, TooLong
from posterhall.data.preference_tokens import Boundary
from posterhall.errors import DataError
from posterhall.train.adapter_settings import AdapterSettings
from posterhall.train.settings import Schedule

KIND = "train sft"
"""Of its runs."""


@dataclass(frozen=True)
class SftSettings(AdapterSettings):
    """Everything that determines a fine-tuning on conversations, beside the model and the data.

    Defaults of the optimiser are QLoRA's (Dettmers et al. 2023, app. B.2, and its code).

    Raises:
        DataError: for a value outside its range.
    """

    form: Form = "auto"
    """Form of the files: see `posterhall.data.chat.read`."""
    learn_from: LearnFrom = "answers"
    """Which tokens are predicted: answers (better on MMLU than all, Dettmers et al., app. B.3), or all."""
    too_long: TooLong = "refuse"
    """Rows above max_length: refuse, or cut (a conversation after the last answer that fits, a single prompt
    at its beginning). No answer is ever cut."""
    boundary: Boundary = "refuse"
    """Rows in which a token reaches over the beginning of an answer: refuse, or concatenate the tokens of
    what is before and after."""
    max_length: int | None = None
    """Longest conversation, in tokens that go into the model; none: the model's."""
    begin: bool = True
    """Put the tokeniser's token of beginning before plain prompts; conversations have their template's."""
    group_by_length: bool = True
    """Where rows are padded (models of transformers), put such of like length into a pass."""
    eval_fraction: float = 0.05
    """Share of the conversations held out for evaluation where no other file is given for it; 0: none."""
    lr: float = 2e-4
    """Peak learning rate, > 0 (QLoRA: 2e-4 for 7B and 13B, 1e-4 for 33B and 65B). All weights of a pretrained
    model take 1e-5 to 5e-5."""
    schedule: Schedule = "constant"
    """Course after the warm-up; see TrainSettings."""
    warmup: float = 0.03
    """Linear warm-up: a share of all steps if below 1, else steps."""
    batch: int = 4
    """Conversations of one pass through the model, over all processes, >= 1."""
    accumulate: int = 4
    """Passes a step, >= 1; with batch 4 QLoRA's 16."""
    beta2: float = 0.999
    """AdamW's decay of the mean square, in [0, 1)."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, >= 0."""
    clip: float = 0.3
    """Largest norm of the gradient; 0 is off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eval_fraction < 1:
            raise DataError(f"eval_fraction is {self.eval_fraction}; it must be at least 0 and below 1")
        if self.max_length is not None and self.max_length < 2:
            raise DataError(f"max_length is {self.max_length}; it must be at least 2")
        if self.tokens is not None:
            raise DataError("tokens is given, but conversations differ in theirs; give steps or epochs")


@dataclass(frozen=True)
class GuanacoSettings(SftSettings):
    """The published runs of Guanaco 7B: NF4, an adapter on all linear layers, 1,875 steps of 16.

    Dettmers et al. 2023, app. B.2, table 9, and scripts/finetune_guanaco_7b.sh. Theirs learn whole
    conversations (learn_from=all), whose text stands where others have the answer. For 13B and larger
    lora_dropout is 0.05 in the scripts, for 33B and 65B lr is 1e-4.
    """

    quantize: str | None = "nf4"
    lora_rank: int | None = 64
    lora_dropout: float = 0.1
    steps: int | None = 1875
    max_length: int | None = 528
    too_long: TooLong = "cut"
    paged: bool = True


PRESETS: dict[str, type[SftSettings]] = {"guanaco": GuanacoSettings}
"""Settings of published runs, by name."""
