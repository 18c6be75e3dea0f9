"""Replay: while it learns to prefer, the model goes on imitating the demonstrations of the rounds before the loop.

loss = preference loss + replay * -(1/T) sum log p(token | what is before it)

over the T answer tokens of one demonstration for each row of the batch: each pair, or of KTO each answer. It keeps what
the seed data taught, judging included, where preferences alone let it fade; ``nll`` does the same for the answers that
are preferred.
Source: the pre-training mix of arXiv:2203.02155 §3.5 (PPO-ptx), with demonstrations in place of raw text.

Row i meets, in epoch e, demonstration i + e * rows of a fixed shuffled order, which begins anew when it is used up.
So who meets whom depends on the seed alone, and not on batches, processes or where training was resumed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from selfreward import Chat, StageError, TrainingContext, option
from selfreward.plugins.optimizers.trl_trainer import TrainingOptions, demonstration_rows, fitting, tail_mean

Row = dict[str, Any]


@dataclass
class ReplayOptions(TrainingOptions):
    """Options of an optimizer that can replay."""

    replay: float = option(0.0, ge=0)
    """Weight of the negative log-likelihood, per token, of the seed demonstrations, one for each row; 0 = off."""


class Replays(Protocol):
    """The options that replaying needs."""

    replay: float
    max_length: int


class Replay:
    """The demonstrations (``input_ids``, ``labels``) in the order in which they are replayed, and their weight."""

    def __init__(self, demonstrations: list[Row], rows: int, weight: float, collate: Callable[..., Any], seed: int):
        self.demonstrations = random.Random(seed).sample(demonstrations, len(demonstrations))
        self.rows, self.weight, self.collate = rows, weight, collate

    def batch(self, numbers: list[int], epoch: int) -> Any:
        """A batch of the demonstrations that the rows of these numbers meet in this epoch."""
        met = ((number + epoch * self.rows) % len(self.demonstrations) for number in numbers)
        return self.collate([self.demonstrations[index] for index in met])

    def numbered(self, collate: Callable[..., Any]) -> Callable[..., Any]:
        """The collator of the rows, with their numbers in the batch as ``number``."""
        import torch

        return lambda rows: {**collate(rows), "number": torch.tensor([row["number"] for row in rows])}

    def figures(self, tail: Sequence[dict[str, float]]) -> dict[str, float]:
        """``replay_loss`` over the last steps, and ``replay_rows``."""
        return {"replay_loss": tail_mean(tail, "replay"), "replay_rows": len(self.demonstrations)}


def open_replay(rows: int, chat: Chat, context: TrainingContext, options: Replays) -> Replay | None:
    """The demonstrations for so many rows, where they are wanted.

    Raises:
        StageError: there are none.
    """
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    if not options.replay:
        return None
    if not context.replay:
        raise StageError(
            f"optimizer.replay={options.replay:g}: no round before the loop made demonstrations; set it to 0, or take "
            "a recipe that begins with them (recipe=self_rewarding)"
        )
    kept, _ = fitting(demonstration_rows(context.replay, chat), options, context.start, "replayed demonstrations")
    return Replay(kept, rows, options.replay, DataCollatorForLanguageModeling(pad_token_id=chat.pad_id), context.seed)


class ReplayLoss:
    """What a trainer of preferences does besides: adds the replayed demonstrations' loss, in training only."""

    replay: Replay | None = None

    def compute_loss(self: Any, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        """As the trainer's."""
        numbers = inputs.pop("number", None)
        loss = super().compute_loss(model, inputs, *given, **named)  # type: ignore[misc]
        if self.replay is None or not self.model.training:
            return loss
        batch = self._prepare_inputs(self.replay.batch(numbers.tolist(), int(self.state.epoch or 0)))
        log_probs = model(**batch, use_cache=False, fused_lm_head=True).log_probs  # zero where there is no label
        replayed = -log_probs.sum() / (batch["labels"] != -100).sum()
        self._metrics["train"]["replay"].append(self.accelerator.gather(replayed.detach()).mean().item())
        return loss + self.replay.weight * replayed
