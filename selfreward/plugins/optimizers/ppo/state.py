"""What PPO remembers between batches, and the checkpoints that bring it back after a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfreward.plugins.optimizers.training.checkpoints import checkpoint_to_resume, seal_checkpoint

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class State:
    """Everything but weights and AdamW's moments."""

    processes: int = 1
    batch: int = 0
    """Batches done."""
    steps: int = 0
    saved_at: int = 0
    """Steps when the last checkpoint was written."""
    beta: float = 0.0
    scores: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Number, sum and sum of squares of the scores that scaling knows."""
    flat_batches: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    logs: list[dict[str, float]] = field(default_factory=list)
    """One entry a batch."""

    def so_far(self) -> str:
        """How it went, for messages."""
        if not self.logs:
            return "nothing was learnt before"
        first, last = self.logs[0], self.logs[-1]
        nan = float("nan")
        return (
            f"so far the mean score went from {first.get('reward', nan):.3g} to {last.get('reward', nan):.3g} and the "
            f"KL from {first.get('kl', nan):.3g} to {last.get('kl', nan):.3g} nats in {len(self.logs)} batches"
        )


def write_checkpoint(folder: Path, state: State, weights: Mapping[str, Tensor], adamw: torch.optim.Optimizer) -> None:
    """The checkpoint ``folder/checkpoint-<batch>``, sealed when it is whole; the one before goes."""
    at = folder / f"checkpoint-{state.batch}"
    at.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, at / "trained.safetensors")
    torch.save(adamw.state_dict(), at / "adamw.pt")
    (at / "state.json").write_text(json.dumps(asdict(state)), encoding="utf-8")
    seal_checkpoint(at)


def read_checkpoint(
    folder: Path, weights: Mapping[str, Tensor], adamw: torch.optim.Optimizer, accelerator: Accelerator
) -> State | None:
    """Put the last whole checkpoint's weights and moments in place; None where there is no checkpoint."""
    found = checkpoint_to_resume(folder, accelerator)
    if found is None:
        return None
    saved = load_file(found / "trained.safetensors", device=str(accelerator.device))
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
    moments: dict[str, Any] = torch.load(found / "adamw.pt", weights_only=True, map_location=accelerator.device)
    adamw.load_state_dict(moments)
    return State(**json.loads((found / "state.json").read_text(encoding="utf-8")))
