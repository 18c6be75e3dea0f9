"""The learning-rate schedule: warm-up from 0 to ``lr``, then decay to ``lr * min_lr_ratio``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selfreward.plugins.optimizers.training.options import OptimizationOptions, Schedule


def scheduler_arguments(options: OptimizationOptions) -> tuple[str, dict[str, Any]]:
    """Name of transformers' scheduler, and what it is told besides its steps."""
    return {
        # polynomial of power 1 is the linear schedule that can end above 0
        Schedule.linear: ("polynomial", {"lr_end": options.lr * options.min_lr_ratio, "power": 1.0}),
        Schedule.cosine: ("cosine_with_min_lr", {"min_lr_rate": options.min_lr_ratio}),
        Schedule.constant: ("constant_with_warmup", {}),
    }[options.schedule]


def learning_rate(options: OptimizationOptions) -> Callable[[float], float]:
    """The learning rate when a share of the training is done, where nobody can say beforehand how many steps it has."""
    import torch
    from transformers import get_scheduler

    (name, details), whole = scheduler_arguments(options), 1_000_000
    scheduler = get_scheduler(
        name,
        torch.optim.SGD([torch.zeros(1)], lr=options.lr),
        num_warmup_steps=round(options.warmup * whole),
        num_training_steps=whole,
        scheduler_specific_kwargs=details,
    )
    factor = scheduler.lr_lambdas[0]
    return lambda share: options.lr * factor(round(share * whole))
