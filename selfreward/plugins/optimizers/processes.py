"""Sums over the processes that train one model together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor


def totals(accelerator: Accelerator, *values: Tensor | float) -> list[float]:
    """Each value summed over all processes, in float64."""
    import torch

    device = accelerator.device
    stacked = torch.stack([torch.as_tensor(value, device=device).double() for value in values])
    return (accelerator.reduce(stacked, "sum") if accelerator.num_processes > 1 else stacked).tolist()
