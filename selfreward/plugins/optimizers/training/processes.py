"""The processes that train one model together: their shares of a batch, and sums over them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from selfreward import StageError
from selfreward.plugins.optimizers.training.options import OptimizationOptions

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor


def rows_per_pass(options: OptimizationOptions) -> int:
    """Rows that one process runs at once.

    Raises:
        StageError: the batch cannot be split evenly.
    """
    passes = int(os.environ.get("WORLD_SIZE", "1")) * options.gradient_accumulation
    if options.batch_size % passes:
        raise StageError(
            f"optimizer.batch_size={options.batch_size} cannot be split evenly over {passes} passes "
            "(processes x gradient_accumulation); choose a multiple"
        )
    return options.batch_size // passes


def totals(accelerator: Accelerator, *values: Tensor | float) -> list[float]:
    """Each value summed over all processes, in float64."""
    import torch

    device = accelerator.device
    stacked = torch.stack([torch.as_tensor(value, device=device).double() for value in values])
    return (accelerator.reduce(stacked, "sum") if accelerator.num_processes > 1 else stacked).tolist()
