"""Options of every optimizer that takes gradient steps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from selfreward import OptimizerConfig, option


class Schedule(Enum):
    """How the learning rate goes from ``lr`` to ``lr * min_lr_ratio``."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


@dataclass
class OptimizationOptions(OptimizerConfig):
    """Options of every optimizer that takes gradient steps."""

    lr: float = option(1e-6, gt=0)
    """Peak learning rate of AdamW."""
    epochs: float = option(2.0, gt=0)
    """Passes over the rows."""
    batch_size: int = option(16, ge=1)
    """Rows per optimizer step, over all GPUs and accumulated passes together."""
    gradient_accumulation: int = option(1, ge=1)
    """Passes that a GPU's share of a batch is split into, to save memory."""
    schedule: Schedule = Schedule.linear
    """Decay of the learning rate after warm-up: linear, cosine or constant."""
    min_lr_ratio: float = option(0.1, ge=0, lt=1)
    """Last learning rate as a share of ``lr``; constant ignores it."""
    warmup: float = option(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0 to ``lr``."""
    weight_decay: float = option(0.0, ge=0)
    """AdamW's decoupled decay; norms and biases are spared."""
    adam_beta1: float = option(0.9, ge=0, lt=1)
    """AdamW's decay of the first moment."""
    adam_beta2: float = option(0.95, ge=0, lt=1)
    """AdamW's decay of the second moment."""
    max_grad_norm: float = option(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    gradient_checkpointing: bool = option(False, execution=True)
    """Recompute activations in the backward pass: less memory, about a fifth slower."""
    threads: int = option(0, ge=0)
    """CPU threads; 0 = one for models below 50 million parameters, else torch's own number."""
    checkpoint_steps: int = option(200, ge=0, execution=True)
    """Optimizer steps between checkpoints from which killed training goes on; 0 = none."""

    def problems(self) -> list[str]:
        """A batch that its passes cannot share evenly."""
        if self.batch_size % self.gradient_accumulation:
            return [
                f"batch_size={self.batch_size} must be a multiple of gradient_accumulation={self.gradient_accumulation}"
            ]
        return []


@dataclass
class TrainingOptions(OptimizationOptions):
    """Options of every optimizer that trains on rows that are there before it begins."""

    dropout: float = option(0.0, ge=0, lt=1)
    """Dropout inside the model while it trains, wherever its architecture has some (the paper: 0.1)."""
    max_length: int = option(2048, ge=2)
    """Tokens of prompt and answer together; longer rows are dropped and counted as ``too_long``."""
    group_by_length: bool = True
    """Put rows of similar length in a batch, so that less is padded."""
    holdout: float = option(0.0, ge=0, lt=1)
    """Share of the prompts that is kept out of training; the weights that do best on them are kept. 0 = none."""
    eval_steps: int = option(200, ge=1)
    """Optimizer steps between measurements on the held-out prompts; the last step is always measured."""
    patience: int = option(3, ge=0)
    """Measurements without a gain after which training ends early; 0 = it never does, and only the best is kept."""
