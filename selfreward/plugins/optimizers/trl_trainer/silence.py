"""What every TRL trainer of ours does in place of its own ways: it is silent, and can be killed and taken up again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler

from selfreward.plugins.optimizers.training.checkpoints import seal_checkpoint


class SilentTrainer:
    """Built on a trainer by multiple inheritance."""

    def _send_telemetry(self) -> None:
        """TRL reports every trainer that is built to its makers; this project uses no network unasked."""

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Nobody reads the count, and it walks all modules in every step."""
        return 0

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nobody reads a card of a checkpoint that is thrown away."""

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """A weight that is tied to another is not in the file, which is no fault; the seal vouches for the rest."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        return EpochSampler(super()._get_train_sampler(train_dataset), self)  # type: ignore[misc]

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        """As the trainer's, sealed when every process has written its part."""
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            seal_checkpoint(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")


class EpochSampler(Sampler):
    """A sampler whose order in an epoch is the same whether or not this process went through those before."""

    def __init__(self, drawn: Any, trainer: Any) -> None:
        if hasattr(drawn, "lengths"):  # rows of like length meet in a batch of all processes together
            drawn.batch_size *= trainer.args.world_size
        self._drawn, self._trainer = drawn, trainer

    def __len__(self) -> int:
        return len(self._drawn)

    def __iter__(self) -> Iterator[int]:
        epoch = int(self._trainer.state.epoch or 0)
        self._drawn.generator = torch.Generator().manual_seed(self._trainer.args.seed + epoch)
        return iter(self._drawn)
