"""The replayed demonstrations' loss (:mod:`selfreward.plugins.optimizers.training.replay`) in a TRL trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from selfreward.plugins.optimizers.training.replay import Replay
from selfreward.plugins.optimizers.training.rows import Row


class ReplayLoss:
    """What a trainer of preferences does besides: adds the replayed demonstrations' loss, in training only."""

    replay: Replay

    def compute_loss(self: Any, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        """The trainer's loss, plus ``replay`` times the mean negative log-likelihood per replayed token."""
        numbers = inputs.pop("number")
        loss = super().compute_loss(model, inputs, *given, **named)  # type: ignore[misc]
        if not self.model.training:
            return loss
        batch = self._prepare_inputs(self.replay.batch(numbers.tolist(), int(self.state.epoch or 0)))
        logprobs = model(**batch, use_cache=False, fused_lm_head=True).log_probs  # zero where there is no label
        replay_loss = -logprobs.sum() / (batch["labels"] != -100).sum()
        self._metrics["train"]["replay"].append(self.accelerator.gather(replay_loss.detach()).mean().item())
        return loss + self.replay.weight * replay_loss


def numbered(collate: Callable[[Sequence[Row]], Any]) -> Callable[[Sequence[Row]], Any]:
    """The collator of the rows, with their numbers in the batch as ``number``."""
    return lambda rows: {**collate(rows), "number": torch.tensor([row["number"] for row in rows])}
