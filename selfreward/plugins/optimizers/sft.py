"""Supervised fine-tuning: imitate the demonstrated answers.

loss = -(1/T) sum log p(token | what is before it), over the T answer tokens of a batch; prompt tokens carry no loss.
Source: arXiv:2401.10020 §2.2 and §3.1.2 (lr 5.5e-6 to 1.1e-6 on a cosine, batch 16).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from selfreward import Chat, Demonstration, TrainingSet, option
from selfreward.plugins.optimizers.training.options import Schedule, TrainingOptions
from selfreward.plugins.optimizers.training.rows import Row, demonstration_rows
from selfreward.plugins.optimizers.trl_trainer.interface import Trl
from selfreward.plugins.optimizers.trl_trainer.offline import OfflineOptimizer


@dataclass
class SftConfig(TrainingOptions):
    """Options of ``optimizer=sft``."""

    lr: float = option(5.5e-6, gt=0)
    schedule: Schedule = Schedule.cosine
    min_lr_ratio: float = option(0.2, ge=0, lt=1)


class Sft(OfflineOptimizer):
    """TRL's SFT trainer on tokens of ours; its figures are those that all share."""

    reads = Demonstration
    config: SftConfig

    def rows(self, training: TrainingSet, chat: Chat) -> Iterable[Row]:
        return demonstration_rows(training, chat)

    def trl(self) -> Trl:
        from trl import SFTConfig, SFTTrainer
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        return Trl(SFTTrainer, SFTConfig, DataCollatorForLanguageModeling)
