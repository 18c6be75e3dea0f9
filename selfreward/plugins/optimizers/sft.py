"""Supervised fine-tuning: imitate the demonstrated answers.

loss = -(1/T) sum log p(token | what is before it), over the T answer tokens of a batch; prompt tokens carry no loss.
Source: arXiv:2401.10020 §2.2 and §3.1.2 (lr 5.5e-6 to 1.1e-6 on a cosine, batch 16).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selfreward import Demonstration, FileContext, Optimizer, TrainingContext, TrainingSet, option
from selfreward.plugins.optimizers.trl_trainer import (
    Schedule,
    TrainingOptions,
    demonstration_rows,
    lora_problems,
    train,
)


@dataclass
class SftConfig(TrainingOptions):
    """Options of ``optimizer=sft``."""

    lr: float = option(5.5e-6, gt=0)
    schedule: Schedule = Schedule.cosine
    min_lr_ratio: float = option(0.2, ge=0, lt=1)


class Sft(Optimizer):
    """TRL's SFT trainer on tokens of ours."""

    reads = Demonstration
    makes = "policy"

    config: SftConfig

    def problems(self, context: FileContext) -> list[str]:
        """What would go wrong, before any work."""
        return lora_problems(context.model_config)

    def update(self, training: TrainingSet, context: TrainingContext) -> Mapping[str, float]:
        """Train and save.

        Figures: ``loss`` over the last 20 % of the steps, ``steps``, ``rows``, ``too_long``; where prompts are held
        out, also those of :func:`selfreward.plugins.optimizers.holdout.figures`.

        Raises:
            StageError: no row fits, or training diverged.
        """
        from trl import SFTConfig, SFTTrainer
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        chat = context.start.chat()
        collator = DataCollatorForLanguageModeling(pad_token_id=chat.pad_id)
        rows = demonstration_rows(training, chat)
        _, figures = train(SFTTrainer, SFTConfig, chat, rows, context, self.config, data_collator=collator)
        return figures
