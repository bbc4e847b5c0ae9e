"""Training: one loop for every model and objective, and the jobs that use it.

    trained = fit(model, Packed(tokens, context=256), objective=next_token, settings=TrainSettings(epochs=1))

Names and modules are imported on first use; only training itself needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterhall import lazy

if TYPE_CHECKING:
    from posterhall.train.dpo import PreferenceObjective, train_dpo
    from posterhall.train.dpo_settings import DpoSettings
    from posterhall.train.language import next_token
    from posterhall.train.lm import train_lm
    from posterhall.train.lm_settings import LmSettings
    from posterhall.train.loop import Trained, fit
    from posterhall.train.ppo import fit_ppo, train_ppo
    from posterhall.train.ppo_settings import PpoSettings
    from posterhall.train.reward import train_reward
    from posterhall.train.reward_settings import RewardSettings
    from posterhall.train.settings import TrainSettings
    from posterhall.train.sft import train_sft
    from posterhall.train.sft_settings import SftSettings
    from posterhall.train.small import SmallSettings, small_model

_MODULES = (
    "adapter_settings",
    "checkpoint",
    "distributed",
    "dpo",
    "dpo_settings",
    "jobs",
    "language",
    "lm",
    "lm_settings",
    "loop",
    "metrics",
    "optimiser",
    "paged",
    "ppo",
    "ppo_settings",
    "preferences",
    "references",
    "reward",
    "reward_settings",
    "rollouts",
    "schedule",
    "scorers",
    "settings",
    "sft",
    "sft_settings",
    "small",
    "starting",
    "sweep",
    "table",
)
_NAMES = {
    "DpoSettings": "dpo_settings",
    "LmSettings": "lm_settings",
    "PpoSettings": "ppo_settings",
    "PreferenceObjective": "dpo",
    "RewardSettings": "reward_settings",
    "SmallSettings": "small",
    "TrainSettings": "settings",
    "SftSettings": "sft_settings",
    "Trained": "loop",
    "fit": "loop",
    "fit_ppo": "ppo",
    "next_token": "language",
    "small_model": "small",
    "train_dpo": "dpo",
    "train_lm": "lm",
    "train_ppo": "ppo",
    "train_reward": "reward",
    "train_sft": "sft",
}

__all__ = [
    "DpoSettings",
    "LmSettings",
    "PpoSettings",
    "PreferenceObjective",
    "RewardSettings",
    "SftSettings",
    "SmallSettings",
    "TrainSettings",
    "Trained",
    "fit",
    "fit_ppo",
    "next_token",
    "small_model",
    "train_dpo",
    "train_lm",
    "train_ppo",
    "train_reward",
    "train_sft",
]

__getattr__, __dir__ = lazy.attributes(__name__, names=_NAMES, modules=_MODULES)
