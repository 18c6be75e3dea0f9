"""Our options as the arguments of any TRL trainer, with everything switched off that we do not want."""

from __future__ import annotations

from typing import Any

import torch

from selfreward import TrainingContext
from selfreward.plugins.optimizers.training.loading import computes_in_bfloat16
from selfreward.plugins.optimizers.training.options import OptimizationOptions
from selfreward.plugins.optimizers.training.processes import rows_per_pass
from selfreward.plugins.optimizers.training.schedule import scheduler_arguments


def trainer_arguments(options: OptimizationOptions, context: TrainingContext) -> dict[str, Any]:
    """What every trainer of ours is told."""
    cuda = torch.cuda.is_available()
    scheduler, details = scheduler_arguments(options)
    return {
        "output_dir": str(context.work),
        # numpy's global generator, which the trainer seeds too, takes 32 bits
        "seed": context.seed % 2**32,
        "learning_rate": options.lr,
        "lr_scheduler_type": scheduler,
        "lr_scheduler_kwargs": details,
        "warmup_steps": options.warmup,
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": rows_per_pass(options),
        "gradient_accumulation_steps": options.gradient_accumulation,
        "weight_decay": options.weight_decay,
        "adam_beta1": options.adam_beta1,
        "adam_beta2": options.adam_beta2,
        "max_grad_norm": options.max_grad_norm,
        "gradient_checkpointing": options.gradient_checkpointing,
        "bf16": computes_in_bfloat16(context.start),
        "dataloader_pin_memory": cuda,
        "use_cpu": not cuda,
        "ddp_find_unused_parameters": False,
        # the trainer's sampler needs the column ``length``
        "remove_unused_columns": False,
        "logging_steps": 1,
        # otherwise a NaN loss is logged as the mean of the finite ones
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
