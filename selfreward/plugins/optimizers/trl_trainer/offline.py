"""Optimizers that train with TRL on rows that are there before they begin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfreward import Chat, TrainingContext, TrainingSet
from selfreward.plugins.optimizers.training.optimizer import GradientOptimizer
from selfreward.plugins.optimizers.training.options import TrainingOptions
from selfreward.plugins.optimizers.training.replay import ReplayOptions, open_replay
from selfreward.plugins.optimizers.training.rows import Row
from selfreward.plugins.optimizers.trl_trainer.interface import Logs, Trl


class OfflineOptimizer(GradientOptimizer):
    """Base of an optimizer that is one of TRL's trainers on rows of ours.

    The figures of all of them: ``loss`` over the last 20 % of the steps, ``steps``, ``rows``, ``too_long``; with
    ``replay`` also ``replay_loss`` and ``replay_rows``; where prompts are held out, also those of
    :func:`selfreward.plugins.optimizers.trl_trainer.holdout.holdout_figures`.
    """

    config: TrainingOptions

    @abstractmethod
    def rows(self, training: TrainingSet, chat: Chat) -> Iterable[Row]:
        """The training set as token ids; with a ``number`` in order, where it may replay."""

    @abstractmethod
    def trl(self) -> Trl:
        """The classes that train; they are imported here, since they are heavy."""

    def arguments(self) -> dict[str, Any]:
        """What this loss adds to the trainer's arguments."""
        return {}

    def figures(self, tail: Sequence[Logs], rows: Sequence[Row]) -> dict[str, float]:
        """What this loss reports besides, from the logs of the last 20 % of the steps, and all rows."""
        return {}

    @property
    def replays(self) -> bool:
        return isinstance(self.config, ReplayOptions) and self.config.replay > 0

    def update(self, training: TrainingSet, context: TrainingContext) -> Mapping[str, float]:
        """Train and save.

        Raises:
            StageError: a row cannot be trained on, none fits, there is nothing to replay, or training diverged.
        """
        from selfreward.plugins.optimizers.trl_trainer.run import train_rows

        chat, config = context.start.chat(), self.config
        rows, replay = list(self.rows(training, chat)), None
        if isinstance(config, ReplayOptions):
            replay = open_replay(len(rows), chat, context, config.replay, config.max_length)
        tail, figures = train_rows(self.trl(), rows, chat, context, config, self.arguments(), replay=replay)
        return figures | self.figures(tail, rows)
