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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from selfreward import Chat, StageError, TrainingContext, option
from selfreward.plugins.optimizers.training.options import TrainingOptions
from selfreward.plugins.optimizers.training.rows import Row, demonstration_rows, fitting


@dataclass
class ReplayOptions(TrainingOptions):
    """Options of an optimizer that can replay."""

    replay: float = option(0.0, ge=0)
    """Weight of the negative log-likelihood, per token, of the seed demonstrations, one for each row; 0 = off."""


class Replay:
    """The demonstrations (``input_ids``, ``labels``) in the order in which they are replayed, and their weight."""

    def __init__(self, demonstrations: list[Row], rows: int, weight: float, collate: Callable[..., Any], seed: int):
        self.demonstrations = random.Random(seed).sample(demonstrations, len(demonstrations))
        self.rows, self.weight, self.collate = rows, weight, collate

    def batch(self, numbers: list[int], epoch: int) -> Any:
        """A batch of the demonstrations that the rows of these numbers meet in this epoch."""
        met = ((number + epoch * self.rows) % len(self.demonstrations) for number in numbers)
        return self.collate([self.demonstrations[index] for index in met])


def open_replay(rows: int, chat: Chat, context: TrainingContext, weight: float, max_length: int) -> Replay | None:
    """The demonstrations for so many rows; None where their weight is 0.

    Raises:
        StageError: there are none.
    """
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    if not weight:
        return None
    if not context.replay:
        raise StageError(
            f"optimizer.replay={weight:g}: no round before the loop made demonstrations; set it to 0, or take a recipe "
            "that begins with them (recipe=self_rewarding)"
        )
    given = demonstration_rows(context.replay, chat)
    kept, _ = fitting(given, max_length, context.start, "replayed demonstrations")
    return Replay(kept, rows, weight, DataCollatorForLanguageModeling(pad_token_id=chat.pad_id), context.seed)
